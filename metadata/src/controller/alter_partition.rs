//! A leader proposes another ISR for partitions it leads.
//!
//! The checks stand in the order of the protocol, because the leader acts on
//! the first that fails: of all errors only INELIGIBLE_REPLICA lets it go back
//! to the committed ISR.

use super::brokers::current_broker;
use super::draft::Draft;
use super::partitions::{Wish, confirmed, settle};
use super::{AlterPartition, PartitionAlteration, PartitionOutcome, PartitionState, Reply};
use crate::image::{Image, Partition};
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, NodeId, PartitionId};
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) fn alter(draft: &mut Draft, request: &AlterPartition) -> Result<Reply, ApiError> {
    current_broker(draft.image(), request.node_id, request.broker_epoch)?;
    let outcomes = request.partitions.iter().map(|proposal| PartitionOutcome {
        partition: proposal.partition,
        result: alter_one(draft, request.node_id, proposal),
    });
    Ok(Reply::Altered(outcomes.collect()))
}

fn alter_one(
    draft: &mut Draft,
    caller: NodeId,
    proposal: &PartitionAlteration,
) -> Result<PartitionState, ApiError> {
    let partition = find(draft.image(), proposal)?;
    let name = name(draft.image(), proposal.partition);
    check_versions(&name, caller, proposal, &partition)?;
    check_members(&name, caller, proposal, &partition)?;
    check_eligible(&name, draft.image(), caller, proposal)?;
    let wanted: Vec<NodeId> = proposal.new_isr.iter().map(|&(node, _)| node).collect();
    let wish = Wish { isr: &wanted, recovered: proposal.recovered, ..Wish::none(&partition) };
    // One that changes nothing takes a version all the same: a leader that says again
    // what is so takes back what it said before, and that may still be on its way.
    let change = settle(draft.image(), proposal.partition, &partition, &wish)
        .unwrap_or_else(|| confirmed(proposal.partition, &partition));
    draft.push(change);
    let after = find(draft.image(), proposal)?;
    if after.leader != Some(caller) {
        // The leader is on its way out and now there is somebody to follow it, or
        // this completes a reassignment away from it.
        let message = format!("the ISR of {name} has changed, and its leader with it");
        return Err(ApiError::new(ErrorReason::NewLeaderElected, message)
            .with("leader_epoch", after.leader_epoch)
            .with("partition_epoch", after.partition_epoch));
    }
    Ok(state(draft.image(), proposal.partition, &after))
}

fn find(image: &Image, proposal: &PartitionAlteration) -> Result<Arc<Partition>, ApiError> {
    let id = proposal.partition;
    if !image.topics.contains_key(&id.topic) {
        let message = format!("there is no topic with id {}", id.topic);
        return Err(ApiError::new(ErrorReason::UnknownTopic, message));
    }
    image.partitions.get(&id).map(Arc::clone).ok_or_else(|| {
        let message = format!("there is no partition {}", name(image, id));
        ApiError::new(ErrorReason::UnknownPartition, message)
    })
}

/// For people: the topic's name and the partition's index.
fn name(image: &Image, id: PartitionId) -> String {
    match image.topics.get(&id.topic) {
        Some(topic) => format!("{}-{}", topic.name, id.index),
        None => id.to_string(),
    }
}

fn check_versions(
    name: &str,
    caller: NodeId,
    proposal: &PartitionAlteration,
    partition: &Partition,
) -> Result<(), ApiError> {
    let error = |reason, message| {
        Err(ApiError::new(reason, message)
            .with("leader_epoch", partition.leader_epoch)
            .with("partition_epoch", partition.partition_epoch))
    };
    if proposal.leader_epoch > partition.leader_epoch
        || proposal.partition_epoch > partition.partition_epoch
    {
        let message = format!("the caller's epochs of {name} are ahead of this controller's");
        return error(ErrorReason::NotController, message);
    }
    if proposal.leader_epoch < partition.leader_epoch {
        let message = format!(
            "leader epoch of {name} is {}, not {}",
            partition.leader_epoch, proposal.leader_epoch
        );
        return error(ErrorReason::FencedLeaderEpoch, message);
    }
    if partition.leader != Some(caller) {
        return error(ErrorReason::InvalidRequest, format!("node {caller} does not lead {name}"));
    }
    if proposal.partition_epoch < partition.partition_epoch {
        let message = format!(
            "partition epoch of {name} is {}, not {}",
            partition.partition_epoch, proposal.partition_epoch
        );
        return error(ErrorReason::InvalidUpdateVersion, message);
    }
    Ok(())
}

fn check_members(
    name: &str,
    caller: NodeId,
    proposal: &PartitionAlteration,
    partition: &Partition,
) -> Result<(), ApiError> {
    let members: BTreeSet<NodeId> = proposal.new_isr.iter().map(|&(node, _)| node).collect();
    let problem = if members.len() != proposal.new_isr.len() {
        "with a node twice".to_owned()
    } else if !members.contains(&caller) {
        format!("without its leader {caller}")
    } else if let Some(node) = members.iter().find(|node| !partition.replicas.contains(node)) {
        format!("with node {node}, which is no replica")
    } else if partition.recovering && !proposal.recovered && members.len() > 1 {
        "with more than its leader, which is recovering".to_owned()
    } else {
        return Ok(());
    };
    let message = format!("an ISR of {name} {problem}");
    Err(ApiError::new(ErrorReason::InvalidRequest, message))
}

/// A member must be registered, with the epoch under which it caught up, and
/// active (KIP-841, KIP-903): a process that restarted since may have lost
/// what it had. The caller itself may be on its way out: it proposes who can
/// take over from it.
fn check_eligible(
    name: &str,
    image: &Image,
    caller: NodeId,
    proposal: &PartitionAlteration,
) -> Result<(), ApiError> {
    for &(node, epoch) in &proposal.new_isr {
        let problem = match image.brokers.get(&node) {
            None => "is not registered".to_owned(),
            Some(broker) if broker.shutting_down && node != caller => "is shutting down".to_owned(),
            Some(broker) if broker.fenced => "is fenced".to_owned(),
            Some(broker) if broker.epoch != epoch => {
                format!("has broker epoch {}, not {epoch}", broker.epoch)
            }
            Some(_) if image.is_offline(node, proposal.partition) => "lost its disk".to_owned(),
            Some(_) => continue,
        };
        let message = format!("node {node} cannot be in the ISR of {name}: it {problem}");
        return Err(ApiError::new(ErrorReason::IneligibleReplica, message).with("node_id", node));
    }
    Ok(())
}

fn state(image: &Image, id: PartitionId, partition: &Partition) -> PartitionState {
    PartitionState {
        min_isr: image.effective_min_isr(id).unwrap_or(partition.replication_factor()),
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        isr: partition.isr.clone(),
    }
}
