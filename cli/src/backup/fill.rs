//! The records of a backup, into the partitions of new topics.
//!
//! They are sent with the client's producer, which is idempotent: written once and in
//! order, whatever happens to leaders meanwhile. Each record must come to lie at the offset
//! that the groups' offsets were worked out for.

use super::batches::{BatchReader, ReadBatch};
use super::error::{BackupError, Damage};
use super::manifest::{FileEntry, PartitionEntry, TopicEntry, partition_dir};
use super::mapping::has_records;
use crate::progress::Progress;
use anyhow::Context as _;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use ottla_client::{
    Client, Compression, Delivery, Producer, ProducerOptions, ProducerRecord, TopicProducer,
};
use ottla_node::inspect::{BatchHeader, Record, decode_records};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::spawn_blocking;

/// Partitions filled at once.
const PARTITIONS_AT_ONCE: usize = 8;

/// Least time that a record has to be written. It begins when the record is queued, behind
/// all that the producer's 32 MiB hold: so long they take at a tenth of a megabyte a second.
/// And a restore of hours should not end because of minutes without a leader.
const MIN_DELIVERY_TIMEOUT: Duration = Duration::from_secs(300);

/// Batches of a partition that are read before they are asked for.
const READ_AHEAD: usize = 4;

/// Records of one partition whose fate is not known yet, at most: more than the
/// producer's buffer holds of any but the smallest.
const MAX_UNKNOWN: usize = 64 * 1024;

/// What is needed to fill partitions.
#[derive(Clone)]
pub(super) struct Filler {
    pub(super) dir: PathBuf,
    pub(super) client: Client,
    /// Longest wait for one record to be written, if that is longer than the least.
    pub(super) timeout: Duration,
    pub(super) progress: Arc<Progress>,
    /// One for each way in which batches are compressed.
    pub(super) producers: Arc<Mutex<HashMap<Compression, Producer>>>,
}

impl Filler {
    /// All partitions of all topics.
    pub(super) async fn fill(&self, topics: &[TopicEntry]) -> anyhow::Result<()> {
        let partitions = topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|entry| (topic.name.clone(), entry)));
        let fill = |(topic, entry): (String, &PartitionEntry)| {
            let (filler, entry) = (self.clone(), entry.clone());
            let task = async move {
                let place = format!("{topic}-{}", entry.partition);
                filler.partition(topic, &entry).await.with_context(|| place)
            };
            // Each decompresses and compresses on a thread of its own.
            async move { tokio::spawn(task).await.context("a partition failed")? }
        };
        let filling = stream::iter(partitions.map(fill)).buffer_unordered(PARTITIONS_AT_ONCE);
        let filled = filling.try_collect::<Vec<()>>().await.map(drop);
        let producers: Vec<Producer> = self.producers.lock().values().cloned().collect();
        for producer in producers {
            producer.shutdown().await;
        }
        filled
    }

    async fn partition(&self, topic: String, entry: &PartitionEntry) -> anyhow::Result<()> {
        let dir = partition_dir(&self.dir, &topic, entry.partition);
        let mut sender = Sender {
            filler: self,
            topic,
            partition: entry.partition,
            from: entry.from,
            next: 0,
            unknown: VecDeque::new(),
            producer: None,
        };
        let mut batches = read_ahead(dir, entry.files.clone());
        while let Some(batch) = batches.recv().await {
            let (header, batch) = batch?;
            if has_records(&header) {
                sender.batch(&header, &batch).await?;
            }
            self.progress.add(batch.len() as u64);
        }
        sender.end().await
    }

    fn producer(&self, compression: Compression) -> Producer {
        let options = ProducerOptions {
            compression,
            delivery_timeout: self.timeout.max(MIN_DELIVERY_TIMEOUT),
            ..ProducerOptions::default()
        };
        let mut producers = self.producers.lock();
        producers.entry(compression).or_insert_with(|| Producer::new(&self.client, options)).clone()
    }
}

/// The batches of a partition's files, read on a thread that may wait for the disk. What
/// the disk has lost since the files were checked is found here.
fn read_ahead(dir: PathBuf, files: Vec<FileEntry>) -> Receiver<Result<ReadBatch, Damage>> {
    let (sender, batches) = channel(READ_AHEAD);
    spawn_blocking(move || {
        let send = |batch| sender.blocking_send(batch).is_ok();
        let read = || -> Result<(), Damage> {
            for file in &files {
                let mut reader = BatchReader::open(&dir, file)?;
                while let Some(batch) = reader.next()? {
                    if !send(Ok(batch)) {
                        // Nobody wants them any more.
                        return Ok(());
                    }
                }
                reader.check_end(file)?;
            }
            Ok(())
        };
        if let Err(damage) = read() {
            send(Err(damage));
        }
    });
    batches
}

/// One partition's records, in order.
struct Sender<'a> {
    filler: &'a Filler,
    topic: String,
    partition: u32,
    /// Records below it are not restored.
    from: u64,
    /// Where the next record has to come to lie.
    next: u64,
    /// With the offset where each has to lie.
    unknown: VecDeque<(u64, Delivery)>,
    producer: Option<(Compression, TopicProducer)>,
}

impl Sender<'_> {
    async fn batch(&mut self, header: &BatchHeader, batch: &Bytes) -> anyhow::Result<()> {
        let producer = self.producer(header.compression()?).await?;
        for record in decode_records(batch) {
            let record = record?;
            let offset = record.offset;
            if offset < self.from {
                continue;
            }
            let sent = producer.send(to_send(record, self.partition)).await;
            let sent = sent.with_context(|| format!("the record that was at offset {offset}"))?;
            self.unknown.push_back((self.next, sent));
            self.next += 1;
            if self.unknown.len() >= MAX_UNKNOWN {
                self.settle_one().await?;
            }
        }
        self.settle_known()
    }

    /// The producer that compresses so. Producers do not wait for each other, so with
    /// another one than before all that was sent has to be there first.
    async fn producer(&mut self, compression: Compression) -> anyhow::Result<TopicProducer> {
        if let Some((known, producer)) = &self.producer
            && *known == compression
        {
            return Ok(producer.clone());
        }
        self.settle_all().await?;
        let producer = self.filler.producer(compression).topic(&self.topic).await?;
        self.producer = Some((compression, producer.clone()));
        Ok(producer)
    }

    fn settle_known(&mut self) -> anyhow::Result<()> {
        while let Some((expected, delivery)) = self.unknown.front_mut() {
            let Some(delivered) = delivery.now_or_never() else { return Ok(()) };
            let expected = *expected;
            self.unknown.pop_front();
            check(expected, delivered?.offset)?;
        }
        Ok(())
    }

    async fn settle_one(&mut self) -> anyhow::Result<()> {
        if let Some((expected, delivery)) = self.unknown.pop_front() {
            check(expected, delivery.await?.offset)?;
        }
        Ok(())
    }

    async fn settle_all(&mut self) -> anyhow::Result<()> {
        while !self.unknown.is_empty() {
            self.settle_one().await?;
        }
        Ok(())
    }

    async fn end(mut self) -> anyhow::Result<()> {
        self.settle_all().await
    }
}

fn check(expected: u64, found: Option<u64>) -> anyhow::Result<()> {
    let found = found.context("acks=all tells the offset")?;
    if found != expected {
        return Err(BackupError::NotAlone { expected, found }.into());
    }
    Ok(())
}

fn to_send(record: Record, partition: u32) -> ProducerRecord {
    let Record { timestamp_ms, key, value, headers, .. } = record;
    let (timestamp_ms, partition) = (Some(timestamp_ms), Some(partition));
    ProducerRecord { key, value, headers, timestamp_ms, partition }
}
