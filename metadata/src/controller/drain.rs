//! Nodes that are being emptied, so that they can leave.
//!
//! That a node is drained is a fact. While it holds, the node is given no replica,
//! and whoever is the controller moves those it has elsewhere, a few at a time, at
//! every tick: by reassignments like any other (`reassign`), which outlive their
//! controller. The mark stays when nothing is left, until the node is removed or the
//! drain cancelled.
//!
//! A replica's place in the assignment goes to one other node, so that the rest,
//! their order, and what leads by preference stay as they are.

use super::draft::Draft;
use super::members::unknown;
use super::placement::{Candidate, replacement};
use super::reassign::{Assignment, move_one};
use super::{Reply, topics};
use crate::image::{Image, Partition};
use crate::records::BrokerDraining;
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, NodeId, PartitionId};
use std::collections::BTreeMap;

/// Moves of drained nodes that are under way at the same time, in the whole cluster.
/// Each copies a whole log beside what the cluster is there for.
pub const MAX_DRAIN_MOVES: usize = 20;

pub(super) fn begin(draft: &mut Draft, node_id: NodeId) -> Result<Reply, ApiError> {
    let image = draft.image();
    if !image.brokers.contains_key(&node_id) {
        return Err(unknown(node_id));
    }
    let changed = !image.draining.contains(&node_id);
    if changed {
        check_room(image, node_id)?;
        draft.push(BrokerDraining { node_id, draining: true });
    }
    Ok(reply(draft.image(), node_id, changed, 0))
}

/// The mark goes, and what is on its way goes back. A move whose new copy is needed by
/// now goes on.
pub(super) fn cancel(draft: &mut Draft, node_id: NodeId) -> Result<Reply, ApiError> {
    let image = draft.image();
    if !image.brokers.contains_key(&node_id) {
        return Err(unknown(node_id));
    }
    let changed = image.draining.contains(&node_id);
    let mut taken_back = 0;
    if changed {
        draft.push(BrokerDraining { node_id, draining: false });
        let leaving = |partition: &Partition| partition.removing().contains(&node_id);
        for (id, partition) in partitions_where(draft.image(), leaving) {
            taken_back += usize::from(move_one(draft, id, &Assignment::back(&partition)));
        }
    }
    Ok(reply(draft.image(), node_id, changed, taken_back))
}

pub(super) fn repeated(image: &Image, node_id: NodeId) -> Reply {
    reply(image, node_id, true, 0)
}

fn reply(image: &Image, node_id: NodeId, changed: bool, taken_back: usize) -> Reply {
    let hosts = |partition: &&std::sync::Arc<Partition>| partition.replicas.contains(&node_id);
    let replicas = image.partitions.values().filter(hosts).count();
    Reply::Drain { changed, replicas, taken_back }
}

/// Whether anything is to be done by and by.
pub(super) fn is_needed(image: &Image) -> bool {
    !image.draining.is_empty()
}

/// Begins as many moves as may be under way. Those that cannot go on (nobody leads the
/// partition, or the node it goes to is away) hold up no others; one that goes to a
/// node that is drained itself by now goes elsewhere.
pub(super) fn go_on(draft: &mut Draft) -> Reply {
    let image = draft.image();
    let draining = image.draining.clone();
    let mut loads = Loads::of(image);
    let moving = |partition: &Partition| {
        partition.leader.is_some()
            && partition.removing().iter().any(|node| draining.contains(node))
            && partition.adding().iter().all(|node| image.is_active(*node))
    };
    let under_way = image.partitions.values().filter(|partition| moving(partition)).count();
    let mut free = MAX_DRAIN_MOVES.saturating_sub(under_way);
    let to_go = |partition: &Partition| {
        partition.leader.is_some() && partition.target().iter().any(|node| draining.contains(node))
    };
    let waiting = if free == 0 { Vec::new() } else { partitions_where(image, to_go) };
    for (id, partition) in waiting {
        if free == 0 {
            break;
        }
        let Some(to) = without(draft.image(), &draining, id, &partition, &loads) else { continue };
        if move_one(draft, id, &Assignment::on_the_way(&partition, &to)) {
            loads.moved(partition.target(), &to);
            free -= 1;
        }
    }
    Reply::Done
}

fn partitions_where(
    image: &Image,
    chosen: impl Fn(&Partition) -> bool,
) -> Vec<(PartitionId, Partition)> {
    let all = image.partitions.iter().filter(|(_, partition)| chosen(partition));
    all.map(|(id, partition)| (*id, Partition::clone(partition))).collect()
}

/// The assignment with other nodes in the places of those that are drained; `None`
/// while there is no node to take one of them.
fn without(
    image: &Image,
    draining: &imbl::OrdSet<NodeId>,
    id: PartitionId,
    partition: &Partition,
    loads: &Loads,
) -> Option<Vec<NodeId>> {
    let mut to = partition.target().to_vec();
    let can_take =
        |candidate: &Candidate| candidate.active && !image.is_offline(candidate.node, id);
    for place in 0..to.len() {
        if !draining.contains(&to[place]) {
            continue;
        }
        let kept: Vec<NodeId> = to.iter().copied().filter(|node| *node != to[place]).collect();
        let candidates: Vec<Candidate> =
            topics::candidates(image).into_iter().filter(can_take).collect();
        let racks = |node: NodeId| image.brokers.get(&node).and_then(|broker| broker.rack.clone());
        let kept: Vec<_> = kept.into_iter().map(|node| (node, racks(node))).collect();
        to[place] = replacement(&candidates, &kept, |node| loads.on(node))?;
    }
    Some(to)
}

/// How many replicas each node has, or will have once its moves are complete.
struct Loads(BTreeMap<NodeId, usize>);

impl Loads {
    fn of(image: &Image) -> Self {
        let mut loads = Self(BTreeMap::new());
        for partition in image.partitions.values() {
            loads.moved(&[], partition.target());
        }
        loads
    }

    fn on(&self, node: NodeId) -> usize {
        self.0.get(&node).copied().unwrap_or(0)
    }

    fn moved(&mut self, from: &[NodeId], to: &[NodeId]) {
        for node in from {
            if let Some(load) = self.0.get_mut(node) {
                *load = load.saturating_sub(1);
            }
        }
        for node in to {
            *self.0.entry(*node).or_default() += 1;
        }
    }
}

/// Every partition of the node needs as many others as it has replicas. Nodes that are
/// away for a moment count, as they do where topics are created; those that are drained
/// themselves do not.
fn check_room(image: &Image, node_id: NodeId) -> Result<(), ApiError> {
    let others = topics::candidates(image);
    let others: Vec<NodeId> =
        others.into_iter().map(|other| other.node).filter(|other| *other != node_id).collect();
    let lacks_room = |partition: &Partition| {
        partition.target().contains(&node_id) && partition.target().len() > others.len()
    };
    let Some((id, partition)) = image.partitions.iter().find(|(_, p)| lacks_room(p)) else {
        return Ok(());
    };
    let topic = image.topics.get(&id.topic).map_or_else(String::new, |topic| topic.name.clone());
    let message = format!(
        "node {node_id} cannot be drained: the partitions of topic `{topic}` have {} replicas, \
         and without it there would be {} nodes that take any: add a node first",
        partition.target().len(),
        others.len()
    );
    let error = ApiError::new(ErrorReason::InvalidReplicationFactor, message);
    Err(error.with("topic", topic).with("nodes", others.len()))
}
