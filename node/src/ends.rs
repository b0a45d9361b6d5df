//! Where partitions end, and how old their records are: known to this node, or asked of
//! who leads them.
//!
//! Not its job: what follows from that, and asking again.

use ottla_host::{Network, lazy_channel};
use ottla_metadata::image::Image;
use ottla_proto::v1::log_service_client::LogServiceClient;
use ottla_proto::v1::{self, ErrorReason as R};
use ottla_proto::{ApiError, Leader, NodeId, Offset, PartitionId};
use ottla_replication::{OffsetPosition, Replicas, leader_in};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for a connection to another node. A live host answers in a round trip.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a follower's watermark is waited for before the leader is asked: a reader that
/// keeps up may commit before it has come here. It is pushed as it moves, so many trips.
const WATERMARK_PATIENCE: Duration = Duration::from_millis(20);

/// What is known of a place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Records below it are committed.
    pub(crate) high_watermark: Offset,
    /// The first record at or above the place; `None` if there is none. What compaction or
    /// retention took away is none.
    pub(crate) next: Option<Next>,
}

/// A record that is still to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) offset: Offset,
    /// When it was written.
    pub(crate) written_ms: i64,
}

/// A connection to each node that was asked, by where it was then.
type Channels = BTreeMap<NodeId, (String, Channel)>;

pub(crate) struct Ends {
    node_id: NodeId,
    replicas: Replicas,
    network: Arc<dyn Network>,
    /// As many as there are nodes.
    channels: Mutex<Channels>,
}

impl Ends {
    pub(crate) fn new(node_id: NodeId, replicas: Replicas, network: Arc<dyn Network>) -> Self {
        Self { node_id, replicas, network, channels: Mutex::default() }
    }

    /// Whether this node knows, without asking, that everything below an offset is
    /// committed. What is committed stays so: a follower knows less than there is, never
    /// more. Where it has the records, it waits a moment for the watermark to come, too.
    pub(crate) async fn is_committed(&self, id: PartitionId, offset: Offset) -> bool {
        let Some(mut state) = self.replicas.watch(id) else { return false };
        let (committed, is_here) = match state.borrow().status() {
            Some(status) => (offset <= status.high_watermark, offset <= status.log_end),
            None => return false,
        };
        if committed || !is_here {
            return committed;
        }
        let comes = state.wait_for(|now| {
            now.status()
                .is_none_or(|status| status.high_watermark >= offset || status.log_end < offset)
        });
        match tokio::time::timeout(WATERMARK_PATIENCE, comes).await {
            Ok(Ok(now)) => now.status().is_some_and(|status| status.high_watermark >= offset),
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// The end of a partition, and how old the record at `offset` is.
    ///
    /// # Errors
    /// No leader has answered until the deadline, or there is no such partition.
    pub(crate) async fn look(
        &self,
        image: &Image,
        id: PartitionId,
        offset: Offset,
        deadline: Instant,
    ) -> Result<Place, ApiError> {
        let unknown = || ApiError::new(R::UnknownTopic, "the topic was deleted");
        let topic = &image.topics.get(&id.topic).ok_or_else(unknown)?.name;
        // As of the image that was asked by: who led before may know less.
        match leader_in(image, id) {
            Some(leader) if leader.node_id != self.node_id => {
                let asked = self.ask(&leader, topic, id.index, offset, deadline);
                tokio::time::timeout_at(deadline, asked).await.unwrap_or_else(|_| {
                    let what = format!("node {} did not answer in time", leader.node_id);
                    Err(ApiError::new(R::RequestTimedOut, what))
                })
            }
            _ => {
                let position = OffsetPosition::Offset(offset);
                let found = self.replicas.list_offset(topic, id.index, position, deadline).await?;
                place(found.high_watermark, found.offset, found.timestamp_ms)
            }
        }
    }

    async fn ask(
        &self,
        leader: &Leader,
        topic: &str,
        partition: u32,
        offset: Offset,
        deadline: Instant,
    ) -> Result<Place, ApiError> {
        let mut request = tonic::Request::new(v1::ListOffsetsRequest {
            topic: topic.to_owned(),
            partition,
            position: v1::OffsetPosition::Offset.into(),
            offset,
            ..Default::default()
        });
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        let answer = LogServiceClient::new(self.channel(leader)?).list_offsets(request).await;
        let found = answer.map_err(|status| ApiError::from_status(&status))?.into_inner();
        place(found.high_watermark, found.offset, found.timestamp_ms)
    }

    fn channel(&self, leader: &Leader) -> Result<Channel, ApiError> {
        let host = &leader.host;
        // A bare IPv6 address needs brackets in a URI.
        let uri = if host.contains(':') && !host.starts_with('[') {
            format!("http://[{host}]:{}", leader.port)
        } else {
            format!("http://{host}:{}", leader.port)
        };
        let mut channels = self.channels.lock();
        if let Some((known, channel)) = channels.get(&leader.node_id)
            && *known == uri
        {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(uri.clone()).map_err(|error| {
            let what = format!("node {} cannot be reached: {error}", leader.node_id);
            ApiError::new(R::LeaderNotAvailable, what)
        })?;
        let channel = lazy_channel(&self.network, &endpoint.connect_timeout(CONNECT_TIMEOUT));
        channels.insert(leader.node_id, (uri, channel.clone()));
        Ok(channel)
    }
}

/// A leader always says how far its partition is committed.
fn place(
    high_watermark: Option<Offset>,
    offset: Offset,
    written_ms: Option<i64>,
) -> Result<Place, ApiError> {
    let missing = || ApiError::new(R::Internal, "a leader did not say where its partition ends");
    let next = written_ms.map(|written_ms| Next { offset, written_ms });
    Ok(Place { high_watermark: high_watermark.ok_or_else(missing)?, next })
}
