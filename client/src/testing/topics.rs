//! The topic, as a node tells it that knows everything that is committed.

use super::{Node, R, TOPIC};
use ottla_proto::{ApiError, v1};
use tonic::{Request, Response, Status};
use v1::topic_service_server::TopicService;

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not part of these tests"))
}

#[tonic::async_trait]
impl TopicService for Node {
    async fn create_topic(
        &self,
        _: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        not_here()
    }

    async fn delete_topic(
        &self,
        _: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        not_here()
    }

    async fn alter_topic_config(
        &self,
        _: Request<v1::AlterTopicConfigRequest>,
    ) -> Result<Response<v1::AlterTopicConfigResponse>, Status> {
        not_here()
    }

    async fn create_partitions(
        &self,
        _: Request<v1::CreatePartitionsRequest>,
    ) -> Result<Response<v1::CreatePartitionsResponse>, Status> {
        not_here()
    }

    async fn reassign_partitions(
        &self,
        _: Request<v1::ReassignPartitionsRequest>,
    ) -> Result<Response<v1::ReassignPartitionsResponse>, Status> {
        not_here()
    }

    async fn cancel_reassignments(
        &self,
        _: Request<v1::CancelReassignmentsRequest>,
    ) -> Result<Response<v1::CancelReassignmentsResponse>, Status> {
        not_here()
    }

    async fn list_reassignments(
        &self,
        _: Request<v1::ListReassignmentsRequest>,
    ) -> Result<Response<v1::ListReassignmentsResponse>, Status> {
        not_here()
    }

    async fn elect_leader(
        &self,
        _: Request<v1::ElectLeaderRequest>,
    ) -> Result<Response<v1::ElectLeaderResponse>, Status> {
        not_here()
    }

    async fn list_topics(
        &self,
        _: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        not_here()
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        let state = self.cluster.state.lock();
        if state.topic_is_gone || request.get_ref().name != TOPIC {
            return Err(ApiError::new(R::UnknownTopic, "there is no such topic").into());
        }
        let partition = |partition| v1::PartitionMetadata { partition, ..Default::default() };
        let topic = v1::TopicMetadata {
            name: TOPIC.to_owned(),
            topic_id: state.topic_id.to_vec().into(),
            partitions: (0..state.leaders.len() as u32).map(partition).collect(),
            ..Default::default()
        };
        Ok(Response::new(v1::DescribeTopicResponse { topic: Some(topic), ..Default::default() }))
    }
}
