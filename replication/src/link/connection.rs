//! One connection to a leader after the other.

use super::outbox::{Credit, Outbox};
use crate::core::Event;
use crate::env::Env;
use crate::partition::{Incoming, Message};
use crate::wire;
use ottla_grpc::{Client, Messages};
use ottla_metadata::image::Broker;
use ottla_proto::internal::v1::replicate_request::Message as Request;
use ottla_proto::internal::v1::replicate_response::Message as Response;
use ottla_proto::internal::v1::replication_service_client::ReplicationServiceClient;
use ottla_proto::internal::v1::{Hello, ReplicateRequest, ReplicateResponse};
use ottla_proto::{
    HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_FRAME_BYTES, HTTP2_STREAM_WINDOW_BYTES, LeaderEpoch,
    MAX_GRPC_MESSAGE_BYTES, NodeId, PartitionId,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

/// First wait before a connection is tried again: a process that restarts or an
/// accept queue that overflowed is back within it.
const FIRST_BACKOFF: Duration = Duration::from_millis(20);

/// Longest such wait; every leaderless moment is at least as short.
const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// A connection that held for so long was a good one: the next wait is short.
const GOOD_CONNECTION: Duration = Duration::from_secs(1);

/// Time to connect: many round trips even between continents.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Interval of pings, also when idle, and how long each may take: a dead host is
/// noticed within their sum.
const PING_INTERVAL: Duration = Duration::from_millis(500);
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Messages between the outbox and the socket. The outbox keeps only the newest,
/// so what waits here should be little.
const REQUESTS_ON_THE_WAY: usize = 64;

pub(super) struct Link {
    leader: NodeId,
    outbox: Arc<Outbox>,
    connected: watch::Sender<bool>,
}

impl Link {
    pub(super) fn new(leader: NodeId, credit_bytes: usize) -> Self {
        let connected = watch::Sender::new(false);
        Self { leader, outbox: Arc::new(Outbox::new(credit_bytes)), connected }
    }

    pub(super) fn connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }
}

/// Connects whenever a partition wants to follow, until the node stops.
pub(super) async fn run(env: Arc<Env>, link: Arc<Link>) {
    let stop = env.stop.clone();
    stop.run_until_cancelled(connect_for_ever(&env, &link)).await;
}

async fn connect_for_ever(env: &Env, link: &Link) {
    let mut images = env.images.subscribe();
    let mut backoff = FIRST_BACKOFF;
    loop {
        link.outbox.wanted().await;
        let broker = images.borrow_and_update().brokers.get(&link.leader).map(Arc::clone);
        let started = Instant::now();
        let ended = match &broker {
            Some(broker) => connect(env, link, broker).await,
            None => "it is not registered".to_owned(),
        };
        tracing::debug!(leader = %link.leader, reason = ended, "replication connection ended");
        if started.elapsed() >= GOOD_CONNECTION {
            backoff = FIRST_BACKOFF;
        }
        tokio::time::sleep(FIRST_BACKOFF).await;
        // A leader that came back, perhaps elsewhere, need not be waited for.
        let moved = images.wait_for(|image| image.brokers.get(&link.leader) != broker.as_ref());
        let _ = tokio::time::timeout(backoff - FIRST_BACKOFF, moved).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

/// Connects and replicates until the connection ends; says why it did.
async fn connect(env: &Env, link: &Link, broker: &Broker) -> String {
    let connected = match endpoint(&broker.host, broker.port) {
        Ok(endpoint) => {
            let connecting = ottla_host::channel(&env.network, &endpoint);
            connecting.await.map_err(|error| error_chain(&error))
        }
        Err(reason) => Err(reason),
    };
    let channel = match connected {
        Ok(channel) => channel,
        Err(reason) => return reason,
    };
    let mut client = ReplicationServiceClient::new(Client::new(channel));
    let (requests, receiver) = mpsc::channel(REQUESTS_ON_THE_WAY);
    if requests.send(hello(env)).await.is_err() {
        return "closed".to_owned();
    }
    let responses = match client.replicate(ReceiverStream::new(receiver)).await {
        Ok(response) => Messages::of_response(response, MAX_GRPC_MESSAGE_BYTES),
        Err(status) => return status.to_string(),
    };
    let (connection, partitions) = link.outbox.begin();
    tracing::debug!(leader = %link.leader, partitions = partitions.len(), "replication connected");
    link.connected.send_replace(true);
    let reason = tokio::select! {
        reason = receive(env, link, connection, responses) => reason,
        reason = send(env, link, requests, partitions) => reason,
    };
    link.connected.send_replace(false);
    reason
}

fn hello(env: &Env) -> ReplicateRequest {
    let broker_epoch = env.broker_epoch.get().expect("set before the first partition starts");
    let hello = Hello {
        cluster_id: env.cluster_id.clone(),
        node_id: env.node_id.0,
        broker_epoch: broker_epoch.0,
        credit_bytes: env.limits().replica_credit_bytes as u64,
    };
    ReplicateRequest { message: Some(Request::Hello(hello)) }
}

async fn send(
    env: &Env,
    link: &Link,
    requests: mpsc::Sender<ReplicateRequest>,
    partitions: Vec<PartitionId>,
) -> String {
    for id in partitions {
        if let Some(partition) = env.partition(id) {
            let opened = Event::LinkOpened { leader: link.leader };
            partition.send(Message::Event(opened)).await;
        }
    }
    loop {
        for request in link.outbox.take().await {
            if requests.send(request).await.is_err() {
                return "the leader takes no more".to_owned();
            }
        }
    }
}

async fn receive(
    env: &Env,
    link: &Link,
    connection: u64,
    mut responses: Messages<ReplicateResponse>,
) -> String {
    loop {
        match responses.message().await {
            Ok(Some(response)) => {
                if let Some((id, message)) = message_of(link, connection, response)
                    && let Some(partition) = env.partition(id)
                {
                    partition.send(message).await;
                }
            }
            Ok(None) => return "the leader closed it".to_owned(),
            Err(status) => return status.to_string(),
        }
    }
}

/// What the leader said, and to which partition. `None`: nothing this release
/// understands.
fn message_of(
    link: &Link,
    connection: u64,
    response: ReplicateResponse,
) -> Option<(PartitionId, Message)> {
    let (key, message) = match response.message? {
        Response::Append(append) => {
            let bytes = append.record_batches.len();
            let incoming = Incoming {
                of: wire::session_ref(append.session, append.leader_epoch),
                base: append.base_offset,
                watermark: append.high_watermark,
                log_start: append.log_start_offset,
                batches: append.record_batches,
                trace_parents: append.trace_parents,
                credit: Credit::new(&link.outbox, connection, bytes),
            };
            (append.partition, Message::Data(incoming))
        }
        Response::Watermark(moved) => {
            let of = wire::session_ref(moved.session, moved.leader_epoch);
            let (watermark, log_start) = (moved.high_watermark, moved.log_start_offset);
            let event = Event::Watermark { of, watermark, log_start };
            (moved.partition, Message::Event(event))
        }
        Response::Diverging(diverging) => {
            let of = wire::session_ref(diverging.session, diverging.leader_epoch);
            let epoch = diverging.epoch.map(LeaderEpoch);
            (diverging.partition, Message::Diverging { of, epoch, end: diverging.end_offset })
        }
        Response::Refused(refused) => {
            let of = wire::session_ref(refused.session, refused.leader_epoch);
            let refusal = wire::refusal_from(&refused);
            (refused.partition, Message::Event(Event::FollowRefused { of, refusal }))
        }
    };
    Some((wire::partition_id(key.as_ref())?, message))
}

fn endpoint(host: &str, port: u16) -> Result<Endpoint, String> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let endpoint = Channel::from_shared(format!("http://{host}:{port}"));
    Ok(endpoint
        .map_err(|error| format!("{host}:{port} is no address: {error}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES))
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host comes from another node's configuration: a bad one is an error that
    /// can be read, not the end of this node.
    #[test]
    fn a_bad_host_is_an_error() {
        assert!(endpoint("node-2.example", 7401).is_ok());
        assert!(endpoint("::1", 7401).is_ok());
        let error = endpoint("no host at all", 7401).expect_err("spaces");
        assert!(error.contains("no host at all"), "{error}");
    }
}
