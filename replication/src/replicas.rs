//! The handle: what the node's services call.

mod find;
mod hand_over;
mod list_offset;
mod nearby;
mod traffic;

use crate::alter::{self, IsrProposals};
use crate::api::{Fetched, ProduceTicket, Reading, ReplicaCounts};
use crate::budget::{Budget, Share};
use crate::core::{Acks, ReplicaStatus};
use crate::disks::{self, DiskStatus, Disks};
use crate::env::{Clock, Env};
use crate::leaving::Leaving;
use crate::link::Links;
use crate::offline as offline_replicas;
use crate::opening::{self, Opening, OpeningProgress};
use crate::options::{Limits, ReplicasError, ReplicasOptions};
use crate::partition::{
    Admission, DeleteRequest, LocalPartition, Message, Partition, ProduceRequest,
};
use crate::serve::{ReplicationRpc, Sessions, Traffics};
use crate::{maintenance, manager, watermarks};
use bytes::Bytes;
use ottla_commitlog::format::ValidBatch;
use ottla_commitlog::{Log, LogError, MAX_APPEND_BYTES};
use ottla_host::blocking;
use ottla_metadata::image::Image;
use ottla_proto::internal::v1::replication_service_server::ReplicationServiceServer;
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{
    ApiError, LeaderEpoch, MAX_GRPC_MESSAGE_BYTES, MetadataOffset, Offset, PartitionId,
};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Least bytes that a produce request counts with: what it costs beside its
/// records, so that very small ones are bounded too.
const MIN_REQUEST_BYTES: usize = 512;

/// What a producer is told to wait when the node holds too much already.
const OVERLOAD_RETRY: Duration = Duration::from_millis(100);

/// How a batch is to be written.
struct How {
    acks: Acks,
    deadline: Instant,
    /// The leadership in which it is meant, if not in any.
    epoch: Option<LeaderEpoch>,
    /// The span that it belongs to; empty: none.
    trace_parent: String,
}

/// The partitions of this node. Cheap to clone.
#[derive(Clone)]
pub struct Replicas {
    env: Arc<Env>,
    /// Who starts partitions: ended before they are.
    manager: TaskTracker,
    produce_memory: Arc<Budget>,
    /// Whether writes are turned away, because this node is about to stop.
    leaving: Arc<watch::Sender<bool>>,
}

impl Replicas {
    /// Starts to follow the metadata. Returns at once; partitions appear when the
    /// metadata is known to be current. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(options: ReplicasOptions) -> Self {
        let on_disk = options.data_dirs.partitions();
        let produce_memory = Budget::new(produce_bytes(&options.limits));
        let (clock, limits) = (Clock::start(), options.limits);
        let (catch_up, moving) =
            (limits.catch_up_bytes_per_second, limits.reassignment_bytes_per_second);
        let vfs = options.shared.vfs();
        let (disks, watch_disks) = Disks::look(vfs, &options.data_dirs, &limits);
        let env = Arc::new(Env {
            node_id: options.node_id,
            cluster_id: options.cluster_id,
            old_watermarks: watermarks::load(
                options.shared.vfs(),
                options.data_dirs.first().path(),
            ),
            opening: Opening::new(options.data_dirs.count()),
            data_dirs: options.data_dirs,
            disks,
            shared: options.shared,
            network: options.network,
            tracer: options.tracer,
            cluster: options.cluster,
            clean_start: options.clean_start,
            limits: watch::Sender::new(limits),
            clock,
            broker_epoch: OnceLock::new(),
            images: watch::Sender::new(Arc::new(Image::default())),
            partitions: RwLock::new(HashMap::new()),
            sessions: Sessions::default(),
            traffics: Traffics::new(clock, catch_up, moving),
            links: Links::default(),
            leaving: Leaving::default(),
            proposals: IsrProposals::default(),
            offline: Arc::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let manager = TaskTracker::new();
        manager.spawn(manager::run(Arc::clone(&env), on_disk));
        manager.close();
        env.tasks.spawn(alter::run(Arc::clone(&env)));
        env.tasks.spawn(offline_replicas::run(Arc::clone(&env)));
        env.tasks.spawn(opening::run(Arc::clone(&env)));
        env.tasks.spawn(watermarks::run(Arc::clone(&env)));
        env.tasks.spawn(maintenance::run(Arc::clone(&env)));
        if watch_disks {
            env.tasks.spawn(disks::run(Arc::clone(&env)));
        }
        let leaving = Arc::new(watch::Sender::new(false));
        Self { env, manager, produce_memory, leaving }
    }

    /// From now on other bounds and times hold, also for what runs already. How much
    /// one leader may have on the way holds for connections to come.
    pub fn set_limits(&self, limits: Limits) {
        self.produce_memory.resize(produce_bytes(&limits));
        self.limit_catch_up(limits.catch_up_bytes_per_second);
        self.limit_reassignment(limits.reassignment_bytes_per_second);
        self.env.limits.send_replace(limits);
    }

    /// The service that other nodes follow through; to be mounted by the node.
    #[must_use]
    pub fn service(&self) -> ReplicationServiceServer<ReplicationRpc> {
        ReplicationServiceServer::new(ReplicationRpc::new(Arc::clone(&self.env)))
            .max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_GRPC_MESSAGE_BYTES)
    }

    /// Hands a batch to its partition. Batches are appended in the order in which
    /// calls for the same partition return.
    ///
    /// # Errors
    /// Nothing was written: `UNKNOWN_TOPIC`, `UNKNOWN_PARTITION`,
    /// `RECORD_TOO_LARGE`, `INVALID_RECORD` (no key in a compacted topic), `NOT_LEADER` (with who is), `PARTITION_OFFLINE`,
    /// `SHUTTING_DOWN`, `DISK_FULL` (too little room on the partition's disk); at the
    /// deadline `LEADER_NOT_AVAILABLE` and `OVERLOADED`.
    pub async fn produce(
        &self,
        topic: &str,
        partition: u32,
        batch: ValidBatch,
        acks: Acks,
        deadline: Instant,
    ) -> Result<ProduceTicket, ApiError> {
        self.produce_traced(topic, partition, batch, acks, deadline, String::new()).await
    }

    /// As [`produce`](Self::produce), for a write that belongs to a span: `trace_parent` is
    /// its W3C traceparent, or empty.
    ///
    /// # Errors
    /// As [`produce`](Self::produce).
    pub async fn produce_traced(
        &self,
        topic: &str,
        partition: u32,
        batch: ValidBatch,
        acks: Acks,
        deadline: Instant,
        trace_parent: String,
    ) -> Result<ProduceTicket, ApiError> {
        let how = How { acks, deadline, epoch: None, trace_parent };
        self.produce_within(topic, partition, batch, how).await
    }

    /// As [`produce`](Self::produce) with acks=all, for whoever keeps state in a
    /// partition and decides by it: only in the leadership in which it was read.
    ///
    /// # Errors
    /// As [`produce`](Self::produce); `NOT_LEADER` also if this node leads in another
    /// epoch.
    pub async fn produce_in(
        &self,
        (topic, partition): (&str, u32),
        epoch: LeaderEpoch,
        batch: ValidBatch,
        deadline: Instant,
    ) -> Result<ProduceTicket, ApiError> {
        let trace_parent = String::new();
        let how = How { acks: Acks::All, deadline, epoch: Some(epoch), trace_parent };
        self.produce_within(topic, partition, batch, how).await
    }

    async fn produce_within(
        &self,
        topic: &str,
        partition: u32,
        batch: ValidBatch,
        how: How,
    ) -> Result<ProduceTicket, ApiError> {
        let How { acks, deadline, epoch, trace_parent } = how;
        let permit = tokio::select! {
            biased;
            () = self.is_leaving() => {
                return Err(self.turned_away(topic, partition, deadline).await);
            }
            permit = self.reserve(batch.len(), deadline) => permit?,
        };
        let (target, entry) = self.enter(topic, partition, deadline).await?;
        self.check_batch(topic, &batch)?;
        // What nodes write themselves, such as where groups are, has room for longer.
        if epoch.is_none() {
            self.env.check_room(target.directory())?;
        }
        let (reply, answer) = oneshot::channel();
        let admission = Admission { _memory: permit, _entry: entry };
        let request =
            ProduceRequest { batch, trace_parent, acks, deadline, epoch, reply, admission };
        target.send(Message::Produce(request)).await;
        Ok(ProduceTicket { answer })
    }

    /// Reads committed records from `offset` on, at most about `max_bytes` but at
    /// least one batch if there is any; waits up to `wait` for the first.
    ///
    /// # Errors
    /// As [`produce`](Self::produce) for finding the partition;
    /// `OFFSET_OUT_OF_RANGE` with `log_start_offset` and `high_watermark`.
    pub async fn fetch(
        &self,
        topic: &str,
        partition: u32,
        offset: Offset,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Fetched, ApiError> {
        let reading = Reading { topic, partition, offset, max_bytes, wait };
        self.fetch_when(reading, std::future::ready(Ok(()))).await
    }

    /// As [`fetch`](Self::fetch), and once there is something to be read waits for `room`
    /// for it.
    ///
    /// # Errors
    /// As `fetch`; what `room` ends with.
    pub async fn fetch_when(
        &self,
        reading: Reading<'_>,
        room: impl Future<Output = Result<(), ApiError>>,
    ) -> Result<Fetched, ApiError> {
        let Reading { topic, partition, offset, max_bytes, wait } = reading;
        let deadline = Instant::now() + wait;
        let (target, mut status) = self.leading(topic, partition, deadline).await?;
        let mut state = target.state();
        loop {
            if offset > status.log_end {
                self.still_leads(target.id, status.leader_epoch).await?;
            }
            check_range(&self.env.name(target.id), offset, &status)?;
            let due = Instant::now() >= deadline;
            if offset < status.high_watermark {
                let up_to = status.high_watermark;
                room.await?;
                let read = move |log: &Log| log.read(offset, up_to, max_bytes);
                return match self.read(&target, read).await? {
                    Some(batches) => Ok(fetched(batches, &status)),
                    None => Err(self.env.not_leader(target.id)),
                };
            }
            if due {
                return Ok(fetched(Bytes::new(), &status));
            }
            let epoch = status.leader_epoch;
            let moved = |now: &LocalPartition| {
                now.leading()
                    .is_none_or(|now| now.leader_epoch != epoch || now.high_watermark > offset)
            };
            if let Ok(changed) = timeout_at(deadline, state.wait_for(moved)).await {
                let leading = changed.ok().and_then(|now| now.leading().copied());
                status = leading.ok_or_else(|| self.env.not_leader(target.id))?;
            }
        }
    }

    /// Deletes the records of a partition below an offset; `None`: all that are
    /// committed. Answered when they are gone, durably, from the leader and from
    /// every in-sync replica: with the offset at which they all start at least.
    ///
    /// # Errors
    /// As [`produce`](Self::produce) for finding the partition;
    /// `OFFSET_OUT_OF_RANGE` above the high watermark; `REQUEST_TIMED_OUT` and
    /// `LEADERSHIP_LOST`: they may be gone, or go yet.
    pub async fn delete_records(
        &self,
        topic: &str,
        partition: u32,
        before: Option<Offset>,
        deadline: Instant,
    ) -> Result<Offset, ApiError> {
        let (target, status) = self.leading(topic, partition, deadline).await?;
        if !status.watermark_is_current {
            self.current_watermark(&target, &status, deadline).await?;
        }
        let (reply, answer) = oneshot::channel();
        target.send(Message::DeleteRecords(DeleteRequest { before, deadline, reply })).await;
        answer.await.unwrap_or_else(|_| {
            let message = "the partition was stopped on this node before it answered";
            Err(ApiError::new(R::LeadershipLost, message))
        })
    }

    /// A local partition; `None` if this node has no replica of it.
    #[must_use]
    pub fn status(&self, id: PartitionId) -> Option<LocalPartition> {
        self.env.partition(id).map(|partition| partition.state().borrow().clone())
    }

    /// The changing state of a local partition, to wait on.
    #[must_use]
    pub fn watch(&self, id: PartitionId) -> Option<watch::Receiver<LocalPartition>> {
        self.env.partition(id).map(|partition| partition.state())
    }

    /// How many local replicas are what at this moment.
    #[must_use]
    pub fn counts(&self) -> ReplicaCounts {
        let mut counts = ReplicaCounts::default();
        for partition in self.env.partitions.read().values() {
            partition.count(&mut counts);
        }
        counts
    }

    /// The data directories, with the room on their disks as it was seen last.
    #[must_use]
    pub fn disks(&self) -> Vec<DiskStatus> {
        self.env.disk_statuses()
    }

    /// How far the logs that were here at the start are opened.
    #[must_use]
    pub fn opening(&self) -> watch::Receiver<OpeningProgress> {
        self.env.opening.progress()
    }

    /// The newest metadata that every local partition has been told of.
    #[must_use]
    pub fn images(&self) -> watch::Receiver<Arc<Image>> {
        self.env.images.subscribe()
    }

    #[cfg(test)]
    pub(crate) fn local(&self, id: PartitionId) -> Option<Arc<Partition>> {
        self.env.partition(id)
    }

    /// Stops every partition and connection, and syncs every log. Afterwards,
    /// and only if this is `Ok`, the clean-shutdown marker may be written.
    ///
    /// # Errors
    /// Logs that could not be opened or synced.
    pub async fn shutdown(&self) -> Result<(), ReplicasError> {
        self.env.stop.cancel();
        self.manager.wait().await;
        let opened = self.env.image().offset > MetadataOffset(0);
        watermarks::store(&self.env, String::new()).await;
        let partitions = self.env.all_partitions();
        for partition in &partitions {
            partition.stop();
        }
        self.env.tasks.close();
        self.env.tasks.wait().await;
        let offline =
            |p: &&Arc<Partition>| matches!(*p.state().borrow(), LocalPartition::Offline { .. });
        match partitions.iter().filter(offline).count() {
            0 if opened || self.env.clean_start => Ok(()),
            0 => Err(ReplicasError::NotRecovered),
            partitions => Err(ReplicasError::NotSynced { partitions }),
        }
    }

    /// What the topic's options ask of a batch.
    fn check_batch(&self, topic: &str, batch: &ValidBatch) -> Result<(), ApiError> {
        let image = self.env.image();
        let Some(found) = image.topic_by_name(topic) else { return Ok(()) };
        let limit = usize::try_from(found.config.max_message_bytes).unwrap_or(usize::MAX);
        if batch.len() > limit {
            let size = batch.len();
            let message = format!("the batch has {size} bytes, {topic} takes {limit}");
            return Err(ApiError::new(R::RecordTooLarge, message)
                .with("size", size)
                .with("max_message_bytes", limit));
        }
        if found.config.cleanup_policy.compacts() && !batch.every_record_has_a_key() {
            let message = format!("{topic} is compacted: every record needs a key");
            return Err(ApiError::new(R::InvalidRecord, message));
        }
        Ok(())
    }

    async fn reserve(&self, bytes: usize, deadline: Instant) -> Result<Share, ApiError> {
        let share = self.produce_memory.take(bytes.max(MIN_REQUEST_BYTES));
        match timeout_at(deadline, share).await {
            Ok(Ok(share)) => Ok(share),
            Ok(Err(_)) | Err(_) => {
                let (node, bound) = (self.env.node_id, self.produce_memory.bytes());
                let message =
                    format!("node {node} holds {bound} bytes of produce requests already");
                Err(ApiError::new(R::Overloaded, message).with_retry_after(OVERLOAD_RETRY))
            }
        }
    }

    /// Reads the log off the async workers. `None`: leadership has changed since,
    /// and with it the log may have.
    async fn read<T: Send + 'static>(
        &self,
        target: &Arc<Partition>,
        read: impl FnOnce(&Log) -> Result<T, LogError> + Send + 'static,
    ) -> Result<Option<T>, ApiError> {
        let before = target.leading().map(|status| status.leader_epoch);
        let Some(log) = target.log().filter(|_| before.is_some()).map(Arc::clone) else {
            return Ok(None);
        };
        let result = blocking(move || read(&log)).await;
        if target.leading().map(|status| status.leader_epoch) != before {
            return Ok(None);
        }
        match result {
            Ok(Ok(value)) => Ok(Some(value)),
            // Retention was quicker.
            Ok(Err(LogError::OutOfRange { requested, start, .. })) => {
                let high_watermark = target.leading().map_or(start, |now| now.high_watermark);
                let name = self.env.name(target.id);
                Err(out_of_range(&name, requested, start, high_watermark))
            }
            Ok(Err(error)) => {
                if matches!(error, LogError::Corrupt { .. }) {
                    target.is_damaged(&error);
                }
                Err(offline(&self.env.name(target.id), &error.to_string()))
            }
            Err(error) => Err(offline(&self.env.name(target.id), &error.to_string())),
        }
    }
}

/// All that waits for a partition may be appended in one write.
fn produce_bytes(limits: &Limits) -> usize {
    limits.produce_bytes.clamp(1, MAX_APPEND_BYTES)
}

fn check_range(name: &str, offset: Offset, status: &ReplicaStatus) -> Result<(), ApiError> {
    if (status.log_start..=status.log_end).contains(&offset) {
        return Ok(());
    }
    Err(out_of_range(name, offset, status.log_start, status.high_watermark))
}

fn out_of_range(name: &str, offset: Offset, start: Offset, high_watermark: Offset) -> ApiError {
    let message = format!("offset {offset} of {name} is outside of {start} to {high_watermark}");
    ApiError::new(R::OffsetOutOfRange, message)
        .with("log_start_offset", start)
        .with("high_watermark", high_watermark)
}

fn offline(name: &str, reason: &str) -> ApiError {
    ApiError::new(R::PartitionOffline, format!("{name} cannot be used here: {reason}"))
}

fn fetched(batches: Bytes, status: &ReplicaStatus) -> Fetched {
    Fetched {
        batches,
        high_watermark: status.high_watermark,
        log_start: status.log_start,
        leader_epoch: status.leader_epoch,
    }
}
