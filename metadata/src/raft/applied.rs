//! The applied image in a database (sled): one key for each broker, topic, partition, voter,
//! retired directory and broker with offline replicas, so that an apply writes what
//! changed and a start need not replay the log.
//!
//! Nothing here is a promise: sled's flush is no barrier against power loss.
//! Whatever looks doubtful is wiped, and the image is made again from snapshot
//! and log. Every value is a metadata record, so loading is replaying.

use super::applied_keys::changes;
use super::database::{Database, DatabaseError, Databases};
use super::incompatible::Incompatible;
use super::types::{self, LogId, Membership};
use crate::image::Image;
use crate::records::{DecodeError, MetadataRecord, SnapshotEnded};
use ottla_proto::MetadataOffset;
use serde::{Deserialize, Serialize};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Layout of keys and values. Another number means: rebuild.
const FORMAT: u32 = 3;

const HEAD: &[u8] = b"head";

/// What the stored image stands for.
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

/// The database of a node's image.
pub(crate) struct AppliedStore {
    databases: Arc<dyn Databases>,
    path: PathBuf,
    open: Option<Open>,
}

struct Open {
    entities: Box<dyn Database>,
    checksum: u64,
}

#[derive(Debug, thiserror::Error)]
enum Doubt {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("{0}")]
    Content(String),
    #[error(transparent)]
    Incompatible(Incompatible),
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

impl AppliedStore {
    /// Opens the database and reads the image in it. Whatever is wrong with it
    /// gives an empty database and an empty image. What is whole and only another
    /// release reads is an error, and stays. Blocks on the disk.
    pub(crate) fn open(
        databases: Arc<dyn Databases>,
        path: &Path,
    ) -> Result<(Self, Applied), Incompatible> {
        // sled panics on some damage that it does not expect.
        let load = AssertUnwindSafe(|| Open::load(&*databases, path));
        let loaded = std::panic::catch_unwind(load)
            .unwrap_or_else(|_| Err(Doubt::Content("the database panicked".to_owned())));
        match loaded {
            Ok((open, applied)) => {
                Ok((Self { databases, path: path.to_owned(), open: Some(open) }, applied))
            }
            Err(Doubt::Incompatible(incompatible)) => Err(incompatible),
            Err(doubt) => {
                tracing::warn!(path = %path.display(), %doubt, "rebuilding the applied image");
                Ok((Self::wiped(databases, path.to_owned()), Applied::default()))
            }
        }
    }

    /// An empty database, or none if even that cannot be had: the image then
    /// lives in memory only until the next start.
    fn wiped(databases: Arc<dyn Databases>, path: PathBuf) -> Self {
        let opened = databases.remove(&path).and_then(|()| Open::new(&*databases, &path));
        if let Err(error) = &opened {
            tracing::error!(path = %path.display(), %error, "keeping the applied image in memory only");
        }
        Self { databases, path, open: opened.ok() }
    }

    /// Drops everything, to start again from nothing. Blocks on the disk.
    pub(crate) fn wipe(self) -> Self {
        let Self { databases, path, open } = self;
        drop(open);
        Self::wiped(databases, path)
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
    fn new(databases: &dyn Databases, path: &Path) -> Result<Self, DatabaseError> {
        Ok(Self { entities: databases.open(path)?, checksum: 0 })
    }

    fn load(databases: &dyn Databases, path: &Path) -> Result<(Self, Applied), Doubt> {
        let mut open = Self::new(databases, path)?;
        let entries = open.entities.entries()?;
        let Some(head) = open.entities.get(HEAD)? else {
            if entries.is_empty() {
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
        for (key, value) in entries {
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
        let mut batch = Vec::new();
        for (key, value) in changes(before, &after.image) {
            if let Some(old) = self.entities.get(&key)? {
                self.checksum = self.checksum.wrapping_sub(fingerprint(&key, &old));
            }
            if let Some(value) = &value {
                self.checksum = self.checksum.wrapping_add(fingerprint(&key, value));
            }
            batch.push((key, value));
        }
        let head = Head {
            format: FORMAT,
            offset: after.image.offset,
            last: after.last,
            membership: after.membership.clone(),
            checksum: self.checksum,
        };
        let head = types::encode(&head).map_err(|error| Doubt::Content(error.to_string()))?;
        batch.push((HEAD.to_vec(), Some(head)));
        Ok(self.entities.apply(batch)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::SledDatabases;
    use crate::records::{FeatureLevel, FeatureLevelFinalised};

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
            let (mut store, _) = AppliedStore::open(Arc::new(SledDatabases), &path).expect("opens");
            let open = store.open.as_mut().expect("is open");
            let key = vec![6];
            open.checksum = if whole { fingerprint(&key, &theirs) } else { 7 };
            open.entities.apply(vec![(key, Some(theirs.clone()))]).expect("inserts");
            let mut applied = Applied::default();
            applied.image.offset = MetadataOffset(7);
            store.write(&Image::default(), &applied);
            drop(store);
            if whole {
                for _ in 0..2 {
                    let error =
                        AppliedStore::open(Arc::new(SledDatabases), &path).err().expect("refuses");
                    let Incompatible::Record { error, .. } = error else { panic!("{error}") };
                    assert_eq!(error, DecodeError::UnknownVersion { found: 200 });
                }
                SledDatabases.remove(&path).expect("removes");
            } else {
                let (_, found) =
                    AppliedStore::open(Arc::new(SledDatabases), &path).expect("wipes it");
                assert_eq!(found, Applied::default());
            }
        }
    }
}
