//! What is on its way between the nodes and the controller.

use super::disk::Record;
use crate::core::{AlterOutcome, Follow, FollowRefusal, Peer, Progress, SessionRef};
use ottla_proto::{BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionEpoch};

/// What the processes say to each other and to the controller.
#[derive(Clone, Debug, Hash)]
pub(super) enum Said {
    Follow(Follow),
    Progress(Progress),
    Unfollow(Peer),
    Data {
        of: SessionRef,
        base: Offset,
        records: Vec<Record>,
        watermark: Offset,
    },
    Watermark {
        of: SessionRef,
        watermark: Offset,
    },
    Diverging {
        of: SessionRef,
        epoch: Option<LeaderEpoch>,
        end: Offset,
    },
    Refused {
        of: SessionRef,
        refusal: FollowRefusal,
    },
    /// `awaited`: the caller has not given up on it. One that it has may linger.
    Propose {
        call: Call,
        isr: Vec<(NodeId, BrokerEpoch)>,
        awaited: bool,
    },
    Answered {
        call: Call,
        outcome: AlterOutcome,
    },
}

/// A proposal's place in history. A partition has one on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) broker_epoch: BrokerEpoch,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) partition_epoch: PartitionEpoch,
}

/// A message on its way. The controller is node 0.
#[derive(Clone, Debug, Hash)]
pub(super) struct Message {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) said: Said,
}
