//! Writing: records are gathered into batches per partition, each partition's
//! batches are sent to its leader in order, and every record learns its fate.
//!
//! ```text
//! TopicProducer::send ─▶ PartitionQueue ─▶ worker ─▶ Link (one per leader) ─▶ node
//!       awaits room         batches      Pipeline       ProduceStream
//! ```

mod identities;
mod link;
mod parcel;
mod partitioner;
mod pipeline;
mod queue;
mod record;
mod topic;
mod worker;

pub use partitioner::{Partitioner, partition_for_key};
pub use record::{Acks, Delivered, Delivery, ProducerRecord, TrySendError, TrySendReason};
pub use topic::TopicProducer;

use crate::{Client, ClientError};
use futures::future::join_all;
use identities::Identities;
use link::Links;
use ottla_commitlog::format::{Compression, NewRecord};
use ottla_trace::Tracer;
use parking_lot::Mutex;
use queue::PartitionQueue;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use topic::Topic;
use worker::Context;

/// Most bytes of a batch by default. Five of them over the round trip bound the rate
/// of one partition; without idempotence it is one: 512 KiB at 3 ms is 170 MB/s.
const DEFAULT_BATCH_BYTES: usize = 512 * 1024;

/// Memory for records not yet acknowledged, by default, in bytes: full batches
/// of some sixty partitions.
const DEFAULT_BUFFER_BYTES: usize = 32 * 1024 * 1024;

/// Settings of a [`Producer`].
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// When a record counts as written.
    pub acks: Acks,
    /// How batches are compressed. What would not become smaller is sent as it
    /// is.
    pub compression: Compression,
    /// How long a batch waits for more records before it is sent.
    pub linger: Duration,
    /// Most bytes of a batch. The topic's `max.message.bytes` bounds it too.
    pub batch_bytes: usize,
    /// Memory for records not yet acknowledged, in bytes. When it is full,
    /// `send` waits. At most 4 GiB.
    pub buffer_bytes: usize,
    /// Chooses partitions for records that name none. Without one: by key as Kafka's
    /// clients do ([`partition_for_key`]), and where there is no key, one partition
    /// after another, a batch's worth each.
    pub partitioner: Option<Arc<dyn Partitioner>>,
    /// Time from `send` to a record's fate, with all retries.
    pub delivery_timeout: Duration,
    /// Whether leaders are to know a batch that is sent again, so that it is written
    /// once; up to five of a partition are then under way. Off, or with
    /// [`Acks::None`], one is, and what is sent again may be written twice. Takes
    /// feature level 2 of the cluster.
    pub idempotent: bool,
    /// Whether a batch is sent again when it may already have been written. Off: such
    /// a record's delivery fails with an indefinite error.
    pub retry_indefinite: bool,
    /// Traces batches: a span each, from when it is first sent to its fate, which nodes
    /// that have a collector add theirs to. By default nothing is traced.
    pub tracer: Tracer,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            compression: Compression::None,
            linger: Duration::from_millis(5),
            batch_bytes: DEFAULT_BATCH_BYTES,
            buffer_bytes: DEFAULT_BUFFER_BYTES,
            partitioner: None,
            delivery_timeout: Duration::from_secs(30),
            idempotent: true,
            retry_indefinite: true,
            tracer: Tracer::default(),
        }
    }
}

/// What a producer has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerStats {
    /// Records acknowledged (with [`Acks::None`]: sent).
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Records whose delivery failed.
    pub failed: u64,
    /// Attempts after the first, over all batches.
    pub retries: u64,
    /// Records sent again after an attempt that may have been carried out.
    pub in_doubt: u64,
    /// Those among them that may be in the log twice, because their leader would not
    /// know. None if the producer is idempotent, unless with [`Acks::Leader`] a leader
    /// lost what it had acknowledged.
    pub possible_duplicates: u64,
}

#[derive(Default)]
struct Stats {
    records: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    retries: AtomicU64,
    in_doubt: AtomicU64,
    possible_duplicates: AtomicU64,
}

impl Stats {
    fn acknowledged(&self, records: &[NewRecord]) {
        let len = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
        let bytes: usize = records.iter().map(|r| len(&r.key) + len(&r.value)).sum();
        self.records.fetch_add(records.len() as u64, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    fn failed(&self, records: usize) {
        self.failed.fetch_add(records as u64, Relaxed);
    }

    fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    fn doubted(&self, records: usize) {
        self.in_doubt.fetch_add(records as u64, Relaxed);
    }

    fn maybe_duplicated(&self, records: usize) {
        self.possible_duplicates.fetch_add(records as u64, Relaxed);
    }
}

/// Writes to topics. Cheap to clone; clones share buffer, order and streams.
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
}

struct Shared {
    context: Arc<Context>,
    /// One permit per byte of buffer.
    buffer: Arc<Semaphore>,
    topics: Mutex<HashMap<String, Arc<Topic>>>,
    /// Queues in use, for flush and shutdown.
    queues: Mutex<Vec<Arc<PartitionQueue>>>,
    /// One per queue. Dropped with the producer, which ends them.
    workers: Mutex<JoinSet<()>>,
}

impl Producer {
    /// A producer on a client's cluster.
    #[must_use]
    pub fn new(client: &Client, mut options: ProducerOptions) -> Self {
        // A permit count is 32 bits wide.
        options.buffer_bytes = options.buffer_bytes.clamp(1, u32::MAX as usize);
        let buffer = Arc::new(Semaphore::new(options.buffer_bytes));
        let context = Arc::new(Context {
            client: client.clone(),
            options,
            links: Links::new(client.clone()),
            identities: Identities::new(client.clone()),
            stats: Stats::default(),
        });
        Self {
            shared: Arc::new(Shared {
                context,
                buffer,
                topics: Mutex::default(),
                queues: Mutex::default(),
                workers: Mutex::new(JoinSet::new()),
            }),
        }
    }

    /// A handle for writing to one topic. When the topic grows, records are
    /// spread over the new partitions too; then keys move, as they do for every
    /// client.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC, or the cluster cannot be reached.
    pub async fn topic(&self, name: &str) -> Result<TopicProducer, ClientError> {
        let known = self.shared.topics.lock().get(name).cloned();
        let topic = match known {
            Some(topic) => topic,
            None => {
                let client = &self.shared.context.client;
                let shape = client.topic_shape(name).await?;
                client.follow(name);
                let topic = Arc::new(Topic::new(name, &shape, &self.shared.context.options));
                self.shared.topics.lock().entry(name.to_owned()).or_insert(topic).clone()
            }
        };
        Ok(TopicProducer::new(self.clone(), topic))
    }

    /// Sends everything that is buffered without further linger, and returns
    /// when the fate of each of these records is known: their deliveries tell.
    pub async fn flush(&self) {
        let queues = self.shared.queues.lock().clone();
        join_all(queues.iter().flat_map(|queue| queue.flush())).await;
    }

    /// Takes no more records, sends what is buffered, and ends.
    pub async fn shutdown(&self) {
        self.shared.buffer.close();
        for queue in self.shared.queues.lock().iter() {
            queue.close();
        }
        let mut workers = std::mem::take(&mut *self.shared.workers.lock());
        while workers.join_next().await.is_some() {}
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> ProducerStats {
        let stats = &self.shared.context.stats;
        ProducerStats {
            records: stats.records.load(Relaxed),
            bytes: stats.bytes.load(Relaxed),
            failed: stats.failed.load(Relaxed),
            retries: stats.retries.load(Relaxed),
            in_doubt: stats.in_doubt.load(Relaxed),
            possible_duplicates: stats.possible_duplicates.load(Relaxed),
        }
    }

    fn start_queue(&self, topic: &Topic, partition: u32) -> Arc<PartitionQueue> {
        let linger = self.shared.context.options.linger;
        let queue = Arc::new(PartitionQueue::new(partition, topic.batch_bytes, linger));
        let mut queues = self.shared.queues.lock();
        if self.shared.buffer.is_closed() {
            queue.close();
        }
        queues.push(queue.clone());
        let work = worker::run(self.shared.context.clone(), topic.name.clone(), queue.clone());
        self.shared.workers.lock().spawn(work);
        queue
    }
}

#[cfg(test)]
mod tests;
