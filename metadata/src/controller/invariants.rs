//! What must hold after every decision, asserted in release too: a wrong
//! record would be replayed by every node, for ever. Costs as much as the
//! decision did: partitions that were touched, and all of them only where a
//! broker came or left.

use crate::image::{Image, Partition};
use crate::records::MetadataRecord;
use ottla_proto::{NodeId, PartitionId};

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
            MetadataRecord::SnapshotEnded(_) => panic!("a snapshot's end is never decided"),
            MetadataRecord::BrokerUnfenced(r) => check_broker(after, r.node_id),
            MetadataRecord::TopicCreated(_)
            | MetadataRecord::TopicDeleted(_)
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
    if let Err(problem) = partition.check() {
        panic!("{id}: {problem}");
    }
    for &member in &partition.isr {
        check_member(after, id, partition, member);
    }
}

/// After a broker came or left: it is nowhere it must not be, and nowhere
/// missing.
fn check_broker(after: &Image, node: NodeId) {
    for (&id, partition) in &after.partitions {
        if partition.isr.contains(&node) {
            check_member(after, id, partition, node);
        }
    }
}

/// A member of an ISR is active, or the last one; a fenced one leads nothing;
/// and while one is active, somebody leads.
fn check_member(after: &Image, id: PartitionId, partition: &Partition, member: NodeId) {
    assert!(
        partition.isr.len() == 1 || after.is_active(member),
        "{id}: node {member} in the ISR, not active and not the last: {partition:?}"
    );
    assert!(
        partition.leader != Some(member)
            || after.brokers.get(&member).is_some_and(|broker| !broker.fenced),
        "{id}: node {member} leads and is fenced: {partition:?}"
    );
    assert!(
        partition.leader.is_some() || !after.is_active(member),
        "{id}: nobody leads, though node {member} could: {partition:?}"
    );
}
