//! The events a replica is told and the effects it asks for.

use super::types::{
    Acks, AlterOutcome, DeletionRefusal, EpochEnd, Follow, FollowRefusal, LogState, Millis, Peer,
    ProduceRefusal, Progress, RequestId, SessionRef, Stage, View,
};
use ottla_commitlog::ProducerRefusal;
use ottla_proto::{BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionEpoch};

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
    /// Records of [`Effect::Write`] are in the log, or were refused for what
    /// their producer sent before.
    Wrote {
        /// The stage it was ordered in.
        stage: Stage,
        /// The log end afterwards.
        end: Offset,
        /// Requests, each with the offset after its last record, or why it is
        /// not in the log. A repeated one is where it was written first.
        writes: Vec<(RequestId, Result<Offset, ProducerRefusal>)>,
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
    /// The log starts at `start` now, durably: retention, or
    /// [`Effect::RaiseStart`], removed what was below.
    StartRaised {
        /// The new start.
        start: Offset,
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

    /// A client wants records gone from the start of the log.
    DeleteRecords {
        /// Its number.
        id: RequestId,
        /// All below are to go; `None`: all that is committed.
        before: Option<Offset>,
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
        /// Where the leader's log starts.
        log_start: Offset,
    },
    /// The leader's high watermark or log start moved.
    Watermark {
        /// What it belongs to.
        of: SessionRef,
        /// The high watermark.
        watermark: Offset,
        /// Where the leader's log starts.
        log_start: Offset,
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
    /// Record that `epoch` starts at the log's end: durably before anything is
    /// appended in it.
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
    /// Durably remove what is below `to`, which is within the log; answered by
    /// [`Event::StartRaised`].
    RaiseStart {
        /// An operation of an earlier stage must not begin.
        stage: Stage,
        /// The new start.
        to: Offset,
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
    /// Answer who wanted records gone.
    AnswerDeletion {
        /// The request.
        id: RequestId,
        /// `Ok`: below this offset nothing is left on any in-sync replica.
        result: Result<Offset, DeletionRefusal>,
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
        /// Start of the local log.
        start: Offset,
    },
}
