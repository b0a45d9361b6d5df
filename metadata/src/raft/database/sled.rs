//! The databases of a node: sled.

use super::{Change, Database, DatabaseError, Databases, Entry};
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// sled's own cache, in bytes. The image is in memory anyway.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// The file in sled's directory that it locks while it is open.
const LOCKED_FILE: &str = "db";

/// How long to wait until the threads of a database that was dropped let go of it:
/// they outlive it by milliseconds, seconds on a machine that has much else to do.
/// Nobody but this process opens it, as the data directory is locked.
const RELEASED_WITHIN: Duration = Duration::from_secs(10);

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(2);

const ENTITIES: &str = "entities";

/// sled, each database in a directory of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct SledDatabases;

struct Open {
    _db: sled::Db,
    entities: sled::Tree,
}

impl From<sled::Error> for DatabaseError {
    fn from(error: sled::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

fn failed(error: impl std::fmt::Display) -> DatabaseError {
    DatabaseError::Failed(error.to_string())
}

/// Waits until nothing has the database at `path` open any more: whoever opened it
/// before that would find it locked, whoever removed it would see files come back.
fn released(path: &Path, within: Duration) -> Result<(), DatabaseError> {
    let file = match File::open(path.join(LOCKED_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let deadline = Instant::now() + within;
    loop {
        match file.try_lock() {
            Ok(()) => return file.unlock().map_err(failed),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(DatabaseError::InUse);
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

fn remove(path: &Path, within: Duration) -> Result<(), DatabaseError> {
    // Even a lock file that cannot be read goes.
    if let Err(in_use @ DatabaseError::InUse) = released(path, within) {
        return Err(in_use);
    }
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl SledDatabases {
    /// Waits until nothing in this process has the database at `path` open any more.
    pub(in crate::raft) fn released(path: &Path) -> Result<(), DatabaseError> {
        released(path, RELEASED_WITHIN)
    }
}

impl Databases for SledDatabases {
    fn open(&self, path: &Path) -> Result<Box<dyn Database>, DatabaseError> {
        Self::released(path)?;
        let db = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).open()?;
        let entities = db.open_tree(ENTITIES)?;
        Ok(Box::new(Open { _db: db, entities }))
    }

    fn remove(&self, path: &Path) -> Result<(), DatabaseError> {
        remove(path, RELEASED_WITHIN)
    }
}

impl Database for Open {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DatabaseError> {
        Ok(self.entities.get(key)?.map(|value| value.to_vec()))
    }

    fn entries(&self) -> Result<Vec<Entry>, DatabaseError> {
        let owned = |item: Result<(sled::IVec, sled::IVec), sled::Error>| {
            let (key, value) = item?;
            Ok((key.to_vec(), value.to_vec()))
        };
        self.entities.iter().map(owned).collect()
    }

    fn apply(&mut self, changes: Vec<Change>) -> Result<(), DatabaseError> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        Ok(self.entities.apply_batch(batch)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// sled holds its lock while it is open and, in threads of its own, a moment longer.
    #[test]
    fn a_database_is_opened_again_once_it_is_released() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("image.sled");
        let mut open = SledDatabases.open(&path).expect("opens");
        open.apply(vec![(b"key".to_vec(), Some(b"value".to_vec()))]).expect("applies");
        let held = released(&path, Duration::ZERO).expect_err("it is open");
        assert!(matches!(held, DatabaseError::InUse), "{held}");
        // Whoever cannot have it does not wipe it.
        assert!(matches!(remove(&path, Duration::ZERO), Err(DatabaseError::InUse)));
        drop(open);
        let found = SledDatabases.open(&path).expect("opens").get(b"key").expect("reads");
        assert_eq!(found.expect("is there"), b"value");
    }
}
