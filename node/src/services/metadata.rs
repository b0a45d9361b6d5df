//! `MetadataService`: what clients need to find leaders, once or as it changes.

use super::{Answers, Context};
use ottla_metadata::image::{Image, Partition, Topic};
use ottla_proto::v1;
use ottla_proto::v1::metadata_service_server::MetadataService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Pictures of the metadata on their way to a watcher; a slow one misses those
/// in between, never the last.
const WATCH_QUEUE: usize = 1;

/// The service.
#[derive(Clone)]
pub(crate) struct MetadataWatch {
    pub(crate) context: Context,
}

impl MetadataWatch {
    fn picture(&self, topics: &[String]) -> v1::ClusterMetadata {
        let image = self.context.metadata.image();
        let topics = image
            .topics
            .values()
            .filter(|topic| topics.is_empty() || topics.contains(&topic.name))
            .map(|topic| describe(&image, topic))
            .collect();
        let nodes = image
            .brokers
            .values()
            .map(|broker| v1::NodeMetadata {
                node_id: broker.node_id.0,
                endpoint: Some(v1::Endpoint {
                    host: broker.host.clone(),
                    port: broker.port.into(),
                }),
                rack: broker.rack.clone(),
                fenced: broker.fenced,
                broker_epoch: broker.epoch.0,
            })
            .collect();
        let controller_id = self.context.metadata.quorum().leader.map(|id| id.0);
        v1::ClusterMetadata { nodes, topics, controller_id }
    }
}

/// A topic with all its partitions.
pub(crate) fn describe(image: &Image, topic: &Topic) -> v1::TopicMetadata {
    let partitions =
        image.partitions_of(topic.id).map(|(id, found)| partition(id.index, found)).collect();
    v1::TopicMetadata {
        name: topic.name.clone(),
        topic_id: topic.id.to_wire().into(),
        partitions,
        configs: topic.config.set_options().into_iter().collect(),
    }
}

fn partition(index: u32, partition: &Partition) -> v1::PartitionMetadata {
    v1::PartitionMetadata {
        partition: index,
        leader_id: partition.leader.map(|id| id.0),
        leader_epoch: partition.leader_epoch.0,
        partition_epoch: partition.partition_epoch.0,
        replicas: partition.replicas.iter().map(|id| id.0).collect(),
        isr: partition.isr.iter().map(|id| id.0).collect(),
        elr: partition.elr.iter().map(|id| id.0).collect(),
        last_known_elr: partition.last_known_elr.iter().map(|id| id.0).collect(),
        recovering: partition.recovering,
        adding_replicas: partition.adding().iter().map(|id| id.0).collect(),
        removing_replicas: partition.removing().iter().map(|id| id.0).collect(),
    }
}

#[tonic::async_trait]
impl MetadataService for MetadataWatch {
    async fn get_metadata(
        &self,
        request: Request<v1::GetMetadataRequest>,
    ) -> Result<Response<v1::GetMetadataResponse>, Status> {
        let header = self.context.header();
        let metadata = Some(self.picture(&request.get_ref().topics));
        Ok(Response::new(v1::GetMetadataResponse { header, metadata }))
    }

    type WatchMetadataStream = Answers<v1::WatchMetadataResponse>;

    async fn watch_metadata(
        &self,
        request: Request<v1::WatchMetadataRequest>,
    ) -> Result<Response<Self::WatchMetadataStream>, Status> {
        let topics = request.into_inner().topics;
        let (answers, receiver) = mpsc::channel(WATCH_QUEUE);
        let (service, stop) = (self.clone(), self.context.stop.clone());
        let mut images = self.context.metadata.images();
        let mut quorum = self.context.metadata.quorum_changes();
        tokio::spawn(async move {
            let mut last = None;
            loop {
                let header = service.context.header();
                let picture = service.picture(&topics);
                if last.as_ref() != Some(&picture) {
                    last = Some(picture.clone());
                    let answer = v1::WatchMetadataResponse { header, metadata: Some(picture) };
                    if answers.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
                let changed = tokio::select! {
                    changed = images.changed() => changed,
                    changed = quorum.changed() => changed,
                    () = stop.cancelled() => return,
                    () = answers.closed() => return,
                };
                if changed.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
