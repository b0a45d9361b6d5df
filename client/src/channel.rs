//! One gRPC connection per endpoint, made when needed and shared by all who
//! talk to it.
//!
//! Not its job: choosing whom to talk to, and trying again.

use crate::{ClientError, HostPort};
use ottla_host::Network;
use ottla_proto::v1::cluster_service_client::ClusterServiceClient;
use ottla_proto::v1::group_service_client::GroupServiceClient;
use ottla_proto::v1::log_service_client::LogServiceClient;
use ottla_proto::v1::metadata_service_client::MetadataServiceClient;
use ottla_proto::v1::producer_service_client::ProducerServiceClient;
use ottla_proto::v1::topic_service_client::TopicServiceClient;
use ottla_proto::{
    HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_FRAME_BYTES, HTTP2_STREAM_WINDOW_BYTES,
    MAX_GRPC_MESSAGE_BYTES,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint};

/// How often an open connection is asked for a sign of life. Together with
/// [`KEEPALIVE_TIMEOUT`] it bounds how long a call can hang on a host that is
/// gone without a word.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// How long that sign may take: well above a pause of a busy node.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to one endpoint. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    endpoint: HostPort,
    /// Tells a connection from its successor to the same endpoint.
    id: u64,
    channel: Channel,
}

impl Connection {
    pub(crate) fn endpoint(&self) -> &HostPort {
        &self.endpoint
    }

    /// Its streams may carry record batches without copies.
    pub(crate) fn log(&self) -> LogServiceClient<ottla_grpc::Client<Channel>> {
        LogServiceClient::new(ottla_grpc::Client::new(self.channel.clone()))
            .max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_GRPC_MESSAGE_BYTES)
    }

    pub(crate) fn metadata(&self) -> MetadataServiceClient<Channel> {
        MetadataServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES)
    }

    pub(crate) fn producers(&self) -> ProducerServiceClient<Channel> {
        ProducerServiceClient::new(self.channel.clone())
    }

    pub(crate) fn topics(&self) -> TopicServiceClient<Channel> {
        TopicServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES)
    }

    pub(crate) fn groups(&self) -> GroupServiceClient<Channel> {
        GroupServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES)
    }

    pub(crate) fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES)
    }
}

/// The connections of one client.
pub(crate) struct ChannelPool {
    network: Arc<dyn Network>,
    slots: Mutex<HashMap<HostPort, Arc<tokio::sync::Mutex<Slot>>>>,
    connect_timeout: Duration,
    next_id: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    open: Option<Connection>,
    /// Those who queued behind a failing attempt share its outcome instead of
    /// each waiting out a timeout of their own.
    failed: Option<(Instant, ClientError)>,
}

impl fmt::Debug for ChannelPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelPool").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl ChannelPool {
    pub(crate) fn new(network: Arc<dyn Network>, connect_timeout: Duration) -> Self {
        Self { network, slots: Mutex::default(), connect_timeout, next_id: AtomicU64::new(0) }
    }

    /// The open connection to `endpoint`, or a new one. An error here means
    /// that nothing was sent.
    pub(crate) async fn get(&self, endpoint: &HostPort) -> Result<Connection, ClientError> {
        self.get_since(endpoint, Instant::now()).await
    }

    /// As `get`, for a caller who has been waiting since `asked`: a failure
    /// later than that is the answer.
    pub(crate) async fn get_since(
        &self,
        endpoint: &HostPort,
        asked: Instant,
    ) -> Result<Connection, ClientError> {
        let slot = self.slots.lock().entry(endpoint.clone()).or_default().clone();
        let mut slot = slot.lock().await;
        if let Some(connection) = &slot.open {
            return Ok(connection.clone());
        }
        if let Some((at, error)) = &slot.failed
            && *at >= asked
        {
            return Err(error.clone());
        }
        match self.connect(endpoint).await {
            Ok(connection) => {
                slot.failed = None;
                slot.open = Some(connection.clone());
                Ok(connection)
            }
            Err(message) => {
                let error = ClientError::Connect { endpoint: endpoint.clone(), message };
                slot.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Forgets a connection that failed, so that the next caller makes a new
    /// one and learns at once whether anybody is there.
    pub(crate) async fn discard(&self, connection: &Connection) {
        let slot = self.slots.lock().get(&connection.endpoint).cloned();
        if let Some(slot) = slot {
            let mut slot = slot.lock().await;
            if slot.open.as_ref().is_some_and(|open| open.id == connection.id) {
                slot.open = None;
            }
        }
    }

    async fn connect(&self, endpoint: &HostPort) -> Result<Connection, String> {
        let channel = Endpoint::from_shared(format!("http://{endpoint}"))
            .map_err(|error| root_cause(&error))?
            .connect_timeout(self.connect_timeout)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
            .max_frame_size(HTTP2_FRAME_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        // The endpoint's own timeout leaves out the name lookup.
        match timeout(self.connect_timeout, ottla_host::channel(&self.network, &channel)).await {
            Ok(Ok(channel)) => Ok(Connection {
                endpoint: endpoint.clone(),
                id: self.next_id.fetch_add(1, Ordering::Relaxed),
                channel,
            }),
            Ok(Err(error)) => Err(root_cause(&error)),
            Err(_) => Err(format!("no answer within {} ms", self.connect_timeout.as_millis())),
        }
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
