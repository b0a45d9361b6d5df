//! Finding the partition that a request is for, and waiting until it can serve.

use super::{Replicas, offline};
use crate::core::{ReplicaStatus, RoleKind};
use crate::partition::{LocalPartition, Message, Partition};
use ottla_metadata::image::Image;
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{ApiError, LeaderEpoch, MetadataOffset, NodeId, Offset, PartitionId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// How long the quorum may take to say whether this node still leads: an election of it,
/// and a half.
const CONFIRMATION: Duration = Duration::from_secs(1);

impl Replicas {
    /// How far each follower of a partition is, if this node leads it: where its log
    /// ends, `None` if it has not been heard of. With the leader's own log.
    pub async fn followers(
        &self,
        id: PartitionId,
    ) -> Option<(ReplicaStatus, Vec<(NodeId, Option<Offset>)>)> {
        let partition = self.env.partition(id)?;
        let status = partition.leading()?;
        let (reply, answer) = oneshot::channel();
        partition.send(Message::Followers(reply)).await;
        Some((status, answer.await.ok()?))
    }

    /// Who leads a partition, as far as this node knows.
    #[must_use]
    pub fn leader_of(&self, id: PartitionId) -> Option<ottla_proto::Leader> {
        self.env.leader_hint(id)
    }

    /// The partition, if this node leads it; waits for a leader, and for this
    /// node to take over if it is the one, until the deadline.
    pub(super) async fn leading(
        &self,
        topic: &str,
        index: u32,
        deadline: Instant,
    ) -> Result<(Arc<Partition>, ReplicaStatus), ApiError> {
        let mut images = self.env.images.subscribe();
        loop {
            if self.env.stop.is_cancelled() {
                let message = format!("node {} is shutting down", self.env.node_id);
                return Err(ApiError::new(R::ShuttingDown, message));
            }
            let image = Arc::clone(&images.borrow_and_update());
            let mut state = None;
            match self.look_up(&image, topic, index) {
                // Before the first image, and while a newer one is being handed to
                // the partitions, nobody can be turned away.
                Err(_) if self.is_behind(&image) => {}
                Err(refusal) => return Err(refusal),
                Ok((_, None)) => {}
                Ok((id, Some(epoch))) => {
                    if let Some(partition) = self.env.partition(id) {
                        let watched = state.insert(partition.state());
                        match &*watched.borrow_and_update() {
                            LocalPartition::Running { status, .. } if leads(status, epoch) => {
                                return Ok((Arc::clone(&partition), *status));
                            }
                            LocalPartition::Offline { reason } => {
                                return Err(offline(&self.env.name(id), reason));
                            }
                            LocalPartition::Running { .. } | LocalPartition::Opening => {}
                        }
                    }
                }
            }
            let local_change = async {
                match &mut state {
                    Some(state) => drop(state.changed().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = local_change => {}
                _ = images.changed() => {}
                () = self.env.stop.cancelled() => {}
                () = tokio::time::sleep_until(deadline) => {
                    let message = format!("partition {index} of {topic} has no leader");
                    return Err(ApiError::new(R::LeaderNotAvailable, message));
                }
            }
        }
    }

    /// That this node still leads a partition in an epoch, for certain. A leader that was
    /// replaced and has not heard of it knows less than there is: it may not say that an
    /// offset is none.
    ///
    /// # Errors
    /// `NOT_LEADER`; `LEADER_NOT_AVAILABLE` if nobody can say.
    pub(super) async fn still_leads(
        &self,
        id: PartitionId,
        epoch: LeaderEpoch,
    ) -> Result<(), ApiError> {
        let asked = self.env.cluster.current_image(Instant::now() + CONFIRMATION).await;
        let image = asked.map_err(|error| {
            let name = self.env.name(id);
            let message = format!("whether this node still leads {name} cannot be known: {error}");
            ApiError::new(R::LeaderNotAvailable, message)
        })?;
        let led = image.partitions.get(&id).map(|now| (now.leader, now.leader_epoch));
        if led == Some((Some(self.env.node_id), epoch)) {
            return Ok(());
        }
        Err(self.env.not_leader_in(&image, id))
    }

    /// The partition and, if this node is to lead it, in which epoch.
    fn look_up(
        &self,
        image: &Image,
        name: &str,
        index: u32,
    ) -> Result<(PartitionId, Option<LeaderEpoch>), ApiError> {
        let topic = image
            .topic_by_name(name)
            .ok_or_else(|| ApiError::new(R::UnknownTopic, format!("there is no topic {name:?}")))?;
        let id = PartitionId { topic: topic.id, index };
        let Some(partition) = image.partitions.get(&id) else {
            let count = topic.partitions;
            let message = format!("topic {name} has partitions 0 to {}, not {index}", count - 1);
            return Err(ApiError::new(R::UnknownPartition, message).with("partitions", count));
        };
        match partition.leader {
            Some(leader) if leader != self.env.node_id => Err(self.env.not_leader(id)),
            Some(_) => Ok((id, Some(partition.leader_epoch))),
            None => Ok((id, None)),
        }
    }

    fn is_behind(&self, image: &Image) -> bool {
        image.offset == MetadataOffset(0)
            || self.env.cluster.images().borrow().offset > image.offset
    }

    pub(super) async fn current_watermark(
        &self,
        target: &Partition,
        status: &ReplicaStatus,
        deadline: Instant,
    ) -> Result<ReplicaStatus, ApiError> {
        let epoch = status.leader_epoch;
        let mut state = target.state();
        let settled = |now: &LocalPartition| {
            now.leading().is_none_or(|now| now.leader_epoch != epoch || now.watermark_is_current)
        };
        let settled = timeout_at(deadline, state.wait_for(settled)).await;
        let Ok(changed) = settled else {
            let message = "the leader does not know yet how far its log is committed";
            return Err(ApiError::new(R::OffsetNotAvailable, message));
        };
        let leading = changed.ok().and_then(|now| now.leading().copied());
        leading.filter(|now| now.watermark_is_current).ok_or_else(|| self.env.not_leader(target.id))
    }
}

fn leads(status: &ReplicaStatus, epoch: LeaderEpoch) -> bool {
    status.role == RoleKind::Leader && status.leader_epoch >= epoch
}
