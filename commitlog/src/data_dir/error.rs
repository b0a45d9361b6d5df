//! Why a data directory cannot be used.

use super::{DirectoryIdentity, META, Owner};
use crate::checkpoint::CheckpointError;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

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
    /// It is another node's, or of another cluster.
    #[error(
        "data directory {path} belongs to node {} of cluster `{}`, but the configuration says \
         node {} of cluster `{}`",
        .found.node_id, .found.cluster_id, .expected.node_id, .expected.cluster_id
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What it says.
        found: Owner,
        /// What the configuration says.
        expected: Owner,
    },
    /// One directory is configured twice, or was copied.
    #[error("data directories {first} and {second} are the same: {why}")]
    Same {
        /// Configured earlier.
        first: PathBuf,
        /// Configured later.
        second: PathBuf,
        /// How that is known.
        why: String,
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

pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    move |source| DataDirError::Io { operation, path: path.to_owned(), source }
}
