//! An image as records: what a snapshot holds.

use super::{Broker, CarriedOut, Image, Partition, ReplayError, Settings, Topic};
use crate::records::{
    BrokerDraining, BrokerRegistered, ConfigChanged, ConfigResource, DirectoryRetired,
    FeatureLevel, FeatureLevelFinalised, MetadataRecord, PartitionCreated, ProducerIdsAllocated,
    ReplicasOffline, RequestCarriedOut, SnapshotEnded, TopicCreated, VoterDirectoryRecorded,
};
use ottla_proto::{PartitionId, RequestId};

impl Image {
    /// Records whose replay on an empty image gives this one, offset included.
    #[must_use]
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        let level = Some(self.feature_level).filter(|level| *level > FeatureLevel::FIRST);
        let level = level.map(|level| FeatureLevelFinalised { level }.into());
        let voters = self
            .voter_directories
            .iter()
            .map(|(&node_id, &directory)| VoterDirectoryRecorded { node_id, directory }.into());
        let retired = self
            .retired_directories
            .iter()
            .map(|(&directory, &node_id)| DirectoryRetired { node_id, directory }.into());
        let brokers = self.brokers.values().map(|broker| registration(broker).into());
        let settings =
            self.settings.iter().map(|(&resource, settings)| setting(resource, settings).into());
        let topics = self.topics.values().map(|topic| creation(topic).into());
        let partitions =
            self.partitions.iter().map(|(&id, partition)| partition_creation(id, partition).into());
        let offline = self.offline_replicas.iter().filter_map(|(node, partitions)| {
            let epoch = self.brokers.get(node)?.epoch;
            let partitions = partitions.iter().copied().collect();
            Some(ReplicasOffline { node_id: *node, epoch, partitions }.into())
        });
        let draining = self.draining.iter();
        let draining = draining.map(|&node_id| BrokerDraining { node_id, draining: true }.into());
        let requests = self.requests.iter().map(|(&id, done)| request(id, done).into());
        let next_producer_id = Some(self.next_producer_id).filter(|next| *next > 0);
        let producer_ids =
            next_producer_id.map(|next| ProducerIdsAllocated { next_producer_id: next });
        let end = std::iter::once(SnapshotEnded { offset: self.offset }.into());
        let members =
            level.into_iter().chain(producer_ids.map(Into::into)).chain(retired).chain(voters);
        let cluster =
            members.chain(brokers).chain(settings).chain(topics).chain(partitions).chain(offline);
        cluster.chain(draining).chain(requests).chain(end).collect()
    }

    /// Replays records on an empty image.
    ///
    /// # Errors
    /// The first record that makes no sense.
    pub fn from_records<'a>(
        records: impl IntoIterator<Item = &'a MetadataRecord>,
    ) -> Result<Self, ReplayError> {
        let mut image = Self::default();
        for record in records {
            image.replay(record)?;
        }
        Ok(image)
    }
}

fn registration(broker: &Broker) -> BrokerRegistered {
    BrokerRegistered {
        node_id: broker.node_id,
        epoch: broker.epoch,
        incarnation: broker.incarnation,
        directory: broker.directory,
        host: broker.host.clone(),
        port: broker.port,
        rack: broker.rack.clone(),
        fenced: broker.fenced,
        shutting_down: broker.shutting_down,
        levels: broker.levels,
    }
}

fn request(id: RequestId, done: &CarriedOut) -> RequestCarriedOut {
    RequestCarriedOut {
        id,
        what: done.what.clone(),
        topic: done.topic,
        added: done.added,
        at_ms: done.at_ms,
        forgotten: Vec::new(),
    }
}

fn setting(resource: ConfigResource, settings: &Settings) -> ConfigChanged {
    let Settings { topics, nodes } = settings.clone();
    ConfigChanged { resource, topics, nodes }
}

fn creation(topic: &Topic) -> TopicCreated {
    TopicCreated {
        id: topic.id,
        name: topic.name.clone(),
        partitions: topic.partitions,
        config: topic.config.clone(),
    }
}

fn partition_creation(id: PartitionId, partition: &Partition) -> PartitionCreated {
    PartitionCreated {
        partition: id,
        replicas: partition.replicas.clone(),
        reassignment: partition.reassignment.clone(),
        isr: partition.isr.clone(),
        elr: partition.elr.clone(),
        last_known_elr: partition.last_known_elr.clone(),
        last_leader: partition.last_leader,
        recovering: partition.recovering,
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
    }
}
