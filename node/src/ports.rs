//! The ports of a node: bound first, and the gRPC one served with the settings of HTTP/2.
//!
//! Not its job: what is served.

use crate::limits::{Bounded, Connections, LimitLayer};
use anyhow::Context as _;
use ottla_grpc::ServerLayer;
use ottla_host::{Listener, Network};
use ottla_proto::{HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_FRAME_BYTES, HTTP2_STREAM_WINDOW_BYTES};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// How often idle HTTP/2 connections are checked for a vanished peer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long such a check may stay unanswered.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of headers of one request: a few hundred are used. hyper's own bound, so that an
/// upgrade of it changes nothing.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// Connections to the HTTP port, which supervisors and Prometheus use: a few at a time.
pub(crate) const MAX_HTTP_CONNECTIONS: usize = 256;

pub(crate) async fn bind(
    network: &dyn Network,
    address: SocketAddr,
    what: &str,
    option: &str,
) -> anyhow::Result<Listener> {
    network
        .bind(address)
        .await
        .with_context(|| format!("cannot bind the {what} port {address} (option `{option}`)"))
}

pub(crate) async fn serve_grpc(
    listener: Listener,
    connections: Arc<Connections>,
    routes: tonic::service::Routes,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .max_frame_size(HTTP2_FRAME_BYTES)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .layer(LimitLayer)
        .layer(ServerLayer)
        .add_routes(routes)
        .serve_with_incoming_shutdown(Bounded::new(listener, connections), stop.cancelled_owned())
        .await
}
