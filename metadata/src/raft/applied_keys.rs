//! Where in sled each part of the image is, and what has to be written there when
//! the image changes. Every value is a metadata record.

use crate::image::{Delta, Image};
use crate::records::{ConfigResource, MetadataRecord};
use imbl::ordmap::DiffItem;
use ottla_proto::{DirectoryId, NodeId, PartitionId, RequestId, TopicId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Key prefixes, in the order in which their records must be replayed.
const VOTER: u8 = 0;
const BROKER: u8 = 1;
const TOPIC: u8 = 2;
const PARTITION: u8 = 3;
const OFFLINE: u8 = 4;
const RETIRED: u8 = 5;
const LEVEL: u8 = 6;
const REQUEST: u8 = 7;
const DRAINING: u8 = 8;
const SETTINGS: u8 = 9;
const PRODUCER_IDS: u8 = 10;

fn broker_key(node: NodeId) -> Vec<u8> {
    [&[BROKER], &node.0.to_be_bytes()[..]].concat()
}

fn voter_key(node: NodeId) -> Vec<u8> {
    [&[VOTER], &node.0.to_be_bytes()[..]].concat()
}

fn retired_key(directory: DirectoryId) -> Vec<u8> {
    [&[RETIRED], &directory.0.as_bytes()[..]].concat()
}

fn draining_key(node: NodeId) -> Vec<u8> {
    [&[DRAINING], &node.0.to_be_bytes()[..]].concat()
}

fn request_key(id: RequestId) -> Vec<u8> {
    [&[REQUEST], &id.0.as_bytes()[..]].concat()
}

fn topic_key(topic: TopicId) -> Vec<u8> {
    [&[TOPIC], &topic.0.as_bytes()[..]].concat()
}

fn partition_key(id: PartitionId) -> Vec<u8> {
    [&[PARTITION], &id.topic.0.as_bytes()[..], &id.index.to_be_bytes()[..]].concat()
}

fn offline_key(node: NodeId) -> Vec<u8> {
    [&[OFFLINE], &node.0.to_be_bytes()[..]].concat()
}

fn settings_key(resource: ConfigResource) -> Vec<u8> {
    // No node has the number 0.
    let node = match resource {
        ConfigResource::Cluster => 0,
        ConfigResource::Node(node) => node.0,
    };
    [&[SETTINGS], &node.to_be_bytes()[..]].concat()
}

/// Under which key a record of `Image::to_records` is kept; `None` for the end
/// mark, whose content is in the head.
fn key_of(record: &MetadataRecord) -> Option<Vec<u8>> {
    match record {
        MetadataRecord::BrokerRegistered(record) => Some(broker_key(record.node_id)),
        MetadataRecord::VoterDirectoryRecorded(record) => Some(voter_key(record.node_id)),
        MetadataRecord::TopicCreated(record) => Some(topic_key(record.id)),
        MetadataRecord::PartitionCreated(record) => Some(partition_key(record.partition)),
        MetadataRecord::ReplicasOffline(record) => Some(offline_key(record.node_id)),
        MetadataRecord::DirectoryRetired(record) => Some(retired_key(record.directory)),
        MetadataRecord::ConfigChanged(record) => Some(settings_key(record.resource)),
        MetadataRecord::FeatureLevelFinalised(_) => Some(vec![LEVEL]),
        MetadataRecord::ProducerIdsAllocated(_) => Some(vec![PRODUCER_IDS]),
        MetadataRecord::BrokerDraining(record) => Some(draining_key(record.node_id)),
        MetadataRecord::RequestCarriedOut(record) => Some(request_key(record.id)),
        // The end mark, and what is never in a snapshot.
        MetadataRecord::SnapshotEnded(_)
        | MetadataRecord::BrokerFenced(_)
        | MetadataRecord::BrokerUnfenced(_)
        | MetadataRecord::BrokerShutdownStarted(_)
        | MetadataRecord::BrokerUnregistered(_)
        | MetadataRecord::TopicConfigChanged(_)
        | MetadataRecord::TopicGrown(_)
        | MetadataRecord::TopicDeleted(_)
        | MetadataRecord::PartitionChanged(_) => None,
    }
}

/// What has to be written to get from one image to the other, by key; `None`
/// removes.
pub(super) fn changes(before: &Image, after: &Image) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    let delta = Delta::between(before, after);
    let mut changed = Image::default();
    let mut writes = BTreeMap::new();
    for change in delta.brokers {
        match change.after {
            Some(broker) => drop(changed.brokers.insert(change.key, broker)),
            None => drop(writes.insert(broker_key(change.key), None)),
        }
    }
    for change in delta.topics {
        match change.after {
            Some(topic) => drop(changed.topics.insert(change.key, topic)),
            None => drop(writes.insert(topic_key(change.key), None)),
        }
    }
    for change in delta.partitions {
        match change.after {
            Some(partition) => drop(changed.partitions.insert(change.key, partition)),
            None => drop(writes.insert(partition_key(change.key), None)),
        }
    }
    for change in delta.offline_replicas {
        match change.after {
            Some(offline) => {
                // Its record names the registration.
                if let Some(broker) = after.brokers.get(&change.key) {
                    changed.brokers.insert(change.key, Arc::clone(broker));
                }
                changed.offline_replicas.insert(change.key, offline);
            }
            None => drop(writes.insert(offline_key(change.key), None)),
        }
    }
    for change in delta.settings {
        match change.after {
            Some(settings) => drop(changed.settings.insert(change.key, settings)),
            None => drop(writes.insert(settings_key(change.key), None)),
        }
    }
    for change in before.voter_directories.diff(&after.voter_directories) {
        match change {
            DiffItem::Add(&node, &directory)
            | DiffItem::Update { new: (&node, &directory), .. } => {
                changed.voter_directories.insert(node, directory);
            }
            DiffItem::Remove(&node, _) => drop(writes.insert(voter_key(node), None)),
        }
    }
    for change in before.retired_directories.diff(&after.retired_directories) {
        match change {
            DiffItem::Add(&directory, &node)
            | DiffItem::Update { new: (&directory, &node), .. } => {
                changed.retired_directories.insert(directory, node);
            }
            DiffItem::Remove(&directory, _) => {
                drop(writes.insert(retired_key(directory), None));
            }
        }
    }
    for change in before.requests.diff(&after.requests) {
        match change {
            DiffItem::Add(&id, done) | DiffItem::Update { new: (&id, done), .. } => {
                changed.requests.insert(id, Arc::clone(done));
            }
            DiffItem::Remove(&id, _) => drop(writes.insert(request_key(id), None)),
        }
    }
    for node in after.draining.iter().filter(|node| !before.draining.contains(*node)) {
        // Its record makes sense beside the registration only.
        if let Some(broker) = after.brokers.get(node) {
            changed.brokers.insert(*node, Arc::clone(broker));
        }
        changed.draining.insert(*node);
    }
    for node in before.draining.iter().filter(|node| !after.draining.contains(*node)) {
        writes.insert(draining_key(*node), None);
    }
    // They only rise.
    changed.next_producer_id = after.next_producer_id;
    changed.feature_level = after.feature_level;
    for record in changed.to_records() {
        if let Some(key) = key_of(&record) {
            writes.insert(key, Some(record.encode()));
        }
    }
    writes
}
