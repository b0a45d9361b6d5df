//! What the nodes tell of themselves and of the topic.

use super::groups::TOPIC_ID;
use super::{BoxStream, Node, TOPIC};
use bytes::Bytes;
use ottla_proto::v1;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};
use v1::metadata_service_server::MetadataService;

impl Node {
    fn picture(&self, topics: &[String]) -> v1::ClusterMetadata {
        let state = self.cluster.state.lock();
        let nodes = (1..).zip(&state.endpoints).map(|(node_id, endpoint)| v1::NodeMetadata {
            node_id,
            endpoint: Some(v1::Endpoint {
                host: endpoint.host().to_owned(),
                port: endpoint.port().into(),
            }),
            rack: Some(format!("rack-{node_id}")),
            ..Default::default()
        });
        let isr: Vec<u64> = (1..).zip(&state.endpoints).map(|(node, _)| node).collect();
        let leaders = state.stale_leaders.as_ref().unwrap_or(&state.leaders);
        let partitions = (0..).zip(leaders).map(|(partition, (leader_id, leader_epoch))| {
            let (leader_id, leader_epoch) = (*leader_id, *leader_epoch);
            let isr = isr.clone();
            v1::PartitionMetadata { partition, leader_id, leader_epoch, isr, ..Default::default() }
        });
        let topic = v1::TopicMetadata {
            name: TOPIC.to_owned(),
            topic_id: Bytes::from_static(&TOPIC_ID),
            partitions: partitions.collect(),
            ..Default::default()
        };
        let wanted = !state.topic_is_gone && topics.iter().any(|name| name == TOPIC);
        v1::ClusterMetadata {
            nodes: nodes.collect(),
            topics: wanted.then_some(topic).into_iter().collect(),
            controller_id: None,
        }
    }
}

#[tonic::async_trait]
impl MetadataService for Node {
    async fn get_metadata(
        &self,
        request: Request<v1::GetMetadataRequest>,
    ) -> Result<Response<v1::GetMetadataResponse>, Status> {
        self.cluster.state.lock().metadata_calls += 1;
        let metadata = Some(self.picture(&request.into_inner().topics));
        Ok(Response::new(v1::GetMetadataResponse { header: None, metadata }))
    }

    type WatchMetadataStream = BoxStream<v1::WatchMetadataResponse>;

    async fn watch_metadata(
        &self,
        request: Request<v1::WatchMetadataRequest>,
    ) -> Result<Response<Self::WatchMetadataStream>, Status> {
        let (node, topics) = (self.clone(), request.into_inner().topics);
        let changes = WatchStream::new(self.cluster.changes.subscribe());
        let pictures = changes.filter_map(move |_| {
            let silent = *node.cluster.held.borrow() == Some(node.id);
            let metadata = Some(node.picture(&topics));
            (!silent).then_some(Ok(v1::WatchMetadataResponse { header: None, metadata }))
        });
        Ok(Response::new(Box::pin(pictures)))
    }
}
