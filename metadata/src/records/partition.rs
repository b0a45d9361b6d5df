//! Facts about partitions.

use ottla_proto::{LeaderEpoch, NodeId, PartitionEpoch, PartitionId};
use serde::{Deserialize, Serialize};

/// A partition exists, in this whole state. In a snapshot: as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionCreated {
    /// The partition.
    pub partition: PartitionId,
    /// Assignment, the preferred leader first.
    pub replicas: Vec<NodeId>,
    /// In-sync replicas, in assignment order.
    pub isr: Vec<NodeId>,
    /// The leader, if there is one.
    pub leader: Option<NodeId>,
    /// Generation of the leadership.
    pub leader_epoch: LeaderEpoch,
    /// Version of this state.
    pub partition_epoch: PartitionEpoch,
}

/// A partition has another ISR, another leader, or both. The epochs that
/// result are written down too: replay checks them against the rules (the
/// partition epoch +1 on every change, the leader epoch +1 whenever the leader
/// is set) and so notices a record that was decided on another state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionChanged {
    /// The partition.
    pub partition: PartitionId,
    /// The new ISR, in assignment order; absent if unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isr: Option<Vec<NodeId>>,
    /// The new leadership; absent if the old one goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<Leadership>,
    /// Generation of the leadership after this change.
    pub leader_epoch: LeaderEpoch,
    /// Version of the state after this change.
    pub partition_epoch: PartitionEpoch,
}

/// Who leads from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leadership {
    /// Nobody can.
    Nobody,
    /// This node.
    Node(NodeId),
}

impl From<Option<NodeId>> for Leadership {
    fn from(leader: Option<NodeId>) -> Self {
        leader.map_or(Self::Nobody, Self::Node)
    }
}

impl From<Leadership> for Option<NodeId> {
    fn from(leadership: Leadership) -> Self {
        match leadership {
            Leadership::Nobody => None,
            Leadership::Node(node) => Some(node),
        }
    }
}
