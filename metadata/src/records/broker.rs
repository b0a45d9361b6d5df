//! Facts about brokers.

use super::FeatureLevels;
use ottla_proto::{BrokerEpoch, DirectoryId, IncarnationId, NodeId, PartitionId};
use serde::{Deserialize, Serialize};

/// A process took a node id, or the process that has it told something new
/// about itself. In a snapshot: the broker as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerRegistered {
    /// The node.
    pub node_id: NodeId,
    /// For a new incarnation the offset of an image in which this record is
    /// the last; for a known one unchanged.
    pub epoch: BrokerEpoch,
    /// The process.
    pub incarnation: IncarnationId,
    /// The data directory it opened.
    pub directory: DirectoryId,
    /// Host at which clients and nodes reach it.
    pub host: String,
    /// Port of its gRPC services.
    pub port: u16,
    /// Replicas are spread over racks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// A new incarnation starts fenced.
    pub fenced: bool,
    /// It is on its way out.
    pub shutting_down: bool,
    /// The feature levels that its release supports.
    #[serde(default, skip_serializing_if = "FeatureLevels::are_first")]
    pub levels: FeatureLevels,
}

/// A broker may lead nothing and be in no ISR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerFenced {
    /// The node.
    pub node_id: NodeId,
    /// The registration that is fenced; fencing does not change it.
    pub epoch: BrokerEpoch,
}

/// A broker may lead and join ISRs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerUnfenced {
    /// The node.
    pub node_id: NodeId,
    /// The registration that is unfenced.
    pub epoch: BrokerEpoch,
}

/// A broker asked to stop. It is given no new leadership and joins no ISR;
/// only a new incarnation ends this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerShutdownStarted {
    /// The node.
    pub node_id: NodeId,
    /// Its registration.
    pub epoch: BrokerEpoch,
}

/// The disk under these replicas of a broker failed. Such a replica leads nothing
/// and is in no ISR. Adds to what was said before under the
/// same registration; a registration with another epoch ends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicasOffline {
    /// The node.
    pub node_id: NodeId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// The partitions; it is a replica of each.
    pub partitions: Vec<PartitionId>,
}

/// A node is no broker any more. It has no replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerUnregistered {
    /// The node.
    pub node_id: NodeId,
    /// Its last registration.
    pub epoch: BrokerEpoch,
}

/// A broker is being emptied, or is not any more. It is given no replica while it is.
/// Outlives its registration, and ends when the node is no broker any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerDraining {
    /// The node.
    pub node_id: NodeId,
    /// Whether it is.
    pub draining: bool,
}
