//! What all facts of the metadata log add up to: an immutable picture of the
//! cluster that every node holds and that is cloned in no time.
//!
//! Not its job: deciding anything. [`Image::replay`] is the only thing that
//! changes an image.

mod delta;
mod offline;
mod replay;
mod settings;
mod snapshot;
#[cfg(test)]
mod tests;

pub use delta::{Change, Delta};
pub use replay::ReplayError;
pub use settings::Settings;

use crate::records::{ConfigResource, FeatureLevel, FeatureLevels, Reassignment, TopicConfig};
use imbl::{OrdMap, OrdSet};
use ottla_proto::{
    BrokerEpoch, DirectoryId, IncarnationId, LeaderEpoch, MetadataOffset, NodeId, PartitionEpoch,
    PartitionId, RequestId, TopicId,
};
use std::sync::Arc;

/// The cluster as of one offset of the metadata log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Number of records replayed.
    pub offset: MetadataOffset,
    /// Every broker that registered and was not removed.
    pub brokers: OrdMap<NodeId, Arc<Broker>>,
    /// Topics by id.
    pub topics: OrdMap<TopicId, Arc<Topic>>,
    /// Ids of the topics by name.
    pub topic_ids: OrdMap<String, TopicId>,
    /// Partitions of all topics; those of one topic lie side by side.
    pub partitions: OrdMap<PartitionId, Arc<Partition>>,
    /// Replicas whose disk failed, by broker; no empty sets. Ends with the broker's
    /// registration.
    pub offline_replicas: OrdMap<NodeId, Arc<OrdSet<PartitionId>>>,
    /// Where the members of the quorum keep their logs.
    pub voter_directories: OrdMap<NodeId, DirectoryId>,
    /// Directories that are no part of the cluster any more, and whose they were.
    /// One more with every node removed and every disk replaced, which is what
    /// operators do by hand: 24 bytes each.
    pub retired_directories: OrdMap<DirectoryId, NodeId>,
    /// Options that were set for the cluster and for single nodes; no empty ones.
    pub settings: OrdMap<ConfigResource, Arc<Settings>>,
    /// Operators' requests that were carried out lately.
    pub requests: OrdMap<RequestId, Arc<CarriedOut>>,
    /// The first producer id that was not given away.
    pub next_producer_id: i64,
    /// What its records may be.
    pub feature_level: FeatureLevel,
    /// Brokers that are being emptied: they are given no replicas.
    pub draining: OrdSet<NodeId>,
}

/// A broker and its current registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// The node.
    pub node_id: NodeId,
    /// Its registration. An image that holds it has at least this offset.
    pub epoch: BrokerEpoch,
    /// The process.
    pub incarnation: IncarnationId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// Host at which clients and nodes reach it.
    pub host: String,
    /// Port of its gRPC services.
    pub port: u16,
    /// Replicas are spread over racks.
    pub rack: Option<String>,
    /// May lead nothing and be in no ISR.
    pub fenced: bool,
    /// On its way out: given no leadership, joins no ISR.
    pub shutting_down: bool,
    /// The feature levels that its release supports.
    pub levels: FeatureLevels,
}

impl Broker {
    /// May be given leaderships and join ISRs.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.shutting_down
    }
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its id, for ever.
    pub id: TopicId,
    /// Its name, until it is deleted.
    pub name: String,
    /// Number of partitions.
    pub partitions: u32,
    /// Its configuration, with the cluster's defaults.
    pub config: TopicConfig,
}

/// A partition's assignment and leadership.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Partition {
    /// Assignment, the preferred leader first. No node twice. During a
    /// reassignment those it is to have, and behind them those it is to lose.
    pub replicas: Vec<NodeId>,
    /// If it is being moved to other nodes: from where to where.
    pub reassignment: Option<Reassignment>,
    /// In-sync replicas, in assignment order. Empty while none of them can serve.
    pub isr: Vec<NodeId>,
    /// Eligible leader replicas (KIP-966), in assignment order: they left the ISR
    /// while nothing could be committed any more, so they too have every
    /// committed record. Not empty only while the ISR is below its minimum.
    pub elr: Vec<NodeId>,
    /// Replicas that were in the ISR or eligible, and may have lost something
    /// since.
    pub last_known_elr: Vec<NodeId>,
    /// While the ISR is empty: who led last.
    pub last_leader: Option<NodeId>,
    /// The leader was elected without being known to have everything, and has
    /// not yet said that it is done with that. The ISR has one member until then.
    pub recovering: bool,
    /// The leader, one of the ISR, if there is one.
    pub leader: Option<NodeId>,
    /// Generation of the leadership.
    pub leader_epoch: LeaderEpoch,
    /// Version of this state: +1 on every change.
    pub partition_epoch: PartitionEpoch,
}

/// A request that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedOut {
    /// What was asked of what, such as `create topic orders`.
    pub what: String,
    /// The topic it was about, if it was about one. It may be gone by now.
    pub topic: Option<TopicId>,
    /// Partitions that it added to a topic that was there.
    pub added: u32,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

impl Partition {
    /// How many replicas it is meant to have: during a reassignment as many as
    /// before, so that neither what an acknowledgement needs nor what counts as
    /// missing changes while copies are made.
    #[must_use]
    pub fn replication_factor(&self) -> usize {
        self.reassignment.as_ref().map_or(self.replicas.len(), |moving| moving.from.len())
    }

    /// The assignment it has, or will have once its reassignment is complete.
    #[must_use]
    pub fn target(&self) -> &[NodeId] {
        self.reassignment.as_ref().map_or(&self.replicas, |moving| &moving.to)
    }

    /// Replicas that are to come.
    #[must_use]
    pub fn adding(&self) -> Vec<NodeId> {
        self.reassignment.iter().flat_map(Reassignment::adding).collect()
    }

    /// Replicas that are to go.
    #[must_use]
    pub fn removing(&self) -> Vec<NodeId> {
        self.reassignment.iter().flat_map(Reassignment::removing).collect()
    }

    /// The assignment that it has, or had before its reassignment.
    #[must_use]
    pub fn origin(&self) -> &[NodeId] {
        self.reassignment.as_ref().map_or(&self.replicas, |moving| &moving.from)
    }
}

impl Image {
    /// The topic of this name.
    #[must_use]
    pub fn topic_by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.topic_ids.get(name)?)
    }

    /// The partition of this topic.
    #[must_use]
    pub fn partition(&self, topic: TopicId, index: u32) -> Option<&Arc<Partition>> {
        self.partitions.get(&PartitionId { topic, index })
    }

    /// The partitions of a topic, by index.
    pub fn partitions_of(
        &self,
        topic: TopicId,
    ) -> impl Iterator<Item = (PartitionId, &Arc<Partition>)> {
        let first = PartitionId { topic, index: 0 };
        let last = PartitionId { topic, index: u32::MAX };
        self.partitions.range(first..=last).map(|(id, partition)| (*id, partition))
    }

    /// Whether a broker is registered and may lead and join ISRs.
    #[must_use]
    pub fn is_active(&self, node: NodeId) -> bool {
        self.brokers.get(&node).is_some_and(|broker| broker.is_active())
    }

    /// Whether a broker can lead this partition and join its ISR: it is active, and
    /// the disk under its replica has not failed.
    #[must_use]
    pub fn can_serve(&self, node: NodeId, id: PartitionId) -> bool {
        self.is_active(node) && !self.is_offline(node, id)
    }

    /// Whether a broker said that the disk under its replica failed.
    #[must_use]
    pub fn is_offline(&self, node: NodeId, id: PartitionId) -> bool {
        self.offline_replicas.get(&node).is_some_and(|offline| offline.contains(&id))
    }

    /// In-sync replicas that an acks=all write to this partition needs; `None`
    /// for a partition that is not there.
    #[must_use]
    pub fn effective_min_isr(&self, id: PartitionId) -> Option<usize> {
        let partition = self.partitions.get(&id)?;
        let topic = self.topics.get(&id.topic)?;
        Some(topic.config.effective_min_isr(partition.replication_factor()))
    }
}
