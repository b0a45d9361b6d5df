//! `TopicService`: topic administration, decided by the active controller
//! wherever it is.

use super::Context;
use super::metadata::describe;
use ottla_metadata::records::TopicSource;
use ottla_proto::ApiError;
use ottla_proto::v1::topic_option::Source;
use ottla_proto::v1::topic_service_server::TopicService;
use ottla_proto::v1::{self, ErrorReason};
use ottla_replication::Replicas;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Clone)]
pub(crate) struct Topics {
    pub(crate) context: Context,
    pub(crate) replicas: Replicas,
}

#[tonic::async_trait]
impl TopicService for Topics {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        self.context.administer(request).await
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        self.context.administer(request).await
    }

    async fn alter_topic_config(
        &self,
        request: Request<v1::AlterTopicConfigRequest>,
    ) -> Result<Response<v1::AlterTopicConfigResponse>, Status> {
        self.context.administer(request).await
    }

    async fn create_partitions(
        &self,
        request: Request<v1::CreatePartitionsRequest>,
    ) -> Result<Response<v1::CreatePartitionsResponse>, Status> {
        self.context.administer(request).await
    }

    async fn reassign_partitions(
        &self,
        request: Request<v1::ReassignPartitionsRequest>,
    ) -> Result<Response<v1::ReassignPartitionsResponse>, Status> {
        self.context.administer(request).await
    }

    async fn cancel_reassignments(
        &self,
        request: Request<v1::CancelReassignmentsRequest>,
    ) -> Result<Response<v1::CancelReassignmentsResponse>, Status> {
        self.context.administer(request).await
    }

    async fn list_reassignments(
        &self,
        request: Request<v1::ListReassignmentsRequest>,
    ) -> Result<Response<v1::ListReassignmentsResponse>, Status> {
        let image = self.context.current_image(request.metadata()).await?;
        let topic = request.into_inner().topic;
        let reassignments = self.reassignments(&image, topic.as_deref()).await?;
        let header = self.context.header();
        Ok(Response::new(v1::ListReassignmentsResponse { header, reassignments }))
    }

    async fn elect_leader(
        &self,
        request: Request<v1::ElectLeaderRequest>,
    ) -> Result<Response<v1::ElectLeaderResponse>, Status> {
        self.context.administer(request).await
    }

    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let image = self.context.current_image(request.metadata()).await?;
        let topics = image
            .topic_ids
            .values()
            .filter_map(|id| image.topics.get(id))
            .map(|topic| v1::TopicSummary {
                name: topic.name.clone(),
                topic_id: topic.id.to_wire().into(),
                partitions: topic.partitions,
                replication_factor: image
                    .partitions_of(topic.id)
                    .next()
                    .map_or(0, |(_, partition)| partition.target().len() as u32),
            })
            .collect();
        Ok(Response::new(v1::ListTopicsResponse { header: self.context.header(), topics }))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        let image = self.context.current_image(request.metadata()).await?;
        let name = request.into_inner().name;
        let topic = image.topic_by_name(&name).ok_or_else(|| {
            ApiError::new(ErrorReason::UnknownTopic, format!("there is no topic `{name}`"))
        })?;
        let option = |(name, value, source): (&str, String, TopicSource)| {
            let source = match source {
                TopicSource::Topic => Source::Topic,
                TopicSource::Cluster => Source::Cluster,
                TopicSource::Default => Source::Default,
            };
            v1::TopicOption { name: name.to_owned(), value, source: source.into() }
        };
        Ok(Response::new(v1::DescribeTopicResponse {
            header: self.context.header(),
            topic: Some(describe(&image, topic)),
            options: topic.config.entries().map(option).collect(),
        }))
    }
}
