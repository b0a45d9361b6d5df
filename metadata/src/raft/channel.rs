//! Connections to other nodes: how they are set up and how long they may take.
//! Raft, the broker's heartbeats and forwarded calls each have their own.

use super::types::Peer;
use ottla_host::Network;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for a TCP connection. A live host answers in a round trip; a
/// dead one must not hold up an election or a heartbeat.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Interval of HTTP/2 pings on a connection, idle ones included: a host that
/// vanished without a word is noticed although TCP would wait for minutes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait for the answer to such a ping before the connection is dropped.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Largest message of the Raft service, in bytes: an append of small entries
/// that goes beyond its bound by one of
/// [`MAX_ENTRY_BYTES`](super::log_files::MAX_ENTRY_BYTES), and its envelope.
pub(crate) const MAX_RAFT_MESSAGE_BYTES: usize = 2 * super::log_files::MAX_ENTRY_BYTES;

/// How to connect to `peer`; fails only if its host is not a valid host name.
fn endpoint(peer: &Peer) -> Result<Endpoint, tonic::transport::Error> {
    let host = &peer.host;
    // A bare IPv6 address needs brackets in a URI.
    let uri = if host.contains(':') && !host.starts_with('[') {
        format!("http://[{host}]:{}", peer.port)
    } else {
        format!("http://{host}:{}", peer.port)
    };
    Ok(Endpoint::from_shared(uri)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// A connection of its own to `peer`, made when first used and again after it
/// broke. A refused connection fails the call that wanted it, at once.
pub(crate) fn lazy(
    network: &Arc<dyn Network>,
    peer: &Peer,
) -> Result<Channel, tonic::transport::Error> {
    Ok(ottla_host::lazy_channel(network, &endpoint(peer)?))
}

/// A connection of its own to `peer`, made now.
pub(crate) async fn connect(
    network: &Arc<dyn Network>,
    peer: &Peer,
) -> Result<Channel, tonic::transport::Error> {
    ottla_host::channel(network, &endpoint(peer)?).await
}
