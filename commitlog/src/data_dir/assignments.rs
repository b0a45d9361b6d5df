//! Which partition lies in which directory, kept in the first one: a partition
//! whose directory is away must not be taken for one that is new.
//!
//! A checkpoint of lines. The first is `complete`, or `rebuilt` if the file was
//! lost while a directory was away: then a partition that is not in it may lie
//! there all the same. Each other line is a partition and a directory's id.

use super::partition_of;
use crate::checkpoint::{self, CheckpointError};
use crate::vfs::RealVfs;
use ottla_proto::{DirectoryId, PartitionId};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::Path;

pub(super) const FILE: &str = "partition-directories";

const COMPLETE: &str = "complete";
const REBUILT: &str = "rebuilt";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignments {
    /// Every partition of this node that is not new is among them.
    pub(super) complete: bool,
    pub(super) directories: BTreeMap<PartitionId, DirectoryId>,
}

impl Assignments {
    /// What was written last. `None` if there is nothing, or nothing that can be
    /// believed.
    pub(super) fn load(dir: &Path) -> Result<Option<Self>, CheckpointError> {
        match checkpoint::read(&RealVfs, &dir.join(FILE)) {
            Ok(bytes) => {
                let read = bytes.as_deref().map(Self::decode);
                if read == Some(None) {
                    tracing::warn!(dir = %dir.display(), "{FILE} is not understood; made anew");
                }
                Ok(read.flatten())
            }
            Err(error @ CheckpointError::Garbage { .. }) => {
                tracing::warn!(%error, "made anew");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Durable when it returns.
    pub(super) fn store(&self, dir: &Path) -> io::Result<()> {
        checkpoint::write_atomically(&RealVfs, &dir.join(FILE), self.encode().as_bytes())
    }

    pub(super) fn encode(&self) -> String {
        let mut text = format!("{}\n", if self.complete { COMPLETE } else { REBUILT });
        for (partition, directory) in &self.directories {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{partition} {directory}");
        }
        text
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines();
        let complete = match lines.next()? {
            COMPLETE => true,
            REBUILT => false,
            _ => return None,
        };
        let mut directories = BTreeMap::new();
        for line in lines {
            let (partition, directory) = line.split_once(' ')?;
            directories.insert(partition_of(partition)?, directory.parse().ok()?);
        }
        Some(Self { complete, directories })
    }
}
