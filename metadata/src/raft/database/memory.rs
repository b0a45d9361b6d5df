//! Databases in memory, which outlive the process of a simulated node, and of which a
//! loss of power takes what it may take of sled's: nothing in there was synced.

use super::{Change, Database, DatabaseError, Databases, Entry};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Batches that a loss of power may undo; sled writes its log out more often than that.
const UNDOABLE_BATCHES: usize = 64;

/// The databases of one simulated machine. Clones share them.
#[derive(Clone, Default)]
pub struct MemoryDatabases(Arc<Mutex<BTreeMap<PathBuf, Contents>>>);

#[derive(Default)]
struct Contents {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What undoes the last batches, the latest last.
    undo: VecDeque<Vec<Change>>,
    open: bool,
    /// Counts processes that are gone: who had it open then has it no more.
    boot: u64,
}

struct Open {
    all: MemoryDatabases,
    path: PathBuf,
    boot: u64,
}

impl MemoryDatabases {
    /// The process that had databases open is gone. Nothing is lost of what it wrote.
    pub fn close_all(&self) {
        self.0.lock().values_mut().for_each(Contents::close);
    }

    /// Loses power: the last batches may be undone, single keys be gone, or everything, as
    /// `seed` draws. Whoever has a database open does not any more.
    pub fn crash(&self, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        for contents in self.0.lock().values_mut() {
            contents.close();
            match rng.random_range(0..4) {
                0 => {}
                1 => {
                    let kept = rng.random_range(0..=contents.undo.len());
                    for changes in contents.undo.split_off(kept).into_iter().rev() {
                        contents.set(changes);
                    }
                }
                2 => contents.entries.retain(|_, _| rng.random_range(0..8) != 0),
                _ => contents.entries.clear(),
            }
            contents.undo.clear();
        }
    }
}

impl Contents {
    fn close(&mut self) {
        self.open = false;
        self.boot += 1;
    }

    /// Returns what undoes it.
    fn set(&mut self, changes: Vec<Change>) -> Vec<Change> {
        let mut undo = Vec::with_capacity(changes.len());
        for (key, value) in changes {
            let before = match value {
                Some(value) => self.entries.insert(key.clone(), value),
                None => self.entries.remove(&key),
            };
            undo.push((key, before));
        }
        undo.reverse();
        undo
    }
}

impl Databases for MemoryDatabases {
    fn open(&self, path: &Path) -> Result<Box<dyn Database>, DatabaseError> {
        let mut all = self.0.lock();
        let contents = all.entry(path.to_owned()).or_default();
        if std::mem::replace(&mut contents.open, true) {
            return Err(DatabaseError::InUse);
        }
        let boot = contents.boot;
        Ok(Box::new(Open { all: self.clone(), path: path.to_owned(), boot }))
    }

    fn remove(&self, path: &Path) -> Result<(), DatabaseError> {
        let mut all = self.0.lock();
        if all.get(path).is_some_and(|contents| contents.open) {
            return Err(DatabaseError::InUse);
        }
        all.remove(path);
        Ok(())
    }
}

impl Open {
    fn with<T>(&self, body: impl FnOnce(&mut Contents) -> T) -> Result<T, DatabaseError> {
        let mut all = self.all.0.lock();
        let contents = all.get_mut(&self.path).filter(|contents| contents.boot == self.boot);
        let gone = || DatabaseError::Failed("the process that opened it is gone".to_owned());
        Ok(body(contents.ok_or_else(gone)?))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // After a loss of power it is closed already.
        let _ = self.with(|contents| contents.open = false);
    }
}

impl Database for Open {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DatabaseError> {
        self.with(|contents| contents.entries.get(key).cloned())
    }

    fn entries(&self) -> Result<Vec<Entry>, DatabaseError> {
        self.with(|contents| contents.entries.clone().into_iter().collect())
    }

    fn apply(&mut self, changes: Vec<Change>) -> Result<(), DatabaseError> {
        self.with(|contents| {
            let undo = contents.set(changes);
            contents.undo.push_back(undo);
            if contents.undo.len() > UNDOABLE_BATCHES {
                contents.undo.pop_front();
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Two batches, then a crash: seeds make of it all that sled may make of it.
    #[test]
    fn a_crash_takes_batches_keys_or_all() {
        let path = Path::new("/image.sled");
        let left = |seed| {
            let databases = MemoryDatabases::default();
            let mut open = databases.open(path).expect("opens");
            let set = |key: u8, value: u8| (vec![key], Some(vec![value]));
            open.apply(vec![set(1, 1), set(2, 1), set(3, 1)]).expect("applies");
            open.apply(vec![set(1, 2), (vec![2], None)]).expect("applies");
            databases.crash(seed);
            open.apply(vec![set(9, 9)]).expect_err("it is from before");
            let entries = databases.open(path).expect("opens").entries().expect("reads");
            entries.into_iter().map(|(key, value)| (key[0], value[0])).collect::<Vec<_>>()
        };
        let found: BTreeSet<_> = (0..100).map(left).collect();
        let whole = vec![(1, 2), (3, 1)];
        for possible in [whole, vec![(1, 1), (2, 1), (3, 1)], vec![], vec![(3, 1)]] {
            assert!(found.contains(&possible), "{possible:?} not in {found:?}");
        }
        assert!(found.iter().flatten().all(|(key, _)| *key != 9));
    }
}
