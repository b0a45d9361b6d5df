//! The client side of the Raft service: openraft's calls to another voter, each
//! kind of traffic on a connection of its own, so that a long append or a
//! snapshot never delays a heartbeat.
//!
//! Not its job: retries. openraft retries, after the pause given here.

use super::addresses::Endpoints;
use super::channel::{self, MAX_RAFT_MESSAGE_BYTES};
use super::snapshot::SnapshotBytes;
use super::types::{self, Peer, SnapshotMeta, TypeConfig, Vote};
use openraft::RPCTypes;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, v2::RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use ottla_host::Network;
use ottla_proto::internal::v1 as wire;
use ottla_proto::internal::v1::raft_service_client::RaftServiceClient;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Response, Status};

/// Longest wait for the answer to an append: the sending of up to a few MiB and
/// the follower's fdatasync on a busy disk. openraft waits for a heartbeat only
/// as long as the next one is not due.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of a snapshot in one message: small enough to share a connection.
const SNAPSHOT_CHUNK_BYTES: usize = 256 * 1024;

/// Chunks of a snapshot on the way to the transport.
const SNAPSHOT_CHUNKS_QUEUED: usize = 4;

/// Pauses before the next call to a voter that could not be reached, in
/// milliseconds. The last one repeats: it bounds how late a restarted voter is
/// found, at the price of ten refused connections a second.
const BACKOFF_MS: [u64; 4] = [10, 20, 50, 100];

/// A vote asked for, or only asked about: both travel in one call.
#[derive(Serialize, Deserialize)]
pub(crate) enum Ballot {
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
}

/// What precedes the bytes of a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) struct SnapshotHeader {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    /// Number of bytes that follow.
    pub(crate) len: u64,
}

/// Makes connections for openraft.
pub(crate) struct Connections {
    pub(crate) network: Arc<dyn Network>,
    pub(crate) cluster_id: String,
    pub(crate) node_id: u64,
    /// The configured addresses. They go before those in the membership, which
    /// are as old as the cluster: an operator may have moved a node since.
    pub(super) endpoints: Endpoints,
}

impl RaftNetworkFactory<TypeConfig> for Connections {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Connection {
        let node = self.endpoints.get(&target).unwrap_or(node);
        let client =
            channel::lazy(&self.network, node).map_err(|error| error.to_string()).map(|channel| {
                RaftServiceClient::new(channel)
                    .max_decoding_message_size(MAX_RAFT_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_RAFT_MESSAGE_BYTES)
            });
        Connection { cluster_id: self.cluster_id.clone(), node_id: self.node_id, target, client }
    }
}

/// A connection to one voter. An address that is not one shows when it is used.
pub(crate) struct Connection {
    cluster_id: String,
    node_id: u64,
    target: u64,
    client: Result<RaftServiceClient<Channel>, String>,
}

impl Connection {
    fn client(&self) -> Result<RaftServiceClient<Channel>, RPCError<TypeConfig>> {
        self.client.clone().map_err(|error| Unreachable::from_string(error).into())
    }

    /// Waits for `call` for at most `within`. Whatever went wrong on the way
    /// counts as unreachable: the pause that follows is short.
    async fn bounded<T>(
        &self,
        action: RPCTypes,
        within: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RPCError<TypeConfig>> {
        match tokio::time::timeout(within, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(unreachable(&status)),
            Err(_elapsed) => {
                Err(Timeout { action, id: self.node_id, target: self.target, timeout: within }
                    .into())
            }
        }
    }

    async fn ballot(
        &self,
        ballot: &Ballot,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client()?;
        let request = wire::VoteRequest {
            cluster_id: self.cluster_id.clone(),
            target_node_id: self.target,
            payload: packed(ballot)?.into(),
        };
        let call = client.vote(request);
        unpacked(&self.bounded(RPCTypes::Vote, option.soft_ttl(), call).await?.payload)
    }
}

fn unreachable(status: &Status) -> RPCError<TypeConfig> {
    Unreachable::from_string(format!("{:?}: {}", status.code(), status.message())).into()
}

fn packed<T: Serialize>(value: &T) -> Result<Vec<u8>, RPCError<TypeConfig>> {
    types::encode(value).map_err(|error| Unreachable::new(&error).into())
}

fn unpacked<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RPCError<TypeConfig>> {
    types::decode(bytes).map_err(|error| Unreachable::new(&error).into())
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = SnapshotBytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client()?;
        let request = wire::AppendEntriesRequest {
            cluster_id: self.cluster_id.clone(),
            target_node_id: self.target,
            payload: packed(&rpc)?.into(),
        };
        let call = client.append_entries(request);
        unpacked(&self.bounded(RPCTypes::AppendEntries, APPEND_TIMEOUT, call).await?.payload)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ballot(&Ballot::Vote(rpc), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ballot(&Ballot::PreVote(rpc), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<super::types::LeaderId, u64, Peer, SnapshotBytes>,
        cancel: impl Future<Output = ReplicationClosed> + openraft::OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut client = self.client()?;
        let header = packed(&SnapshotHeader {
            vote,
            meta: snapshot.meta,
            len: snapshot.snapshot.0.len() as u64,
        })?;
        let first = wire::InstallSnapshotRequest {
            cluster_id: self.cluster_id.clone(),
            target_node_id: self.target,
            header: header.into(),
            data: Vec::new().into(),
        };
        let (chunks, queue) = tokio::sync::mpsc::channel(SNAPSHOT_CHUNKS_QUEUED);
        let send = async move {
            let mut rest = snapshot.snapshot.0;
            let mut message = first;
            // A closed queue means that the call is over; its result tells why.
            while chunks.send(message).await.is_ok() && !rest.is_empty() {
                let chunk = rest.split_to(rest.len().min(SNAPSHOT_CHUNK_BYTES));
                message = wire::InstallSnapshotRequest { data: chunk, ..Default::default() };
            }
        };
        let call = client.install_snapshot(tokio_stream::wrappers::ReceiverStream::new(queue));
        let exchange = async { tokio::join!(send, call).1 };
        tokio::select! {
            closed = cancel => Err(closed.into()),
            response = self.bounded(RPCTypes::InstallSnapshot, option.soft_ttl(), exchange) => {
                Ok(unpacked(&response?.payload)?)
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<openraft::raft::TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client()?;
        let request = wire::TransferLeaderRequest {
            cluster_id: self.cluster_id.clone(),
            target_node_id: self.target,
            payload: packed(&req)?.into(),
        };
        let call = client.transfer_leader(request);
        self.bounded(RPCTypes::TransferLeader, option.soft_ttl(), call).await?;
        Ok(Ok(()))
    }

    fn backoff(&self) -> Option<Backoff> {
        let last = BACKOFF_MS[BACKOFF_MS.len() - 1];
        Some(Backoff::new(
            BACKOFF_MS.into_iter().chain(std::iter::repeat(last)).map(Duration::from_millis),
        ))
    }
}
