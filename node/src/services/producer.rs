//! `ProducerService`: identities of idempotent producers.

use super::Context;
use crate::deadline;
use crate::producer_ids::ProducerIds;
use ottla_proto::v1;
use ottla_proto::v1::producer_service_server::ProducerService;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Clone)]
pub(crate) struct Producers {
    pub(crate) context: Context,
    pub(crate) ids: Arc<ProducerIds>,
}

#[tonic::async_trait]
impl ProducerService for Producers {
    async fn init_producer_id(
        &self,
        request: Request<v1::InitProducerIdRequest>,
    ) -> Result<Response<v1::InitProducerIdResponse>, Status> {
        let deadline = deadline::of(request.metadata(), 0);
        let producer_id = self.ids.next(deadline).await?;
        let header = self.context.header();
        Ok(Response::new(v1::InitProducerIdResponse { header, producer_id, producer_epoch: 0 }))
    }
}
