//! Replay: the one way in which an image changes.
//!
//! Replay checks that a record makes sense where it stands. It never panics:
//! a record that does not is a damaged log or another release's mistake, and
//! the node must stop rather than go on with an image of its own.

use super::{Broker, Image, Partition, Topic};
use crate::records::{
    BrokerRegistered, MetadataRecord, PartitionChanged, PartitionCreated, SnapshotEnded,
    TopicCreated, TopicDeleted,
};
use ottla_proto::{BrokerEpoch, MetadataOffset, NodeId, PartitionId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A record that makes no sense where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metadata record after offset {offset}: {problem}")]
pub struct ReplayError {
    /// Offset of the image that refused the record.
    pub offset: MetadataOffset,
    /// What is wrong.
    pub problem: String,
}

impl Image {
    /// Applies one record. On an error the image is as before.
    ///
    /// # Errors
    /// A record that contradicts the image: something unknown or already
    /// there, an epoch that is not the next, an ISR that is no part of the
    /// replicas.
    pub fn replay(&mut self, record: &MetadataRecord) -> Result<(), ReplayError> {
        let next = match record {
            MetadataRecord::SnapshotEnded(end) => self.replay_snapshot_end(*end),
            other => self.replay_fact(other).map(|()| MetadataOffset(self.offset.0 + 1)),
        };
        self.offset = next.map_err(|problem| ReplayError { offset: self.offset, problem })?;
        Ok(())
    }

    fn replay_fact(&mut self, record: &MetadataRecord) -> Result<(), String> {
        match record {
            MetadataRecord::BrokerRegistered(r) => self.replay_registration(r),
            MetadataRecord::BrokerFenced(r) => self.change_broker(r.node_id, r.epoch, |broker| {
                let fenced_before = std::mem::replace(&mut broker.fenced, true);
                if fenced_before { Err("already fenced") } else { Ok(()) }
            }),
            MetadataRecord::BrokerUnfenced(r) => self.change_broker(r.node_id, r.epoch, |broker| {
                let fenced_before = std::mem::replace(&mut broker.fenced, false);
                if fenced_before { Ok(()) } else { Err("not fenced") }
            }),
            MetadataRecord::BrokerShutdownStarted(r) => {
                self.change_broker(r.node_id, r.epoch, |broker| {
                    let before = std::mem::replace(&mut broker.shutting_down, true);
                    if before { Err("already shutting down") } else { Ok(()) }
                })
            }
            MetadataRecord::TopicCreated(r) => self.replay_topic(r),
            MetadataRecord::TopicDeleted(r) => self.replay_deletion(*r),
            MetadataRecord::PartitionCreated(r) => self.replay_partition(r),
            MetadataRecord::PartitionChanged(r) => self.replay_change(r),
            MetadataRecord::VoterDirectoryRecorded(r) => {
                self.voter_directories.insert(r.node_id, r.directory);
                Ok(())
            }
            MetadataRecord::SnapshotEnded(_) => unreachable!("handled by the caller"),
        }
    }

    fn replay_snapshot_end(&self, end: SnapshotEnded) -> Result<MetadataOffset, String> {
        // Everything in a snapshot took at least one record of the log.
        if end.offset < self.offset {
            return Err(format!("a snapshot of offset {} has more records than that", end.offset));
        }
        Ok(end.offset)
    }

    fn replay_registration(&mut self, r: &BrokerRegistered) -> Result<(), String> {
        if let Some(known) = self.brokers.get(&r.node_id) {
            let fits = if known.incarnation == r.incarnation {
                r.epoch == known.epoch
            } else {
                r.epoch > known.epoch
            };
            if !fits {
                return Err(format!(
                    "broker {} of epoch {} registered with epoch {}",
                    r.node_id, known.epoch, r.epoch
                ));
            }
        }
        let broker = Broker {
            node_id: r.node_id,
            epoch: r.epoch,
            incarnation: r.incarnation,
            directory: r.directory,
            host: r.host.clone(),
            port: r.port,
            rack: r.rack.clone(),
            fenced: r.fenced,
            shutting_down: r.shutting_down,
        };
        self.brokers.insert(r.node_id, Arc::new(broker));
        Ok(())
    }

    fn change_broker(
        &mut self,
        node: NodeId,
        epoch: BrokerEpoch,
        change: impl FnOnce(&mut Broker) -> Result<(), &'static str>,
    ) -> Result<(), String> {
        let known = self.brokers.get(&node).ok_or_else(|| format!("unknown broker {node}"))?;
        if known.epoch != epoch {
            return Err(format!("broker {node} has epoch {}, the record {epoch}", known.epoch));
        }
        let mut broker = Broker::clone(known);
        change(&mut broker).map_err(|problem| format!("broker {node} is {problem}"))?;
        self.brokers.insert(node, Arc::new(broker));
        Ok(())
    }

    fn replay_topic(&mut self, r: &TopicCreated) -> Result<(), String> {
        if self.topics.contains_key(&r.id) {
            return Err(format!("topic id {} exists already", r.id));
        }
        if self.topic_ids.contains_key(&r.name) {
            return Err(format!("topic name `{}` exists already", r.name));
        }
        if r.partitions == 0 {
            return Err(format!("topic `{}` has no partitions", r.name));
        }
        let topic = Topic {
            id: r.id,
            name: r.name.clone(),
            partitions: r.partitions,
            config: r.config.clone(),
        };
        self.topic_ids.insert(r.name.clone(), r.id);
        self.topics.insert(r.id, Arc::new(topic));
        Ok(())
    }

    fn replay_deletion(&mut self, r: TopicDeleted) -> Result<(), String> {
        let topic = self.topics.remove(&r.id).ok_or_else(|| format!("unknown topic {}", r.id))?;
        self.topic_ids.remove(&topic.name);
        for index in 0..topic.partitions {
            self.partitions.remove(&PartitionId { topic: r.id, index });
        }
        Ok(())
    }

    fn replay_partition(&mut self, r: &PartitionCreated) -> Result<(), String> {
        let id = r.partition;
        let topic = self
            .topics
            .get(&id.topic)
            .ok_or_else(|| format!("partition {id} of an unknown topic"))?;
        if id.index >= topic.partitions {
            return Err(format!("`{}` has {} partitions, not {id}", topic.name, topic.partitions));
        }
        if self.partitions.contains_key(&id) {
            return Err(format!("partition {id} exists already"));
        }
        let partition = Partition {
            replicas: r.replicas.clone(),
            isr: r.isr.clone(),
            leader: r.leader,
            leader_epoch: r.leader_epoch,
            partition_epoch: r.partition_epoch,
        };
        partition.check().map_err(|problem| format!("partition {id}: {problem}"))?;
        self.partitions.insert(id, Arc::new(partition));
        Ok(())
    }

    fn replay_change(&mut self, r: &PartitionChanged) -> Result<(), String> {
        let id = r.partition;
        let known = self.partitions.get(&id).ok_or_else(|| format!("unknown partition {id}"))?;
        let steps = u32::from(r.leader.is_some());
        if Some(r.partition_epoch.0) != known.partition_epoch.0.checked_add(1)
            || Some(r.leader_epoch.0) != known.leader_epoch.0.checked_add(steps)
        {
            return Err(format!(
                "partition {id} went from partition epoch {} and leader epoch {} to {} and {}",
                known.partition_epoch, known.leader_epoch, r.partition_epoch, r.leader_epoch
            ));
        }
        let partition = Partition {
            replicas: known.replicas.clone(),
            isr: r.isr.clone().unwrap_or_else(|| known.isr.clone()),
            leader: r.leader.map_or(known.leader, Into::into),
            leader_epoch: r.leader_epoch,
            partition_epoch: r.partition_epoch,
        };
        partition.check().map_err(|problem| format!("partition {id}: {problem}"))?;
        self.partitions.insert(id, Arc::new(partition));
        Ok(())
    }
}

impl Partition {
    /// What must hold of a partition by itself, whatever its brokers do.
    pub(crate) fn check(&self) -> Result<(), String> {
        let replicas: BTreeSet<NodeId> = self.replicas.iter().copied().collect();
        if replicas.len() != self.replicas.len() {
            return Err(format!("a node twice in the replicas {:?}", self.replicas));
        }
        let isr: BTreeSet<NodeId> = self.isr.iter().copied().collect();
        if isr.len() != self.isr.len() {
            return Err(format!("a node twice in the ISR {:?}", self.isr));
        }
        if isr.is_empty() {
            return Err("an empty ISR".to_owned());
        }
        if !isr.is_subset(&replicas) {
            return Err(format!("ISR {:?} outside the replicas {:?}", self.isr, self.replicas));
        }
        match self.leader {
            Some(leader) if !isr.contains(&leader) => {
                Err(format!("leader {leader} outside the ISR {:?}", self.isr))
            }
            _ => Ok(()),
        }
    }
}
