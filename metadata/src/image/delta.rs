//! What differs between two images. Computed from the images themselves, so a
//! reader that skipped some in between loses nothing.

use super::{Broker, Image, Partition, Settings, Topic};
use crate::records::ConfigResource;
use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use ottla_proto::{NodeId, PartitionId, TopicId};
use std::sync::Arc;

/// One entry that differs: added (`before` absent), removed (`after` absent)
/// or changed (both there and unequal).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<K, V> {
    /// Of what.
    pub key: K,
    /// As it was in the earlier image.
    pub before: Option<Arc<V>>,
    /// As it is in the later image.
    pub after: Option<Arc<V>>,
}

/// All differences between two images, each list by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Brokers that differ.
    pub brokers: Vec<Change<NodeId, Broker>>,
    /// Topics that differ. A name that was deleted and created again shows up
    /// as one topic removed and another added: ids are never used twice.
    pub topics: Vec<Change<TopicId, Topic>>,
    /// Partitions that differ, those of added and removed topics included.
    pub partitions: Vec<Change<PartitionId, Partition>>,
    /// Brokers whose offline replicas differ.
    pub offline_replicas: Vec<Change<NodeId, OrdSet<PartitionId>>>,
    /// Cluster or nodes with other options. Topics whose options in force follow
    /// from the cluster's are among `topics`.
    pub settings: Vec<Change<ConfigResource, Settings>>,
}

impl Delta {
    /// What has to be done to get from one image to the other. The cost grows
    /// with what changed, not with the size of the images, as long as the
    /// later one grew out of the earlier one.
    #[must_use]
    pub fn between(before: &Image, after: &Image) -> Self {
        Self {
            brokers: changes(&before.brokers, &after.brokers),
            topics: changes(&before.topics, &after.topics),
            partitions: changes(&before.partitions, &after.partitions),
            offline_replicas: changes(&before.offline_replicas, &after.offline_replicas),
            settings: changes(&before.settings, &after.settings),
        }
    }

    /// Nothing that a broker acts upon has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.brokers.is_empty()
            && self.topics.is_empty()
            && self.partitions.is_empty()
            && self.offline_replicas.is_empty()
            && self.settings.is_empty()
    }
}

fn changes<K: Ord + Copy, V: Eq>(
    before: &OrdMap<K, Arc<V>>,
    after: &OrdMap<K, Arc<V>>,
) -> Vec<Change<K, V>> {
    before
        .diff(after)
        .map(|item| match item {
            DiffItem::Add(&key, value) => {
                Change { key, before: None, after: Some(Arc::clone(value)) }
            }
            DiffItem::Update { old: (&key, old), new: (_, new) } => {
                Change { key, before: Some(Arc::clone(old)), after: Some(Arc::clone(new)) }
            }
            DiffItem::Remove(&key, value) => {
                Change { key, before: Some(Arc::clone(value)), after: None }
            }
        })
        .collect()
}
