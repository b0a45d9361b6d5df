//! What a consumer hands out, and how it is told what to do.

use crate::{ClientError, Record};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A partition, by the name of its topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: u32,
}

impl TopicPartition {
    /// From its parts.
    pub fn new(topic: impl Into<Arc<str>>, partition: u32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A record, and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// The partition.
    pub partition: TopicPartition,
    /// The record.
    pub record: Record,
}

impl Deref for ConsumedRecord {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

/// Records of one partition, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedBatch {
    /// The partition.
    pub partition: TopicPartition,
    /// At least one.
    pub records: Vec<Record>,
    /// Where reading goes on after them.
    pub next_offset: u64,
    /// Records below it are committed to the log: what is between is the lag.
    pub high_watermark: u64,
}

/// What happens to a consumer beside records.
#[derive(Clone, Debug)]
pub enum ConsumerEvent {
    /// From now on these are read, from where the group is, or where the reset policy says.
    Assigned(Vec<TopicPartition>),
    /// The group gives these to another member: no more of their records is handed out.
    /// They are given back with the next call for records; until then what was processed
    /// can be committed.
    Revoking(Vec<TopicPartition>),
    /// The group has put this member out, and others may read these by now. Their records
    /// will come again, to somebody; offsets cannot be committed any more.
    Lost(Vec<TopicPartition>),
    /// The offset to be read is not in the log any more, or never was, and reading goes on
    /// elsewhere, as the reset policy says.
    Reset {
        /// The partition.
        partition: TopicPartition,
        /// What was to be read.
        from: u64,
        /// Where reading goes on.
        to: u64,
    },
    /// The topic or partition does not exist (any more): it is left out.
    Gone(TopicPartition),
    /// No leader could be reached for some time. Reading goes on as soon as one is.
    Delayed {
        /// The partition.
        partition: TopicPartition,
        /// What stands in the way.
        error: ClientError,
    },
}

/// What comes next.
#[derive(Clone, Debug)]
pub enum Next {
    /// Records.
    Batch(ConsumedBatch),
    /// Something else happened.
    Event(ConsumerEvent),
}

/// Where reading begins when nothing was committed, or what was is not in the log any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OffsetReset {
    /// At the first record that is there.
    #[default]
    Earliest,
    /// Behind the last one. Where a group begins so is committed at once, so that nothing
    /// is skipped when another member goes on; partitions that came after the group are
    /// read from their start.
    Latest,
    /// Nowhere: it is an error.
    Fail,
}

/// Which records are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IsolationLevel {
    /// All that are replicated.
    #[default]
    ReadUncommitted,
    /// Of transactions, only those that were committed. Nodes cannot tell them apart yet,
    /// so a consumer that asks for it is refused.
    ReadCommitted,
}

/// Why a consumer could not do something, by what can be done about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConsumerError {
    /// What was asked for makes no sense, or is not to be had. Nothing was done.
    #[error("{0}")]
    Invalid(String),
    /// With [`OffsetReset::Fail`]: there is no offset to begin at. Seek.
    #[error("nothing was committed for {0}")]
    NoOffset(TopicPartition),
    /// With [`OffsetReset::Fail`]: what was to be read is not in the log. Seek.
    #[error("offset {offset} of {partition} is not in the log: {error}")]
    OutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// What was to be read.
        offset: u64,
        /// What the node said.
        error: ClientError,
    },
    /// A partition cannot be read, and waiting does not help. It is tried again with the
    /// next call.
    #[error("{partition} cannot be read: {error}")]
    Partition {
        /// The partition.
        partition: TopicPartition,
        /// Why.
        error: ClientError,
    },
    /// The group does not take this member, for good.
    #[error("group {group}: {error}")]
    Group {
        /// The group.
        group: String,
        /// Why.
        error: ClientError,
    },
    /// These are not, or no longer, this consumer's. Nothing was committed for them:
    /// whoever has them decides. Their records come again.
    #[error("not assigned to this consumer: {}", listed(.0))]
    NotAssigned(Vec<TopicPartition>),
    /// The group's coordinator was not reached in time, or refused.
    #[error("offsets were not committed: {0}")]
    Commit(ClientError),
    /// A node could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The consumer is closed.
    #[error("the consumer is closed")]
    Closed,
}

impl ConsumerError {
    /// What a node said, or why it could not be asked, if that is what stands behind it.
    #[must_use]
    pub fn client(&self) -> Option<&ClientError> {
        match self {
            Self::OutOfRange { error, .. }
            | Self::Partition { error, .. }
            | Self::Group { error, .. }
            | Self::Commit(error)
            | Self::Client(error) => Some(error),
            Self::Invalid(_) | Self::NoOffset(_) | Self::NotAssigned(_) | Self::Closed => None,
        }
    }
}

fn listed(partitions: &[TopicPartition]) -> String {
    partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
