//! The gRPC service that followers call.

use super::push::{self, Responses};
use super::session::Session;
use crate::core::{Event, FollowRefusal, Peer};
use crate::env::Env;
use crate::hold;
use crate::partition::Message;
use crate::wire;
use futures::Stream;
use futures::future::join_all;
use ottla_metadata::controller::MAX_LEADER_MOVES;
use ottla_proto::internal::v1::replicate_request::Message as Body;
use ottla_proto::internal::v1::replication_service_server::ReplicationService;
use ottla_proto::internal::v1::{
    Follow, Hello, HoldWritesRequest, HoldWritesResponse, ReplicateRequest, ReplicateResponse,
};
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{ApiError, BrokerEpoch, LeaderEpoch, NodeId, PartitionId};
use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Responses between the reading threads and the socket. Each is at most a chunk
/// or one batch.
const RESPONSES_ON_THE_WAY: usize = 4;

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
    type ReplicateStream =
        Pin<Box<dyn Stream<Item = Result<ReplicateResponse, Status>> + Send + 'static>>;

    async fn replicate(
        &self,
        request: Request<Streaming<ReplicateRequest>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        if self.env.stop.is_cancelled() {
            let message = format!("node {} is shutting down", self.env.node_id);
            return Err(ApiError::new(R::ShuttingDown, message).into());
        }
        let (responses, receiver) = mpsc::channel(RESPONSES_ON_THE_WAY);
        let requests = request.into_inner();
        self.env.tasks.spawn(converse(Arc::clone(&self.env), requests, responses));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
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

async fn converse(env: Arc<Env>, mut requests: Streaming<ReplicateRequest>, responses: Responses) {
    let stop = env.stop.clone();
    let session = env.sessions.begin();
    let mut followed = BTreeSet::new();
    let work = async {
        let hello = greet(&env, &mut requests).await?;
        session.add_credit(hello.credit_bytes);
        let peer = Peer { node: NodeId(hello.node_id), stream: session.stream() };
        let broker_epoch = BrokerEpoch(hello.broker_epoch);
        tokio::select! {
            () = push::push(&session, &responses) => Ok(()),
            ended = listen(&env, &session, peer, broker_epoch, &mut requests, &mut followed) => ended,
        }
        .map_err(|status| (status, Some(peer)))
        .map(|()| peer)
    };
    let ended = stop.run_until_cancelled(work).await;
    env.sessions.end(session.stream());
    let node = match ended {
        Some(Ok(peer)) => Some(peer.node),
        Some(Err((status, peer))) => {
            tracing::debug!(%status, "a follower's connection ended");
            // It may be gone; then nobody needs the reason.
            let _ = responses.send(Err(status)).await;
            peer.map(|peer| peer.node)
        }
        None => None,
    };
    for (node, id) in followed.into_iter().filter_map(|id| Some((node?, id))) {
        if let Some(partition) = env.partition(id) {
            let peer = Peer { node, stream: session.stream() };
            partition.send(Message::Event(Event::Unfollow { peer })).await;
        }
    }
}

/// The first message says who it is. A registration that is not in the metadata
/// yet is taken at its word: it joins no ISR before it is.
async fn greet(
    env: &Env,
    requests: &mut Streaming<ReplicateRequest>,
) -> Result<Hello, (Status, Option<Peer>)> {
    let first = requests.message().await.map_err(|status| (status, None))?;
    let Some(Body::Hello(hello)) = first.and_then(|request| request.message) else {
        let error = ApiError::new(R::InvalidRequest, "a replication stream begins with a Hello");
        return Err((error.into(), None));
    };
    if hello.cluster_id != env.cluster_id {
        let who = format!("node {}", hello.node_id);
        return Err((wrong_cluster(env, &who, &hello.cluster_id).into(), None));
    }
    let known = env.image().brokers.get(&NodeId(hello.node_id)).map(|broker| broker.epoch);
    if known > Some(BrokerEpoch(hello.broker_epoch)) {
        let message = format!("node {} has registered again since", hello.node_id);
        return Err((ApiError::new(R::StaleBrokerEpoch, message).into(), None));
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
