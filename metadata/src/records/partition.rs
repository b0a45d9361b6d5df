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
    /// If it is being moved to other nodes: from where to where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reassignment: Option<Reassignment>,
}

/// A partition on its way to other nodes. Its replicas are then those it is to
/// have, in their order, and behind them those it is to lose.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reassignment {
    /// The assignment before; it comes back if the reassignment is cancelled.
    pub from: Vec<NodeId>,
    /// The assignment that is to be.
    pub to: Vec<NodeId>,
}

impl Reassignment {
    /// Replicas that are to come.
    pub fn adding(&self) -> impl Iterator<Item = NodeId> {
        self.to.iter().copied().filter(|node| !self.from.contains(node))
    }

    /// Replicas that are to go.
    pub fn removing(&self) -> impl Iterator<Item = NodeId> {
        self.from.iter().copied().filter(|node| !self.to.contains(node))
    }

    /// All replicas while it is under way.
    #[must_use]
    pub fn replicas(&self) -> Vec<NodeId> {
        self.to.iter().copied().chain(self.removing()).collect()
    }
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
    /// The new assignment; absent if unchanged. Whenever a node leaves it the
    /// leader is set too, if only to the same again: what the node still sends
    /// or is sent belongs to an epoch that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Vec<NodeId>>,
    /// The reassignment that begins or ends; absent if unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reassignment: Option<ReassignmentChange>,
}

/// A reassignment begins, is replaced by another, or ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReassignmentChange {
    /// None is under way from now on.
    Ended,
    /// This one is.
    UnderWay(Reassignment),
}

impl From<Option<Reassignment>> for ReassignmentChange {
    fn from(reassignment: Option<Reassignment>) -> Self {
        reassignment.map_or(Self::Ended, Self::UnderWay)
    }
}

impl From<ReassignmentChange> for Option<Reassignment> {
    fn from(change: ReassignmentChange) -> Self {
        match change {
            ReassignmentChange::Ended => None,
            ReassignmentChange::UnderWay(reassignment) => Some(reassignment),
        }
    }
}

impl PartitionCreated {
    /// Whether a release without reassignments would make another image of it.
    pub(super) fn needs_reassignment(&self) -> bool {
        self.reassignment.is_some()
    }

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
    /// Whether a release without reassignments would make another image of it.
    pub(super) fn needs_reassignment(&self) -> bool {
        self.replicas.is_some() || self.reassignment.is_some()
    }

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
