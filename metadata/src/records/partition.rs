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
    /// Eligible leader replicas (KIP-966), in assignment order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elr: Vec<NodeId>,
    /// Replicas that were in the ISR or eligible, and may have lost something
    /// since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_known_elr: Vec<NodeId>,
    /// While the ISR is empty: who led last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_leader: Option<NodeId>,
    /// The leader was elected without being known to have everything, and has
    /// not yet said that it is done with that.
    #[serde(default, skip_serializing_if = "is_false")]
    pub recovering: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "for serde")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A partition has another ISR, another leader, or other candidates for it. The epochs that
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
    /// The new eligible leader replicas; absent if unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elr: Option<Vec<NodeId>>,
    /// Those that were eligible; absent if unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_known_elr: Option<Vec<NodeId>>,
    /// Who led last; absent if unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_leader: Option<Leadership>,
    /// Whether the leader is recovering; absent if unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovering: Option<bool>,
}

impl PartitionCreated {
    /// Whether a release without eligible leader replicas would make another
    /// image of it.
    pub(super) fn needs_elr(&self) -> bool {
        self.isr.is_empty()
            || !self.elr.is_empty()
            || !self.last_known_elr.is_empty()
            || self.last_leader.is_some()
            || self.recovering
    }
}

impl PartitionChanged {
    /// As [`PartitionCreated::needs_elr`].
    pub(super) fn needs_elr(&self) -> bool {
        self.isr.as_ref().is_some_and(Vec::is_empty)
            || self.elr.is_some()
            || self.last_known_elr.is_some()
            || self.last_leader.is_some()
            || self.recovering.is_some()
    }
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
