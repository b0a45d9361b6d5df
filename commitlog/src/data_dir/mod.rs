//! A node's data directories: who they belong to, their locks, the markers of a
//! clean shutdown, and where each partition's log lives.
//!
//! ```text
//! meta.properties        JSON: version, cluster_id, node_id, directory_id
//! lock                   held with flock while a process uses the directory
//! clean-shutdown         the broker epoch; only between two runs
//! partitions/<topic id>-<index>/
//! ```
//! and in the first one, without which a node does not start:
//! ```text
//! metadata/              the metadata log and image
//! partition-directories  which partition lies in which directory
//! ```
//!
//! [`DataDir`] is one of them, [`DataDirs`] all of a node.
//!
//! Not its job: what is in `metadata/` or in a partition's directory.

use crate::checkpoint::{self, CheckpointError};
use crate::vfs::{RealVfs, Vfs, create_dir_durably};
use ottla_proto::{BrokerEpoch, DirectoryId, NodeId, PartitionId, TopicId};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

mod assignments;
mod error;
mod many;
#[cfg(test)]
mod many_tests;
mod stock;
#[cfg(test)]
mod tests;

pub use error::DataDirError;
pub use many::{DataDirs, DirectoryState, DirectoryStatus, Place, Wanted};

use error::io;

/// Layout of a data directory that this release reads and writes.
const LAYOUT_VERSION: u32 = 1;

const META: &str = "meta.properties";
const LOCK: &str = "lock";
const CLEAN_SHUTDOWN: &str = "clean-shutdown";
const METADATA: &str = "metadata";
const PARTITIONS: &str = "partitions";
const DELETED: &str = ".deleted";

/// A node of a cluster, as a data directory names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster.
    pub cluster_id: String,
    /// The node.
    pub node_id: NodeId,
}

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

impl DirectoryIdentity {
    /// Whose it is.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner { cluster_id: self.cluster_id.clone(), node_id: self.node_id }
    }
}

#[derive(Serialize, Deserialize)]
struct Meta {
    version: u32,
    cluster_id: String,
    node_id: NodeId,
    directory_id: DirectoryId,
}

/// A formatted data directory, locked for this process until dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: DirectoryIdentity,
    lock: File,
}

impl Drop for DataDir {
    /// The lock goes with the open file, of which a child process that is just
    /// being started holds a copy for a moment.
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(path = %self.path.display(), %error, "data directory not unlocked");
        }
    }
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
        let partitions = path.join(PARTITIONS);
        create_dir_durably(&RealVfs, &partitions).map_err(io("create", &partitions))?;
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
        let this = Self { path: path.to_owned(), identity, lock };
        let partitions = this.partitions();
        create_dir_durably(&RealVfs, &partitions).map_err(io("create", &partitions))?;
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

    /// Where the metadata log and image live, if this is a node's first directory.
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
        let mut found: Vec<PartitionId> = names.iter().filter_map(|n| partition_of(n)).collect();
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
            if name.strip_suffix(DELETED).and_then(partition_of).is_some() {
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
pub(crate) fn partition_of(name: &str) -> Option<PartitionId> {
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
