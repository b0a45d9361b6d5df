//! What goes into a replica and what comes out of it.

use ottla_proto::{BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionEpoch};
use std::collections::BTreeSet;

/// A produce request on this node, numbered by the shell.
pub type RequestId = u64;

/// Milliseconds of a monotonic clock that the shell chose.
pub type Millis = u64;

/// Names the stage of a replica's life in which an operation on the log was
/// ordered. The result of one ordered in an earlier stage is ignored, and one
/// that has not begun when the stage ends must not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stage(pub u64);

/// When a record counts as acknowledged by a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on stable storage.
    Disk,
    /// Once it is appended.
    Memory,
}

/// What a producer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Nothing.
    None,
    /// The leader's append.
    Leader,
    /// The high watermark.
    All,
}

/// One assigned replica, as the metadata has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Its registration; `None` if it has none.
    pub broker_epoch: Option<BrokerEpoch>,
    /// Registered, not fenced and not shutting down (KIP-841).
    pub eligible: bool,
}

/// The metadata of the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Who leads, if anybody does.
    pub leader: Option<NodeId>,
    /// Generation of that leadership.
    pub leader_epoch: LeaderEpoch,
    /// Version of this metadata.
    pub partition_epoch: PartitionEpoch,
    /// The assignment.
    pub replicas: Vec<Member>,
    /// The committed in-sync replicas.
    pub isr: BTreeSet<NodeId>,
    /// Effective min.insync.replicas: never above the number of replicas.
    pub min_isr: usize,
    /// What an acknowledgement means.
    pub durability: Durability,
}

impl View {
    pub(super) fn member(&self, node: NodeId) -> Option<&Member> {
        self.replicas.iter().find(|member| member.node == node)
    }
}

/// The local log, as far as the replica cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// First offset.
    pub start: Offset,
    /// One past the last offset.
    pub end: Offset,
    /// Everything below is on stable storage.
    pub synced: Offset,
    /// The newest leader epoch that the log knows.
    pub last_epoch: Option<LeaderEpoch>,
}

/// Where an epoch ends in a log: the start of the next one that the log knows,
/// or the log's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The largest known epoch not above the one asked for.
    pub epoch: LeaderEpoch,
    /// Where it ends.
    pub end: Offset,
}

/// A following node on one of its connections. An old connection may still
/// deliver what was sent on it, so the node's id alone says too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The follower.
    pub node: NodeId,
    /// Number of the connection, given by the leading node.
    pub stream: u64,
}

/// "My log of this partition ends here; go on from here."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    /// Who.
    pub peer: Peer,
    /// Registration of the follower that its connection was opened with.
    pub broker_epoch: BrokerEpoch,
    /// Chosen by the follower; every answer repeats it.
    pub session: u64,
    /// The leader epoch that the follower knows from the metadata.
    pub leader_epoch: LeaderEpoch,
    /// The follower's log.
    pub log: LogState,
}

/// Acknowledges what was pushed in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Who.
    pub peer: Peer,
    /// The session it belongs to.
    pub session: u64,
    /// The leader epoch of that session.
    pub leader_epoch: LeaderEpoch,
    /// End of the follower's log.
    pub end: Offset,
    /// End of what the follower has on stable storage.
    pub synced: Offset,
}

/// Which session, under which leadership, an answer of the leader belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRef {
    /// The follower's session.
    pub session: u64,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
}

/// Why a leader does not serve a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowRefusal {
    /// The follower's leader epoch is behind.
    FencedLeaderEpoch,
    /// The follower's leader epoch is ahead.
    UnknownLeaderEpoch,
    /// This replica does not lead.
    NotLeader,
    /// The follower is not among the replicas, or the partition is not here.
    UnknownPartition,
    /// The follower's log ends outside the leader's.
    OutOfRange {
        /// Where the leader's log starts.
        log_start: Offset,
    },
    /// The follower has registered again since.
    StaleBrokerEpoch,
    /// The leader's disk failed.
    Offline,
}

/// Why a produce request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProduceRefusal {
    /// This replica does not lead; nothing was written.
    NotLeader,
    /// Committed ISR below the minimum; nothing was written.
    NotEnoughReplicas,
    /// As above, noticed after the append: the record stays.
    NotEnoughReplicasAfterAppend,
    /// Not committed before the deadline; it may still be.
    TimedOut,
    /// Leadership ended, or the disk failed, between append and commit.
    LeadershipLost,
    /// The disk failed before; nothing was written.
    Offline,
    /// No space; nothing was written.
    DiskFull,
}

/// What the controller said to a proposed ISR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterOutcome {
    /// It is the truth now, at this version.
    Changed {
        /// The leader epoch it was written under.
        leader_epoch: LeaderEpoch,
        /// The new version.
        partition_epoch: PartitionEpoch,
        /// The ISR as committed.
        isr: BTreeSet<NodeId>,
    },
    /// It certainly was not written, and the version is unchanged: the only
    /// case in which the leader may go back to the committed ISR.
    NotApplied,
    /// A definite error: newer metadata is on its way and decides.
    Superseded,
    /// Unknown: it may have been written. Ask again.
    Unknown,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The metadata of the partition, or of a broker that hosts it, changed.
    Metadata(View),
    /// Time passed.
    Tick,

    /// [`Effect::Inspect`], [`Effect::StartEpoch`], [`Effect::Truncate`] or
    /// [`Effect::Reset`] is done.
    Settled {
        /// The stage it was ordered in.
        stage: Stage,
        /// The log afterwards.
        log: LogState,
    },
    /// Records of [`Effect::Write`] are appended.
    Wrote {
        /// The stage it was ordered in.
        stage: Stage,
        /// Requests in log order, each with the offset after its last record.
        writes: Vec<(RequestId, Offset)>,
    },
    /// Records of [`Effect::Write`] are certainly not appended: no space.
    WriteRejected {
        /// The stage it was ordered in.
        stage: Stage,
        /// The requests.
        ids: Vec<RequestId>,
    },
    /// Records of [`Effect::Copy`] are appended up to `end`.
    Copied {
        /// The stage it was ordered in.
        stage: Stage,
        /// The log end afterwards.
        end: Offset,
    },
    /// Records of [`Effect::Copy`] could not be appended: no space, or they were
    /// damaged on the way.
    CopyRejected {
        /// The stage it was ordered in.
        stage: Stage,
    },
    /// Everything below is on stable storage.
    Synced {
        /// End of it.
        up_to: Offset,
    },
    /// The disk failed. Nothing may be written any more.
    DiskFailed,

    /// A producer's request.
    Produce {
        /// Its number.
        id: RequestId,
        /// What it waits for.
        acks: Acks,
        /// When it stops waiting.
        deadline: Millis,
    },

    /// A follower asks to be served.
    Follow {
        /// The request.
        follow: Follow,
        /// Where the follower's last epoch ends in the local log, looked up
        /// while nothing was being written in between.
        local: Option<EpochEnd>,
    },
    /// A follower acknowledged.
    Progress(Progress),
    /// A follower does not want to be served any more, or its connection ended.
    Unfollow {
        /// Who.
        peer: Peer,
    },
    /// The controller answered [`Effect::AlterPartition`].
    AlterAnswered {
        /// Leader epoch of the request.
        leader_epoch: LeaderEpoch,
        /// Partition epoch of the request.
        partition_epoch: PartitionEpoch,
        /// The answer.
        outcome: AlterOutcome,
    },

    /// The connection to this leader was opened anew.
    LinkOpened {
        /// The other end.
        leader: NodeId,
    },
    /// The leader pushed records.
    Data {
        /// What it belongs to.
        of: SessionRef,
        /// Where the local log must end for it to fit.
        base: Offset,
        /// The offset after its last record; above `base`.
        end: Offset,
        /// The leader's high watermark.
        watermark: Offset,
    },
    /// The leader's high watermark moved.
    Watermark {
        /// What it belongs to.
        of: SessionRef,
        /// The new one.
        watermark: Offset,
    },
    /// The logs differ.
    Diverging {
        /// What it belongs to.
        of: SessionRef,
        /// The leader's largest epoch not above the follower's last.
        epoch: Option<LeaderEpoch>,
        /// Where it ends on the leader.
        end: Offset,
        /// Where that epoch ends locally.
        local: Option<EpochEnd>,
    },
    /// The leader does not serve this replica.
    FollowRefused {
        /// What it belongs to.
        of: SessionRef,
        /// Why.
        refusal: FollowRefusal,
    },
}

/// Something to be done, in the order given. Operations on the log are carried
/// out strictly one after the other, except [`Effect::Sync`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Report the state of the log once everything ordered before is done.
    Inspect {
        /// To be repeated in [`Event::Settled`].
        stage: Stage,
    },
    /// Record durably that `epoch` starts at the log's end.
    StartEpoch {
        /// To be repeated in [`Event::Settled`].
        stage: Stage,
        /// The new epoch.
        epoch: LeaderEpoch,
    },
    /// Cut the log, and its memory of epochs, to end at `to`.
    Truncate {
        /// To be repeated in [`Event::Settled`].
        stage: Stage,
        /// The new end.
        to: Offset,
    },
    /// Drop everything and continue at `start`.
    Reset {
        /// To be repeated in [`Event::Settled`].
        stage: Stage,
        /// The new start and end.
        start: Offset,
    },
    /// Append a producer's records under `epoch`.
    Write {
        /// To be repeated in [`Event::Wrote`].
        stage: Stage,
        /// The request.
        id: RequestId,
        /// The leader epoch to stamp.
        epoch: LeaderEpoch,
    },
    /// Append the records of the [`Event::Data`] at hand.
    Copy {
        /// To be repeated in [`Event::Copied`].
        stage: Stage,
    },
    /// Bring what is appended to stable storage, soon.
    Sync,

    /// Answer a producer.
    Answer {
        /// The request.
        id: RequestId,
        /// `Ok`: what its acks asked for has come true.
        result: Result<(), ProduceRefusal>,
    },
    /// Propose an ISR to the controller.
    AlterPartition {
        /// Current leader epoch.
        leader_epoch: LeaderEpoch,
        /// The version that the proposal builds upon.
        partition_epoch: PartitionEpoch,
        /// The proposed members, with the registrations they were judged by.
        isr: Vec<(NodeId, BrokerEpoch)>,
    },

    /// Push records, from `from` on, to a follower.
    Serve {
        /// Who.
        peer: Peer,
        /// Which session, under which leadership.
        of: SessionRef,
        /// First offset to send.
        from: Offset,
    },
    /// Tell a follower where its log and the leader's part.
    Diverge {
        /// Who.
        peer: Peer,
        /// Which session, under which leadership.
        of: SessionRef,
        /// The leader's largest epoch not above the follower's last.
        epoch: Option<LeaderEpoch>,
        /// Where it ends on the leader.
        end: Offset,
    },
    /// Tell a follower that it is not served.
    Refuse {
        /// Who.
        peer: Peer,
        /// Which session, and the leader epoch known here.
        of: SessionRef,
        /// Why.
        refusal: FollowRefusal,
    },
    /// Look up the follower's epoch now, and hand the request in again.
    Reconsider(Follow),

    /// Ask a leader to be served.
    Follow {
        /// Whom.
        leader: NodeId,
        /// The new session and the leader epoch known here.
        of: SessionRef,
        /// The local log.
        log: LogState,
    },
    /// Tell a leader that nothing more is wanted.
    Unfollow {
        /// Whom.
        leader: NodeId,
    },
    /// Acknowledge to the leader.
    Acknowledge {
        /// Whom.
        leader: NodeId,
        /// The session.
        of: SessionRef,
        /// End of the local log.
        end: Offset,
        /// End of what is on stable storage.
        synced: Offset,
    },
}

/// What a replica is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    /// It leads, and its epoch is recorded.
    Leader,
    /// It follows.
    Follower,
    /// Nobody leads, or this replica is about to.
    NoLeader,
    /// Its disk failed.
    Offline,
}

/// A picture of a replica, for readers, health and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// What it is.
    pub role: RoleKind,
    /// The newest leader epoch it has acted upon.
    pub leader_epoch: LeaderEpoch,
    /// The newest version of the metadata that it has acted upon.
    pub partition_epoch: PartitionEpoch,
    /// The leader, if there is one.
    pub leader: Option<NodeId>,
    /// First offset.
    pub log_start: Offset,
    /// One past the last offset.
    pub log_end: Offset,
    /// End of what is on stable storage.
    pub synced: Offset,
    /// Records below are committed.
    pub high_watermark: Offset,
    /// Leader only: the watermark has reached the start of the leader's epoch, so
    /// it is not below what an earlier leader may have told.
    pub watermark_is_current: bool,
}
