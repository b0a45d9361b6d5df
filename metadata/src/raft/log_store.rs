//! Raft's log and vote for openraft: entry index = log offset, one record in
//! each batch, its value the whole entry in MessagePack.
//!
//! Entries are readable when `append` returns and durable when openraft is told
//! so; votes are durable when `save_vote` returns. One thread does every write,
//! in the order in which openraft asked.
//!
//! Not its job: the files (`log_files`), what an entry means, and when the log
//! may be cut.

use super::log_files::{Encoded, LogFiles, LogStoreError};
use super::log_writer::{Hurry, Stopped, Write, Writer};
use super::types::{Entry, LogId, TypeConfig, Vote};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use ottla_commitlog::Shared;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::path::Path;
use std::sync::Arc;

/// Bytes of entries in one append to a follower, unless a single entry is
/// larger: small enough to be sent and synced well within the deadline.
const APPEND_BYTES: usize = 1024 * 1024;

/// openraft's log storage.
pub(crate) struct LogStore {
    files: Arc<LogFiles>,
    writer: Writer,
}

impl LogStore {
    /// Opens the log in `dir`, creating it if absent. Blocks on the disk.
    pub(crate) fn open(shared: &Arc<Shared>, dir: &Path) -> Result<Self, LogStoreError> {
        let files = Arc::new(LogFiles::open(shared, dir)?);
        let writer = Writer::start(Arc::clone(&files))?;
        Ok(Self { files, writer })
    }

    /// Whether this node never took part in anything.
    pub(crate) fn is_blank(&self) -> bool {
        self.files.vote().is_none() && self.files.ends().1.is_none()
    }

    /// Whether the log can account for an applied id, `covered` being what a
    /// snapshot accounts for.
    pub(crate) fn justifies(&self, applied: &LogId, covered: Option<&LogId>) -> bool {
        self.files.justifies(applied, covered)
    }

    /// To be told when the node stops.
    pub(crate) fn hurry(&self) -> Hurry {
        self.writer.hurry()
    }

    /// Completes when this is dropped and every write is done.
    pub(crate) fn stopped(&self) -> Stopped {
        self.files.stopped()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let (last_purged_log_id, last_log_id) = self.files.ends();
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { files: Arc::clone(&self.files) }
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.writer.write(Write::Vote(*vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.writer.write(Write::Committed(committed)).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.files.committed())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encoded = entries.into_iter().map(Encoded::new).collect::<io::Result<Vec<_>>>()?;
        self.writer.write(Write::Append(encoded, callback)).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.writer.write(Write::TruncateAfter(last)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.writer.write(Write::Purge(upto)).await
    }
}

/// Reads entries, from memory if they are recent.
#[derive(Clone)]
pub(crate) struct LogReader {
    files: Arc<LogFiles>,
}

impl LogReader {
    async fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let bounds = self.files.bounds();
        let range = range.start.max(bounds.start)..range.end.min(bounds.end);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(entries) = self.files.cached(range.clone(), max_bytes) {
            return Ok(entries);
        }
        let shared = Arc::clone(&self.files);
        let read = ottla_host::blocking(move || shared.read_disk(range, max_bytes));
        read.await.map_err(io::Error::other)?
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend,
    {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start..end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, APPEND_BYTES).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.files.vote())
    }
}
