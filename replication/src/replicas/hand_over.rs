//! The last moments of a leader that is about to give its leadership away: it lets
//! no write in any more, answers those that are in, and tells whoever comes who
//! leads instead. So a planned stop, or a planned move, leaves no writer in doubt.

use super::Replicas;
use crate::hold;
use crate::partition::{Entry, Partition};
use futures::future::join_all;
use ottla_metadata::image::Image;
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{ApiError, PartitionId};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a write that came too late waits to be told who leads instead. A
/// hand-over takes milliseconds; a partition nobody else can lead has none.
const TURN_AWAY_WAIT: Duration = Duration::from_secs(1);

impl Replicas {
    /// Lets no further write in, for good, and waits until those that are in are
    /// answered. False if some were not in time: their writers will be in doubt.
    pub async fn drain_writes(&self, within: Duration) -> bool {
        self.leaving.send_replace(true);
        // A write that looked before `leaving` was set finds no room.
        matches!(timeout(within, self.produce_memory.drain()).await, Ok(Ok(())))
    }

    /// Waits until every in-sync replica of what this node leads has everything: a
    /// record that only the leader has acknowledged would go with it otherwise.
    /// False if some were not in time. For when no write is let in any more.
    pub async fn followers_caught_up(&self, within: Duration) -> bool {
        let led = self.env.all_partitions().into_iter().filter_map(|partition| {
            let epoch = partition.leading()?.leader_epoch;
            Some(async move { hold::settled(&partition, epoch).await })
        });
        timeout(within, join_all(led)).await.is_ok()
    }

    /// The partition, if this node leads it, and a place among its writes; while its
    /// leadership is being handed over, waits for what comes of that.
    pub(super) async fn enter(
        &self,
        topic: &str,
        index: u32,
        deadline: Instant,
    ) -> Result<(Arc<Partition>, Entry), ApiError> {
        loop {
            let (target, _) = self.leading(topic, index, deadline).await?;
            if let Some(entry) = target.writes.enter() {
                return Ok((target, entry));
            }
            if timeout_at(deadline, target.writes.opened()).await.is_err() {
                let name = self.env.name(target.id);
                let message = format!("the leadership of {name} is being handed over");
                return Err(ApiError::new(R::LeaderNotAvailable, message));
            }
        }
    }

    /// Resolves once [`drain_writes`](Self::drain_writes) was called.
    pub(super) async fn is_leaving(&self) {
        if self.leaving.subscribe().wait_for(|leaving| *leaving).await.is_err() {
            // The sender lives as long as this handle.
            std::future::pending::<()>().await;
        }
    }

    /// What a write is told that came too late: certainly not written, and who
    /// leads instead as soon as that is known.
    pub(super) async fn turned_away(&self, topic: &str, index: u32, deadline: Instant) -> ApiError {
        let me = Some(self.env.node_id);
        let elsewhere = |image: &Image| -> Option<PartitionId> {
            let topic = image.topic_by_name(topic)?.id;
            let partition = image.partition(topic, index)?;
            (partition.leader.is_some() && partition.leader != me)
                .then_some(PartitionId { topic, index })
        };
        let mut images = self.env.images.subscribe();
        let moved = images.wait_for(|image| elsewhere(image).is_some());
        let until = deadline.min(Instant::now() + TURN_AWAY_WAIT);
        let id = match timeout_at(until, moved).await {
            Ok(Ok(image)) => elsewhere(&image),
            Ok(Err(_)) | Err(_) => None,
        };
        match id {
            Some(id) => self.env.not_leader(id),
            None => {
                let message = format!("node {} is shutting down", self.env.node_id);
                ApiError::new(R::ShuttingDown, message)
            }
        }
    }
}
