//! Calls to the active controller, wherever it is: found through the quorum,
//! followed when it moves, waited for while there is none.

use super::administration::{self, Answer, Call};
use super::inner::Inner;
use super::types::Peer;
use super::{channel, controller_service, wire};
use crate::controller::{
    AlterPartition, Command, PartitionOutcome, RegisterBroker, Reply, ReportOffline,
};
use ottla_host::Network;
use ottla_proto::internal::v1 as internal;
use ottla_proto::internal::v1::controller_service_client::ControllerServiceClient;
use ottla_proto::v1::ErrorReason;
use ottla_proto::{
    ApiError, BrokerEpoch, MAX_GRPC_MESSAGE_BYTES, MetadataOffset, NodeId, RequestId,
};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Pause before the controller is asked again if nothing about the quorum has
/// changed: it may be about to become active.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Where the active controller is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Here,
    There(NodeId, Peer),
}

pub(super) type Client = ControllerServiceClient<Channel>;

/// A connection of its own to a controller. Where this fails, nothing was sent.
pub(super) async fn connect(
    network: &Arc<dyn Network>,
    node_id: NodeId,
    peer: &Peer,
) -> Result<Client, ApiError> {
    let unreachable = |error: tonic::transport::Error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        let what =
            format!("node {node_id} cannot be reached: {error}{}", source.unwrap_or_default());
        ApiError::new(ErrorReason::ControllerNotAvailable, what)
    };
    let channel = channel::connect(network, peer).await;
    Ok(ControllerServiceClient::new(channel.map_err(unreachable)?)
        .max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_GRPC_MESSAGE_BYTES))
}

/// Nothing was done: another node may do it, or the same one a little later.
fn asks_for_another(error: &ApiError) -> bool {
    matches!(
        error.reason,
        ErrorReason::NotController
            | ErrorReason::ControllerNotAvailable
            | ErrorReason::ShuttingDown
    )
}

/// The active controller, ready to be asked.
enum Reached {
    Here,
    There(Client),
}

/// Whether a call may be made again when it is not known what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// It goes under a request id, or changes nothing.
    Safe,
    /// Its caller looks at the image first.
    Unsafe,
}

impl Repeat {
    /// What the controller answers in time is final; what is lost with the
    /// controller's leadership, or with the connection to it, may be asked
    /// again.
    fn allows(self, error: &ApiError) -> bool {
        self == Self::Safe && error.reason == ErrorReason::LeadershipLost
    }
}

/// Calls the active controller, and again as long as the answer is that it is
/// elsewhere, until `deadline`. Where it is not known what became of an attempt
/// the outcome is only definite if a later one was answered.
///
/// Not an `AsyncFn`: the future of such a call cannot be proven to be `Send`.
async fn call<T, F>(
    inner: &Inner,
    deadline: Instant,
    repeat: Repeat,
    attempt: impl Fn(Reached) -> F,
) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>> + Send,
{
    let mut quorum = inner.quorum.subscribe();
    let mut in_doubt = None;
    loop {
        let leader = quorum.borrow_and_update().leader;
        let outcome = match inner.place_of(leader) {
            None => Err(inner.control.not_controller()),
            Some(place) => {
                match reach(&inner.options.network, place, deadline, &mut quorum).await {
                    Err(unreachable) => Err(unreachable),
                    Ok(reached) => tokio::select! {
                        biased; // An answer counts, even if it comes too late.
                        outcome = attempt(reached) => outcome,
                        () = tokio::time::sleep_until(deadline) => Err(ApiError::new(
                            ErrorReason::RequestTimedOut,
                            "the controller did not answer in time",
                        )),
                        // It may hang and never answer.
                        () = leader_changed(&mut quorum, leader) => Err(ApiError::new(
                            ErrorReason::LeadershipLost,
                            "the controller was replaced before it answered",
                        )),
                    },
                }
            }
        };
        let error = match outcome {
            Err(error) if asks_for_another(&error) => error,
            Err(error) if repeat.allows(&error) => in_doubt.insert(error).clone(),
            outcome => return outcome,
        };
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => return Err(in_doubt.unwrap_or(error)),
            () = inner.stop.cancelled() => return Err(in_doubt.unwrap_or(error)),
            () = leader_changed(&mut quorum, leader) => {}
            () = tokio::time::sleep(RETRY_PAUSE) => {}
        }
    }
}

/// Connects to the controller, unless it takes too long or is another meanwhile:
/// in any case nothing was asked yet.
async fn reach(
    network: &Arc<dyn Network>,
    place: Place,
    deadline: Instant,
    quorum: &mut tokio::sync::watch::Receiver<super::QuorumStatus>,
) -> Result<Reached, ApiError> {
    let Place::There(node_id, peer) = place else { return Ok(Reached::Here) };
    let given_up = |why: &str| {
        let what = format!("node {node_id} took no connection {why}");
        Err(ApiError::new(ErrorReason::ControllerNotAvailable, what))
    };
    tokio::select! {
        biased;
        client = connect(network, node_id, &peer) => client.map(Reached::There),
        () = tokio::time::sleep_until(deadline) => given_up("in time"),
        () = leader_changed(quorum, Some(node_id)) => given_up("before it was replaced"),
    }
}

async fn leader_changed(
    quorum: &mut tokio::sync::watch::Receiver<super::QuorumStatus>,
    leader: Option<NodeId>,
) {
    if quorum.wait_for(|status| status.leader != leader).await.is_err() {
        // This node is being torn down; whoever waits here is told otherwise.
        std::future::pending::<()>().await;
    }
}

pub(super) async fn register(
    inner: &Inner,
    place: &Place,
    request: &RegisterBroker,
) -> Result<BrokerEpoch, ApiError> {
    match place {
        Place::Here => controller_service::register(inner, request.clone()).await,
        Place::There(node_id, peer) => {
            let mut client = connect(&inner.options.network, *node_id, peer).await?;
            let response = client.register_broker(wire::registration_request(request)).await;
            let response = response.map_err(|status| ApiError::from_status(&status))?;
            Ok(BrokerEpoch(response.into_inner().broker_epoch))
        }
    }
}

/// What a call over the network came to. That the connection broke on the way
/// says nothing about the call.
fn outcome<T>(answer: Result<tonic::Response<T>, Status>) -> Result<T, ApiError> {
    answer.map(tonic::Response::into_inner).map_err(|status| {
        let error = ApiError::from_status(&status);
        let broke = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
        if broke && error.reason == ErrorReason::Internal {
            let what = format!("the connection to the controller broke: {}", error.message);
            return ApiError::new(ErrorReason::LeadershipLost, what);
        }
        error
    })
}

/// Has an operator's call decided, wherever the controller is. If it has no
/// request id it gets one, so that this node can ask again.
pub(super) async fn administer(
    inner: &Arc<Inner>,
    mut call: Call,
    deadline: Instant,
) -> Result<Answer, ApiError> {
    if let Some(id) = administration::request_id(&mut call)
        && id.is_empty()
    {
        *id = RequestId::random().to_wire().into();
    }
    let attempt = |controller| {
        let call = call.clone();
        async move {
            match controller {
                Reached::Here => administration::decide_here(inner, call).await,
                Reached::There(mut client) => {
                    let message = internal::AdministerRequest { call: Some(call) };
                    let mut request = tonic::Request::new(message);
                    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
                    let response = outcome(client.administer(request).await)?;
                    response.answer.ok_or_else(administration::unknown_answer)
                }
            }
        }
    };
    self::call(inner, deadline, Repeat::Safe, attempt).await
}

/// How far this node must have applied the metadata before it answers what is
/// asked now. Fails with CONTROLLER_NOT_AVAILABLE, whatever stood in the way:
/// this node's own image may be old.
pub(super) async fn read_index(
    inner: &Inner,
    deadline: Instant,
) -> Result<MetadataOffset, ApiError> {
    let attempt = |controller| async move {
        match controller {
            Reached::Here => controller_service::read_index(inner).await,
            Reached::There(mut client) => {
                let mut request = tonic::Request::new(internal::ReadIndexRequest {});
                request.set_timeout(deadline.saturating_duration_since(Instant::now()));
                Ok(MetadataOffset(outcome(client.read_index(request).await)?.metadata_offset))
            }
        }
    };
    call(inner, deadline, Repeat::Safe, attempt).await.map_err(|error| {
        let what =
            format!("what this node knows may be old, and no controller said how old: {error}");
        ApiError::new(ErrorReason::ControllerNotAvailable, what)
    })
}

pub(super) async fn alter_partition(
    inner: &Inner,
    request: AlterPartition,
    deadline: Instant,
) -> Result<Vec<PartitionOutcome>, ApiError> {
    let request = &request;
    let attempt = |controller| async move {
        match controller {
            Reached::Here => {
                let command = Command::AlterPartition(request.clone());
                match inner.control.submit_here(command).await?.reply {
                    Reply::Altered(outcomes) => Ok(outcomes),
                    reply => Err(controller_service::unexpected(&reply)),
                }
            }
            Reached::There(mut client) => {
                let response = client.alter_partition(wire::alteration_request(request)).await;
                let response = response.map_err(|status| ApiError::from_status(&status))?;
                wire::alteration_outcomes(response.into_inner())
            }
        }
    };
    call(inner, deadline, Repeat::Unsafe, attempt).await
}

pub(super) async fn report_offline(
    inner: &Inner,
    request: ReportOffline,
    deadline: Instant,
) -> Result<(), ApiError> {
    let request = &request;
    let attempt = |controller| async move {
        match controller {
            Reached::Here => {
                let command = Command::ReportOffline(request.clone());
                inner.control.submit_here(command).await.map(drop)
            }
            Reached::There(mut client) => {
                let response = client.report_offline(wire::report_request(request)).await;
                response.map(drop).map_err(|status| ApiError::from_status(&status))
            }
        }
    };
    call(inner, deadline, Repeat::Safe, attempt).await
}

/// Asked again after a doubtful answer: ids that nobody heard of are lost, which is
/// harmless.
pub(super) async fn allocate_producer_ids(
    inner: &Inner,
    broker_epoch: BrokerEpoch,
    deadline: Instant,
) -> Result<Range<i64>, ApiError> {
    let node_id = inner.options.node_id;
    let attempt = |controller| async move {
        match controller {
            Reached::Here => {
                controller_service::allocate_producer_ids(inner, node_id, broker_epoch).await
            }
            Reached::There(mut client) => {
                let (node_id, broker_epoch) = (node_id.0, broker_epoch.0);
                let request = internal::AllocateProducerIdsRequest { node_id, broker_epoch };
                let answer = outcome(client.allocate_producer_ids(request).await)?;
                Ok(answer.first_producer_id..answer.end_producer_id)
            }
        }
    };
    call(inner, deadline, Repeat::Safe, attempt).await
}
