//! What can go wrong for a caller, told apart by what the caller can do about
//! it: try again or not, and whether a write may have been applied.

use crate::HostPort;
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, ERROR_DOMAIN, reason_name};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// An error of this library. Cheap to clone: one failed batch fails many records.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// A node answered with an error.
    #[error("{0}")]
    Api(Arc<ApiError>),

    /// No connection could be made, so nothing was sent.
    #[error("cannot connect to {endpoint}: {message}")]
    Connect {
        /// Who was called.
        endpoint: HostPort,
        /// What the operating system said.
        message: String,
    },

    /// The connection broke while a call was under way.
    #[error("connection to {endpoint} lost: {message}")]
    Disconnected {
        /// Who was called.
        endpoint: HostPort,
        /// What the transport said.
        message: String,
    },

    /// One node took too long to answer. Another may be quicker.
    #[error("no answer from {endpoint} within {}", humane(*.waited))]
    NoAnswer {
        /// Who was called.
        endpoint: HostPort,
        /// How long the answer was waited for.
        waited: Duration,
    },

    /// The caller's time is over. `last` is what stood in the way.
    #[error("{what} did not succeed within {}{}", humane(*.within), because(.last.as_deref()))]
    DeadlineExceeded {
        /// What was tried.
        what: String,
        /// How long it was tried.
        within: Duration,
        /// Whether one of the attempts may have been applied.
        indefinite: bool,
        /// The last error before time ran out.
        last: Option<Box<ClientError>>,
    },

    /// The last attempt certainly failed, but an earlier one may have been applied.
    #[error("{0} (an earlier attempt may have been written)")]
    MaybeWritten(Box<ClientError>),

    /// An endpoint belongs to another cluster than the one this client talks to.
    #[error("{endpoint} belongs to cluster {found}, not to {expected}")]
    WrongCluster {
        /// Who answered.
        endpoint: HostPort,
        /// The cluster this client is connected to.
        expected: String,
        /// The cluster of the one who answered.
        found: String,
    },

    /// A node answered that knows less than this client has heard from others.
    #[error("{endpoint} lags behind in its metadata")]
    Stale {
        /// Who answered.
        endpoint: HostPort,
    },

    /// The call itself is wrong. Nothing was sent.
    #[error("{0}")]
    InvalidArgument(String),

    /// A node sent what it must not send, such as bytes that are no record batch.
    #[error("unexpected answer: {0}")]
    UnexpectedAnswer(String),

    /// The producer was shut down or dropped before the record was sent.
    #[error("the producer is closed")]
    Closed,
}

impl ClientError {
    /// Whether the same call may succeed later, or at another node.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Api(error) => error.is_retriable(),
            Self::Connect { .. }
            | Self::Disconnected { .. }
            | Self::NoAnswer { .. }
            | Self::Stale { .. } => true,
            Self::MaybeWritten(error) => error.is_retriable(),
            Self::DeadlineExceeded { .. }
            | Self::WrongCluster { .. }
            | Self::InvalidArgument(_)
            | Self::UnexpectedAnswer(_)
            | Self::Closed => false,
        }
    }

    /// Whether a write may have been applied. Where this is false, it certainly
    /// was not.
    #[must_use]
    pub fn is_indefinite(&self) -> bool {
        match self {
            Self::Api(error) => error.is_indefinite(),
            Self::Disconnected { .. } | Self::NoAnswer { .. } | Self::MaybeWritten(_) => true,
            Self::UnexpectedAnswer(_) => true,
            Self::DeadlineExceeded { indefinite, .. } => *indefinite,
            Self::Connect { .. }
            | Self::WrongCluster { .. }
            | Self::Stale { .. }
            | Self::InvalidArgument(_)
            | Self::Closed => false,
        }
    }

    /// The error a node answered with, also when it only was the last of many.
    #[must_use]
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Api(error) => Some(error),
            Self::DeadlineExceeded { last: Some(last), .. } | Self::MaybeWritten(last) => {
                last.api()
            }
            _ => None,
        }
    }

    /// The published reason, if a node gave one.
    #[must_use]
    pub fn reason(&self) -> Option<ErrorReason> {
        self.api().map(|error| error.reason)
    }

    /// A stable name: the published reason, or the name of a failure on this side.
    #[must_use]
    pub fn reason_name(&self) -> &'static str {
        if let Some(error) = self.api() {
            return reason_name(error.reason);
        }
        match self {
            Self::Api(error) => reason_name(error.reason),
            Self::Connect { .. } => "CONNECT_FAILED",
            Self::Disconnected { .. } => "DISCONNECTED",
            Self::NoAnswer { .. } => "NO_ANSWER",
            Self::DeadlineExceeded { last: Some(last), .. } => last.reason_name(),
            Self::DeadlineExceeded { last: None, .. } => "TIMED_OUT",
            Self::MaybeWritten(error) => error.reason_name(),
            Self::WrongCluster { .. } => "WRONG_CLUSTER",
            Self::Stale { .. } => "STALE_METADATA",
            Self::InvalidArgument(_) => "INVALID_ARGUMENT",
            Self::UnexpectedAnswer(_) => "UNEXPECTED_ANSWER",
            Self::Closed => "CLOSED",
        }
    }

    /// Least time to wait before a retry, if the node named one.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.api().and_then(|error| error.retry_after)
    }

    pub(crate) fn is(&self, reason: ErrorReason) -> bool {
        matches!(self, Self::Api(error) if error.reason == reason)
    }

    /// The topic or partition is not known to the node asked.
    pub(crate) fn is_unknown(&self) -> bool {
        self.is(ErrorReason::UnknownTopic) || self.is(ErrorReason::UnknownPartition)
    }

    /// The node cannot be talked to, so another should be asked.
    pub(crate) fn is_transport(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Disconnected { .. } | Self::NoAnswer { .. })
    }

    /// Reads a status: an error that an Ottla node sent keeps its reason,
    /// anything else is a matter of the connection.
    pub(crate) fn from_status(status: &Status, endpoint: &HostPort) -> Self {
        let details = status.get_error_details();
        let ours = details.error_info().is_some_and(|info| info.domain == ERROR_DOMAIN);
        let of_the_connection = matches!(
            status.code(),
            Code::Unavailable
                | Code::Unknown
                | Code::Internal
                | Code::Cancelled
                | Code::Aborted
                | Code::DeadlineExceeded
        );
        if ours || !of_the_connection {
            return ApiError::from_status(status).into();
        }
        let mut message = status.message().to_owned();
        let mut cause = std::error::Error::source(status);
        while let Some(error) = cause {
            message = error.to_string();
            cause = error.source();
        }
        Self::Disconnected { endpoint: endpoint.clone(), message }
    }
}

impl From<ApiError> for ClientError {
    fn from(error: ApiError) -> Self {
        Self::Api(Arc::new(error))
    }
}

fn because(last: Option<&ClientError>) -> String {
    last.map(|error| format!(": {error}")).unwrap_or_default()
}

fn humane(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> HostPort {
        HostPort::new("localhost", 7401)
    }

    #[test]
    fn a_status_with_our_details_keeps_its_reason() {
        let error = ApiError::new(ErrorReason::NotEnoughReplicas, "1 of 2 in sync");
        let read = ClientError::from_status(&error.into(), &endpoint());
        assert_eq!(read.reason(), Some(ErrorReason::NotEnoughReplicas));
        assert!(read.is_retriable() && !read.is_indefinite());
    }

    #[test]
    fn a_foreign_status_is_a_broken_connection_and_indefinite() {
        for code in [Code::Unavailable, Code::Unknown, Code::Internal, Code::DeadlineExceeded] {
            let read = ClientError::from_status(&Status::new(code, "gone"), &endpoint());
            assert!(matches!(read, ClientError::Disconnected { .. }), "{code:?}");
            assert!(read.is_retriable() && read.is_indefinite(), "{code:?}");
        }
        let read = ClientError::from_status(&Status::unimplemented("no such call"), &endpoint());
        assert!(!read.is_retriable());
    }

    /// A timed-out call is named after what stood in its way.
    #[test]
    fn a_deadline_names_its_last_error() {
        let last = ApiError::new(ErrorReason::LeaderNotAvailable, "orders-0 has no leader").into();
        let error = ClientError::DeadlineExceeded {
            what: "produce".to_owned(),
            within: Duration::from_millis(1500),
            indefinite: false,
            last: Some(Box::new(last)),
        };
        assert_eq!(error.reason_name(), "LEADER_NOT_AVAILABLE");
        assert_eq!(
            error.to_string(),
            "produce did not succeed within 1.5 s: LEADER_NOT_AVAILABLE: orders-0 has no leader"
        );
    }
}
