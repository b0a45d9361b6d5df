//! What stands in a partition, read by who has just become its leader.

use crate::groups::{Fact, GroupOptions, Groups};
use ottla_commitlog::format;
use ottla_metadata::controller::GROUPS_TOPIC;
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{ApiError, LeaderEpoch, Offset, PartitionId};
use ottla_replication::{LocalPartition, Replicas};
use std::time::Duration;
use tokio::sync::watch;

/// Bytes read at once: some ten thousand facts.
const READ_BYTES: usize = 1024 * 1024;

/// Reads everything that was written before `epoch` and in it so far. Waits until all
/// of that is committed: what is not yet may still become so, and must not be missed.
///
/// # Errors
/// The leadership is over, the log cannot be read, or a record is from a newer release.
pub(crate) async fn load(
    replicas: &Replicas,
    id: PartitionId,
    epoch: LeaderEpoch,
    state: &mut watch::Receiver<LocalPartition>,
    options: GroupOptions,
) -> Result<Groups, ApiError> {
    let ended = || ApiError::new(R::NotLeader, "the leadership ended while it was loaded");
    let end = leading(state, epoch).ok_or_else(ended)?.log_end;
    let committed = |now: &LocalPartition| {
        now.leading().is_none_or(|now| {
            now.leader_epoch != epoch || (now.watermark_is_current && now.high_watermark >= end)
        })
    };
    state.wait_for(committed).await.map_err(|_| ended())?;
    let start = leading(state, epoch).ok_or_else(ended)?.log_start;
    let mut groups = Groups::new(options);
    let mut next = start;
    while next < end {
        let fetched =
            replicas.fetch(GROUPS_TOPIC, id.index, next, READ_BYTES, Duration::ZERO).await?;
        next = replay(&mut groups, &fetched.batches, next)?;
    }
    Ok(groups)
}

/// The replica, if it leads in this epoch.
pub(crate) fn leading(
    state: &watch::Receiver<LocalPartition>,
    epoch: LeaderEpoch,
) -> Option<ottla_replication::ReplicaStatus> {
    state.borrow().leading().filter(|status| status.leader_epoch == epoch).copied()
}

/// Returns the offset to go on from.
fn replay(groups: &mut Groups, batches: &bytes::Bytes, from: Offset) -> Result<Offset, ApiError> {
    let unreadable = |what: String| ApiError::new(R::Internal, format!("{GROUPS_TOPIC}: {what}"));
    let mut next = from;
    for found in format::batch_headers(batches) {
        let (header, range) = found.map_err(|error| unreadable(error.to_string()))?;
        next = next.max(header.next_offset());
        if header.is_control() {
            continue;
        }
        for record in format::decode_records(&batches.slice(range)) {
            let record = record.map_err(|error| unreadable(error.to_string()))?;
            if record.offset < from {
                continue;
            }
            let key = record.key.unwrap_or_default();
            let fact = Fact::decode(&key, record.value.as_deref())
                .map_err(|error| unreadable(format!("offset {}: {error}", record.offset)))?;
            groups.replay(&fact);
        }
    }
    if next == from {
        return Err(unreadable(format!("nothing at offset {from}, which is committed")));
    }
    Ok(next)
}
