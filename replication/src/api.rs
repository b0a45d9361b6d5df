//! What callers get back.

use crate::core::RoleKind;
use crate::partition::LocalPartition;
use bytes::Bytes;
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, LeaderEpoch, Offset};
use std::time::Duration;
use tokio::sync::oneshot;

/// A record batch that was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    /// Offset of the first record; absent with acks=0.
    pub base_offset: Option<Offset>,
    /// The leader's log end offset after the append; absent with acks=0.
    pub end_offset: Option<Offset>,
    /// Number of records.
    pub record_count: u32,
    /// The leadership that appended; 0 with acks=0.
    pub leader_epoch: LeaderEpoch,
}

/// A produce request that has its place in the order of its partition.
#[derive(Debug)]
pub struct ProduceTicket {
    pub(crate) answer: oneshot::Receiver<Result<Produced, ApiError>>,
}

impl ProduceTicket {
    /// Waits until what the request's acks asked for has come true, or its
    /// deadline has passed. Dropping the ticket takes nothing back.
    ///
    /// # Errors
    /// `NOT_LEADER`, `NOT_ENOUGH_REPLICAS`, `DISK_FULL`, `PARTITION_OFFLINE`:
    /// nothing was written. `NOT_ENOUGH_REPLICAS_AFTER_APPEND`,
    /// `REQUEST_TIMED_OUT`, `LEADERSHIP_LOST`: it may have been, and may become
    /// committed.
    pub async fn wait(self) -> Result<Produced, ApiError> {
        self.answer.await.unwrap_or_else(|_| {
            let message = "the partition was stopped on this node before it answered";
            Err(ApiError::new(ErrorReason::LeadershipLost, message))
        })
    }
}

/// What is to be read: committed records of a partition from an offset on, at most about
/// `max_bytes` but at least one batch if there is any, waiting up to `wait` for the first.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// Name of the topic.
    pub topic: &'a str,
    /// Partition of it.
    pub partition: u32,
    /// The first record.
    pub offset: Offset,
    /// Bytes.
    pub max_bytes: usize,
    /// Longest wait for records.
    pub wait: Duration,
}

/// Committed records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Whole batches; the first may begin below the offset asked for. Empty if
    /// there was nothing in time.
    pub batches: Bytes,
    /// Records below it are committed.
    pub high_watermark: Offset,
    /// The first offset there is.
    pub log_start: Offset,
    /// The leadership that answered.
    pub leader_epoch: LeaderEpoch,
}

/// Which offset is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetPosition {
    /// The log start offset.
    Earliest,
    /// The high watermark: one past the last committed record.
    Latest,
    /// The first committed record with a timestamp not below this, in
    /// milliseconds since the Unix epoch.
    Timestamp(i64),
    /// The first committed record at or above this offset.
    Offset(Offset),
}

/// The offset found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// For a timestamp or an offset above every record: the high watermark.
    pub offset: Offset,
    /// Timestamp of the record found; by offset, of the first record of its batch.
    pub timestamp_ms: Option<i64>,
    /// Records below it are committed; `None` where it was not waited for.
    pub high_watermark: Option<Offset>,
    /// The leadership that answered.
    pub leader_epoch: LeaderEpoch,
}

/// Bytes of records that a node has sent to followers since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentBytes {
    /// To members of an ISR.
    pub in_sync: u64,
    /// To those that are to come back into one.
    pub catch_up: u64,
    /// To those that a reassignment adds.
    pub reassignment: u64,
}

/// Replicas on this node, counted by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaCounts {
    /// Their logs are being opened.
    pub opening: u32,
    /// They lead, and the leadership has started.
    pub leading: u32,
    /// Of those that lead: an acks=all write would be committed.
    pub accepting: u32,
    /// They follow another node.
    pub following: u32,
    /// Nobody leads, or this node is about to.
    pub leaderless: u32,
    /// Unusable until the node is started again.
    pub offline: u32,
}

impl ReplicaCounts {
    pub(crate) fn add(&mut self, partition: &LocalPartition) {
        let count = match partition {
            LocalPartition::Opening => &mut self.opening,
            LocalPartition::Offline { .. } => &mut self.offline,
            LocalPartition::Running { status, .. } => match status.role {
                RoleKind::Leader => {
                    self.accepting += u32::from(status.can_commit);
                    &mut self.leading
                }
                RoleKind::Follower => &mut self.following,
                RoleKind::NoLeader => &mut self.leaderless,
                RoleKind::Offline => &mut self.offline,
            },
        };
        *count += 1;
    }
}
