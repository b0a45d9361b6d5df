//! `MetadataService`: what clients need to find leaders, once or as it changes.

use super::{Answers, Context};
use crate::limits::{connection_of, held_until_encoded};
use ottla_metadata::image::{Image, Partition, Topic};
use ottla_proto::v1;
use ottla_proto::v1::metadata_service_server::MetadataService;
use prost::Message as _;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Pictures of the metadata on their way to a watcher; a slow one misses those
/// in between, never the last.
const WATCH_QUEUE: usize = 1;

/// The service.
#[derive(Clone)]
pub(crate) struct MetadataWatch {
    context: Context,
    /// Pictures that are made at the same time: half of the processors make them, whoever
    /// asks for how many. A thousand that want one wait here, and not before everybody
    /// else's next step.
    turns: Arc<Semaphore>,
}

impl MetadataWatch {
    pub(crate) fn new(context: Context) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { context, turns: Arc::new(Semaphore::new((processors / 2).max(1))) }
    }

    async fn answer(&self, topics: &[String]) -> v1::GetMetadataResponse {
        let header = self.context.header();
        v1::GetMetadataResponse { header, metadata: Some(self.picture(topics).await) }
    }

    async fn picture(&self, topics: &[String]) -> v1::ClusterMetadata {
        let _turn = match self.turns.try_acquire() {
            Ok(turn) => turn,
            Err(_) => self.turns.acquire().await.expect("never closed"),
        };
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
        let topics = &request.get_ref().topics;
        let first = self.answer(topics).await;
        let Some(connection) = connection_of(&request) else { return Ok(Response::new(first)) };
        let bytes = first.encoded_len();
        if let Some(held) = connection.answers().try_hold(bytes) {
            return Ok(held_until_encoded(first, Some(held)));
        }
        // Who does not read its answers is not made further ones.
        drop(first);
        let held = connection.answers().hold(bytes).await;
        Ok(held_until_encoded(self.answer(topics).await, Some(held)))
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
                let picture = service.picture(&topics).await;
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
