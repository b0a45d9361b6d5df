//! Between the core's types and the messages of `ottla.internal.v1`.

use crate::core::{Follow, Peer};
use crate::core::{FollowRefusal, LogState, Progress, SessionRef};
use ottla_proto::internal::v1::{self, refused::Reason};
use ottla_proto::{BrokerEpoch, LeaderEpoch, Offset, PartitionId, TopicId};

pub(crate) fn key(id: PartitionId) -> Option<v1::PartitionKey> {
    Some(v1::PartitionKey { topic_id: id.topic.to_wire().into(), partition: id.index })
}

/// `None`: not a partition key.
pub(crate) fn partition_id(key: Option<&v1::PartitionKey>) -> Option<PartitionId> {
    let key = key?;
    Some(PartitionId { topic: TopicId::from_wire(&key.topic_id)?, index: key.partition })
}

pub(crate) fn session_ref(session: u64, leader_epoch: u32) -> SessionRef {
    SessionRef { session, leader_epoch: LeaderEpoch(leader_epoch) }
}

pub(crate) fn follow(id: PartitionId, of: SessionRef, log: LogState) -> v1::Follow {
    v1::Follow {
        partition: key(id),
        session: of.session,
        leader_epoch: of.leader_epoch.0,
        log_end_offset: log.end,
        last_epoch: log.last_epoch.map(|epoch| epoch.0),
        log_start_offset: log.start,
        synced_offset: log.synced,
    }
}

/// `None`: the numbers contradict each other.
pub(crate) fn follow_from(
    message: &v1::Follow,
    peer: Peer,
    broker_epoch: BrokerEpoch,
) -> Option<Follow> {
    let (start, end) = (message.log_start_offset, message.log_end_offset);
    (start <= end).then(|| Follow {
        peer,
        broker_epoch,
        session: message.session,
        leader_epoch: LeaderEpoch(message.leader_epoch),
        log: LogState {
            start,
            end,
            synced: message.synced_offset.min(end),
            last_epoch: message.last_epoch.map(LeaderEpoch),
        },
    })
}

pub(crate) fn progress(
    id: PartitionId,
    of: SessionRef,
    (end, synced, start): (Offset, Offset, Offset),
) -> v1::Progress {
    v1::Progress {
        partition: key(id),
        session: of.session,
        leader_epoch: of.leader_epoch.0,
        log_end_offset: end,
        synced_offset: synced,
        log_start_offset: start,
    }
}

pub(crate) fn progress_from(message: &v1::Progress, peer: Peer) -> Progress {
    Progress {
        peer,
        session: message.session,
        leader_epoch: LeaderEpoch(message.leader_epoch),
        end: message.log_end_offset,
        synced: message.synced_offset,
        start: message.log_start_offset,
    }
}

pub(crate) fn refused(id: PartitionId, of: SessionRef, refusal: FollowRefusal) -> v1::Refused {
    let (reason, log_start) = match refusal {
        FollowRefusal::FencedLeaderEpoch => (Reason::FencedLeaderEpoch, 0),
        FollowRefusal::UnknownLeaderEpoch => (Reason::UnknownLeaderEpoch, 0),
        FollowRefusal::NotLeader => (Reason::NotLeader, 0),
        FollowRefusal::UnknownPartition => (Reason::UnknownPartition, 0),
        FollowRefusal::OutOfRange { log_start } => (Reason::OffsetOutOfRange, log_start),
        FollowRefusal::StaleBrokerEpoch => (Reason::StaleBrokerEpoch, 0),
        FollowRefusal::Offline => (Reason::Offline, 0),
    };
    v1::Refused {
        partition: key(id),
        session: of.session,
        leader_epoch: of.leader_epoch.0,
        reason: reason.into(),
        log_start_offset: log_start,
    }
}

/// A reason newer than this program counts as "not now".
pub(crate) fn refusal_from(message: &v1::Refused) -> FollowRefusal {
    match message.reason() {
        Reason::FencedLeaderEpoch => FollowRefusal::FencedLeaderEpoch,
        Reason::UnknownLeaderEpoch => FollowRefusal::UnknownLeaderEpoch,
        Reason::UnknownPartition => FollowRefusal::UnknownPartition,
        Reason::OffsetOutOfRange => {
            FollowRefusal::OutOfRange { log_start: message.log_start_offset }
        }
        Reason::StaleBrokerEpoch => FollowRefusal::StaleBrokerEpoch,
        Reason::Offline => FollowRefusal::Offline,
        Reason::NotLeader | Reason::Unspecified => FollowRefusal::NotLeader,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a follower and a leader say to each other arrives as it was meant.
    #[test]
    fn messages_round_trip() {
        let id = PartitionId { topic: TopicId(uuid_of(7)), index: 3 };
        let of = session_ref(9, 4);
        let peer = Peer { node: ottla_proto::NodeId(2), stream: 11 };
        let log = LogState { start: 5, end: 20, synced: 12, last_epoch: Some(LeaderEpoch(3)) };
        let wire = follow(id, of, log);
        assert_eq!(partition_id(wire.partition.as_ref()), Some(id));
        let back = follow_from(&wire, peer, BrokerEpoch(6)).expect("consistent");
        assert_eq!((back.log, back.session, back.leader_epoch), (log, 9, LeaderEpoch(4)));
        for refusal in [
            FollowRefusal::FencedLeaderEpoch,
            FollowRefusal::UnknownLeaderEpoch,
            FollowRefusal::NotLeader,
            FollowRefusal::UnknownPartition,
            FollowRefusal::OutOfRange { log_start: 77 },
            FollowRefusal::StaleBrokerEpoch,
            FollowRefusal::Offline,
        ] {
            assert_eq!(refusal_from(&refused(id, of, refusal)), refusal);
        }
    }

    /// Offsets that cannot be are refused before the core sees them.
    #[test]
    fn an_impossible_follow_is_refused() {
        let peer = Peer { node: ottla_proto::NodeId(2), stream: 1 };
        let bad = v1::Follow { log_start_offset: 5, log_end_offset: 4, ..Default::default() };
        assert_eq!(follow_from(&bad, peer, BrokerEpoch(1)), None);
        let short = v1::PartitionKey { topic_id: vec![1, 2].into(), partition: 0 };
        assert_eq!(partition_id(Some(&short)), None);
    }

    fn uuid_of(byte: u8) -> uuid::Uuid {
        uuid::Uuid::from_bytes([byte; 16])
    }
}
