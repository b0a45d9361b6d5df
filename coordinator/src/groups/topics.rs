//! What groups have to know of topics.

use ottla_metadata::image::Image;
use ottla_proto::{PartitionId, TopicId};

/// Topics, as of some moment.
pub trait Topics {
    /// The topic of this name.
    fn by_name(&self, name: &str) -> Option<TopicId>;

    /// Every topic that a pattern may match: all but the internal ones.
    fn public(&self) -> Vec<(&str, TopicId)>;

    /// How many partitions it has; 0 if there is no such topic.
    fn partitions(&self, id: TopicId) -> u32;

    /// Whether the partition has a replica on a node in this rack.
    fn is_in_rack(&self, id: PartitionId, rack: &str) -> bool;
}

impl Topics for Image {
    fn by_name(&self, name: &str) -> Option<TopicId> {
        self.topic_ids.get(name).copied()
    }

    fn public(&self) -> Vec<(&str, TopicId)> {
        let public = |(name, _): &(&String, &TopicId)| {
            !name.starts_with(ottla_metadata::controller::INTERNAL_TOPIC_PREFIX)
        };
        self.topic_ids.iter().filter(public).map(|(name, id)| (name.as_str(), *id)).collect()
    }

    fn partitions(&self, id: TopicId) -> u32 {
        self.topics.get(&id).map_or(0, |topic| topic.partitions)
    }

    fn is_in_rack(&self, id: PartitionId, rack: &str) -> bool {
        let Some(partition) = self.partitions.get(&id) else { return false };
        let rack_of = |node| self.brokers.get(node).and_then(|broker| broker.rack.as_deref());
        partition.replicas.iter().any(|node| rack_of(node) == Some(rack))
    }
}
