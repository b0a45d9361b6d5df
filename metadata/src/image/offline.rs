//! Replicas whose disk failed: how they come and go in an image.

use super::Image;
use crate::records::ReplicasOffline;
use imbl::OrdSet;
use ottla_proto::{NodeId, PartitionId, TopicId};
use std::sync::Arc;

impl Image {
    pub(super) fn replay_offline(&mut self, r: &ReplicasOffline) -> Result<(), String> {
        let known = self.brokers.get(&r.node_id);
        if known.is_none_or(|broker| broker.epoch != r.epoch) {
            return Err(format!("broker {} has no registration {}", r.node_id, r.epoch));
        }
        let mut offline = self
            .offline_replicas
            .get(&r.node_id)
            .map_or_else(OrdSet::new, |known| OrdSet::clone(known));
        for id in &r.partitions {
            let partition =
                self.partitions.get(id).ok_or_else(|| format!("unknown partition {id}"))?;
            if !partition.replicas.contains(&r.node_id) {
                return Err(format!("broker {} has no replica of {id}", r.node_id));
            }
            offline.insert(*id);
        }
        if !offline.is_empty() {
            self.offline_replicas.insert(r.node_id, Arc::new(offline));
        }
        Ok(())
    }

    /// Deleted partitions are nobody's trouble any more.
    pub(super) fn forget_offline(&mut self, topic: TopicId) {
        let of_topic = PartitionId { topic, index: 0 }..=PartitionId { topic, index: u32::MAX };
        let concerned: Vec<NodeId> = self
            .offline_replicas
            .iter()
            .filter(|(_, offline)| offline.range(of_topic.clone()).next().is_some())
            .map(|(node, _)| *node)
            .collect();
        for node in concerned {
            let offline = &self.offline_replicas[&node];
            let rest: OrdSet<PartitionId> =
                offline.iter().filter(|id| id.topic != topic).copied().collect();
            if rest.is_empty() {
                self.offline_replicas.remove(&node);
            } else {
                self.offline_replicas.insert(node, Arc::new(rest));
            }
        }
    }

    /// What is no replica any more is nobody's trouble either.
    pub(super) fn forget_offline_replica(&mut self, node: NodeId, id: PartitionId) {
        let Some(known) = self.offline_replicas.get(&node) else { return };
        let rest = known.without(&id);
        if rest.is_empty() {
            self.offline_replicas.remove(&node);
        } else {
            self.offline_replicas.insert(node, Arc::new(rest));
        }
    }
}
