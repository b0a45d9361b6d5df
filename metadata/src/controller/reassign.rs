//! Partitions move to other nodes (KIP-455).
//!
//! A reassignment under way is a state of the partition: its replicas are those it
//! is to have and those it is to lose. Its leader copies to the former as to any
//! follower, and takes them into the ISR one by one. Once all of them are in it the
//! rest leaves, in the same record (KAFKA-15665: not before, whatever the number of
//! members). Nothing else has to happen in between, so a reassignment outlives its
//! controller, its leader and its nodes.
//!
//! Cancelling, and beginning another one on top, drop copies that were being made.
//! That is refused where one of them is needed: where fewer complete replicas than
//! `min.insync.replicas` would remain, or nobody who can lead now, or not the one
//! that led last while nobody else is known to have everything.

use super::draft::Draft;
use super::partitions::{Wish, settle};
use super::topics::{check_min_isr, partition_of, unknown_topic};
use super::{CancelReassignment, PlannedTopic, Reassign, Reply};
use crate::image::{Image, Partition, Topic};
use crate::records::{PartitionChanged, Reassignment};
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, NodeId, PartitionId};
use std::collections::BTreeSet;

/// Who is to hold a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) replicas: Vec<NodeId>,
    pub(super) reassignment: Option<Reassignment>,
}

impl Assignment {
    pub(super) fn back(partition: &Partition) -> Self {
        Self { replicas: partition.origin().to_vec(), reassignment: None }
    }

    /// The origin stays, also if a reassignment was under way.
    pub(super) fn on_the_way(partition: &Partition, to: &[NodeId]) -> Self {
        let moving = Reassignment { from: partition.origin().to_vec(), to: to.to_vec() };
        let same_nodes = moving.adding().chain(moving.removing()).next().is_none();
        let (replicas, to) = (moving.replicas(), moving.to.clone());
        if same_nodes {
            Self { replicas: to, reassignment: None }
        } else {
            Self { replicas, reassignment: Some(moving) }
        }
    }
}

/// Ends the reassignment if every replica that is to stay or to come is in the ISR.
/// With these the ISR has all its members, so it is not below any minimum, and nobody
/// is eligible beside it. While the leader may lack records nobody else's are given up.
pub(super) fn complete(partition: &mut Partition) {
    if partition.recovering {
        return;
    }
    let arrived =
        |moving: &mut Reassignment| moving.to.iter().all(|node| partition.isr.contains(node));
    if let Some(moving) = partition.reassignment.take_if(arrived) {
        partition.isr.clone_from(&moving.to);
        partition.replicas = moving.to;
        partition.elr.clear();
        partition.last_known_elr.clear();
    }
}

pub(super) fn begin(draft: &mut Draft, request: &Reassign) -> Result<Reply, ApiError> {
    let topic = find_topic(draft.image(), &request.topic)?;
    let mut seen = BTreeSet::new();
    let mut wanted = Vec::new();
    for (index, to) in &request.partitions {
        let (id, partition) = partition_of(draft.image(), &topic, *index)?;
        let name = format!("{}-{index}", topic.name);
        if !seen.insert(*index) {
            return Err(invalid(format!("{name} is named twice")));
        }
        check_target(draft.image(), &topic, &name, to)?;
        check_not_drained(draft.image(), &partition, &name, to)?;
        wanted.push((id, Assignment::on_the_way(&partition, to)));
    }
    let (planned, changed) = carry_out(draft, &topic, &wanted, request.validate_only)?;
    Ok(Reply::Reassigned { planned, changed })
}

pub(super) fn cancel(draft: &mut Draft, request: &CancelReassignment) -> Result<Reply, ApiError> {
    let topic = find_topic(draft.image(), &request.topic)?;
    for index in &request.partitions {
        partition_of(draft.image(), &topic, *index)?;
    }
    let named =
        |id: PartitionId| request.partitions.is_empty() || request.partitions.contains(&id.index);
    let wanted: Vec<(PartitionId, Assignment)> = draft
        .image()
        .partitions_of(topic.id)
        .filter(|(id, partition)| partition.reassignment.is_some() && named(*id))
        .map(|(id, partition)| (id, Assignment::back(partition)))
        .collect();
    let (planned, cancelled) = carry_out(draft, &topic, &wanted, false)?;
    Ok(Reply::ReassignmentCancelled { planned, cancelled })
}

fn find_topic(image: &Image, name: &str) -> Result<Topic, ApiError> {
    image.topic_by_name(name).map(|topic| Topic::clone(topic)).ok_or_else(|| unknown_topic(name))
}

fn invalid(message: String) -> ApiError {
    ApiError::new(ErrorReason::InvalidReplicaAssignment, message)
}

fn check_target(image: &Image, topic: &Topic, name: &str, to: &[NodeId]) -> Result<(), ApiError> {
    let distinct: BTreeSet<NodeId> = to.iter().copied().collect();
    if to.is_empty() {
        return Err(invalid(format!("{name} needs at least one replica")));
    }
    if distinct.len() != to.len() {
        return Err(invalid(format!("{name} cannot have two replicas on one node")));
    }
    if let Some(node) = to.iter().find(|node| !image.brokers.contains_key(*node)) {
        let known: Vec<String> = image.brokers.keys().map(NodeId::to_string).collect();
        let known = known.join(", ");
        return Err(invalid(format!("there is no node {node} for {name}; there are {known}")));
    }
    check_min_isr(&topic.config, to.len())
}

/// A node that is being emptied gets nothing new.
fn check_not_drained(
    image: &Image,
    partition: &Partition,
    name: &str,
    to: &[NodeId],
) -> Result<(), ApiError> {
    let new = |node: &&NodeId| !partition.replicas.contains(node);
    match to.iter().filter(new).find(|node| image.draining.contains(*node)) {
        None => Ok(()),
        Some(node) => Err(invalid(format!(
            "{name} cannot move to node {node}, which is being drained: `ottla cluster drain \
             {node} --cancel` ends that"
        ))),
    }
}

/// Gives one partition another assignment, unless that changes nothing or would drop
/// a copy that is needed.
pub(super) fn move_one(draft: &mut Draft, id: PartitionId, assignment: &Assignment) -> bool {
    let Some(topic) = draft.image().topics.get(&id.topic).cloned() else { return false };
    let decided = decide(draft.image(), &topic, &[(id, assignment.clone())]);
    let changes = decided.map(|(changes, _)| changes).unwrap_or_default();
    let moves = !changes.is_empty();
    for change in changes {
        draft.push(change);
    }
    moves
}

/// Does all of it, or nothing. Returns the topic after that, and the indexes of the
/// partitions that differ.
fn carry_out(
    draft: &mut Draft,
    topic: &Topic,
    wanted: &[(PartitionId, Assignment)],
    validate_only: bool,
) -> Result<(PlannedTopic, Vec<u32>), ApiError> {
    let (changes, after) = decide(draft.image(), topic, wanted)?;
    let partitions = after.partitions_of(topic.id).map(|(_, p)| Partition::clone(p)).collect();
    let changed = changes.iter().map(|change| change.partition.index).collect();
    if !validate_only {
        for change in changes {
            draft.push(change);
        }
    }
    Ok((PlannedTopic { topic: topic.clone(), partitions }, changed))
}

/// What changes, and the image after that.
fn decide(
    image: &Image,
    topic: &Topic,
    wanted: &[(PartitionId, Assignment)],
) -> Result<(Vec<PartitionChanged>, Image), ApiError> {
    let mut changes = Vec::new();
    for (id, assignment) in wanted {
        let before = &image.partitions[id];
        let wish = Wish { assignment: Some(assignment), ..Wish::none(before) };
        changes.extend(settle(image, *id, before, &wish));
    }
    // Looked at as a whole first: a refusal must leave nothing behind.
    let mut after = image.clone();
    for change in &changes {
        after.replay(&change.clone().into()).expect("decided on this image");
    }
    for change in &changes {
        let id = change.partition;
        check_needed(image, topic, id, &after.partitions[&id])?;
    }
    Ok((changes, after))
}

/// Refuses to drop a copy that is needed.
fn check_needed(
    image: &Image,
    topic: &Topic,
    id: PartitionId,
    after: &Partition,
) -> Result<(), ApiError> {
    let before = &image.partitions[&id];
    let dropped = |node: &NodeId| !after.replicas.contains(node);
    let complete = || before.isr.iter().chain(&before.elr);
    let least = topic.config.effective_min_isr(after.replication_factor());
    let kept = complete().filter(|node| !dropped(node)).count();
    let problem = if complete().any(dropped) && kept < least {
        format!("only {kept} of the {least} complete replicas that it needs would remain")
    } else if before.last_leader.as_ref().is_some_and(dropped) {
        "whoever led it last would be dropped, and nobody else is known to have everything"
            .to_owned()
    } else if (before.leader.is_some() && after.leader.is_none())
        || (after.recovering && !before.recovering)
    {
        "nobody could lead it now without losing records".to_owned()
    } else {
        return Ok(());
    };
    let name = format!("{}-{}", topic.name, id.index);
    Err(invalid(format!("{name} cannot move so at the moment: {problem}")))
}
