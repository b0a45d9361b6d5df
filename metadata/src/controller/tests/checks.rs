//! What must hold of any image, any record and any step, said once more and
//! independently of the controller's own assertions.

use crate::image::{Change, Delta, Image, Partition};
use crate::records::MetadataRecord;
use imbl::OrdMap;
use ottla_proto::NodeId;
use std::sync::Arc;

/// The invariants of the whole image.
pub(super) fn check_image(image: &Image) {
    for (id, Partition { replicas, isr, leader, .. }) in
        image.partitions.iter().map(|(id, partition)| (id, &**partition))
    {
        assert!(image.topics.contains_key(&id.topic), "{id} without a topic");
        assert!(!isr.is_empty(), "{id}: nobody has the data");
        assert!(isr.iter().all(|node| replicas.contains(node)), "{id}: {isr:?} of {replicas:?}");
        let away = isr.iter().filter(|&&node| !image.is_active(node)).count();
        assert!(away == 0 || isr.len() == 1, "{id}: inactive members in {isr:?}");
        match leader {
            Some(node) => {
                assert!(isr.contains(node), "{id}: {node} leads outside of {isr:?}");
                assert!(!image.brokers[node].fenced, "{id}: {node} leads and is fenced");
            }
            None => assert_eq!(away, 1, "{id}: {isr:?} could lead"),
        }
    }
    for topic in image.topics.values() {
        assert_eq!(image.topic_ids.get(&topic.name), Some(&topic.id));
        assert_eq!(image.partitions_of(topic.id).count(), topic.partitions as usize);
    }
    assert_eq!(image.topic_ids.len(), image.topics.len());
    for broker in image.brokers.values() {
        assert!(broker.epoch.0 <= image.offset.0, "an epoch that was not reached yet");
    }
}

/// Only a member of the ISR is ever elected, and nobody joins an ISR unless a
/// leader proposed it.
pub(super) fn check_record(image: &Image, record: &MetadataRecord, may_grow: bool) {
    let MetadataRecord::PartitionChanged(change) = record else { return };
    let before = &image.partitions[&change.partition];
    let isr = change.isr.as_ref().unwrap_or(&before.isr);
    assert!(may_grow || isr.iter().all(|node| before.isr.contains(node)), "{change:?}");
    if let Some(Some(leader)) = change.leader.map(Option::<NodeId>::from) {
        assert!(before.isr.contains(&leader) || may_grow, "{before:?} {change:?}");
    }
}

pub(super) fn check_progress(before: &Image, after: &Image) {
    for (id, old) in &before.partitions {
        let Some(new) = after.partitions.get(id) else { continue };
        assert!(new.partition_epoch >= old.partition_epoch && new.leader_epoch >= old.leader_epoch);
        assert_eq!(new.partition_epoch == old.partition_epoch, new == old, "{id}");
        assert!(new.leader == old.leader || new.leader_epoch > old.leader_epoch, "{id}");
    }
    for (node, old) in &before.brokers {
        let new = &after.brokers[node];
        assert!(new.epoch >= old.epoch);
        assert!(new.epoch > old.epoch || new.incarnation == old.incarnation, "{old:?} {new:?}");
    }
}

pub(super) fn check_delta(before: &Image, after: &Image) {
    let delta = Delta::between(before, after);
    assert_eq!(applied(&before.brokers, &delta.brokers), after.brokers);
    assert_eq!(applied(&before.topics, &delta.topics), after.topics);
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
