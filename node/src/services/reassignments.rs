//! The reassignments under way, as this node knows them: from the metadata, and from
//! its own partitions how far the copies are.

use super::topic::Topics;
use ottla_metadata::image::{Image, Partition, Topic};
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, NodeId, PartitionId, v1};
use std::sync::Arc;

impl Topics {
    /// Of one topic, or of all.
    pub(super) async fn reassignments(
        &self,
        image: &Image,
        topic: Option<&str>,
    ) -> Result<Vec<v1::Reassignment>, ApiError> {
        let topics: Vec<&Arc<Topic>> = match topic {
            None => image.topics.values().collect(),
            Some(name) => vec![image.topic_by_name(name).ok_or_else(|| {
                ApiError::new(ErrorReason::UnknownTopic, format!("there is no topic `{name}`"))
            })?],
        };
        let mut found = Vec::new();
        for topic in topics {
            for (id, partition) in image.partitions_of(topic.id) {
                found.extend(self.reassignment(topic, id, partition).await);
            }
        }
        Ok(found)
    }

    async fn reassignment(
        &self,
        topic: &Topic,
        id: PartitionId,
        partition: &Partition,
    ) -> Option<v1::Reassignment> {
        let moving = partition.reassignment.as_ref()?;
        let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
        let leads = partition.leader == Some(self.context.node_id);
        let limit = self.replicas.reassignment_limit();
        Some(v1::Reassignment {
            limit_bytes_per_second: (leads && limit > 0).then_some(limit),
            topic: topic.name.clone(),
            partition: id.index,
            from: ids(&moving.from),
            to: ids(&moving.to),
            isr: ids(&partition.isr),
            leader_id: partition.leader.map(|leader| leader.0),
            progress: self.progress(id, &partition.adding()).await,
        })
    }

    /// Empty where this node does not lead.
    async fn progress(&self, id: PartitionId, adding: &[NodeId]) -> Vec<v1::ReplicaProgress> {
        let Some((leader, followers)) = self.replicas.followers(id).await else {
            return Vec::new();
        };
        let progress = |node: &NodeId| v1::ReplicaProgress {
            node_id: node.0,
            log_end_offset: followers
                .iter()
                .find(|(follower, _)| follower == node)
                .and_then(|(_, end)| *end),
            leader_start_offset: leader.log_start,
            leader_end_offset: leader.log_end,
        };
        adding.iter().filter(|node| **node != self.context.node_id).map(progress).collect()
    }
}
