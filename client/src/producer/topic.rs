//! Writing to one topic: checks a record, waits for room, chooses a partition.

use super::partitioner::{Sticky, partition_for_key};
use super::queue::{Entry, PartitionQueue};
use super::{Delivery, Producer, ProducerOptions, ProducerRecord, TrySendError, TrySendReason};
use crate::ClientError;
use crate::metadata::{MetadataCache, TopicShape};
use ottla_commitlog::format::{HEADER_LEN, NewRecord, encoded_record_len};
use ottla_proto::ApiError;
use ottla_proto::v1::ErrorReason;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};

/// What a record takes up in memory beyond its encoded bytes: its fields and
/// its share of the queue. Keeps empty records from filling memory unseen.
const RECORD_OVERHEAD_BYTES: usize = 160;

/// A topic's queues, shared by all handles for it.
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    /// Most bytes of a batch.
    pub(super) batch_bytes: usize,
    /// Most bytes of a batch of one record: what the topic takes.
    max_batch_bytes: usize,
    /// As many as were ever needed; each from its first record on.
    queues: RwLock<Vec<Option<Arc<PartitionQueue>>>>,
    /// How many partitions records are spread over: as many as there are now, as
    /// far as known.
    partitions: AtomicU32,
    /// The metadata's version that says so.
    seen: AtomicU64,
    /// Where records without a key go at the moment.
    sticky: Sticky,
}

impl Topic {
    pub(super) fn new(name: &str, shape: &TopicShape, options: &ProducerOptions) -> Self {
        assert!(shape.partitions > 0, "a topic has at least one partition");
        let batch_bytes = options.batch_bytes.min(shape.max_batch_bytes);
        Self {
            name: name.into(),
            batch_bytes,
            max_batch_bytes: shape.max_batch_bytes,
            queues: RwLock::default(),
            partitions: AtomicU32::new(shape.partitions),
            seen: AtomicU64::new(0),
            // Many short-lived producers should not all begin with the same one.
            sticky: Sticky::new(rand::random_range(0..shape.partitions), batch_bytes),
        }
    }

    /// How many partitions there are, as of the latest news.
    fn partitions(&self, metadata: &MetadataCache) -> u32 {
        let version = metadata.current_version();
        if self.seen.swap(version, Relaxed) != version
            && let Some(shape) = metadata.topic(&self.name)
            && shape.partitions > 0
        {
            self.partitions.store(shape.partitions, Relaxed);
        }
        self.partitions.load(Relaxed)
    }
}

/// Writes to one topic.
#[derive(Clone)]
pub struct TopicProducer {
    producer: Producer,
    topic: Arc<Topic>,
}

impl TopicProducer {
    pub(super) fn new(producer: Producer, topic: Arc<Topic>) -> Self {
        Self { producer, topic }
    }

    /// The number of partitions that records are spread over. Grows with the
    /// topic, as soon as the cluster tells.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.topic.partitions(self.producer.shared.context.client.metadata())
    }

    /// Queues a record, waiting for room in the buffer. Records sent one after
    /// another to the same partition are written in that order. Dropping this
    /// future before it is ready takes the record back.
    ///
    /// # Errors
    /// Nothing was queued: the record is too large, names a partition that does
    /// not exist, or the producer is closed. What happens to a queued record,
    /// its [`Delivery`] tells.
    pub async fn send(&self, mut record: ProducerRecord) -> Result<Delivery, ClientError> {
        self.choose(&mut record);
        if record.partition.is_some_and(|partition| partition >= self.partitions()) {
            // The topic may have grown a moment ago.
            self.producer.shared.context.client.topic_shape(&self.topic.name).await?;
        }
        let (encoded, cost) = self.check(&record)?;
        let buffer = self.producer.shared.buffer.clone();
        let memory = buffer.acquire_many_owned(cost).await.map_err(|_| ClientError::Closed)?;
        Ok(self.enqueue(record, encoded, memory))
    }

    /// As [`Self::send`], but hands the record back when there is no room.
    ///
    /// # Errors
    /// Nothing was queued, see [`TrySendReason`].
    #[allow(clippy::result_large_err)] // it is the record handed back
    pub fn try_send(&self, mut record: ProducerRecord) -> Result<Delivery, TrySendError> {
        self.choose(&mut record);
        let (encoded, cost) = match self.check(&record) {
            Ok(checked) => checked,
            Err(error) => {
                return Err(TrySendError { record, reason: TrySendReason::Refused(error) });
            }
        };
        let reason = match self.producer.shared.buffer.clone().try_acquire_many_owned(cost) {
            Ok(memory) => return Ok(self.enqueue(record, encoded, memory)),
            Err(TryAcquireError::NoPermits) => TrySendReason::Full,
            Err(TryAcquireError::Closed) => TrySendReason::Refused(ClientError::Closed),
        };
        Err(TrySendError { record, reason })
    }

    /// Asks the program's own partitioner, if it has one.
    fn choose(&self, record: &mut ProducerRecord) {
        if record.partition.is_none()
            && let Some(partitioner) = &self.producer.shared.context.options.partitioner
        {
            let name = &self.topic.name;
            record.partition = partitioner.partition(name, record, self.partitions());
        }
    }

    /// The record's largest encoded length and its cost in buffer memory.
    fn check(&self, record: &ProducerRecord) -> Result<(usize, u32), ClientError> {
        if let Some(partition) = record.partition
            && partition >= self.partitions()
        {
            let message = format!(
                "topic {} has {} partitions, there is no partition {partition}",
                self.topic.name,
                self.partitions()
            );
            return Err(ApiError::new(ErrorReason::UnknownPartition, message).into());
        }
        if record.timestamp_ms.is_some_and(|timestamp| timestamp < 0) {
            return Err(ClientError::InvalidArgument("a timestamp before 1970".to_owned()));
        }
        let encoded = encoded_len(record);
        let limit = self.topic.max_batch_bytes;
        if HEADER_LEN + encoded > limit {
            let message = format!(
                "a record of up to {} bytes with its batch header is more than the {limit} bytes \
                 of max.message.bytes of topic {}",
                HEADER_LEN + encoded,
                self.topic.name
            );
            return Err(ApiError::new(ErrorReason::RecordTooLarge, message).into());
        }
        let capacity = self.producer.shared.context.options.buffer_bytes;
        let cost = encoded + RECORD_OVERHEAD_BYTES;
        u32::try_from(cost).ok().filter(|cost| *cost as usize <= capacity).map_or_else(
            || {
                let message = format!("a record of {cost} bytes, a buffer of {capacity}");
                Err(ClientError::InvalidArgument(message))
            },
            |cost| Ok((encoded, cost)),
        )
    }

    fn enqueue(
        &self,
        record: ProducerRecord,
        encoded: usize,
        memory: OwnedSemaphorePermit,
    ) -> Delivery {
        let partition = record
            .partition
            .or_else(|| record.key.as_ref().map(|key| partition_for_key(key, self.partitions())));
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(now_ms);
        let ProducerRecord { key, value, headers, .. } = record;
        let record = NewRecord { key, value, headers, timestamp_ms };
        let entry = Entry { record, encoded, memory };
        match partition {
            Some(partition) => self.queue(partition).append(entry),
            None => self.append_anywhere(entry),
        }
    }

    fn append_anywhere(&self, entry: Entry) -> Delivery {
        let (sticky, partitions) = (&self.topic.sticky, self.partitions());
        let partition = sticky.take(entry.encoded, partitions);
        let delivery = self.queue(partition).append(entry);
        let is_filling = |partition| self.queue(partition).is_filling();
        sticky.turn(is_filling, || self.waiting(), |below| rand::random_range(0..below));
        delivery
    }

    /// Batches that wait, by partition.
    fn waiting(&self) -> Vec<usize> {
        let queues = self.topic.queues.read();
        let waiting = |partition| match queues.get(partition as usize) {
            Some(Some(queue)) => queue.waiting(),
            _ => 0,
        };
        (0..self.partitions()).map(waiting).collect()
    }

    fn queue(&self, partition: u32) -> Arc<PartitionQueue> {
        let index = partition as usize;
        if let Some(Some(queue)) = self.topic.queues.read().get(index) {
            return queue.clone();
        }
        let mut queues = self.topic.queues.write();
        if queues.len() <= index {
            queues.resize(index + 1, None);
        }
        queues[index]
            .get_or_insert_with(|| self.producer.start_queue(&self.topic, partition))
            .clone()
    }
}

/// Most bytes the record adds to a batch.
fn encoded_len(record: &ProducerRecord) -> usize {
    encoded_record_len(&NewRecord {
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone(),
        timestamp_ms: 0,
    })
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
