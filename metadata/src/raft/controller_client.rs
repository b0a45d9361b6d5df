//! Calls to the active controller, wherever it is: found through the quorum,
//! followed when it moves, waited for while there is none.

use super::administration::{self, Answer, Call};
use super::inner::Inner;
use super::types::Peer;
use super::{channel, controller_service, wire};
use crate::controller::{
    AlterPartition, Command, PartitionOutcome, RegisterBroker, Reply, ReportOffline,
};
use ottla_proto::internal::v1 as internal;
use ottla_proto::internal::v1::controller_service_client::ControllerServiceClient;
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, BrokerEpoch, MAX_GRPC_MESSAGE_BYTES, NodeId};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::Channel;

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
pub(super) async fn connect(node_id: NodeId, peer: &Peer) -> Result<Client, ApiError> {
    let unreachable = |error: tonic::transport::Error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        let what =
            format!("node {node_id} cannot be reached: {error}{}", source.unwrap_or_default());
        ApiError::new(ErrorReason::ControllerNotAvailable, what)
    };
    let channel = channel::endpoint(peer).map_err(unreachable)?.connect().await;
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

/// Calls the active controller, and again as long as the answer is that it is
/// elsewhere, until `deadline`.
///
/// Not an `AsyncFn`: the future of such a call cannot be proven to be `Send`.
async fn call<T, F>(
    inner: &Inner,
    deadline: Instant,
    attempt: impl Fn(Reached) -> F,
) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>> + Send,
{
    let mut quorum = inner.quorum.subscribe();
    loop {
        let leader = quorum.borrow_and_update().leader;
        let outcome = match inner.place_of(leader) {
            None => Err(inner.control.not_controller()),
            Some(place) => match reach(place, deadline, &mut quorum).await {
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
            },
        };
        let error = match outcome {
            Err(error) if asks_for_another(&error) => error,
            outcome => return outcome,
        };
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => return Err(error),
            () = inner.stop.cancelled() => return Err(error),
            () = leader_changed(&mut quorum, leader) => {}
            () = tokio::time::sleep(RETRY_PAUSE) => {}
        }
    }
}

/// Connects to the controller, unless it takes too long or is another meanwhile:
/// in any case nothing was asked yet.
async fn reach(
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
        client = connect(node_id, &peer) => client.map(Reached::There),
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
            let mut client = connect(*node_id, peer).await?;
            let response = client.register_broker(wire::registration_request(request)).await;
            let response = response.map_err(|status| ApiError::from_status(&status))?;
            Ok(BrokerEpoch(response.into_inner().broker_epoch))
        }
    }
}

/// Has an operator's call decided, wherever the controller is.
pub(super) async fn administer(
    inner: &Arc<Inner>,
    call: Call,
    deadline: Instant,
) -> Result<Answer, ApiError> {
    let attempt = |controller| {
        let call = call.clone();
        async move {
            match controller {
                Reached::Here => administration::decide_here(inner, call).await,
                Reached::There(mut client) => {
                    let message = internal::AdministerRequest { call: Some(call) };
                    let mut request = tonic::Request::new(message);
                    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
                    let response = client.administer(request).await;
                    let response = response.map_err(|status| ApiError::from_status(&status))?;
                    response.into_inner().answer.ok_or_else(administration::unknown_answer)
                }
            }
        }
    };
    self::call(inner, deadline, attempt).await
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
    call(inner, deadline, attempt).await
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
    call(inner, deadline, attempt).await
}
