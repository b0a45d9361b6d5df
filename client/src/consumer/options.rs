//! How a consumer behaves.

use super::batch::Credit;
use super::types::{ConsumerError, IsolationLevel, OffsetReset};
use std::time::Duration;

/// Bytes read ahead, over all partitions, by default.
const DEFAULT_PREFETCH_BYTES: u64 = 64 * 1024 * 1024;

/// Most of that for one partition: a second of a fast one.
const MAX_PARTITION_BYTES: u64 = 4 * 1024 * 1024;

/// Least of that for one partition, so that a message of a stream is worth sending.
const MIN_PARTITION_BYTES: u64 = 64 * 1024;

/// Records read ahead, over all partitions: what those bytes hold of small records, and
/// some hundred megabytes of what a record takes in memory beside its bytes.
const PREFETCH_RECORDS: u64 = 1024 * 1024;

/// Most and least of them for one partition.
const PARTITION_RECORDS: std::ops::RangeInclusive<u64> = 1024..=64 * 1024;

/// Settings of a [`Consumer`](super::Consumer); see [`ConsumerBuilder`](super::ConsumerBuilder).
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// Where to begin when nothing was committed, or what was is gone.
    pub reset: OffsetReset,
    /// Which records are read.
    pub isolation: IsolationLevel,
    /// How often what was processed is committed; `None`: only the application commits.
    /// Processed is what the application has asked for more after.
    pub auto_commit: Option<Duration>,
    /// Bytes read ahead over all partitions. Each has an equal part, at most 4 MiB and at
    /// least 64 KiB.
    pub prefetch_bytes: u64,
    /// Most records of one batch handed out.
    pub max_batch_records: usize,
    /// A member of a group that asks for no records for so long gives its partitions up
    /// until it asks again. So long may it take to give back one partition, too.
    pub max_poll_interval: Duration,
    /// Name under which a member comes back within its session and has what it had.
    pub instance_id: Option<String>,
    /// Failure domain: reads from followers there, and is preferably given partitions that
    /// have replicas there.
    pub rack: Option<String>,
    /// How partitions are shared, as far as the members agree: `uniform`, `sticky`,
    /// `range`. `None`: as the coordinator likes.
    pub assignor: Option<String>,
    /// For people, in `ottla group describe`.
    pub client_id: String,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            reset: OffsetReset::default(),
            isolation: IsolationLevel::default(),
            auto_commit: Some(Duration::from_secs(1)),
            prefetch_bytes: DEFAULT_PREFETCH_BYTES,
            max_batch_records: 500,
            max_poll_interval: Duration::from_secs(300),
            instance_id: None,
            rack: None,
            assignor: None,
            client_id: String::new(),
        }
    }
}

impl ConsumerOptions {
    pub(super) fn check(&self) -> Result<(), ConsumerError> {
        if self.isolation == IsolationLevel::ReadCommitted {
            let what = "read_committed is not to be had: nodes know no transactions yet";
            return Err(ConsumerError::Invalid(what.to_owned()));
        }
        if self.max_batch_records == 0 {
            return Err(ConsumerError::Invalid("batches of no records".to_owned()));
        }
        Ok(())
    }

    /// What one of so many partitions may be ahead.
    pub(super) fn window(&self, partitions: usize) -> Credit {
        let share = |all: u64| all / (partitions as u64).max(1);
        Credit {
            bytes: share(self.prefetch_bytes).clamp(MIN_PARTITION_BYTES, MAX_PARTITION_BYTES),
            records: share(PREFETCH_RECORDS)
                .clamp(*PARTITION_RECORDS.start(), *PARTITION_RECORDS.end()),
        }
    }
}
