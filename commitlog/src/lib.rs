//! One partition's log on disk, and the node's files beside the partitions.
//!
//! [`Log`] is a sequence of record batches in Kafka's layout ([`format`]), cut
//! into segments, with an offset index, the starts of leader epochs, and
//! recovery after a crash. Synchronous: every call may block on the disk, none
//! needs a runtime. All files are reached through [`vfs`].
//!
//! Not its job: replication, who leads, which records are committed.

pub mod checkpoint;
pub mod data_dir;
mod error;
pub mod format;
mod log;
pub mod vfs;

pub use error::LogError;
pub use log::{
    Appended, Bounds, EpochEnd, Log, LogConfig, MAX_APPEND_BYTES, MAX_OFFSET, MAX_PROBLEMS,
    OpenMode, Problem, Recovery, Verification,
};
