//! The Raft service of this node: openraft's calls from other voters, and
//! introductions.
//!
//! Until this node has joined the quorum it answers introductions only;
//! everything else is UNAVAILABLE, because a node that may have forgotten a
//! vote must not vote (see `introduction`).

use super::channel::MAX_RAFT_MESSAGE_BYTES;
use super::inner::Inner;
use super::network::{Ballot, SnapshotHeader};
use super::snapshot::{MAX_SNAPSHOT_BYTES, SnapshotBytes};
use super::types::{self, Peer};
use super::{MetadataRaft, introduction};
use bytes::{Bytes, BytesMut};
use openraft::storage::Snapshot;
use ottla_proto::internal::v1 as wire;
use ottla_proto::internal::v1::raft_service_server::{RaftService, RaftServiceServer};
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, DirectoryId, NodeId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Request, Response, Status, Streaming};

/// Serves [`RaftService`]. Made by [`Metadata::raft_service`](super::Metadata::raft_service).
#[derive(Clone)]
pub struct RaftRpc {
    pub(super) inner: Arc<Inner>,
}

impl RaftRpc {
    pub(super) fn server(inner: Arc<Inner>) -> RaftServiceServer<Self> {
        RaftServiceServer::new(Self { inner })
            .max_decoding_message_size(MAX_RAFT_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_RAFT_MESSAGE_BYTES)
    }

    fn check(&self, cluster_id: &str, target: u64) -> Result<(), Status> {
        let options = &self.inner.options;
        if cluster_id != options.cluster_id {
            let what = format!("this is cluster {}, not {cluster_id}", options.cluster_id);
            return Err(ApiError::new(ErrorReason::WrongCluster, what).into());
        }
        if target != options.node_id.0 {
            let what = format!("this is node {}, not {target}", options.node_id);
            return Err(Status::failed_precondition(what));
        }
        Ok(())
    }

    /// Raft, and what keeps it from being shut down while the call lasts.
    fn raft(
        &self,
        cluster_id: &str,
        target: u64,
    ) -> Result<(&MetadataRaft, TaskTrackerToken), Status> {
        self.check(cluster_id, target)?;
        let call = self.inner.calls.token();
        if self.inner.stop.is_cancelled() {
            return Err(Status::unavailable("this node is shutting down"));
        }
        let joining = || Status::unavailable("this node has not joined the metadata quorum");
        Ok((self.inner.raft.get().ok_or_else(joining)?, call))
    }
}

fn unpacked<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Status> {
    types::decode(payload).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn packed<T: Serialize>(value: &T) -> Result<Bytes, Status> {
    let bytes = types::encode(value).map_err(|error| Status::internal(error.to_string()))?;
    Ok(bytes.into())
}

/// Raft on this node has ended.
fn stopped(error: &dyn std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

async fn receive_snapshot(
    messages: &mut Streaming<wire::InstallSnapshotRequest>,
    len: u64,
) -> Result<SnapshotBytes, Status> {
    if len > MAX_SNAPSHOT_BYTES {
        let what = format!("a snapshot of {len} bytes, at most {MAX_SNAPSHOT_BYTES} are taken");
        return Err(Status::resource_exhausted(what));
    }
    // Grows with what arrives: the announced length is only a bound.
    let mut data = BytesMut::new();
    while let Some(message) = messages.message().await? {
        data.extend_from_slice(&message.data);
        if data.len() as u64 > len {
            break;
        }
    }
    if data.len() as u64 != len {
        let what = format!("a snapshot of {} bytes, {len} were announced", data.len());
        return Err(Status::invalid_argument(what));
    }
    Ok(SnapshotBytes(data.freeze()))
}

#[tonic::async_trait]
impl RaftService for RaftRpc {
    async fn append_entries(
        &self,
        request: Request<wire::AppendEntriesRequest>,
    ) -> Result<Response<wire::AppendEntriesResponse>, Status> {
        let request = request.into_inner();
        let (raft, _call) = self.raft(&request.cluster_id, request.target_node_id)?;
        let append = raft.append_entries(unpacked(&request.payload)?);
        let response = append.await.map_err(|error| stopped(&error))?;
        Ok(Response::new(wire::AppendEntriesResponse { payload: packed(&response)? }))
    }

    async fn vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteResponse>, Status> {
        let request = request.into_inner();
        let (raft, _call) = self.raft(&request.cluster_id, request.target_node_id)?;
        let response = match unpacked(&request.payload)? {
            Ballot::Vote(vote) => raft.vote(vote).await,
            Ballot::PreVote(vote) => raft.pre_vote(vote).await,
        };
        let response = response.map_err(|error| stopped(&error))?;
        Ok(Response::new(wire::VoteResponse { payload: packed(&response)? }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::InstallSnapshotRequest>>,
    ) -> Result<Response<wire::InstallSnapshotResponse>, Status> {
        let mut messages = request.into_inner();
        let first = messages.message().await?;
        let first = first.ok_or_else(|| Status::invalid_argument("no snapshot was sent"))?;
        let (raft, _call) = self.raft(&first.cluster_id, first.target_node_id)?;
        let SnapshotHeader { vote, meta, len } = unpacked(&first.header)?;
        let snapshot = receive_snapshot(&mut messages, len).await?;
        let install = raft.install_full_snapshot(vote, Snapshot { meta, snapshot });
        let response = install.await.map_err(|error| stopped(&error))?;
        Ok(Response::new(wire::InstallSnapshotResponse { payload: packed(&response)? }))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let (raft, _call) = self.raft(&request.cluster_id, request.target_node_id)?;
        let transfer = raft.handle_transfer_leader(unpacked(&request.payload)?);
        let outcome = transfer.await.map_err(|error| stopped(&error))?;
        outcome.map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(Response::new(wire::TransferLeaderResponse {}))
    }

    async fn introduce(
        &self,
        request: Request<wire::IntroduceRequest>,
    ) -> Result<Response<wire::IntroduceResponse>, Status> {
        let request = request.into_inner();
        self.check(&request.cluster_id, self.inner.options.node_id.0)?;
        let directory = DirectoryId::from_wire(&request.directory_id)
            .ok_or_else(|| Status::invalid_argument("a directory id has 16 bytes"))?;
        let peer = request.endpoint.and_then(|endpoint| {
            let port = u16::try_from(endpoint.port).ok().filter(|port| *port > 0)?;
            (!endpoint.host.is_empty()).then_some(Peer { host: endpoint.host, port })
        });
        let newcomer = introduction::Newcomer {
            node_id: NodeId(request.node_id),
            peer,
            directory,
            replace: request.replace_directory,
            has_log: request.has_log,
        };
        Ok(Response::new(introduction::receive(&self.inner, newcomer).await))
    }
}
