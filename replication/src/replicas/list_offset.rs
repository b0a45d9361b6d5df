//! Offsets by position, by time, and how old what stands at an offset is.

use super::Replicas;
use crate::api::{ListedOffset, OffsetPosition};
use crate::core::ReplicaStatus;
use ottla_commitlog::{Log, LogError};
use ottla_proto::{ApiError, Offset};
use tokio::time::Instant;

impl Replicas {
    /// Looks up an offset.
    ///
    /// # Errors
    /// As [`produce`](Self::produce) for finding the partition;
    /// `OFFSET_NOT_AVAILABLE` while a new leader does not yet know how far the
    /// log is committed, after waiting for it until the deadline.
    pub async fn list_offset(
        &self,
        topic: &str,
        partition: u32,
        position: OffsetPosition,
        deadline: Instant,
    ) -> Result<ListedOffset, ApiError> {
        let (target, mut status) = self.leading(topic, partition, deadline).await?;
        if position == OffsetPosition::Earliest {
            let (offset, leader_epoch) = (status.log_start, status.leader_epoch);
            let (timestamp_ms, high_watermark) = (None, None);
            return Ok(ListedOffset { offset, timestamp_ms, high_watermark, leader_epoch });
        }
        if !status.watermark_is_current {
            status = self.current_watermark(&target, &status, deadline).await?;
        }
        let up_to = status.high_watermark;
        let look = move |log: &Log| match position {
            OffsetPosition::Earliest | OffsetPosition::Latest => Ok(None),
            OffsetPosition::Timestamp(timestamp) => log.offset_for_timestamp(timestamp, up_to),
            OffsetPosition::Offset(from) => timestamp_from(log, from, up_to),
        };
        if position == OffsetPosition::Latest {
            return Ok(listed(None, &status));
        }
        match self.read(&target, look).await? {
            Some(found) => Ok(listed(found, &status)),
            None => Err(self.env.not_leader(target.id)),
        }
    }
}

/// Of what was deleted, the first record that is left.
fn timestamp_from(
    log: &Log,
    from: Offset,
    up_to: Offset,
) -> Result<Option<(Offset, i64)>, LogError> {
    loop {
        let from = from.max(log.bounds().start);
        if from >= up_to {
            return Ok(None);
        }
        match log.timestamp_from(from, up_to) {
            // Records were deleted since the start was looked up.
            Err(LogError::OutOfRange { start, .. }) if start > from => {}
            found => return found,
        }
    }
}

fn listed(found: Option<(Offset, i64)>, status: &ReplicaStatus) -> ListedOffset {
    ListedOffset {
        offset: found.map_or(status.high_watermark, |(offset, _)| offset),
        timestamp_ms: found.map(|(_, timestamp)| timestamp),
        high_watermark: Some(status.high_watermark),
        leader_epoch: status.leader_epoch,
    }
}
