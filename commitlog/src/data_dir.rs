//! A node's data directory: who it belongs to, its lock, the marker of a clean
//! shutdown, and where each partition's log lives.
//!
//! ```text
//! meta.properties        JSON: version, cluster_id, node_id, directory_id
//! lock                   held with flock while a process uses the directory
//! clean-shutdown         the broker epoch; only between two runs
//! metadata/              the metadata log and image
//! partitions/<topic id>-<index>/
//! ```
//!
//! Not its job: what is in `metadata/` or in a partition's directory.

use crate::checkpoint::{self, CheckpointError};
use crate::vfs::{RealVfs, Vfs, create_dir_durably};
use ottla_proto::{BrokerEpoch, DirectoryId, NodeId, PartitionId, TopicId};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Layout of a data directory that this release reads and writes.
const LAYOUT_VERSION: u32 = 1;

const META: &str = "meta.properties";
const LOCK: &str = "lock";
const CLEAN_SHUTDOWN: &str = "clean-shutdown";
const METADATA: &str = "metadata";
const PARTITIONS: &str = "partitions";
const DELETED: &str = ".deleted";

/// Whom a data directory belongs to: written once, by formatting it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryIdentity {
    /// The cluster.
    pub cluster_id: String,
    /// The node.
    pub node_id: NodeId,
    /// This directory, since it was formatted.
    pub directory_id: DirectoryId,
}

#[derive(Serialize, Deserialize)]
struct Meta {
    version: u32,
    cluster_id: String,
    node_id: NodeId,
    directory_id: DirectoryId,
}

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// Nobody formatted it.
    #[error("{path} is not formatted: it has no {META}")]
    NotFormatted {
        /// The directory.
        path: PathBuf,
    },
    /// It was formatted before.
    #[error("{path} is formatted already, for node {} of cluster {}", .identity.node_id, .identity.cluster_id)]
    AlreadyFormatted {
        /// The directory.
        path: PathBuf,
        /// Whom it belongs to.
        identity: Box<DirectoryIdentity>,
    },
    /// Another process uses it.
    #[error("{path} is in use by another process")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A file in it does not hold what it should.
    #[error("{path} is garbage: {reason}")]
    Garbage {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The disk failed.
    #[error("{path}: {operation}: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl From<CheckpointError> for DataDirError {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Io { path, source } => Self::Io { operation: "read", path, source },
            CheckpointError::Garbage { path, reason } => {
                Self::Garbage { path, reason: reason.to_owned() }
            }
        }
    }
}

fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    move |source| DataDirError::Io { operation, path: path.to_owned(), source }
}

/// A formatted data directory, locked for this process until dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: DirectoryIdentity,
    /// The lock goes with the open file.
    _lock: File,
}

impl DataDir {
    /// Makes `path` (created if absent) the data directory of a node. Durable.
    ///
    /// # Errors
    /// `AlreadyFormatted`, whoever it belongs to; `Garbage`; `Io`.
    pub fn format(path: &Path, identity: &DirectoryIdentity) -> Result<(), DataDirError> {
        create_dir_durably(&RealVfs, path).map_err(io("create", path))?;
        if let Some(identity) = read_meta(path)? {
            let (path, identity) = (path.to_owned(), Box::new(identity));
            return Err(DataDirError::AlreadyFormatted { path, identity });
        }
        for dir in [METADATA, PARTITIONS] {
            let dir = path.join(dir);
            create_dir_durably(&RealVfs, &dir).map_err(io("create", &dir))?;
        }
        let DirectoryIdentity { cluster_id, node_id, directory_id } = identity.clone();
        let meta = Meta { version: LAYOUT_VERSION, cluster_id, node_id, directory_id };
        let file = path.join(META);
        let mut text = serde_json::to_string_pretty(&meta)
            .map_err(|error| io("write", &file)(error.into()))?;
        text.push('\n');
        // Last: with it the directory is formatted.
        checkpoint::write_plain_atomically(&RealVfs, &file, text.as_bytes())
            .map_err(io("write", &file))
    }

    /// Whom `path` belongs to, without locking it; `None` if it is not formatted.
    ///
    /// # Errors
    /// `Garbage`, `Io`.
    pub fn identity_at(path: &Path) -> Result<Option<DirectoryIdentity>, DataDirError> {
        read_meta(path)
    }

    /// Locks a formatted directory and finishes deletions that were begun.
    ///
    /// # Errors
    /// `NotFormatted`, `Locked`, `Garbage`, `Io`.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let not_formatted = || DataDirError::NotFormatted { path: path.to_owned() };
        read_meta(path)?.ok_or_else(not_formatted)?;
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DataDirError::Locked { path: path.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(io("lock", &lock_path)(error)),
        }
        // Again, now that nobody else can be changing it.
        let identity = read_meta(path)?.ok_or_else(not_formatted)?;
        let this = Self { path: path.to_owned(), identity, _lock: lock };
        for dir in [this.metadata_dir(), this.partitions()] {
            create_dir_durably(&RealVfs, &dir).map_err(io("create", &dir))?;
        }
        this.finish_deletions()?;
        Ok(this)
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whom it belongs to.
    #[must_use]
    pub fn identity(&self) -> &DirectoryIdentity {
        &self.identity
    }

    /// Where the metadata log and image live.
    #[must_use]
    pub fn metadata_dir(&self) -> PathBuf {
        self.path.join(METADATA)
    }

    /// Where the log of a partition lives, or would.
    #[must_use]
    pub fn partition_dir(&self, partition: PartitionId) -> PathBuf {
        self.partitions().join(partition.to_string())
    }

    /// The partitions that have a directory here, in order.
    ///
    /// # Errors
    /// `Io`.
    pub fn partition_dirs(&self) -> Result<Vec<PartitionId>, DataDirError> {
        let dir = self.partitions();
        let names = RealVfs.list(&dir).map_err(io("list", &dir))?;
        let mut found: Vec<PartitionId> = names.iter().filter_map(|n| parse_name(n)).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Removes the log of a partition, which nobody may have open. Once this
    /// returns it does not come back; a crash before may leave it whole.
    ///
    /// # Errors
    /// `Io`. That there is none is no error.
    pub fn delete_partition(&self, partition: PartitionId) -> Result<(), DataDirError> {
        let dir = self.partition_dir(partition);
        let mut name = dir.clone().into_os_string();
        name.push(DELETED);
        let doomed = PathBuf::from(name);
        // Left over from an attempt that failed half-way.
        remove_all(&doomed)?;
        match fs::rename(&dir, &doomed) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io("rename", &dir)(error)),
        }
        self.sync_partitions()?;
        remove_all(&doomed)
    }

    /// The broker epoch of the run before, if that ended cleanly. Durably
    /// deletes the marker, so that a crash from now on is seen as one.
    ///
    /// # Errors
    /// `Io`. A marker that cannot be read counts as none.
    pub fn take_clean_shutdown(&self) -> Result<Option<BrokerEpoch>, DataDirError> {
        let path = self.path.join(CLEAN_SHUTDOWN);
        let epoch = match checkpoint::read(&RealVfs, &path) {
            Ok(None) => return Ok(None),
            Ok(Some(bytes)) => std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok()),
            Err(CheckpointError::Garbage { path, reason }) => {
                tracing::warn!(path = %path.display(), reason, "clean-shutdown marker ignored");
                None
            }
            Err(error) => return Err(error.into()),
        };
        RealVfs.remove_file(&path).map_err(io("remove", &path))?;
        RealVfs.sync_dir(&self.path).map_err(io("sync", &self.path))?;
        Ok(epoch.map(BrokerEpoch))
    }

    /// Says, durably, that every log was synced and closed in this broker epoch.
    ///
    /// # Errors
    /// `Io`.
    pub fn mark_clean_shutdown(&self, epoch: BrokerEpoch) -> Result<(), DataDirError> {
        let path = self.path.join(CLEAN_SHUTDOWN);
        checkpoint::write_atomically(&RealVfs, &path, epoch.to_string().as_bytes())
            .map_err(io("write", &path))
    }

    fn partitions(&self) -> PathBuf {
        self.path.join(PARTITIONS)
    }

    fn sync_partitions(&self) -> Result<(), DataDirError> {
        let dir = self.partitions();
        RealVfs.sync_dir(&dir).map_err(io("sync", &dir))
    }

    fn finish_deletions(&self) -> Result<(), DataDirError> {
        let dir = self.partitions();
        for name in RealVfs.list(&dir).map_err(io("list", &dir))? {
            if name.strip_suffix(DELETED).and_then(parse_name).is_some() {
                remove_all(&dir.join(name))?;
            }
        }
        Ok(())
    }
}

fn remove_all(dir: &Path) -> Result<(), DataDirError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("remove", dir)(error)),
        _ => Ok(()),
    }
}

/// `<topic uuid>-<index>`, exactly as [`PartitionId`] is displayed.
fn parse_name(name: &str) -> Option<PartitionId> {
    let (topic, index) = name.rsplit_once('-')?;
    let topic: TopicId = topic.parse().ok()?;
    let partition = PartitionId { topic, index: index.parse().ok()? };
    (partition.to_string() == name).then_some(partition)
}

fn read_meta(dir: &Path) -> Result<Option<DirectoryIdentity>, DataDirError> {
    let path = dir.join(META);
    let Some(bytes) = checkpoint::read_plain(&RealVfs, &path)? else {
        return Ok(None);
    };
    let garbage = |reason: String| DataDirError::Garbage { path: path.clone(), reason };
    let meta: Meta = serde_json::from_slice(&bytes).map_err(|error| garbage(error.to_string()))?;
    if meta.version != LAYOUT_VERSION {
        let version = meta.version;
        return Err(garbage(format!("layout version {version}, expected {LAYOUT_VERSION}")));
    }
    let Meta { cluster_id, node_id, directory_id, .. } = meta;
    Ok(Some(DirectoryIdentity { cluster_id, node_id, directory_id }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> DirectoryIdentity {
        let directory_id = DirectoryId::random();
        DirectoryIdentity { cluster_id: "c1".to_owned(), node_id: NodeId(2), directory_id }
    }

    fn formatted() -> (tempfile::TempDir, DirectoryIdentity) {
        let temp = tempfile::tempdir().expect("a directory");
        let identity = identity();
        DataDir::format(temp.path(), &identity).expect("formats");
        (temp, identity)
    }

    #[test]
    fn formatted_once_and_locked() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("a/b");
        assert!(matches!(DataDir::open(&path), Err(DataDirError::NotFormatted { .. })));
        let first = identity();
        DataDir::format(&path, &first).expect("formats");
        let again = DataDir::format(&path, &identity()).expect_err("must not be taken over");
        assert!(again.to_string().contains("node 2 of cluster c1"), "{again}");
        let dir = DataDir::open(&path).expect("opens");
        assert_eq!(dir.identity(), &first);
        assert_eq!(DataDir::identity_at(&path).expect("reads"), Some(first));
        // flock is by open file, so this is as good as another process.
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Locked { .. })));
        drop(dir);
        DataDir::open(&path).expect("free again");
    }

    #[test]
    fn garbage_is_named_and_not_overwritten() {
        let (temp, identity) = formatted();
        let meta = temp.path().join(META);
        let text = fs::read_to_string(&meta).expect("reads");
        for bad in ["", "{}", &text.replace("\"version\": 1", "\"version\": 2")] {
            fs::write(&meta, bad).expect("writes");
            assert!(matches!(DataDir::open(temp.path()), Err(DataDirError::Garbage { .. })));
            assert!(DataDir::format(temp.path(), &identity).is_err());
            assert_eq!(fs::read_to_string(&meta).expect("reads"), bad);
        }
    }

    #[test]
    fn the_clean_shutdown_marker_is_taken_once() {
        let (temp, _) = formatted();
        let dir = DataDir::open(temp.path()).expect("opens");
        assert_eq!(dir.take_clean_shutdown().expect("reads"), None);
        dir.mark_clean_shutdown(BrokerEpoch(41)).expect("writes");
        assert_eq!(dir.take_clean_shutdown().expect("reads"), Some(BrokerEpoch(41)));
        assert_eq!(dir.take_clean_shutdown().expect("reads"), None);
        fs::write(temp.path().join(CLEAN_SHUTDOWN), "41").expect("writes");
        assert_eq!(dir.take_clean_shutdown().expect("garbage is none"), None);
        assert!(!temp.path().join(CLEAN_SHUTDOWN).exists());
    }

    #[test]
    fn partitions_come_and_go() {
        let (temp, _) = formatted();
        let dir = DataDir::open(temp.path()).expect("opens");
        let topic = TopicId::random();
        let partitions = [0, 1, 12].map(|index| PartitionId { topic, index });
        for partition in partitions {
            fs::create_dir(dir.partition_dir(partition)).expect("creates");
        }
        for stray in ["lost+found", "x-1", &format!("{topic}-01"), &format!("{topic}-1.deleted")] {
            fs::create_dir(dir.partitions().join(stray)).expect("creates");
        }
        assert_eq!(dir.partition_dirs().expect("lists"), partitions);
        fs::write(dir.partition_dir(partitions[1]).join("f"), "x").expect("writes");
        dir.delete_partition(partitions[1]).expect("over the left-over");
        dir.delete_partition(partitions[1]).expect("is gone already");
        assert_eq!(dir.partition_dirs().expect("lists"), [partitions[0], partitions[2]]);
        // A deletion that a crash interrupted is finished by the next start.
        let doomed = dir.partitions().join(format!("{topic}-0.deleted"));
        fs::rename(dir.partition_dir(partitions[0]), &doomed).expect("renames");
        drop(dir);
        let dir = DataDir::open(temp.path()).expect("opens");
        assert!(!doomed.exists());
        assert!(dir.partitions().join("lost+found").exists());
        assert_eq!(dir.partition_dirs().expect("lists"), [partitions[2]]);
    }
}
