//! The files of Raft's log: a log of the commitlog engine, the vote and the
//! last purged id in checkpoints beside it, and the recent entries in memory.
//! Every call may block on the disk.
//!
//! Not its job: the order of writes. One thread makes them (`log_writer`).

use super::committed::CommittedHint;
use super::cut;
use super::log_writer::Stopped;
use super::types::{self, Entry, LogId, Vote};
use ottla_commitlog::format::{self, BatchOptions, NewRecord, ValidBatch};
use ottla_commitlog::{Bounds, Cleanup, Log, LogConfig, LogError, OpenMode, Shared, checkpoint};
use ottla_proto::LeaderEpoch;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io;
use std::ops::{Range, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// Largest log entry with its batch around it, in bytes: what the log engine
/// takes, and about 70,000 partition changes.
pub(crate) const MAX_ENTRY_BYTES: usize = ottla_proto::MAX_BATCH_BYTES;

/// Bytes of recent entries kept in memory: what followers that keep up are
/// sent, and what is applied, is never read from disk.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Segment size of the Raft log. Whole segments are purged, so this bounds what
/// stays on disk beyond the entries that are needed.
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes read from disk at a time.
const READ_BYTES: usize = 4 * 1024 * 1024;

const LOG_DIR: &str = "log";
const VOTE_FILE: &str = "vote";
const COMMITTED_FILE: &str = "committed";
const PURGED_FILE: &str = "purged";

/// Why a Raft log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogStoreError {
    /// The engine could not open it.
    #[error("the Raft log: {0}")]
    Log(#[from] LogError),
    /// A file beside it could not be read.
    #[error("the Raft log: {0}")]
    Io(#[from] io::Error),
    /// Something that Raft relies on is gone.
    #[error("the Raft log in {dir} is damaged: {what}")]
    Damaged {
        /// Its directory.
        dir: PathBuf,
        /// What is missing.
        what: String,
    },
}

/// The open files, and what is known about them. Shared by readers and the
/// writer thread.
pub(crate) struct LogFiles {
    log: Log,
    shared: Arc<Shared>,
    dir: PathBuf,
    committed: CommittedHint,
    state: Mutex<State>,
    /// Dropped last, after the log, which writes when it is closed.
    open: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// Recent entries by index with their encoded size; without holes, up to
    /// the last entry.
    cache: BTreeMap<u64, (Entry, usize)>,
    cached_bytes: usize,
}

/// An entry with the batch it becomes.
pub(crate) struct Encoded {
    pub(crate) entry: Entry,
    pub(crate) batch: ValidBatch,
    pub(crate) epoch: LeaderEpoch,
}

impl Encoded {
    pub(crate) fn new(entry: Entry) -> io::Result<Self> {
        let epoch = u32::try_from(entry.log_id.leader_id.term).map(LeaderEpoch);
        let epoch = epoch.map_err(|_| io::Error::other("more than 2^32 Raft terms"))?;
        let value = types::encode(&entry)?.into();
        let record = NewRecord { key: None, value: Some(value), headers: vec![], timestamp_ms: 0 };
        let batch =
            format::encode_batch(&[record], &BatchOptions::default()).map_err(io::Error::other)?;
        let batch = ValidBatch::new(batch, MAX_ENTRY_BYTES).map_err(io::Error::other)?;
        Ok(Self { entry, batch, epoch })
    }
}

impl State {
    fn cache(&mut self, entry: Entry, size: usize) {
        self.last = Some(entry.log_id);
        self.cached_bytes += size;
        self.cache.insert(entry.log_id.index, (entry, size));
        while self.cached_bytes > CACHE_BYTES
            && let Some((_, (_, size))) = self.cache.pop_first()
        {
            self.cached_bytes -= size;
        }
    }

    fn forget(&mut self, range: impl RangeBounds<u64>) {
        let dropped: Vec<u64> = self.cache.range(range).map(|(&index, _)| index).collect();
        for index in dropped {
            if let Some((_, size)) = self.cache.remove(&index) {
                self.cached_bytes -= size;
            }
        }
    }

    /// The entries of `range`, if all of them are in memory.
    fn cached(&self, range: Range<u64>, max_bytes: usize) -> Option<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for index in range {
            let (entry, size) = self.cache.get(&index)?;
            bytes += size;
            if !entries.is_empty() && bytes > max_bytes {
                break;
            }
            entries.push(entry.clone());
        }
        Some(entries)
    }
}

impl LogFiles {
    /// Opens the log in `dir`, creating it if absent.
    pub(crate) fn open(shared: &Arc<Shared>, dir: &Path) -> Result<Self, LogStoreError> {
        let cleanup = Cleanup { delete: false, compact: false };
        let config = LogConfig { segment_bytes: SEGMENT_BYTES, cleanup, ..LogConfig::default() };
        let (log, recovery) = Log::open(shared, &dir.join(LOG_DIR), config, OpenMode::Recover)?;
        tracing::debug!(?recovery, "opened the Raft log");
        let committed = CommittedHint::open(shared.vfs(), &dir.join(COMMITTED_FILE))?;
        if let Some(cut) = cut::judge(&recovery, committed.read()?.as_ref()) {
            cut.report(dir, &recovery);
        }
        let dir = dir.to_owned();
        let files = Self {
            log,
            shared: Arc::clone(shared),
            dir,
            committed,
            state: Mutex::default(),
            open: watch::Sender::new(()),
        };
        files.load()?;
        Ok(files)
    }

    /// Completes when the last of those who share the files has dropped them.
    pub(crate) fn stopped(&self) -> Stopped {
        Stopped(self.open.subscribe())
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.log.bounds()
    }

    pub(crate) fn vote(&self) -> Option<Vote> {
        self.state.lock().vote
    }

    pub(crate) fn committed(&self) -> Option<LogId> {
        self.state.lock().committed
    }

    /// The last purged id and the last one.
    pub(crate) fn ends(&self) -> (Option<LogId>, Option<LogId>) {
        let state = self.state.lock();
        (state.purged, state.last)
    }

    /// The entries of `range`, if all of them are in memory.
    pub(crate) fn cached(&self, range: Range<u64>, max_bytes: usize) -> Option<Vec<Entry>> {
        self.state.lock().cached(range, max_bytes)
    }

    /// Whether the log can account for an applied id, `covered` being what a
    /// snapshot accounts for.
    pub(crate) fn justifies(&self, applied: &LogId, covered: Option<&LogId>) -> bool {
        if covered.is_some_and(|covered| covered.index >= applied.index) {
            return true;
        }
        let (purged, last) = self.ends();
        if let Some(purged) = purged.filter(|purged| purged.index >= applied.index) {
            return purged.index > applied.index || purged == *applied;
        }
        last.is_some_and(|last| last.index >= applied.index)
            && self
                .read_disk(applied.index..applied.index + 1, usize::MAX)
                .is_ok_and(|entries| entries.first().is_some_and(|entry| entry.log_id == *applied))
    }

    /// A checkpoint beside the log; `None` if there never was one. A damaged
    /// one is an error: what Raft promised must not be forgotten silently.
    fn read_checkpoint<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, LogStoreError> {
        let path = self.dir.join(name);
        let damaged = |what: String| LogStoreError::Damaged { dir: self.dir.clone(), what };
        let bytes = checkpoint::read(self.shared.vfs(), &path)
            .map_err(|error| damaged(format!("{name}: {error}")))?;
        let decode = |bytes: Vec<u8>| types::decode(&bytes);
        bytes.map(decode).transpose().map_err(|error| damaged(format!("{name}: {error}")))
    }

    fn write_checkpoint<T: serde::Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let bytes = types::encode(value)?;
        checkpoint::write_atomically(self.shared.vfs(), &self.dir.join(name), &bytes)
    }

    fn load(&self) -> Result<(), LogStoreError> {
        let mut state = State {
            vote: self.read_checkpoint(VOTE_FILE)?,
            purged: self.read_checkpoint(PURGED_FILE)?,
            ..State::default()
        };
        if let Some(purged) = state.purged {
            // A crash may have come between the checkpoint and the deletion.
            self.drop_purged(&purged)?;
        }
        let bounds = self.log.bounds();
        let expected = state.purged.map_or(bounds.start, |purged| purged.index + 1);
        let damaged = |what: String| LogStoreError::Damaged { dir: self.dir.clone(), what };
        if bounds.start != expected && bounds.start < bounds.end {
            let what = format!("it starts at {}, expected {expected}", bounds.start);
            return Err(damaged(what));
        }
        state.last = state.purged;
        if bounds.start < bounds.end {
            let last = self.read_disk(bounds.end - 1..bounds.end, usize::MAX)?;
            state.last = last.first().map(|entry| entry.log_id);
            if state.vote.is_none() {
                return Err(damaged("there are entries and no vote".to_owned()));
            }
        }
        // Entries may be applied before they are durable here, so a power loss
        // can leave the hint ahead of the log.
        state.committed = self
            .committed
            .read()?
            .filter(|committed| state.last.is_some_and(|last| last.index >= committed.index));
        *self.state.lock() = state;
        Ok(())
    }

    fn drop_purged(&self, purged: &LogId) -> Result<(), LogError> {
        let next = purged.index + 1;
        let bounds = self.log.bounds();
        if next >= bounds.end
            && bounds != (ottla_commitlog::Bounds { start: next, end: next, ..bounds })
        {
            self.log.reset_to(next)
        } else if next > bounds.start {
            self.log.delete_before(next)
        } else {
            Ok(())
        }
    }

    /// Reads from disk, blocking.
    pub(crate) fn read_disk(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let (mut next, mut bytes) = (range.start, 0);
        while next < range.end && (bytes < max_bytes || entries.is_empty()) {
            let read = READ_BYTES.min(max_bytes - bytes);
            let batches = self.log.read(next, range.end, read).map_err(io::Error::other)?;
            bytes += batches.len();
            for record in format::decode_records(&batches) {
                let record = record.map_err(io::Error::other)?;
                let entry: Entry = types::decode(&record.value.unwrap_or_default())?;
                if record.offset != next || entry.log_id.index != next {
                    let what = format!("entry {} at offset {next}", entry.log_id);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                next += 1;
                entries.push(entry);
            }
            if batches.is_empty() {
                break;
            }
        }
        Ok(entries)
    }
}

// The writes. Only the writer thread calls these.
impl LogFiles {
    /// Takes what it has appended out of `encoded`, also where it fails half way.
    pub(crate) fn append(&self, encoded: &mut Vec<Encoded>) -> io::Result<()> {
        if let Some(first) = encoded.first() {
            self.adopt_first_index(first.entry.log_id.index)?;
        }
        while let Some(first) = encoded.first() {
            let epoch = first.epoch;
            let count = encoded.iter().take_while(|next| next.epoch == epoch).count();
            let batches = encoded[..count].iter().map(|next| next.batch.clone()).collect();
            let expected = first.entry.log_id.index;
            let end = self.log.bounds().end;
            if expected != end {
                let what = format!("entry {expected} appended to a log that ends at {end}");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            self.log.append_as_leader(batches, epoch, 0).map_err(io_error)?;
            let mut state = self.state.lock();
            for Encoded { entry, batch, .. } in encoded.drain(..count) {
                state.cache(entry, batch.len());
            }
        }
        Ok(())
    }

    /// A log that never held anything begins where its first entry says.
    fn adopt_first_index(&self, index: u64) -> io::Result<()> {
        let bounds = self.log.bounds();
        if self.state.lock().last.is_none() && bounds.start == bounds.end && bounds.end != index {
            self.log.reset_to(index).map_err(io_error)?;
        }
        Ok(())
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.log.sync().map(drop).map_err(io::Error::other)
    }

    pub(crate) fn save_vote(&self, vote: Vote) -> io::Result<()> {
        self.write_checkpoint(VOTE_FILE, &vote)?;
        self.state.lock().vote = Some(vote);
        Ok(())
    }

    pub(crate) fn save_committed(&self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(committed) = &committed {
            self.committed.write(committed)?;
        }
        self.state.lock().committed = committed;
        Ok(())
    }

    pub(crate) fn truncate_after(&self, last: Option<LogId>) -> io::Result<()> {
        let bounds = self.log.bounds();
        let end = last.map_or(bounds.start, |last| last.index + 1);
        if end >= bounds.end {
            return Ok(());
        }
        self.log.truncate_to(end).map_err(io_error)?;
        let mut state = self.state.lock();
        state.forget(end..);
        state.last = last.or(state.purged);
        Ok(())
    }

    pub(crate) fn purge(&self, upto: LogId) -> io::Result<()> {
        if self.state.lock().purged.is_some_and(|purged| purged.index >= upto.index) {
            return Ok(());
        }
        // First what was purged, then the purge: a log may say too little
        // about what it holds, never too much.
        self.write_checkpoint(PURGED_FILE, &upto)?;
        self.drop_purged(&upto).map_err(io::Error::other)?;
        let mut state = self.state.lock();
        state.forget(..=upto.index);
        state.purged = Some(upto);
        if state.last.is_none_or(|last| last.index <= upto.index) {
            state.last = Some(upto);
        }
        Ok(())
    }
}

/// A full disk keeps its kind: it can be waited for.
fn io_error(error: LogError) -> io::Error {
    match error {
        LogError::DiskFull { .. } => io::Error::new(io::ErrorKind::StorageFull, error),
        error => io::Error::other(error),
    }
}
