//! The log of one partition.
//!
//! Locks, always taken in this order:
//! - `cleaning`: one compaction at a time;
//! - `writer`: one change of the log at a time (append, truncate, …);
//! - `gate`: one fdatasync at a time, and no truncation meanwhile. Serialised
//!   because Linux reports a failed write-back once per open file: of two
//!   concurrent syncs one could succeed for bytes that the other saw lost;
//! - `shape`: finished segments are replaced or removed by one at a time;
//! - a segment's `aborted`: a marker's note and what it ends, at one moment;
//! - `state`: what readers see. Held for moments, never during I/O.

mod aborted;
mod append;
mod compact;
pub(crate) mod epochs;
mod index;
mod open;
mod open_producers;
mod producer_state;
mod read;
mod recovery;
mod retention;
mod roll;
pub(crate) mod segment;
pub(crate) mod snapshots;
mod sync;
mod times;
mod truncate;
mod txn_index;
pub(crate) mod walk;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

pub use append::MAX_APPEND_BYTES;
pub(crate) use compact::CLEANER_FILE;
pub use compact::{Cleaner, Compacted, CompactionEnd, DEFAULT_KEY_MAP_BYTES, Dirtiness};
pub use producer_state::Placement;
pub use recovery::Recovery;
pub use retention::Retained;

use crate::checkpoint::{write_atomically, write_plain_atomically};
use crate::producers::Producers;
use crate::shared::Tail;
use crate::vfs::Vfs;
use crate::{LogConfig, LogError, Shared};
use epochs::Epochs;
use ottla_proto::{LeaderEpoch, Offset};
use parking_lot::{Mutex, RwLock};
use segment::Segment;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest log end offset: leaves room below 2^63 for one more batch, so that
/// sums of offsets need no checks.
pub const MAX_OFFSET: Offset = i64::MAX as u64 - (1 << 32);

/// Largest segment, in bytes: positions in it are 31-bit, as in Kafka.
pub(crate) const MAX_SEGMENT_BYTES: u64 = i32::MAX as u64;

pub(crate) const EPOCHS_FILE: &str = "leader-epoch-checkpoint";
pub(crate) const START_FILE: &str = "log-start-offset-checkpoint";

/// How the log was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// All of it was synced and nothing written since: nothing is scanned.
    Clean,
    /// Anything may have happened: the tail is checked and cut where it is bad.
    Recover,
}

/// The extent of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Log start offset: the first that can be read.
    pub start: Offset,
    /// Log end offset: that of the next record.
    pub end: Offset,
    /// Everything below is on stable storage.
    pub synced: Offset,
}

/// What an append did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record: the log end offset before it.
    pub first_offset: Offset,
    /// The log end offset after it.
    pub end_offset: Offset,
    /// Where each batch given went, in order.
    pub placed: Vec<Placement>,
}

/// Where a leader epoch ends in this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The largest epoch known here that is not above the one asked for.
    pub epoch: LeaderEpoch,
    /// Start of the next known epoch, or the log end offset.
    pub end_offset: Offset,
}

/// The log of one partition. All methods take `&self` and may block on the
/// disk; share it between threads by `Arc`.
pub struct Log {
    shared: Arc<Shared>,
    dir: PathBuf,
    config: RwLock<LogConfig>,
    cleaning: Mutex<()>,
    writer: Mutex<Writer>,
    gate: Mutex<()>,
    shape: Mutex<()>,
    state: RwLock<State>,
    /// What was appended last.
    tail: Tail,
}

/// What only the one who changes the log needs to know.
struct Writer {
    /// The checkpoint of epochs may be wrong: write it before the next change.
    epochs_stale: bool,
    /// The last epoch has no records yet, and the checkpoint lacks it: write it
    /// before the first of them.
    epoch_begun: bool,
    /// The name of the log's directory is durable. Not so for a log that never held
    /// anything: without a directory the next start makes the same log.
    anchored: bool,
}

/// What readers see.
struct State {
    /// In order of offset, never empty. The last one is being written.
    slots: Vec<Slot>,
    start: Offset,
    end: Offset,
    synced: Offset,
    epochs: Epochs,
    producers: Producers,
    /// The newest snapshot of them.
    snapshot: Option<Offset>,
    /// Counts truncations and resets: bytes read without the lock are good only
    /// if none came between.
    generation: u64,
    unsynced: Unsynced,
    /// Compacted up to here, as far as there is anything below.
    clean_to: Offset,
    /// Compaction met something corrupt.
    uncleanable: bool,
    /// The first error of a write or sync.
    offline: Option<String>,
}

/// What is written and not synced yet.
#[derive(Clone, Copy, Default)]
struct Unsynced {
    appends: u64,
    bytes: u64,
    /// When the oldest of it was appended, ms; `None` if nobody was told.
    since_ms: Option<i64>,
}

#[derive(Clone)]
struct Slot {
    segment: Arc<Segment>,
    /// Bytes that may be read.
    size: u64,
}

impl State {
    /// Index of the slot that holds `offset`, or would.
    fn slot_of(&self, offset: Offset) -> usize {
        self.slots.partition_point(|slot| slot.segment.base <= offset).saturating_sub(1)
    }

    fn active(&self) -> &Slot {
        self.slots.last().expect("a log has at least one segment")
    }

    fn check_online(&self) -> Result<(), LogError> {
        match &self.offline {
            None => Ok(()),
            Some(reason) => Err(LogError::Offline { reason: reason.clone() }),
        }
    }
}

impl Log {
    /// Log start, log end and synced offset, at one moment.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        let state = self.state.read();
        Bounds { start: state.start, end: state.end, synced: state.synced }
    }

    /// The largest epoch known: of the last record, or begun since.
    #[must_use]
    pub fn last_epoch(&self) -> Option<LeaderEpoch> {
        self.state.read().epochs.last()
    }

    /// Where `epoch` starts in this log, if it is known.
    #[must_use]
    pub fn epoch_start(&self, epoch: LeaderEpoch) -> Option<Offset> {
        self.state.read().epochs.start_of(epoch)
    }

    /// Where `epoch`, or the largest known below it, ends. `None` if every
    /// known epoch is above. (KIP-101, KIP-279)
    #[must_use]
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        let state = self.state.read();
        let (epoch, end) = state.epochs.end_of(epoch)?;
        Some(EpochEnd { epoch, end_offset: end.unwrap_or(state.end) })
    }

    /// Why the log refuses changes, if it does.
    #[must_use]
    pub fn offline_reason(&self) -> Option<String> {
        self.state.read().offline.clone()
    }

    /// Bytes in the log's segments.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.state.read().slots.iter().map(|slot| slot.size).sum()
    }

    /// What the log was last configured to.
    #[must_use]
    pub fn config(&self) -> LogConfig {
        *self.config.read()
    }

    /// Changes the configuration: holds from the next append or maintenance on.
    pub fn configure(&self, config: LogConfig) {
        *self.config.write() = config;
    }

    /// The directory the log lives in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn vfs(&self) -> &dyn Vfs {
        self.shared.vfs()
    }

    /// Takes the log offline for a failed write or sync; hands the error on. A
    /// full disk where nothing can be undone is no `DiskFull`.
    fn offline(&self, error: LogError) -> LogError {
        let error = match error {
            LogError::DiskFull { path } => {
                let source = std::io::ErrorKind::StorageFull.into();
                LogError::Io { operation: "change", path, source }
            }
            error => error,
        };
        let mut state = self.state.write();
        if state.offline.is_none() {
            tracing::error!(dir = %self.dir.display(), %error, "log goes offline");
            state.offline = Some(error.to_string());
        }
        error
    }

    /// A full disk leaves the log as it was; any other error takes it offline.
    fn offline_unless_full(&self, error: LogError) -> LogError {
        if matches!(error, LogError::DiskFull { .. }) { error } else { self.offline(error) }
    }

    /// Durably writes the checkpoint of epochs. Whatever else a log keeps comes
    /// after its first epoch, so this is what makes its directory durable too.
    fn write_epochs(&self, writer: &mut Writer, epochs: &Epochs) -> Result<(), LogError> {
        self.anchor(writer)?;
        let path = self.dir.join(EPOCHS_FILE);
        writer.epochs_stale = true;
        write_plain_atomically(self.vfs(), &path, epochs.encode().as_bytes())
            .map_err(|error| self.offline_unless_full(LogError::io("write", &path, error)))?;
        (writer.epochs_stale, writer.epoch_begun) = (false, false);
        Ok(())
    }

    /// Makes the name of the log's directory durable. Those in it are by whoever
    /// writes them.
    fn anchor(&self, writer: &mut Writer) -> Result<(), LogError> {
        if !writer.anchored {
            let parent = open::parent_of(&self.dir);
            self.vfs()
                .sync_dir(parent)
                .map_err(|error| self.offline_unless_full(LogError::io("sync", parent, error)))?;
            writer.anchored = true;
        }
        Ok(())
    }

    /// Durably writes the log start offset.
    fn write_start(&self, start: Offset) -> Result<(), LogError> {
        let path = self.dir.join(START_FILE);
        write_atomically(self.vfs(), &path, start.to_string().as_bytes())
            .map_err(|error| self.offline_unless_full(LogError::io("write", &path, error)))
    }

    fn sync_dir(&self) -> Result<(), LogError> {
        self.vfs()
            .sync_dir(&self.dir)
            .map_err(|error| self.offline(LogError::io("sync", &self.dir, error)))
    }
}

impl Log {
    /// Makes everything durable and writes out what the next start would have to
    /// walk for. Afterwards the log can be read, but takes no more changes. Dropping
    /// a log that was not closed does the same, but for the sync, and nobody learns
    /// when; so whoever vouches for a clean stop closes its logs first.
    ///
    /// # Errors
    /// As [`sync`](Self::sync): the next start is no [`OpenMode::Clean`] one. What
    /// else cannot be written costs the next start time, and is no error.
    pub fn close(&self) -> Result<(), LogError> {
        let writer = self.writer.lock();
        self.sync()?;
        self.write_out(&writer);
        self.state.write().offline.get_or_insert_with(|| "it is closed".to_owned());
        Ok(())
    }

    /// The log is about to be removed from the disk: it takes no more changes, and
    /// writes nothing out when it is dropped.
    pub fn discard(&self) {
        self.state.write().offline.get_or_insert_with(|| "it is being deleted".to_owned());
    }

    /// Writes out what a full disk or laziness left behind: the next start would
    /// have to walk for it.
    fn write_out(&self, writer: &Writer) {
        let (segment, epochs) = {
            let state = self.state.read();
            let stale = writer.epochs_stale.then(|| state.epochs.encode());
            (Arc::clone(&state.active().segment), stale)
        };
        let path = self.dir.join(EPOCHS_FILE);
        if let Some(epochs) = epochs
            && let Err(error) = write_plain_atomically(self.vfs(), &path, epochs.as_bytes())
        {
            tracing::warn!(path = %path.display(), %error, "epochs not written");
        }
        self.close_producers(&segment);
        if let Err(error) = segment.index.lock().flush(self.vfs()) {
            tracing::warn!(path = %segment.path.display(), %error, "index not written");
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.state.get_mut().offline.is_none() {
            self.write_out(&self.writer.lock());
        }
    }
}
