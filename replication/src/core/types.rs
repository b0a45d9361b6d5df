//! The words in which a replica is spoken to.

use ottla_commitlog::ProducerRefusal;
use ottla_proto::{BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionEpoch};
use std::collections::BTreeSet;

/// A produce request on this node, numbered by the shell.
pub type RequestId = u64;

/// Milliseconds of a monotonic clock that the shell chose.
pub type Millis = u64;

/// Names the stage of a replica's life in which an operation on the log was
/// ordered. The result of one ordered in an earlier stage is ignored, and one
/// that has not begun when the stage ends must not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stage(pub u64);

/// When a record counts as acknowledged by a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Once it is on stable storage.
    Disk,
    /// Once it is appended.
    Memory,
}

/// What a producer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Acks {
    /// Nothing.
    None,
    /// The leader's append.
    Leader,
    /// The high watermark.
    All,
}

/// One assigned replica, as the metadata has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Its registration; `None` if it has none.
    pub broker_epoch: Option<BrokerEpoch>,
    /// Registered, not fenced and not shutting down (KIP-841).
    pub eligible: bool,
}

/// The metadata of the partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    /// The leader was elected without being known to have everything, and has
    /// not yet said that it is done with that.
    pub recovering: bool,
    /// Effective min.insync.replicas: never above the number of replicas.
    pub min_isr: usize,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// A member of the ISR that has not caught up for so long is taken out of it
    /// (replica.lag.time.max.ms). This node's, not the partition's.
    pub lag_max: Millis,
}

impl View {
    pub(super) fn member(&self, node: NodeId) -> Option<&Member> {
        self.replicas.iter().find(|member| member.node == node)
    }
}

/// The local log, as far as the replica cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EpochEnd {
    /// The largest known epoch not above the one asked for.
    pub epoch: LeaderEpoch,
    /// Where it ends.
    pub end: Offset,
}

/// A following node on one of its connections. An old connection may still
/// deliver what was sent on it, so the node's id alone says too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The follower.
    pub node: NodeId,
    /// Number of the connection, given by the leading node.
    pub stream: u64,
}

/// "My log of this partition ends here; go on from here."
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// Start of the follower's log, durably.
    pub start: Offset,
}

/// Which session, under which leadership, an answer of the leader belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionRef {
    /// The follower's session.
    pub session: u64,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
}

/// Why a leader does not serve a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// It does not follow what its producer sent before; nothing was written.
    Producer(ProducerRefusal),
}

/// Why records were not deleted from the start of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionRefusal {
    /// This replica does not lead; nothing was deleted.
    NotLeader,
    /// Only committed records can be deleted; nothing was.
    OutOfRange {
        /// First offset there is.
        start: Offset,
        /// Records below are committed.
        watermark: Offset,
    },
    /// Not everywhere gone before the deadline; they still may go.
    TimedOut,
    /// Leadership ended, or the disk failed, before it was done everywhere.
    LeadershipLost,
    /// The disk failed before; nothing was deleted.
    Offline,
}

/// What the controller said to a proposed ISR.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AlterOutcome {
    /// It is the truth now, at this version.
    Changed {
        /// The leader epoch it was written under.
        leader_epoch: LeaderEpoch,
        /// The new version.
        partition_epoch: PartitionEpoch,
        /// The ISR as committed.
        isr: BTreeSet<NodeId>,
        /// Effective min.insync.replicas of the metadata in which it was: who is
        /// eligible beside this ISR was decided by it.
        min_isr: usize,
    },
    /// It certainly was not written, and the version is unchanged: the only
    /// case in which the leader may go back to the committed ISR.
    NotApplied,
    /// A definite error: newer metadata is on its way and decides.
    Superseded,
    /// Unknown: it may have been written. Ask again.
    Unknown,
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
    /// Leader only: records that are written now will be committed. The ISR has
    /// its minimum, and every member of it follows this leadership.
    pub can_commit: bool,
}
