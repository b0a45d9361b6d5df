//! The one form in which errors cross the wire: as `google.rpc.Status` details
//! of a unary call, or as an `ottla.v1.Error` inside a stream.

use crate::{LeaderEpoch, NodeId, v1};
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use v1::ErrorReason as R;

/// `domain` of every ErrorInfo that Ottla sends.
pub const ERROR_DOMAIN: &str = "ottla.v1";

const LEADER_ID: &str = "leader_id";
const LEADER_EPOCH: &str = "leader_epoch";
const LEADER_ENDPOINT: &str = "leader_endpoint";
const INDEFINITE: &str = "indefinite";
const RETRIABLE: &str = "retriable";

/// An error as a caller sees it: a published reason, a sentence for people, and
/// what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// Why.
    pub reason: R,
    /// What happened and what was expected.
    pub message: String,
    /// Numbers that belong to the reason, by name.
    pub metadata: HashMap<String, String>,
    /// Who to ask instead, if known.
    pub leader: Option<Leader>,
    /// Wait at least this long before a retry.
    pub retry_after: Option<Duration>,
}

/// Where a redirect points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The leading node.
    pub node_id: NodeId,
    /// Its leader epoch; 0 for the controller.
    pub epoch: LeaderEpoch,
    /// Host and port of its gRPC service.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl ApiError {
    /// An error with nothing but a reason and a message.
    pub fn new(reason: R, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            metadata: HashMap::new(),
            leader: None,
            retry_after: None,
        }
    }

    /// Adds a number that belongs to the reason.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.metadata.insert(name.to_owned(), value.to_string());
        self
    }

    /// Adds who to ask instead.
    #[must_use]
    pub fn with_leader(mut self, leader: Option<Leader>) -> Self {
        self.leader = leader;
        self
    }

    /// Adds the least time to wait before a retry.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Whether the same call may succeed later, or elsewhere.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        matches!(
            self.reason,
            R::UnknownTopic
                | R::UnknownPartition
                | R::NotLeader
                | R::NotController
                | R::LeaderNotAvailable
                | R::ControllerNotAvailable
                | R::FencedLeaderEpoch
                | R::UnknownLeaderEpoch
                | R::OffsetNotAvailable
                | R::NotEnoughReplicas
                | R::NotEnoughReplicasAfterAppend
                | R::RequestTimedOut
                | R::LeadershipLost
                | R::PartitionOffline
                | R::DiskFull
                | R::Overloaded
                | R::ShuttingDown
                | R::InvalidUpdateVersion
                | R::IneligibleReplica
                | R::MembershipChangeRunning
                | R::LearnerBehind
                | R::TooFewVoters
                | R::NotCoordinator
                | R::CoordinatorNotAvailable
        )
    }

    /// Whether the write may have been applied. Where this is false, it
    /// certainly was not.
    #[must_use]
    pub fn is_indefinite(&self) -> bool {
        matches!(
            self.reason,
            R::NotEnoughReplicasAfterAppend
                | R::RequestTimedOut
                | R::LeadershipLost
                | R::Internal
                | R::Unspecified
        )
    }

    /// The gRPC code that a generic client acts upon.
    #[must_use]
    pub fn code(&self) -> Code {
        match self.reason {
            R::InvalidRequest
            | R::InvalidTopicName
            | R::InvalidPartitions
            | R::InvalidReplicationFactor
            | R::InvalidConfig
            | R::InvalidAcks
            | R::InvalidRecord
            | R::InvalidReplicaAssignment
            | R::RecordTooLarge
            | R::CorruptBatch
            | R::InvalidSubscription
            | R::OffsetMetadataTooLarge => Code::InvalidArgument,
            R::TopicAlreadyExists => Code::AlreadyExists,
            R::OffsetOutOfRange => Code::OutOfRange,
            R::UnknownTopic
            | R::UnknownPartition
            | R::UnknownNode
            | R::BrokerNotRegistered
            | R::UnknownGroup => Code::NotFound,
            R::RequestTimedOut => Code::DeadlineExceeded,
            R::LeadershipLost | R::FencedLeaderEpoch | R::InvalidUpdateVersion => Code::Aborted,
            R::Overloaded | R::DiskFull | R::GroupFull => Code::ResourceExhausted,
            R::WrongCluster
            | R::StaleBrokerEpoch
            | R::DuplicateBrokerRegistration
            | R::IneligibleReplica
            | R::BlankDiskOfKnownVoter
            | R::NodeRemoved
            | R::MembershipChangeRunning
            | R::LearnerBehind
            | R::TooFewVoters
            | R::NodeInUse
            | R::UnsupportedFeatureLevel
            | R::FeatureLevelTooLow
            | R::OutOfOrderSequence
            | R::InvalidProducerEpoch
            | R::TransactionCoordinatorFenced
            | R::InvalidTransactionState
            | R::UnknownMember
            | R::FencedMemberEpoch
            | R::StaleMemberEpoch
            | R::UnreleasedInstance
            | R::FencedInstance
            | R::GroupNotEmpty
            | R::NewLeaderElected => Code::FailedPrecondition,
            R::NotLeader
            | R::NotController
            | R::LeaderNotAvailable
            | R::ControllerNotAvailable
            | R::UnknownLeaderEpoch
            | R::OffsetNotAvailable
            | R::NotEnoughReplicas
            | R::NotEnoughReplicasAfterAppend
            | R::PartitionOffline
            | R::NotCoordinator
            | R::CoordinatorNotAvailable
            | R::ShuttingDown => Code::Unavailable,
            R::Internal | R::Unspecified => Code::Internal,
        }
    }

    /// Reads the error out of a status. A status that carries none of ours (a
    /// broken connection, a deadline, another program) becomes INTERNAL, or
    /// REQUEST_TIMED_OUT for a deadline: both indefinite.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let reason = details
            .error_info()
            .filter(|info| info.domain == ERROR_DOMAIN)
            .and_then(|info| R::from_str_name(&format!("ERROR_REASON_{}", info.reason)));
        let Some(reason) = reason else {
            let reason = match status.code() {
                Code::DeadlineExceeded | Code::Cancelled => R::RequestTimedOut,
                Code::InvalidArgument => R::InvalidRequest,
                Code::Unimplemented => {
                    let message = "the node does not know this call: its release is older";
                    return Self::new(R::FeatureLevelTooLow, message);
                }
                _ => R::Internal,
            };
            return Self::new(reason, format!("{:?}: {}", status.code(), status.message()));
        };
        let mut metadata = details.error_info().map(|i| i.metadata.clone()).unwrap_or_default();
        metadata.remove(INDEFINITE);
        metadata.remove(RETRIABLE);
        let leader = take_leader(&mut metadata);
        Self {
            reason,
            message: status.message().to_owned(),
            metadata,
            leader,
            retry_after: details.retry_info().and_then(|r| r.retry_delay),
        }
    }
}

/// The published name of a reason: as in the .proto, without its prefix.
#[must_use]
pub fn reason_name(reason: R) -> &'static str {
    reason.as_str_name().trim_start_matches("ERROR_REASON_")
}

fn take_leader(metadata: &mut HashMap<String, String>) -> Option<Leader> {
    let node_id = NodeId(metadata.remove(LEADER_ID)?.parse().ok()?);
    let epoch = LeaderEpoch(metadata.remove(LEADER_EPOCH)?.parse().ok()?);
    let endpoint = metadata.remove(LEADER_ENDPOINT)?;
    let (host, port) = endpoint.rsplit_once(':')?;
    Some(Leader { node_id, epoch, host: host.to_owned(), port: port.parse().ok()? })
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", reason_name(self.reason), self.message)
    }
}

impl std::error::Error for ApiError {}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let mut metadata = error.metadata.clone();
        metadata.insert(RETRIABLE.to_owned(), error.is_retriable().to_string());
        metadata.insert(INDEFINITE.to_owned(), error.is_indefinite().to_string());
        if let Some(leader) = &error.leader {
            metadata.insert(LEADER_ID.to_owned(), leader.node_id.to_string());
            metadata.insert(LEADER_EPOCH.to_owned(), leader.epoch.to_string());
            metadata.insert(LEADER_ENDPOINT.to_owned(), format!("{}:{}", leader.host, leader.port));
        }
        let mut details = ErrorDetails::new();
        details.set_error_info(reason_name(error.reason), ERROR_DOMAIN, metadata);
        if let Some(wait) = error.retry_after {
            details.set_retry_info(Some(wait));
        }
        Status::with_error_details(error.code(), error.message, details)
    }
}

impl From<ApiError> for v1::Error {
    fn from(error: ApiError) -> Self {
        Self {
            reason: error.reason.into(),
            retriable: error.is_retriable(),
            indefinite: error.is_indefinite(),
            message: error.message,
            metadata: error.metadata,
            leader: error.leader.map(|leader| v1::LeaderHint {
                node_id: leader.node_id.0,
                leader_epoch: leader.epoch.0,
                endpoint: Some(v1::Endpoint { host: leader.host, port: leader.port.into() }),
            }),
            retry_after_ms: error
                .retry_after
                .map(|wait| u32::try_from(wait.as_millis()).unwrap_or(u32::MAX)),
        }
    }
}

impl From<v1::Error> for ApiError {
    fn from(error: v1::Error) -> Self {
        let leader = error.leader.and_then(|hint| {
            let endpoint = hint.endpoint?;
            Some(Leader {
                node_id: NodeId(hint.node_id),
                epoch: LeaderEpoch(hint.leader_epoch),
                host: endpoint.host,
                port: u16::try_from(endpoint.port).ok()?,
            })
        });
        Self {
            // A reason newer than this program is treated as indefinite.
            reason: R::try_from(error.reason).unwrap_or(R::Unspecified),
            message: error.message,
            metadata: error.metadata,
            leader,
            retry_after: error.retry_after_ms.map(|ms| Duration::from_millis(ms.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(reason: R) -> ApiError {
        ApiError::new(reason, "node 2 does not lead orders-0")
            .with("partition", 0)
            .with_retry_after(Duration::from_millis(250))
            .with_leader(Some(Leader {
                node_id: NodeId(3),
                epoch: LeaderEpoch(7),
                host: "::1".to_owned(),
                port: 7403,
            }))
    }

    /// Every published reason survives both wire forms, with all it carries.
    #[test]
    fn every_reason_round_trips() {
        let known: Vec<R> = (0..200).filter_map(|n| R::try_from(n).ok()).collect();
        assert!(known.len() > 30);
        for reason in known {
            let error = sample(reason);
            assert_eq!(ApiError::from_status(&Status::from(error.clone())), error);
            assert_eq!(ApiError::from(v1::Error::from(error.clone())), error);
        }
    }

    /// A status of unknown origin never claims that a write was not applied.
    #[test]
    fn foreign_status_is_indefinite() {
        for code in [Code::Unavailable, Code::Unknown, Code::DeadlineExceeded, Code::Cancelled] {
            assert!(ApiError::from_status(&Status::new(code, "gone")).is_indefinite(), "{code:?}");
        }
    }
}
