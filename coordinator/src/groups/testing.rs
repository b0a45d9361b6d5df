//! What groups are tried with, here and in the tests of those who talk to them.

use super::Topics;
use ottla_proto::{PartitionId, TopicId};
use std::collections::BTreeMap;

/// Topics that a test makes up: by name their ids, and how many partitions they have. No
/// node is in any rack.
#[derive(Clone, Debug, Default)]
pub struct FakeTopics(pub BTreeMap<String, (TopicId, u32)>);

impl Topics for FakeTopics {
    fn by_name(&self, name: &str) -> Option<TopicId> {
        self.0.get(name).map(|(id, _)| *id)
    }

    fn public(&self) -> Vec<(&str, TopicId)> {
        self.0.iter().map(|(name, (id, _))| (name.as_str(), *id)).collect()
    }

    fn partitions(&self, id: TopicId) -> u32 {
        self.0.values().find(|(known, _)| *known == id).map_or(0, |(_, count)| *count)
    }

    fn is_in_rack(&self, _: PartitionId, _: &str) -> bool {
        false
    }
}
