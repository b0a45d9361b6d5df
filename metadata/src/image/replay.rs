//! Replay: the one way in which an image changes.
//!
//! Replay checks that a record makes sense where it stands. It never panics:
//! a record that does not is a damaged log or another release's mistake, and
//! the node must stop rather than go on with an image of its own.

use super::{Broker, CarriedOut, Image, Partition, Topic};
use crate::records::{
    BrokerDraining, BrokerRegistered, BrokerUnregistered, DirectoryRetired, FeatureLevelFinalised,
    MetadataRecord, PartitionChanged, PartitionCreated, ProducerIdsAllocated, RequestCarriedOut,
    SnapshotEnded, TopicCreated, TopicDeleted, TopicGrown,
};
use ottla_proto::{BrokerEpoch, MetadataOffset, NodeId, PartitionId, RequestId};
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
            MetadataRecord::BrokerDraining(r) => self.replay_draining(*r),
            MetadataRecord::BrokerUnregistered(r) => self.replay_unregistration(*r),
            MetadataRecord::ReplicasOffline(r) => self.replay_offline(r),
            MetadataRecord::TopicCreated(r) => self.replay_topic(r),
            MetadataRecord::TopicConfigChanged(r) => self.replay_config(r),
            MetadataRecord::ConfigChanged(r) => self.replay_settings(r),
            MetadataRecord::TopicGrown(r) => self.replay_growth(*r),
            MetadataRecord::TopicDeleted(r) => self.replay_deletion(*r),
            MetadataRecord::PartitionCreated(r) => self.replay_partition(r),
            MetadataRecord::PartitionChanged(r) => self.replay_change(r),
            MetadataRecord::VoterDirectoryRecorded(r) => {
                self.voter_directories.insert(r.node_id, r.directory);
                Ok(())
            }
            MetadataRecord::DirectoryRetired(r) => self.replay_retirement(*r),
            MetadataRecord::RequestCarriedOut(r) => self.replay_request(r),
            MetadataRecord::ProducerIdsAllocated(r) => self.replay_producer_ids(*r),
            MetadataRecord::FeatureLevelFinalised(r) => self.replay_level(*r),
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
            if r.epoch > known.epoch {
                // Another process, which has looked at its disks anew.
                self.offline_replicas.remove(&r.node_id);
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
            levels: r.levels,
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

    fn replay_unregistration(&mut self, r: BrokerUnregistered) -> Result<(), String> {
        let BrokerUnregistered { node_id, epoch } = r;
        if self.brokers.get(&node_id).is_none_or(|broker| broker.epoch != epoch) {
            return Err(format!("broker {node_id} has no registration {epoch}"));
        }
        let hosts = |partition: &Arc<Partition>| partition.replicas.contains(&node_id);
        if let Some((id, _)) = self.partitions.iter().find(|(_, partition)| hosts(partition)) {
            return Err(format!("broker {node_id} was removed and has a replica of {id}"));
        }
        self.brokers.remove(&node_id);
        self.offline_replicas.remove(&node_id);
        self.draining.remove(&node_id);
        Ok(())
    }

    fn replay_draining(&mut self, r: BrokerDraining) -> Result<(), String> {
        let BrokerDraining { node_id, draining } = r;
        if !self.brokers.contains_key(&node_id) {
            return Err(format!("unknown broker {node_id}"));
        }
        if self.draining.contains(&node_id) == draining {
            return Err(format!("broker {node_id}: draining is {draining} already"));
        }
        if draining {
            self.draining.insert(node_id);
        } else {
            self.draining.remove(&node_id);
        }
        Ok(())
    }

    fn replay_retirement(&mut self, r: DirectoryRetired) -> Result<(), String> {
        if self.retired_directories.contains_key(&r.directory) {
            return Err(format!("directory {} is retired already", r.directory));
        }
        // In a snapshot the record of it is gone.
        if self.voter_directories.get(&r.node_id) == Some(&r.directory) {
            self.voter_directories.remove(&r.node_id);
        }
        self.retired_directories.insert(r.directory, r.node_id);
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
            config: r.config.with_defaults(&self.topic_defaults()),
        };
        self.topic_ids.insert(r.name.clone(), r.id);
        self.topics.insert(r.id, Arc::new(topic));
        Ok(())
    }

    fn replay_growth(&mut self, r: TopicGrown) -> Result<(), String> {
        let known = self.topics.get(&r.id).ok_or_else(|| format!("unknown topic {}", r.id))?;
        if r.partitions <= known.partitions {
            let (name, has) = (&known.name, known.partitions);
            return Err(format!("`{name}` grew from {has} partitions to {}", r.partitions));
        }
        let topic = Topic { partitions: r.partitions, ..Topic::clone(known) };
        self.topics.insert(r.id, Arc::new(topic));
        Ok(())
    }

    fn replay_deletion(&mut self, r: TopicDeleted) -> Result<(), String> {
        let topic = self.topics.remove(&r.id).ok_or_else(|| format!("unknown topic {}", r.id))?;
        self.topic_ids.remove(&topic.name);
        self.forget_offline(r.id);
        for index in 0..topic.partitions {
            self.partitions.remove(&PartitionId { topic: r.id, index });
        }
        Ok(())
    }

    fn replay_request(&mut self, r: &RequestCarriedOut) -> Result<(), String> {
        if self.requests.contains_key(&r.id) {
            return Err(format!("request {} was carried out before", r.id));
        }
        let unknown = |id: &&RequestId| !self.requests.contains_key(*id);
        if let Some(id) = r.forgotten.iter().find(unknown) {
            return Err(format!("request {id} is forgotten already"));
        }
        for id in &r.forgotten {
            self.requests.remove(id);
        }
        let done =
            CarriedOut { what: r.what.clone(), topic: r.topic, added: r.added, at_ms: r.at_ms };
        self.requests.insert(r.id, Arc::new(done));
        Ok(())
    }

    fn replay_producer_ids(&mut self, r: ProducerIdsAllocated) -> Result<(), String> {
        if r.next_producer_id <= self.next_producer_id {
            let (taken, next) = (self.next_producer_id, r.next_producer_id);
            return Err(format!("producer ids up to {next}, of which {taken} are taken"));
        }
        self.next_producer_id = r.next_producer_id;
        Ok(())
    }

    fn replay_level(&mut self, r: FeatureLevelFinalised) -> Result<(), String> {
        if r.level <= self.feature_level {
            return Err(format!("feature level {} after {}", r.level, self.feature_level));
        }
        self.feature_level = r.level;
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
            reassignment: r.reassignment.clone(),
            isr: r.isr.clone(),
            elr: r.elr.clone(),
            last_known_elr: r.last_known_elr.clone(),
            last_leader: r.last_leader,
            recovering: r.recovering,
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
        let replicas = r.replicas.as_ref().unwrap_or(&known.replicas);
        let gone: Vec<NodeId> =
            known.replicas.iter().copied().filter(|node| !replicas.contains(node)).collect();
        if !gone.is_empty() && r.leader.is_none() {
            return Err(format!("{gone:?} left partition {id} without a new leader epoch"));
        }
        let partition = Partition {
            replicas: replicas.clone(),
            reassignment: match &r.reassignment {
                Some(change) => change.clone().into(),
                None => known.reassignment.clone(),
            },
            isr: r.isr.clone().unwrap_or_else(|| known.isr.clone()),
            elr: r.elr.clone().unwrap_or_else(|| known.elr.clone()),
            last_known_elr: r
                .last_known_elr
                .clone()
                .unwrap_or_else(|| known.last_known_elr.clone()),
            last_leader: r.last_leader.map_or(known.last_leader, Into::into),
            recovering: r.recovering.unwrap_or(known.recovering),
            leader: r.leader.map_or(known.leader, Into::into),
            leader_epoch: r.leader_epoch,
            partition_epoch: r.partition_epoch,
        };
        partition.check().map_err(|problem| format!("partition {id}: {problem}"))?;
        self.partitions.insert(id, Arc::new(partition));
        for node in gone {
            self.forget_offline_replica(node, id);
        }
        Ok(())
    }
}

impl Partition {
    /// What must hold of a partition by itself, whatever its brokers do.
    pub(crate) fn check(&self) -> Result<(), String> {
        let replicas = distinct("replicas", &self.replicas)?;
        let isr = distinct("ISR", &self.isr)?;
        let elr = distinct("ELR", &self.elr)?;
        let last = distinct("last known ELR", &self.last_known_elr)?;
        if let Some(moving) = &self.reassignment {
            let (from, to) = (distinct("origin", &moving.from)?, distinct("target", &moving.to)?);
            if from.is_empty() || to.is_empty() || from == to || moving.replicas() != self.replicas
            {
                return Err(format!("{moving:?} with the replicas {:?}", self.replicas));
            }
        }
        for (what, nodes) in [("ISR", &isr), ("ELR", &elr), ("last known ELR", &last)] {
            if !nodes.is_subset(&replicas) {
                return Err(format!("{what} {nodes:?} outside the replicas {:?}", self.replicas));
            }
        }
        if let Some(node) = isr.intersection(&elr).chain(last.intersection(&(&isr | &elr))).next() {
            return Err(format!("node {node} in two of ISR, ELR and last known ELR"));
        }
        if let Some(leader) = self.leader.filter(|leader| !isr.contains(leader)) {
            return Err(format!("leader {leader} outside the ISR {:?}", self.isr));
        }
        if let Some(last) = self.last_leader
            && (!isr.is_empty() || !replicas.contains(&last))
        {
            return Err(format!("a last leader {last} beside the ISR {:?}", self.isr));
        }
        if self.recovering && isr.len() > 1 {
            return Err(format!("a recovering leader with the ISR {:?}", self.isr));
        }
        Ok(())
    }
}

fn distinct(what: &str, nodes: &[NodeId]) -> Result<BTreeSet<NodeId>, String> {
    let set: BTreeSet<NodeId> = nodes.iter().copied().collect();
    if set.len() == nodes.len() {
        Ok(set)
    } else {
        Err(format!("a node twice in the {what} {nodes:?}"))
    }
}
