//! How a log lays out its files, what it keeps and for how long.
//!
//! Plain values, changed while the log is open by [`crate::Log::configure`].
//! Names and defaults are Kafka's.
//!
//! Not its job: parsing and bounding what a user writes.

use crate::format::TimestampType;

/// A day, in milliseconds.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// How a log lays out its files, what it keeps and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment that would grow beyond this many bytes is
    /// finished and the next one begun. At most 2^31 - 1; a larger figure means
    /// that.
    pub segment_bytes: u64,
    /// `segment.ms`: a segment whose first record is older than this, by the
    /// timestamps of what is appended, is finished. Milliseconds.
    pub segment_ms: u64,
    /// Bytes of log for one index entry.
    pub index_interval_bytes: u32,
    /// Entries of an offset or time index; a segment with a full one is finished.
    pub max_index_entries: u32,
    /// `message.timestamp.type`: whose clock the records carry.
    pub timestamp_type: TimestampType,
    /// `cleanup.policy`.
    pub cleanup: Cleanup,
    /// `retention.ms`: age of a finished segment's newest record at which the
    /// segment is deleted. `None`: never.
    pub retention_ms: Option<u64>,
    /// `retention.bytes`: the oldest segments are deleted while the rest is still
    /// this large. `None`: no bound.
    pub retention_bytes: Option<u64>,
    /// `delete.retention.ms`: how long compaction keeps a tombstone or a
    /// transaction's marker after it was first cleaned. Milliseconds.
    pub delete_retention_ms: u64,
    /// `min.compaction.lag.ms`: younger records are not compacted. Milliseconds.
    pub min_compaction_lag_ms: u64,
    /// `max.compaction.lag.ms`: older records are compacted whatever the dirty
    /// ratio. `None`: the ratio alone decides.
    pub max_compaction_lag_ms: Option<u64>,
    /// `min.cleanable.dirty.ratio`, in thousandths: share of the log's bytes
    /// that must be uncompacted before compaction is worth it.
    pub min_dirty_permille: u16,
    /// `flush.ms`: longest time that an append may stay unsynced when nobody
    /// asks for a sync. `None`: as long as the system likes.
    pub flush_ms: Option<u64>,
    /// `flush.messages`: records that may stay unsynced when nobody asks for a
    /// sync. `None`: any number.
    pub flush_messages: Option<u64>,
}

/// What happens to old records. Neither: they are kept for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleanup {
    /// Retention by time and size applies.
    pub delete: bool,
    /// Only the newest record of a key is kept.
    pub compact: bool,
}

impl LogConfig {
    /// Age at which the segment being written is finished: where records are to be
    /// compacted by some age, they must not stay in it for longer. (KIP-354)
    pub(crate) fn longest_segment_ms(&self) -> u64 {
        let compaction = self.max_compaction_lag_ms.filter(|_| self.cleanup.compact);
        compaction.map_or(self.segment_ms, |lag| lag.min(self.segment_ms))
    }
}

impl Default for LogConfig {
    /// Kafka's figures.
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            index_interval_bytes: 4096,
            max_index_entries: 10 * 1024 * 1024 / 8,
            timestamp_type: TimestampType::CreateTime,
            cleanup: Cleanup { delete: true, compact: false },
            retention_ms: Some(7 * DAY_MS),
            retention_bytes: None,
            delete_retention_ms: DAY_MS,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: None,
            min_dirty_permille: 500,
            flush_ms: None,
            flush_messages: None,
        }
    }
}
