//! The applied image in sled: one key for each broker, topic, partition, voter,
//! retired directory and broker with offline replicas, so that an apply writes what
//! changed and a start need not replay the log.
//!
//! Nothing here is a promise: sled's flush is no barrier against power loss.
//! Whatever looks doubtful is wiped, and the image is made again from snapshot
//! and log. Every value is a metadata record, so loading is replaying.

use super::applied_keys::changes;
use super::incompatible::Incompatible;
use super::types::{self, LogId, Membership};
use crate::image::Image;
use crate::records::{DecodeError, MetadataRecord, SnapshotEnded};
use ottla_proto::MetadataOffset;
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// sled's own cache, in bytes. The image is in memory anyway.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// Layout of keys and values. Another number means: rebuild.
const FORMAT: u32 = 3;

/// The file in sled's directory that it locks while it is open.
const LOCKED_FILE: &str = "db";

/// How long to wait until the threads of a database that was dropped let go of it:
/// they outlive it by milliseconds, seconds on a machine that has much else to do.
/// Nobody but this process opens it, as the data directory is locked.
const RELEASED_WITHIN: Duration = Duration::from_secs(10);

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(2);

const HEAD: &[u8] = b"head";
const ENTITIES: &str = "entities";

/// What the image in sled stands for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Applied {
    pub(crate) image: Image,
    pub(crate) last: Option<LogId>,
    pub(crate) membership: Membership,
}

/// Written in the same batch as the entities it describes.
#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    offset: MetadataOffset,
    last: Option<LogId>,
    membership: Membership,
    /// Sum of [`fingerprint`] over all entities: sled drops what it cannot
    /// read, and a lost key must not pass for a deleted topic.
    checksum: u64,
}

/// The sled database of a node.
pub(crate) struct AppliedStore {
    path: PathBuf,
    open: Option<Open>,
}

struct Open {
    _db: sled::Db,
    entities: sled::Tree,
    checksum: u64,
}

#[derive(Debug, thiserror::Error)]
enum Doubt {
    #[error(transparent)]
    Sled(#[from] sled::Error),
    #[error("{0}")]
    Content(String),
    #[error(transparent)]
    Incompatible(Incompatible),
    #[error("it is still open")]
    InUse,
}

/// Waits until nothing has the database at `path` open any more: whoever opened it
/// before that would find it locked, whoever removed it would see files come back.
fn released(path: &Path, within: Duration) -> Result<(), Doubt> {
    let failed = |error: std::io::Error| Doubt::Sled(error.into());
    let file = match File::open(path.join(LOCKED_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let deadline = Instant::now() + within;
    loop {
        match file.try_lock() {
            Ok(()) => return file.unlock().map_err(failed),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(Doubt::InUse);
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

fn fingerprint(key: &[u8], value: &[u8]) -> u64 {
    let low = crc32c::crc32c_append(crc32c::crc32c(key), value);
    let high = crc32c::crc32c_append(crc32c::crc32c(value), key);
    u64::from(high) << 32 | u64::from(low)
}

fn unread(error: DecodeError) -> Doubt {
    match error {
        DecodeError::UnknownVersion { .. } => {
            let place = "the applied metadata".to_owned();
            Doubt::Incompatible(Incompatible::Record { place, error })
        }
        error => Doubt::Content(error.to_string()),
    }
}

/// Removes the database at `path`, if there is one and nobody has it open.
fn remove(path: &Path, within: Duration) -> Result<(), Doubt> {
    // Even a lock file that cannot be read goes.
    if let Err(in_use @ Doubt::InUse) = released(path, within) {
        return Err(in_use);
    }
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Doubt::Content(error.to_string()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

impl AppliedStore {
    /// Opens the database and reads the image in it. Whatever is wrong with it
    /// gives an empty database and an empty image. What is whole and only another
    /// release reads is an error, and stays. Blocks on the disk.
    pub(crate) fn open(path: &Path) -> Result<(Self, Applied), Incompatible> {
        // sled panics on some damage that it does not expect.
        let loaded = std::panic::catch_unwind(|| Open::load(path))
            .unwrap_or_else(|_| Err(Doubt::Content("sled panicked".to_owned())));
        match loaded {
            Ok((open, applied)) => Ok((Self { path: path.to_owned(), open: Some(open) }, applied)),
            Err(Doubt::Incompatible(incompatible)) => Err(incompatible),
            Err(doubt) => {
                tracing::warn!(path = %path.display(), %doubt, "rebuilding the applied image");
                Ok((Self::wiped(path), Applied::default()))
            }
        }
    }

    /// An empty database, or none if even that cannot be had: the image then
    /// lives in memory only until the next start.
    fn wiped(path: &Path) -> Self {
        let opened = remove(path, RELEASED_WITHIN).and_then(|()| Open::new(path));
        if let Err(error) = &opened {
            tracing::error!(path = %path.display(), %error, "keeping the applied image in memory only");
        }
        Self { path: path.to_owned(), open: opened.ok() }
    }

    /// Drops everything, to start again from nothing. Blocks on the disk.
    pub(crate) fn wipe(self) -> Self {
        let Self { path, open } = self;
        drop(open);
        Self::wiped(&path)
    }

    /// Writes what changed between two images, in one batch. A failure is not
    /// an error of the caller: the database is given up until the next start.
    pub(crate) fn write(&mut self, before: &Image, after: &Applied) {
        let Some(open) = &mut self.open else { return };
        if let Err(error) = open.write(before, after) {
            tracing::error!(path = %self.path.display(), %error, "giving up the stored applied image");
            self.open = None;
            // What is there now is older than what was applied, and the next
            // start would find it consistent: it is, and the log holds the rest.
        }
    }
}

impl Open {
    fn new(path: &Path) -> Result<Self, Doubt> {
        released(path, RELEASED_WITHIN)?;
        let db = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).open()?;
        let entities = db.open_tree(ENTITIES)?;
        Ok(Self { _db: db, entities, checksum: 0 })
    }

    fn load(path: &Path) -> Result<(Self, Applied), Doubt> {
        let mut open = Self::new(path)?;
        let Some(head) = open.entities.get(HEAD)? else {
            if open.entities.is_empty() {
                return Ok((open, Applied::default()));
            }
            return Err(Doubt::Content("there is no head".to_owned()));
        };
        let content = |error: &dyn std::fmt::Display| Doubt::Content(error.to_string());
        let head: Head = types::decode(&head).map_err(|error| content(&error))?;
        if head.format != FORMAT {
            return Err(Doubt::Content(format!("format {}, expected {FORMAT}", head.format)));
        }
        let mut values = Vec::new();
        for item in &open.entities {
            let (key, value) = item?;
            if key == HEAD {
                continue;
            }
            open.checksum = open.checksum.wrapping_add(fingerprint(&key, &value));
            values.push(value);
        }
        if open.checksum != head.checksum {
            return Err(Doubt::Content("the checksum does not match".to_owned()));
        }
        // Only what is whole is believed to be of another release.
        let records = values.iter().map(|value| MetadataRecord::decode(value).map_err(unread));
        let mut records: Vec<_> = records.collect::<Result<_, _>>()?;
        records.push(SnapshotEnded { offset: head.offset }.into());
        let image = Image::from_records(&records).map_err(|error| content(&error))?;
        Ok((open, Applied { image, last: head.last, membership: head.membership }))
    }

    fn write(&mut self, before: &Image, after: &Applied) -> Result<(), Doubt> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes(before, &after.image) {
            if let Some(old) = self.entities.get(&key)? {
                self.checksum = self.checksum.wrapping_sub(fingerprint(&key, &old));
            }
            match value {
                Some(value) => {
                    self.checksum = self.checksum.wrapping_add(fingerprint(&key, &value));
                    batch.insert(key, value);
                }
                None => batch.remove(key),
            }
        }
        let head = Head {
            format: FORMAT,
            offset: after.image.offset,
            last: after.last,
            membership: after.membership.clone(),
            checksum: self.checksum,
        };
        let head = types::encode(&head).map_err(|error| Doubt::Content(error.to_string()))?;
        batch.insert(HEAD, head);
        self.entities.apply_batch(batch)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{FeatureLevel, FeatureLevelFinalised};

    /// sled holds its lock while it is open and, in threads of its own, a moment longer.
    #[test]
    fn a_database_is_opened_again_once_it_is_released() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("image.sled");
        let (mut store, _) = AppliedStore::open(&path).expect("opens");
        let mut applied = Applied::default();
        applied.image.offset = MetadataOffset(7);
        store.write(&Image::default(), &applied);
        let held = released(&path, Duration::ZERO).expect_err("it is open");
        assert!(matches!(held, Doubt::InUse), "{held}");
        // Whoever cannot have it does not wipe it.
        assert!(matches!(remove(&path, Duration::ZERO), Err(Doubt::InUse)));
        drop(store);
        assert_eq!(AppliedStore::open(&path).expect("opens").1, applied);
    }

    /// What another release wrote is not rebuilt, and not touched; what only looks
    /// like it is damage.
    #[test]
    fn what_only_another_release_reads_is_left_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("image.sled");
        let level = FeatureLevelFinalised { level: FeatureLevel(2) };
        let mut theirs = MetadataRecord::from(level).encode();
        theirs[0] = 200;
        for whole in [true, false] {
            let (mut store, _) = AppliedStore::open(&path).expect("opens");
            let open = store.open.as_mut().expect("is open");
            let key = vec![6];
            open.checksum = if whole { fingerprint(&key, &theirs) } else { 7 };
            open.entities.insert(key, theirs.clone()).expect("inserts");
            let mut applied = Applied::default();
            applied.image.offset = MetadataOffset(7);
            store.write(&Image::default(), &applied);
            drop(store);
            if whole {
                for _ in 0..2 {
                    let error = AppliedStore::open(&path).err().expect("refuses");
                    let Incompatible::Record { error, .. } = error else { panic!("{error}") };
                    assert_eq!(error, DecodeError::UnknownVersion { found: 200 });
                }
                remove(&path, RELEASED_WITHIN).expect("removes");
            } else {
                let (_, found) = AppliedStore::open(&path).expect("wipes it");
                assert_eq!(found, Applied::default());
            }
        }
    }
}
