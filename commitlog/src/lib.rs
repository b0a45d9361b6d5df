//! One partition's log on disk, and the node's files beside the partitions.
//!
//! [`Log`] is a sequence of record batches in Kafka's layout ([`format`]), cut
//! into segments, with an offset index, the starts of leader epochs, and
//! recovery after a crash. Synchronous: every call may block on the disk, none
//! needs a runtime. All files are reached through [`vfs`].
//!
//! Not its job: replication, who leads, which records are committed.

pub mod checkpoint;
mod config;
pub mod data_dir;
mod error;
pub mod format;
pub mod inspect;
mod log;
mod producers;
mod shared;
pub mod vfs;

pub use config::{Cleanup, LogConfig};
pub use error::LogError;
pub use log::{
    Appended, Bounds, Cleaner, Compacted, CompactionEnd, DEFAULT_KEY_MAP_BYTES, Dirtiness,
    EpochEnd, Log, MAX_APPEND_BYTES, MAX_OFFSET, OpenMode, Placement, Recovery, Retained,
};
pub use producers::{AbortedTxn, MAX_PRODUCERS, PRODUCER_EXPIRATION_MS, ProducerRefusal};
pub use shared::{
    DEFAULT_HOT_TAIL_BYTES, Figures, Histogram, HistogramSnapshot, HotTailUse, Shared,
};
