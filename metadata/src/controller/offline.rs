//! A broker says that the disk under some of its replicas failed.
//!
//! Its process lives and serves others, so it is not fenced. These replicas leave
//! their ISRs, and lead nothing until a new process of
//! the broker has opened the disk again: only then is it known what it holds.

use super::brokers::current_broker;
use super::draft::Draft;
use super::partitions::settle_where;
use super::{Reply, ReportOffline};
use crate::records::ReplicasOffline;
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, PartitionId};
use std::collections::BTreeSet;

/// Most replicas in one report. With the changes that follow they go into one
/// entry of the metadata log.
pub const MAX_OFFLINE_REPLICAS: usize = 1000;

pub(super) fn report(draft: &mut Draft, request: &ReportOffline) -> Result<Reply, ApiError> {
    let ReportOffline { node_id, broker_epoch: epoch, partitions } = request;
    current_broker(draft.image(), *node_id, *epoch)?;
    if partitions.len() > MAX_OFFLINE_REPLICAS {
        let message = format!(
            "a report of {} offline replicas, at most {MAX_OFFLINE_REPLICAS} are taken",
            partitions.len()
        );
        return Err(ApiError::new(ErrorReason::InvalidRequest, message));
    }
    let image = draft.image();
    let news: BTreeSet<PartitionId> = partitions
        .iter()
        .filter(|id| image.partitions.get(*id).is_some_and(|p| p.replicas.contains(node_id)))
        .filter(|id| !image.is_offline(*node_id, **id))
        .copied()
        .collect();
    if news.is_empty() {
        return Ok(Reply::Done);
    }
    let partitions = news.iter().copied().collect();
    draft.push(ReplicasOffline { node_id: *node_id, epoch: *epoch, partitions });
    settle_where(draft, None, |id, _| news.contains(&id));
    Ok(Reply::Done)
}
