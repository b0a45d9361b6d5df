//! A node wants producer ids to give away.
//!
//! It gets a block that nobody had before, so that it can answer producers without
//! asking again; what it does not give away before it stops is lost.

use super::Reply;
use super::brokers::current_broker;
use super::draft::Draft;
use crate::records::ProducerIdsAllocated;
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, BrokerEpoch, NodeId};

/// Producer ids in a block: Kafka's figure. One entry of the metadata log for a
/// thousand producers, and enough blocks for as many restarts as there can be.
pub const PRODUCER_ID_BLOCK: i64 = 1000;

pub(super) fn allocate(
    draft: &mut Draft,
    node: NodeId,
    epoch: BrokerEpoch,
) -> Result<Reply, ApiError> {
    current_broker(draft.image(), node, epoch)?;
    let first = draft.image().next_producer_id;
    let Some(next_producer_id) = first.checked_add(PRODUCER_ID_BLOCK) else {
        return Err(ApiError::new(ErrorReason::Internal, "all producer ids are given away"));
    };
    draft.push(ProducerIdsAllocated { next_producer_id });
    Ok(Reply::ProducerIds { ids: first..next_producer_id })
}
