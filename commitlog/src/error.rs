//! Why a log refused something, by what the caller can do about it.

use crate::format::FormatError;
use ottla_proto::{LeaderEpoch, Offset};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// An error of a [`crate::Log`].
#[derive(Debug, Error)]
pub enum LogError {
    /// The disk failed. A log whose *write* or sync failed is offline from now
    /// on; a failed read changes nothing.
    #[error("{path}: {operation}: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No space left (or a quota is used up). Nothing was changed; reads work,
    /// and appends will once there is space again.
    #[error("{path}: the disk is full")]
    DiskFull {
        /// The file being written.
        path: PathBuf,
    },
    /// An earlier disk error took the log offline: only reads work until it is
    /// opened again.
    #[error("log is offline: {reason}")]
    Offline {
        /// The first error.
        reason: String,
    },
    /// Stored bytes are not what was written.
    #[error("{path} is corrupt at byte {position}: {reason}")]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Byte within the file.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// An offset that the log does not hold.
    #[error("offset {requested} is outside of {start}..{end}")]
    OutOfRange {
        /// Asked for.
        requested: Offset,
        /// Log start offset.
        start: Offset,
        /// Log end offset.
        end: Offset,
    },
    /// Bytes to be appended are not good batches.
    #[error("bad batch: {0}")]
    Invalid(#[from] FormatError),
    /// A follower's batches must continue its log.
    #[error("batch at offset {got} cannot follow a log that ends at {expected}")]
    NotContiguous {
        /// Log end offset, or the end of the batch before.
        expected: Offset,
        /// Base offset of the batch.
        got: Offset,
    },
    /// Leader epochs never go back within a log.
    #[error("leader epoch {got} is older than {last}, the log's last")]
    EpochWentBack {
        /// The log's last epoch.
        last: LeaderEpoch,
        /// The one refused.
        got: LeaderEpoch,
    },
}

impl LogError {
    /// The error for a failed system call.
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.to_owned() }
            }
            _ => Self::Io { operation, path: path.to_owned(), source },
        }
    }

    pub(crate) fn corrupt(path: &Path, position: u64, reason: impl ToString) -> Self {
        Self::Corrupt { path: path.to_owned(), position, reason: reason.to_string() }
    }
}
