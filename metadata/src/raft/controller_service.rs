//! The controller service of this node: other nodes' registrations, heartbeats
//! and changes, handed to the active controller if it is here. Elsewhere every
//! call gets NOT_CONTROLLER with a hint.

use super::inner::Inner;
use super::streams::OpenStream;
use super::{administration, probe, wire};
use crate::controller::{Command, Heartbeat, Reply};
use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use ottla_proto::internal::v1 as internal;
use ottla_proto::internal::v1::controller_service_server::{
    ControllerService, ControllerServiceServer,
};
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, BrokerEpoch, MAX_GRPC_MESSAGE_BYTES, MetadataOffset, NodeId};
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Answers on the way to a broker. A broker sends the next heartbeat when it
/// has the answer to the last one.
const QUEUED_ANSWERS: usize = 4;

/// Serves [`ControllerService`]. Made by
/// [`Metadata::controller_service`](super::Metadata::controller_service).
#[derive(Clone)]
pub struct ControllerRpc {
    pub(super) inner: Arc<Inner>,
}

impl ControllerRpc {
    pub(super) fn server(inner: Arc<Inner>) -> ControllerServiceServer<Self> {
        ControllerServiceServer::new(Self { inner })
            .max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_GRPC_MESSAGE_BYTES)
    }
}

/// A reply of another kind than the command asks for.
pub(super) fn unexpected(reply: &Reply) -> ApiError {
    ApiError::new(ErrorReason::Internal, format!("the controller answered {reply:?}"))
}

/// Registers a broker with the controller on this node, and records the
/// directory of a node that has none on record yet.
pub(super) async fn register(
    inner: &Inner,
    mut request: crate::controller::RegisterBroker,
) -> Result<BrokerEpoch, ApiError> {
    let (node_id, directory) = (request.node_id, request.directory);
    let known = inner.image().brokers.get(&node_id).map(|broker| broker.epoch);
    request.previous_stream_open = known.is_some_and(|epoch| inner.streams.is_open(node_id, epoch));
    let submitted = inner.control.submit_here(Command::RegisterBroker(request)).await?;
    let Reply::Registered { broker_epoch, .. } = submitted.reply else {
        return Err(unexpected(&submitted.reply));
    };
    if !inner.image().voter_directories.contains_key(&node_id) {
        let record = Command::RecordVoterDirectory { node_id, directory };
        inner.control.submit_here(record).await?;
    }
    Ok(broker_epoch)
}

pub(super) async fn beat(
    inner: &Inner,
    beat: Heartbeat,
) -> Result<internal::HeartbeatResponse, ApiError> {
    let submitted = inner.control.submit_here(Command::Heartbeat(beat)).await?;
    match submitted.reply {
        Reply::Heartbeat { fenced, should_shutdown } => {
            Ok(internal::HeartbeatResponse { fenced, should_shutdown })
        }
        reply => Err(unexpected(&reply)),
    }
}

pub(super) async fn allocate_producer_ids(
    inner: &Inner,
    node_id: NodeId,
    broker_epoch: BrokerEpoch,
) -> Result<Range<i64>, ApiError> {
    let command = Command::AllocateProducerIds { node_id, broker_epoch };
    match inner.control.submit_here(command).await?.reply {
        Reply::ProducerIds { ids } => Ok(ids),
        reply => Err(unexpected(&reply)),
    }
}

/// How far the metadata is committed now, as a majority of the quorum has
/// confirmed after it was asked; applied on this node.
pub(super) async fn read_index(inner: &Inner) -> Result<MetadataOffset, ApiError> {
    let Some(raft) = inner.raft.get() else { return Err(inner.control.not_controller()) };
    match raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
        Ok(_) => Ok(inner.image().offset),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
            Err(inner.control.not_controller())
        }
        Err(error) => {
            let what = format!("a majority did not confirm the leader of the quorum: {error}");
            Err(ApiError::new(ErrorReason::ControllerNotAvailable, what))
        }
    }
}

/// One broker's heartbeat stream. When it ends, for whatever reason, the
/// broker is looked after.
async fn serve_heartbeats(
    inner: Arc<Inner>,
    mut beats: Streaming<internal::HeartbeatRequest>,
    answers: mpsc::Sender<Result<internal::HeartbeatResponse, Status>>,
) {
    let mut open: Option<((NodeId, BrokerEpoch), OpenStream)> = None;
    loop {
        let request = tokio::select! {
            () = inner.stop.cancelled() => break,
            request = beats.message() => request,
        };
        let Ok(Some(request)) = request else { break };
        let heartbeat = wire::heartbeat(&request);
        let answer = beat(&inner, heartbeat).await;
        if answer.is_ok() {
            let key = (heartbeat.node_id, heartbeat.broker_epoch);
            if open.as_ref().is_none_or(|(known, _)| *known != key) {
                open = Some((key, inner.streams.opened(key.0, key.1)));
            }
        }
        let failed = answer.is_err();
        if answers.send(answer.map_err(Status::from)).await.is_err() || failed {
            break;
        }
    }
    if let Some(((node_id, epoch), stream)) = open {
        drop(stream);
        probe::start(&inner, node_id, epoch);
    }
}

#[tonic::async_trait]
impl ControllerService for ControllerRpc {
    async fn register_broker(
        &self,
        request: Request<internal::RegisterBrokerRequest>,
    ) -> Result<Response<internal::RegisterBrokerResponse>, Status> {
        let epoch = register(&self.inner, wire::registration(request.into_inner())?).await?;
        Ok(Response::new(internal::RegisterBrokerResponse { broker_epoch: epoch.0 }))
    }

    type HeartbeatStream = ReceiverStream<Result<internal::HeartbeatResponse, Status>>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<internal::HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let (answers, stream) = mpsc::channel(QUEUED_ANSWERS);
        let inner = Arc::clone(&self.inner);
        self.inner.tasks.spawn(serve_heartbeats(inner, request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn alter_partition(
        &self,
        request: Request<internal::AlterPartitionRequest>,
    ) -> Result<Response<internal::AlterPartitionResponse>, Status> {
        let command = Command::AlterPartition(wire::alteration(request.into_inner())?);
        match self.inner.control.submit_here(command).await?.reply {
            Reply::Altered(outcomes) => Ok(Response::new(wire::alteration_response(outcomes))),
            reply => Err(unexpected(&reply).into()),
        }
    }

    async fn report_offline(
        &self,
        request: Request<internal::ReportOfflineRequest>,
    ) -> Result<Response<internal::ReportOfflineResponse>, Status> {
        let command = Command::ReportOffline(wire::report(request.into_inner())?);
        self.inner.control.submit_here(command).await?;
        Ok(Response::new(internal::ReportOfflineResponse {}))
    }

    async fn allocate_producer_ids(
        &self,
        request: Request<internal::AllocateProducerIdsRequest>,
    ) -> Result<Response<internal::AllocateProducerIdsResponse>, Status> {
        let internal::AllocateProducerIdsRequest { node_id, broker_epoch } = request.into_inner();
        let (node_id, broker_epoch) = (NodeId(node_id), BrokerEpoch(broker_epoch));
        let ids = allocate_producer_ids(&self.inner, node_id, broker_epoch).await?;
        Ok(Response::new(internal::AllocateProducerIdsResponse {
            first_producer_id: ids.start,
            end_producer_id: ids.end,
        }))
    }

    async fn read_index(
        &self,
        _request: Request<internal::ReadIndexRequest>,
    ) -> Result<Response<internal::ReadIndexResponse>, Status> {
        let metadata_offset = read_index(&self.inner).await?.0;
        Ok(Response::new(internal::ReadIndexResponse { metadata_offset }))
    }

    async fn administer(
        &self,
        request: Request<internal::AdministerRequest>,
    ) -> Result<Response<internal::AdministerResponse>, Status> {
        let call = request.into_inner().call.ok_or_else(administration::unknown_call)?;
        let answer = Some(administration::decide_here(&self.inner, call).await?);
        Ok(Response::new(internal::AdministerResponse { answer }))
    }
}
