//! The one rule about ISRs and leaders, and the epochs that follow from it.

use super::draft::Draft;
use crate::image::{Image, Partition};
use crate::records::PartitionChanged;
use ottla_proto::{NodeId, PartitionId};

/// Applies the rule to every partition in whose ISR the broker is, after
/// something about the broker changed. One pass over all partitions.
pub(super) fn settle_all_of(draft: &mut Draft, node: NodeId) {
    let changes: Vec<PartitionChanged> = draft
        .image()
        .partitions
        .iter()
        .filter(|(_, partition)| partition.isr.contains(&node))
        .filter_map(|(&id, partition)| settle(draft.image(), id, partition, &partition.isr))
        .collect();
    // Partitions do not depend on each other: deciding all of them on the same
    // image and then writing them down is the same as one by one.
    for change in changes {
        draft.push(change);
    }
}

/// What has to change in a partition for it to have this ISR as far as its
/// members are active, and the leader that goes with it. `None`: nothing.
///
/// The wanted members must be replicas, and at least one.
pub(super) fn settle(
    image: &Image,
    id: PartitionId,
    partition: &Partition,
    wanted: &[NodeId],
) -> Option<PartitionChanged> {
    let isr = eligible_isr(image, partition, wanted);
    let leader = elect(image, partition, &isr);
    changed(id, partition, isr, leader)
}

/// Writes down the differences, with the epochs after them: the partition
/// epoch moves on every change, the leader epoch whenever the leader is set
/// (protocol rule, `PartitionRegistration.merge`). A mere ISR change leaves the
/// leader epoch alone (KAFKA-15021).
pub(super) fn changed(
    id: PartitionId,
    partition: &Partition,
    isr: Vec<NodeId>,
    leader: Option<NodeId>,
) -> Option<PartitionChanged> {
    let isr = (isr != partition.isr).then_some(isr);
    let leader = (leader != partition.leader).then(|| leader.into());
    if isr.is_none() && leader.is_none() {
        return None;
    }
    Some(PartitionChanged {
        partition: id,
        leader_epoch: match leader {
            Some(_) => partition.leader_epoch.next(),
            None => partition.leader_epoch,
        },
        partition_epoch: partition.partition_epoch.next(),
        isr,
        leader,
    })
}

/// The wanted members that are active, in assignment order. If none is, one of
/// them stays: it may hold the only copy of acknowledged records, and nobody
/// outside the ISR is known to hold them.
fn eligible_isr(image: &Image, partition: &Partition, wanted: &[NodeId]) -> Vec<NodeId> {
    let in_order: Vec<NodeId> =
        partition.replicas.iter().copied().filter(|node| wanted.contains(node)).collect();
    assert!(!in_order.is_empty(), "an ISR keeps at least one replica: {partition:?}, {wanted:?}");
    let active: Vec<NodeId> =
        in_order.iter().copied().filter(|&node| image.is_active(node)).collect();
    if !active.is_empty() {
        return active;
    }
    let last = partition.leader.filter(|leader| in_order.contains(leader)).unwrap_or(in_order[0]);
    vec![last]
}

/// A valid leader goes on; else the first replica, in assignment order, that is
/// in the ISR and active; else nobody.
///
/// A leader on its way out goes on as long as it is the last of the ISR: it is
/// still there, and nobody else can serve.
fn elect(image: &Image, partition: &Partition, isr: &[NodeId]) -> Option<NodeId> {
    let goes_on = |leader: &NodeId| {
        isr.contains(leader) && image.brokers.get(leader).is_some_and(|broker| !broker.fenced)
    };
    let can_start = |node: &NodeId| isr.contains(node) && image.is_active(*node);
    partition.leader.filter(goes_on).or_else(|| partition.replicas.iter().copied().find(can_start))
}
