//! Reads from a follower (KIP-392), for who is nearer to it than to the leader: up to
//! the high watermark that it knows, which is never above the leader's, so a reader
//! sees the same records as at the leader, a moment later.
//!
//! Only a follower that is in the ISR and connected to its leader answers: another
//! could fall behind for ever, and its readers with it. Whatever it cannot answer is
//! for the leader to judge, and gets NOT_LEADER.

use super::{Replicas, fetched};
use crate::api::{Fetched, Reading};
use crate::core::{ReplicaStatus, RoleKind};
use crate::partition::{LocalPartition, Partition};
use bytes::Bytes;
use ottla_host::blocking;
use ottla_proto::{ApiError, NodeId, Offset, PartitionId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How long a reader that is ahead of this follower's watermark waits for it: many
/// round trips to the leader. Beyond that the offset may be none that there is.
const AHEAD_PATIENCE: Duration = Duration::from_secs(1);

/// A follower that may answer.
struct Follower {
    partition: Arc<Partition>,
    leader: NodeId,
    status: ReplicaStatus,
    connected: watch::Receiver<bool>,
}

impl Replicas {
    /// As [`fetch`](Self::fetch), and an in-sync follower answers too.
    ///
    /// # Errors
    /// As `fetch`.
    pub async fn fetch_nearby(
        &self,
        topic: &str,
        partition: u32,
        offset: Offset,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Fetched, ApiError> {
        let reading = Reading { topic, partition, offset, max_bytes, wait };
        self.fetch_nearby_when(reading, std::future::ready(Ok(()))).await
    }

    /// As [`fetch_when`](Self::fetch_when), and an in-sync follower answers too.
    ///
    /// # Errors
    /// As `fetch_when`.
    pub async fn fetch_nearby_when(
        &self,
        reading: Reading<'_>,
        room: impl Future<Output = Result<(), ApiError>>,
    ) -> Result<Fetched, ApiError> {
        let Reading { topic, partition, offset, max_bytes, wait } = reading;
        let Some(mut follower) = self.follower(topic, partition) else {
            return self.fetch_when(reading, room).await;
        };
        let id = follower.partition.id;
        let now = Instant::now();
        let ahead = offset > follower.status.high_watermark;
        let deadline = now + if ahead { wait.min(AHEAD_PATIENCE) } else { wait };
        if offset >= follower.status.high_watermark {
            let waited = timeout_at(deadline, follower.committed_beyond(offset)).await;
            match waited {
                Ok(Some(status)) => follower.status = status,
                Err(_) if !ahead => return Ok(fetched(Bytes::new(), &follower.status)),
                Ok(None) | Err(_) => return Err(self.env.not_leader(id)),
            }
        }
        let up_to = follower.status.high_watermark;
        let Some(log) = follower.partition.log().map(Arc::clone) else {
            return Err(self.env.not_leader(id));
        };
        room.await?;
        // Below the watermark nothing is ever truncated. What was deleted since, or
        // cannot be read, the leader may have.
        match blocking(move || log.read(offset, up_to, max_bytes)).await {
            Ok(Ok(batches)) => Ok(fetched(batches, &follower.status)),
            Ok(Err(_)) | Err(_) => Err(self.env.not_leader(id)),
        }
    }

    fn follower(&self, topic: &str, index: u32) -> Option<Follower> {
        let image = self.env.image();
        let topic = image.topic_by_name(topic)?.id;
        let metadata = image.partition(topic, index)?;
        let leader = metadata.leader.filter(|leader| *leader != self.env.node_id)?;
        if !metadata.isr.contains(&self.env.node_id) {
            return None;
        }
        let id = PartitionId { topic, index };
        let partition = self.env.partition(id)?;
        let status = follows(&partition.state().borrow(), leader)?;
        let connected = self.env.links.connected(leader).filter(|now| *now.borrow())?;
        Some(Follower { partition, leader, status, connected })
    }
}

impl Follower {
    /// Waits until the watermark is beyond an offset. `None`: this is no follower of
    /// that leader any more.
    async fn committed_beyond(&mut self, offset: Offset) -> Option<ReplicaStatus> {
        let mut state = self.partition.state();
        let leader = self.leader;
        let moved = state.wait_for(|now| {
            follows(now, leader).is_none_or(|status| status.high_watermark > offset)
        });
        tokio::select! {
            now = moved => follows(&*now.ok()?, leader),
            _ = self.connected.wait_for(|connected| !connected) => None,
        }
    }
}

fn follows(now: &LocalPartition, leader: NodeId) -> Option<ReplicaStatus> {
    let follower = |status: &&ReplicaStatus| {
        status.role == RoleKind::Follower && status.leader == Some(leader)
    };
    now.status().filter(follower).copied()
}
