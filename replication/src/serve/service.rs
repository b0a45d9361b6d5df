//! The gRPC service that followers call.

use super::outgoing::{Queues, queues};
use super::push;
use super::session::Session;
use crate::core::{Event, FollowRefusal, Peer};
use crate::env::Env;
use crate::hold;
use crate::partition::Message;
use crate::wire;
use futures::future::join_all;
use ottla_grpc::{Answers, answer};
use ottla_metadata::controller::MAX_LEADER_MOVES;
use ottla_proto::internal::v1::replicate_request::Message as Body;
use ottla_proto::internal::v1::replication_service_server::ReplicationService;
use ottla_proto::internal::v1::{
    Follow, Hello, HoldWritesRequest, HoldWritesResponse, ReplicateRequest, ReplicateResponse,
};
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{
    ApiError, BrokerEpoch, LeaderEpoch, MAX_GRPC_MESSAGE_BYTES, NodeId, PartitionId,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

/// Leaderships that one call holds at most: as many as the controller moves at once.
const MAX_HELD: usize = MAX_LEADER_MOVES;

/// Serves followers. Made by [`crate::Replicas::service`].
pub struct ReplicationRpc {
    env: Arc<Env>,
}

impl ReplicationRpc {
    pub(crate) fn new(env: Arc<Env>) -> Self {
        Self { env }
    }
}

#[tonic::async_trait]
impl ReplicationService for ReplicationRpc {
    type ReplicateStream = Answers<ReplicateResponse>;

    async fn replicate(
        &self,
        request: Request<Streaming<ReplicateRequest>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        if self.env.stop.is_cancelled() {
            let message = format!("node {} is shutting down", self.env.node_id);
            return Err(ApiError::new(R::ShuttingDown, message).into());
        }
        let (queues, outgoing) = queues();
        let requests = request.into_inner();
        self.env.tasks.spawn(converse(Arc::clone(&self.env), requests, queues));
        Ok(answer(outgoing, MAX_GRPC_MESSAGE_BYTES))
    }

    async fn hold_writes(
        &self,
        request: Request<HoldWritesRequest>,
    ) -> Result<Response<HoldWritesResponse>, Status> {
        let request = request.into_inner();
        if request.cluster_id != self.env.cluster_id {
            return Err(wrong_cluster(&self.env, "the caller", &request.cluster_id).into());
        }
        let within = Duration::from_millis(request.within_ms.into());
        let env = &self.env;
        let held = request.leaderships.into_iter().take(MAX_HELD).map(|leadership| async move {
            let id = wire::partition_id(leadership.partition.as_ref())?;
            let epoch = LeaderEpoch(leadership.leader_epoch);
            let finished = hold::hold(env, id, epoch, within).await;
            leadership.partition.filter(|_| finished)
        });
        let finished = join_all(held).await.into_iter().flatten().collect();
        Ok(Response::new(HoldWritesResponse { finished }))
    }
}

fn wrong_cluster(env: &Env, who: &str, theirs: &str) -> ApiError {
    let ours = &env.cluster_id;
    let message = format!("{who} belongs to cluster {theirs}, this is cluster {ours}");
    ApiError::new(R::WrongCluster, message)
}

async fn converse(env: Arc<Env>, mut requests: Streaming<ReplicateRequest>, queues: Queues) {
    let stop = env.stop.clone();
    let greeted = match stop.run_until_cancelled(greet(&env, &mut requests)).await {
        Some(Ok(hello)) => hello,
        Some(Err(status)) => return refuse(status, &queues).await,
        None => return,
    };
    let node = NodeId(greeted.node_id);
    let session = env.sessions.begin(node, greeted.credit_bytes);
    let peer = Peer { node, stream: session.stream() };
    let broker_epoch = BrokerEpoch(greeted.broker_epoch);
    let mut followed = BTreeSet::new();
    let work = async {
        tokio::select! {
            () = push::push(&session, &env.traffics, &queues) => Ok(()),
            ended = listen(&env, &session, peer, broker_epoch, &mut requests, &mut followed) => ended,
        }
    };
    let ended = stop.run_until_cancelled(work).await;
    env.sessions.end(session.stream());
    if let Some(Err(status)) = ended {
        refuse(status, &queues).await;
    }
    for partition in followed.into_iter().filter_map(|id| env.partition(id)) {
        partition.send(Message::Event(Event::Unfollow { peer })).await;
    }
}

/// Ends the conversation.
async fn refuse(status: Status, queues: &Queues) {
    tracing::debug!(%status, "a follower's connection ended");
    // It may be gone; then nobody needs the reason.
    let _ = queues.live.send(Err(status)).await;
}

/// The first message says who it is. A registration that is not in the metadata
/// yet is taken at its word: it joins no ISR before it is.
async fn greet(env: &Env, requests: &mut Streaming<ReplicateRequest>) -> Result<Hello, Status> {
    let first = requests.message().await?;
    let Some(Body::Hello(hello)) = first.and_then(|request| request.message) else {
        let error = ApiError::new(R::InvalidRequest, "a replication stream begins with a Hello");
        return Err(error.into());
    };
    if hello.cluster_id != env.cluster_id {
        let who = format!("node {}", hello.node_id);
        return Err(wrong_cluster(env, &who, &hello.cluster_id).into());
    }
    let known = env.image().brokers.get(&NodeId(hello.node_id)).map(|broker| broker.epoch);
    if known > Some(BrokerEpoch(hello.broker_epoch)) {
        let message = format!("node {} has registered again since", hello.node_id);
        return Err(ApiError::new(R::StaleBrokerEpoch, message).into());
    }
    Ok(hello)
}

async fn listen(
    env: &Env,
    session: &Session,
    peer: Peer,
    broker_epoch: BrokerEpoch,
    requests: &mut Streaming<ReplicateRequest>,
    followed: &mut BTreeSet<PartitionId>,
) -> Result<(), Status> {
    while let Some(request) = requests.message().await? {
        match request.message {
            Some(Body::Follow(follow)) => {
                on_follow(env, session, peer, broker_epoch, &follow, followed).await?;
            }
            Some(Body::Progress(progress)) => {
                if let Some(id) = wire::partition_id(progress.partition.as_ref())
                    && let Some(partition) = env.partition(id)
                {
                    let event = Event::Progress(wire::progress_from(&progress, peer));
                    partition.send(Message::Event(event)).await;
                }
            }
            Some(Body::Unfollow(unfollow)) => {
                if let Some(id) = wire::partition_id(unfollow.partition.as_ref()) {
                    followed.remove(&id);
                    if let Some(partition) = env.partition(id) {
                        partition.send(Message::Event(Event::Unfollow { peer })).await;
                    }
                }
            }
            Some(Body::AddCredit(credit)) => session.add_credit(credit.bytes),
            Some(Body::Hello(_)) | None => {}
        }
    }
    Ok(())
}

async fn on_follow(
    env: &Env,
    session: &Session,
    peer: Peer,
    broker_epoch: BrokerEpoch,
    message: &Follow,
    followed: &mut BTreeSet<PartitionId>,
) -> Result<(), Status> {
    let id = wire::partition_id(message.partition.as_ref());
    let follow = wire::follow_from(message, peer, broker_epoch);
    let (Some(id), Some(follow)) = (id, follow) else {
        return Err(ApiError::new(R::InvalidRequest, "a Follow that makes no sense").into());
    };
    match env.partition(id) {
        Some(partition) => {
            followed.insert(id);
            partition.send(Message::Follow(follow)).await;
        }
        None => {
            let of = wire::session_ref(message.session, message.leader_epoch);
            session.refuse(id, of, FollowRefusal::UnknownPartition);
        }
    }
    Ok(())
}
