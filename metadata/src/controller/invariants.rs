//! What must hold after every decision, asserted in release too: a wrong
//! record would be replayed by every node, for ever. Costs as much as the
//! decision did: partitions that were touched, and all of them only where a
//! broker came or left.

use crate::image::{Image, Partition};
use crate::records::MetadataRecord;
use ottla_proto::{NodeId, PartitionId, TopicId};

/// # Panics
/// If the records break an invariant.
pub(super) fn check(before: &Image, after: &Image, records: &[MetadataRecord]) {
    assert_eq!(after.offset.0, before.offset.0 + records.len() as u64, "one offset per record");
    for record in records {
        match record {
            MetadataRecord::PartitionCreated(r) => check_partition(before, after, r.partition),
            MetadataRecord::PartitionChanged(r) => check_partition(before, after, r.partition),
            MetadataRecord::BrokerRegistered(r) => {
                let earlier = before.brokers.get(&r.node_id);
                assert!(earlier.is_none_or(|b| b.epoch <= r.epoch), "broker epochs never go back");
                check_broker(after, r.node_id);
            }
            MetadataRecord::BrokerFenced(r) => check_broker(after, r.node_id),
            MetadataRecord::BrokerShutdownStarted(r) => check_broker(after, r.node_id),
            MetadataRecord::ReplicasOffline(r) => check_broker(after, r.node_id),
            MetadataRecord::SnapshotEnded(_) => panic!("a snapshot's end is never decided"),
            MetadataRecord::BrokerUnfenced(r) => check_broker(after, r.node_id),
            MetadataRecord::TopicConfigChanged(r) => check_topic(after, r.id),
            MetadataRecord::ConfigChanged(_) => {
                for (id, topic) in &after.topics {
                    let options = |image: &Image| image.topics.get(id).map(|t| t.config.clone());
                    if options(before).is_some_and(|before| before != topic.config) {
                        check_topic(after, *id);
                    }
                }
            }
            MetadataRecord::TopicCreated(r) => check_count(after, r.id),
            MetadataRecord::TopicGrown(r) => check_count(after, r.id),
            MetadataRecord::FeatureLevelFinalised(r) => {
                assert!(before.feature_level < r.level, "feature levels only rise");
            }
            MetadataRecord::ProducerIdsAllocated(r) => {
                assert!(before.next_producer_id < r.next_producer_id, "no id is given twice");
            }
            MetadataRecord::TopicDeleted(_)
            | MetadataRecord::RequestCarriedOut(_)
            | MetadataRecord::BrokerDraining(_)
            // That nothing is left on the broker is a condition of the replay.
            | MetadataRecord::BrokerUnregistered(_)
            | MetadataRecord::DirectoryRetired(_)
            | MetadataRecord::VoterDirectoryRecorded(_) => {}
        }
    }
}

fn check_partition(before: &Image, after: &Image, id: PartitionId) {
    let Some(partition) = after.partitions.get(&id) else { return };
    if let Some(earlier) = before.partitions.get(&id) {
        assert!(partition.partition_epoch > earlier.partition_epoch, "{id}: {partition:?}");
        assert!(partition.leader_epoch >= earlier.leader_epoch, "{id}: {partition:?}");
        assert!(
            partition.leader == earlier.leader || partition.leader_epoch > earlier.leader_epoch,
            "{id}: another leader in the same epoch: {earlier:?}, {partition:?}"
        );
    }
    if let Some(moving) = &partition.reassignment {
        let complete = moving.to.iter().all(|node| partition.isr.contains(node));
        assert!(
            !complete || partition.recovering,
            "{id}: complete, and still under way: {partition:?}"
        );
    }
    if let Err(problem) = partition.check() {
        panic!("{id}: {problem}");
    }
    check_candidates(after, id, partition);
}

/// After a broker came or left: it is nowhere it must not be, and nowhere
/// missing.
fn check_broker(after: &Image, node: NodeId) {
    for (&id, partition) in &after.partitions {
        if partition.isr.contains(&node) || partition.elr.contains(&node) {
            check_candidates(after, id, partition);
        }
    }
}

/// A topic has the partitions it says.
fn check_count(after: &Image, id: TopicId) {
    let topic = &after.topics[&id];
    let there = after.partitions_of(id).count();
    assert_eq!(there, topic.partitions as usize, "partitions of `{}`", topic.name);
}

fn check_topic(after: &Image, topic: TopicId) {
    for (id, partition) in after.partitions_of(topic) {
        check_candidates(after, id, partition);
    }
}

/// Members of an ISR can serve, or the only one leads, on its way out; a leader
/// that is fenced or offline leads nothing; while somebody who has everything can
/// serve, somebody leads; and nobody is eligible beside an ISR that can commit
/// without it.
fn check_candidates(after: &Image, id: PartitionId, partition: &Partition) {
    let Partition { isr, elr, leader, .. } = partition;
    for &member in isr {
        // An image of an older release may have a last member that is away.
        assert!(
            isr.len() == 1 || after.can_serve(member, id),
            "{id}: node {member} in the ISR, unable to serve and not the last: {partition:?}"
        );
    }
    let alive = |node: &NodeId| after.brokers.get(node).is_some_and(|broker| !broker.fenced);
    assert!(
        leader.is_none_or(|node| alive(&node) && !after.is_offline(node, id)),
        "{id}: the leader is fenced or offline: {partition:?}"
    );
    let complete = if isr.is_empty() { elr } else { isr };
    assert!(
        leader.is_some() || !complete.iter().any(|&node| after.can_serve(node, id)),
        "{id}: nobody leads, though somebody could: {partition:?}"
    );
    let can_commit = after.effective_min_isr(id).is_some_and(|min| isr.len() >= min);
    assert!(
        !can_commit || (elr.is_empty() && partition.last_known_elr.is_empty()),
        "{id}: eligible beside an ISR that can commit: {partition:?}"
    );
}
