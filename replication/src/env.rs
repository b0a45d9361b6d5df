//! What all parts of a node's replication share.

use crate::Cluster;
use crate::alter::IsrProposals;
use crate::core::Millis;
use crate::disks::Disks;
use crate::flow::Micros;
use crate::leaving::Leaving;
use crate::link::Links;
use crate::offline::OfflineReports;
use crate::opening::Opening;
use crate::options::Limits;
use crate::partition::Partition;
use crate::serve::{Sessions, Traffics};
use ottla_commitlog::Shared;
use ottla_commitlog::data_dir::DataDirs;
use ottla_host::Network;
use ottla_metadata::controller::INTERNAL_TOPIC_PREFIX;
use ottla_metadata::image::Image;
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, BrokerEpoch, Leader, LeaderEpoch, NodeId, Offset, PartitionId};
use ottla_trace::Tracer;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) struct Env {
    pub(crate) node_id: NodeId,
    pub(crate) cluster_id: String,
    pub(crate) data_dirs: Arc<DataDirs>,
    /// Room in them.
    pub(crate) disks: Disks,
    pub(crate) shared: Arc<Shared>,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) tracer: Tracer,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) clean_start: bool,
    /// Can change at any time.
    pub(crate) limits: watch::Sender<Limits>,
    pub(crate) clock: Clock,
    /// This process's registration; set before the first partition starts.
    pub(crate) broker_epoch: OnceLock<BrokerEpoch>,
    /// The newest image that every local partition has been told of. Whoever
    /// reads it and then asks a partition finds it at least as new.
    pub(crate) images: watch::Sender<Arc<Image>>,
    pub(crate) partitions: RwLock<HashMap<PartitionId, Arc<Partition>>>,
    /// Watermarks of the last run.
    pub(crate) old_watermarks: HashMap<PartitionId, Offset>,
    pub(crate) opening: Opening,
    pub(crate) sessions: Sessions,
    /// What is sent to followers, and its limits.
    pub(crate) traffics: Traffics,
    pub(crate) links: Links,
    pub(crate) leaving: Leaving,
    pub(crate) proposals: IsrProposals,
    pub(crate) offline: Arc<OfflineReports>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Env {
    pub(crate) fn partition(&self, id: PartitionId) -> Option<Arc<Partition>> {
        self.partitions.read().get(&id).map(Arc::clone)
    }

    pub(crate) fn all_partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().values().map(Arc::clone).collect()
    }

    /// The limits as they are now.
    pub(crate) fn limits(&self) -> Limits {
        *self.limits.borrow()
    }

    pub(crate) fn image(&self) -> Arc<Image> {
        Arc::clone(&self.images.borrow())
    }

    /// The partition as people know it, such as `orders-0`.
    pub(crate) fn name(&self, id: PartitionId) -> String {
        match self.image().topics.get(&id.topic) {
            Some(topic) => format!("{}-{}", topic.name, id.index),
            None => id.to_string(),
        }
    }

    /// Whether it holds what nodes write themselves.
    pub(crate) fn is_internal(&self, id: PartitionId) -> bool {
        let image = self.image();
        let topic = image.topics.get(&id.topic);
        topic.is_some_and(|topic| topic.name.starts_with(INTERNAL_TOPIC_PREFIX))
    }

    /// For a caller who came to the wrong node: who to ask instead.
    pub(crate) fn not_leader(&self, id: PartitionId) -> ApiError {
        self.not_leader_in(&self.image(), id)
    }

    /// The same as of an image.
    pub(crate) fn not_leader_in(&self, image: &Image, id: PartitionId) -> ApiError {
        let (node, name) = (self.node_id, self.name(id));
        let hint = leader_in(image, id).filter(|leader| leader.node_id != node);
        let message = match &hint {
            Some(leader) => {
                format!("node {node} does not lead {name}, node {} does", leader.node_id)
            }
            None => format!("node {node} does not lead {name}"),
        };
        ApiError::new(ErrorReason::NotLeader, message).with_leader(hint)
    }

    /// Where to send a caller who came to the wrong node.
    pub(crate) fn leader_hint(&self, id: PartitionId) -> Option<Leader> {
        leader_in(&self.image(), id)
    }
}

/// Who leads a partition as of an image, and where it is.
#[must_use]
pub fn leader_in(image: &Image, id: PartitionId) -> Option<Leader> {
    let partition = image.partitions.get(&id)?;
    let broker = image.brokers.get(&partition.leader?)?;
    let epoch: LeaderEpoch = partition.leader_epoch;
    Some(Leader { node_id: broker.node_id, epoch, host: broker.host.clone(), port: broker.port })
}

/// Milliseconds since the node's replication started.
#[derive(Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Millis {
        self.at(Instant::now())
    }

    pub(crate) fn at(self, instant: Instant) -> Millis {
        let elapsed = instant.saturating_duration_since(self.0);
        Millis::try_from(elapsed.as_millis()).unwrap_or(Millis::MAX)
    }

    pub(crate) fn micros(self) -> Micros {
        Micros::try_from(self.0.elapsed().as_micros()).unwrap_or(Micros::MAX)
    }

    /// The first instant at which [`now`](Self::now) is at least `millis`.
    pub(crate) fn instant(self, millis: Millis) -> Instant {
        // Beyond what a timer can hold nothing is awaited.
        self.0 + Duration::from_millis(millis.min(u64::from(u32::MAX)))
    }
}
