//! What must hold of any image, any record and any step, said once more and
//! independently of the controller's own assertions.

use crate::image::{Change, Delta, Image, Partition};
use crate::records::{ConfigResource, MetadataRecord, PartitionChanged};
use imbl::OrdMap;
use ottla_proto::{NodeId, PartitionId};
use std::sync::Arc;

/// Nodes that are being emptied are given nothing.
pub(super) fn check_drained(before: &Image, record: &MetadataRecord) {
    let (id, replicas) = match record {
        MetadataRecord::PartitionCreated(r) => (r.partition, Some(&r.replicas)),
        MetadataRecord::PartitionChanged(r) => (r.partition, r.replicas.as_ref()),
        _ => return,
    };
    let had = before.partitions.get(&id).map(|partition| partition.replicas.clone());
    for node in replicas.into_iter().flatten().filter(|node| before.draining.contains(*node)) {
        assert!(had.as_ref().is_some_and(|had| had.contains(node)), "{id} came to {node}");
    }
}

/// The invariants of the whole image.
pub(super) fn check_image(image: &Image) {
    for (id, partition) in &image.partitions {
        check_partition(image, *id, partition);
    }
    for (node, offline) in &image.offline_replicas {
        assert!(!offline.is_empty());
        for id in offline.iter() {
            assert!(image.partitions[id].replicas.contains(node), "{id} is not on {node}");
        }
    }
    for topic in image.topics.values() {
        assert_eq!(image.topic_ids.get(&topic.name), Some(&topic.id));
        assert_eq!(image.partitions_of(topic.id).count(), topic.partitions as usize);
        assert_eq!(topic.config, topic.config.with_defaults(&image.topic_defaults()));
    }
    assert_eq!(image.topic_ids.len(), image.topics.len());
    for directory in image.voter_directories.values() {
        assert!(!image.retired_directories.contains_key(directory), "{directory} is retired");
    }
    for (resource, settings) in &image.settings {
        assert!(!settings.is_empty(), "{resource}");
        if let ConfigResource::Node(node) = resource {
            assert!(image.brokers.contains_key(node), "{resource} has left its options behind");
        }
    }
    for broker in image.brokers.values() {
        let retired = image.retired_directories.contains_key(&broker.directory);
        assert!(broker.fenced || !retired, "{broker:?} serves from a directory given up");
        assert!(broker.epoch.0 <= image.offset.0, "an epoch that was not reached yet");
    }
}

fn check_partition(image: &Image, id: PartitionId, partition: &Partition) {
    let Partition { replicas, isr, elr, last_known_elr: known, leader, .. } = partition;
    let topic = image.topics.get(&id.topic).unwrap_or_else(|| panic!("{id} without a topic"));
    let mut listed: Vec<NodeId> = [isr, elr, known].into_iter().flatten().copied().collect();
    assert!(listed.iter().all(|node| replicas.contains(node)), "{id}: {partition:?}");
    listed.sort_unstable();
    listed.dedup();
    assert_eq!(listed.len(), isr.len() + elr.len() + known.len(), "{id}: {partition:?}");
    let alone = |node: &NodeId| *isr == [*node] && *leader == Some(*node);
    for node in isr {
        assert!(image.can_serve(*node, id) || alone(node), "{id}: {node} cannot serve in {isr:?}");
    }
    let min = topic.config.effective_min_isr(partition.replication_factor());
    if let Some(moving) = &partition.reassignment {
        assert!(moving.adding().chain(moving.removing()).next().is_some(), "{id}: {moving:?}");
        let complete = moving.to.iter().all(|node| isr.contains(node));
        assert!(!complete || partition.recovering, "{id}: {partition:?}");
        assert!(moving.from.iter().chain(&moving.to).all(|node| replicas.contains(node)));
        assert_eq!(moving.to[..], replicas[..moving.to.len()], "{id}: {partition:?}");
    }
    if isr.len() >= min {
        assert!(elr.is_empty() && known.is_empty(), "{id}: {partition:?}");
    }
    match leader {
        Some(node) => {
            assert!(isr.contains(node), "{id}: {node} leads outside of {isr:?}");
            assert!(!image.brokers[node].fenced, "{id}: {node} leads and is fenced");
            assert!(!image.is_offline(*node, id), "{id}: {node} leads and lost its disk");
            assert!(partition.last_leader.is_none(), "{id}: {partition:?}");
        }
        None => {
            assert!(isr.is_empty(), "{id}: {isr:?} could lead");
            let able = |node: &NodeId| image.can_serve(*node, id);
            assert!(!elr.iter().any(able), "{id}: {elr:?} could lead");
            let last = partition.last_leader.filter(|_| elr.is_empty());
            assert!(!last.as_ref().is_some_and(able), "{id}: {last:?} could lead");
            let unclean = topic.config.unclean_leader_election_enable;
            assert!(!unclean || !partition.origin().iter().any(able), "{id}: somebody may lead");
        }
    }
}

/// Without being called recovering only a member of the ISR, or an eligible
/// replica if it is empty, is ever elected; nobody joins an ISR unless a leader
/// proposed it or it leads; nobody becomes eligible but from the ISR.
pub(super) fn check_record(image: &Image, record: &MetadataRecord, may_grow: bool) {
    let MetadataRecord::PartitionChanged(change) = record else { return };
    let before = &image.partitions[&change.partition];
    let isr = change.isr.as_ref().unwrap_or(&before.isr);
    let leader = change.leader.and_then(Option::<NodeId>::from);
    let grown = |node: &NodeId| !before.isr.contains(node) && leader != Some(*node);
    assert!(may_grow || !isr.iter().any(grown), "{before:?} {change:?}");
    if let Some(leader) = leader {
        let complete = before.isr.contains(&leader) || before.elr.contains(&leader);
        let lossy = change.recovering == Some(true) || before.recovering;
        assert!(complete || lossy || may_grow, "{before:?} {change:?}");
    }
    if let Some(replicas) = &change.replicas {
        check_move(before, change, replicas, isr, may_grow);
    }
    for node in change.elr.iter().flatten() {
        assert!(before.isr.contains(node) || before.elr.contains(node), "{before:?} {change:?}");
    }
}

/// Nobody leaves the assignment without a new leader epoch, and never one that is
/// needed.
fn check_move(
    before: &Partition,
    change: &PartitionChanged,
    replicas: &[NodeId],
    isr: &[NodeId],
    may_grow: bool,
) {
    let gone = |node: &NodeId| !replicas.contains(node);
    if before.replicas.iter().any(gone) {
        assert!(change.leader.is_some(), "{before:?} {change:?}");
    }
    let complete = || before.isr.iter().chain(&before.elr);
    if complete().any(gone) {
        let kept = complete().any(|node| !gone(node));
        assert!(kept || (may_grow && !isr.is_empty()), "{before:?} {change:?}");
        assert!(change.recovering != Some(true), "{before:?} {change:?}");
    }
    // Who comes is in the ISR only once it was proposed.
    let new = |node: &NodeId| !before.replicas.contains(node);
    assert!(!isr.iter().any(new), "{before:?} {change:?}");
}

pub(super) fn check_progress(before: &Image, after: &Image) {
    for (id, old) in &before.partitions {
        let Some(new) = after.partitions.get(id) else { continue };
        assert!(new.partition_epoch >= old.partition_epoch && new.leader_epoch >= old.leader_epoch);
        assert_eq!(new.partition_epoch == old.partition_epoch, new == old, "{id}");
        assert!(new.leader == old.leader || new.leader_epoch > old.leader_epoch, "{id}");
    }
    for (node, old) in &before.brokers {
        let Some(new) = after.brokers.get(node) else {
            let retired = after.retired_directories.contains_key(&old.directory);
            assert!(retired, "{old:?} is gone and could come back");
            continue;
        };
        assert!(new.epoch >= old.epoch);
        let offline = |image: &Image| image.offline_replicas.get(node).map(Arc::clone);
        if let Some(lost) = offline(before).filter(|_| new.epoch == old.epoch) {
            let still = offline(after).unwrap_or_default();
            let gone = |id: &PartitionId| {
                // It left the assignment in a new leader epoch, and may be back.
                let epoch = before.partitions[id].leader_epoch;
                after.partitions.get(id).is_none_or(|now| now.leader_epoch > epoch)
            };
            assert!(lost.iter().all(|id| still.contains(id) || gone(id)), "{lost:?} {still:?}");
        }
        assert!(new.epoch > old.epoch || new.incarnation == old.incarnation, "{old:?} {new:?}");
    }
}

pub(super) fn check_delta(before: &Image, after: &Image) {
    let delta = Delta::between(before, after);
    assert_eq!(applied(&before.brokers, &delta.brokers), after.brokers);
    assert_eq!(applied(&before.topics, &delta.topics), after.topics);
    assert_eq!(applied(&before.settings, &delta.settings), after.settings);
    let offline = applied(&before.offline_replicas, &delta.offline_replicas);
    assert_eq!(offline, after.offline_replicas);
    assert_eq!(applied(&before.partitions, &delta.partitions), after.partitions);
}

fn applied<K: Ord + Copy, V: Eq + std::fmt::Debug>(
    map: &OrdMap<K, Arc<V>>,
    changes: &[Change<K, V>],
) -> OrdMap<K, Arc<V>> {
    let mut map = map.clone();
    for change in changes {
        assert_ne!(change.before, change.after);
        assert_eq!(map.get(&change.key), change.before.as_ref());
        match &change.after {
            Some(value) => map.insert(change.key, Arc::clone(value)),
            None => map.remove(&change.key),
        };
    }
    map
}
