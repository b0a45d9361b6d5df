//! The gRPC services of `ottla.v1`: each translates between the wire and the
//! rooms behind it, checks what a caller may get wrong, and decides nothing.

mod cluster;
mod consume;
mod group_wire;
mod groups;
mod log;
mod metadata;
mod produce_stream;
mod producer;
mod reassignments;
mod settings;
mod topic;

pub(crate) use cluster::Cluster;
pub(crate) use groups::Groups;
pub(crate) use log::Log;
pub(crate) use metadata::MetadataWatch;
pub(crate) use producer::Producers;
pub(crate) use topic::Topics;

use crate::deadline;
use ottla_metadata::image::Image;
use ottla_metadata::{AdminCall, Metadata};
use ottla_proto::{NodeId, v1};
use std::pin::Pin;
use std::sync::Arc;
use tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// What every service knows.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) cluster_id: String,
    pub(crate) node_id: NodeId,
    pub(crate) metadata: Metadata,
    /// Ends every open stream when the node stops.
    pub(crate) stop: tokio_util::sync::CancellationToken,
}

impl Context {
    /// Says who answers, as of which metadata.
    pub(crate) fn header(&self) -> Option<v1::ResponseHeader> {
        Some(v1::ResponseHeader {
            cluster_id: self.cluster_id.clone(),
            node_id: self.node_id.0,
            metadata_offset: self.metadata.image().offset.0,
        })
    }

    /// The metadata with everything that was committed when this was asked:
    /// what any node has answered to an operator is in it.
    pub(crate) async fn current_image(&self, asked: &MetadataMap) -> Result<Arc<Image>, Status> {
        Ok(self.metadata.current_image(deadline::of(asked, 0)).await?)
    }

    /// Passes an operator's call to the active controller, wherever it is.
    pub(crate) async fn administer<C: AdminCall>(
        &self,
        request: Request<C>,
    ) -> Result<Response<C::Response>, Status> {
        let deadline = deadline::of(request.metadata(), 0);
        Ok(Response::new(self.metadata.administer(request.into_inner(), deadline).await?))
    }
}

/// A stream of answers.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Milliseconds since the Unix epoch, by this node's clock.
pub(crate) fn now_ms() -> i64 {
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
