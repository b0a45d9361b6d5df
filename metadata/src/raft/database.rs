//! What the applied image asks of the database it is kept in: keys and values that
//! change together or not at all. sled on a node; in memory in a simulation, where sled's
//! own threads and files would run beside the seed.
//!
//! Not its job: what the keys mean, and durability. Nothing in it is a promise.

mod memory;
mod sled;

pub use memory::MemoryDatabases;
pub use sled::SledDatabases;

use std::path::Path;

/// The databases of a machine, by path.
pub trait Databases: Send + Sync + 'static {
    /// Opens the database at `path`, or makes an empty one. Blocks on the disk, and until
    /// whoever had it open last has let go of it.
    ///
    /// # Errors
    /// `InUse` while somebody else has it open. It may also panic on damage.
    fn open(&self, path: &Path) -> Result<Box<dyn Database>, DatabaseError>;

    /// Removes the database at `path`, if there is one. Blocks as [`Databases::open`] does.
    ///
    /// # Errors
    /// `InUse` while somebody has it open.
    fn remove(&self, path: &Path) -> Result<(), DatabaseError>;
}

/// An open database. Closed when dropped.
pub trait Database: Send + Sync {
    /// What a key has.
    ///
    /// # Errors
    /// Whatever the database reports.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DatabaseError>;

    /// Every key with its value, in the order of the keys.
    ///
    /// # Errors
    /// Whatever the database reports.
    fn entries(&self) -> Result<Vec<Entry>, DatabaseError>;

    /// Gives keys their values, or removes them (`None`): all or nothing, should the
    /// process die.
    ///
    /// # Errors
    /// Whatever the database reports; what is there then is as before or as after.
    fn apply(&mut self, changes: Vec<Change>) -> Result<(), DatabaseError>;
}

/// A key and what it has.
pub type Entry = (Vec<u8>, Vec<u8>);

/// A key and what it has from now on.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// Why a database did not do it.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Somebody has it open: ask again later, and change nothing meanwhile.
    #[error("it is still open")]
    InUse,
    /// It cannot be used as it is.
    #[error("{0}")]
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Apply(Vec<Change>),
        Reopen,
        Remove,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let key = vec(0_u8..4, 0..3);
        let value = proptest::option::of(vec(any::<u8>(), 0..40));
        let step = prop_oneof![
            6 => vec((key, value), 0..6).prop_map(Step::Apply),
            2 => Just(Step::Reopen),
            1 => Just(Step::Remove),
        ];
        vec(step, 1..12)
    }

    /// Everything that can be seen of the databases after each step.
    fn seen(databases: &dyn Databases, path: &Path, steps: &[Step]) -> Vec<String> {
        let mut seen = Vec::new();
        let mut open = Some(databases.open(path).expect("opens"));
        for step in steps {
            match step {
                Step::Apply(changes) => {
                    open.as_mut().expect("is open").apply(changes.clone()).expect("applies");
                }
                Step::Reopen => drop(open.take()),
                Step::Remove => {
                    drop(open.take());
                    databases.remove(path).expect("removes");
                }
            }
            let database = open.get_or_insert_with(|| databases.open(path).expect("opens"));
            let one = database.get(&[1]).expect("reads");
            seen.push(format!("{one:?} of {:?}", database.entries().expect("reads")));
        }
        seen
    }

    proptest! {
        // Each case opens sled several times, which takes tens of milliseconds.
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// The double is as good as the real one, as far as a node can see.
        #[test]
        fn memory_and_sled_show_the_same(steps in steps()) {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let path = dir.path().join("image.sled");
            let real = seen(&SledDatabases, &path, &steps);
            let double = seen(&MemoryDatabases::default(), &path, &steps);
            prop_assert_eq!(real, double);
        }
    }

    #[test]
    fn nobody_else_opens_or_removes_what_is_open() {
        let databases = MemoryDatabases::default();
        let path = Path::new("/image.sled");
        let open = databases.open(path).expect("opens");
        assert!(matches!(databases.open(path).map(drop), Err(DatabaseError::InUse)));
        assert!(matches!(databases.remove(path), Err(DatabaseError::InUse)));
        drop(open);
        databases.open(path).map(drop).expect("is closed");
    }
}
