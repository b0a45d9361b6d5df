//! One producer's records, one after the other, and what becomes of each.
//!
//! ```text
//! Pace ─▶ Writer ─▶ TopicProducer::send        due, delivery
//!           └────────────────────────────▶ one collector per partition ─▶ Ledger
//! ```

use super::ledger::{Ledger, Ledgers};
use super::pace::Pace;
use super::{Job, Sums};
use crate::bench::chain::{Author, Chain, HEAD_BYTES};
use anyhow::Context as _;
use bytes::Bytes;
use futures::FutureExt as _;
use ottla_client::{Delivery, ProducerRecord, TopicProducer};
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Records of one partition whose fate is not noted yet, at most: more than a buffer holds
/// of any but the smallest. The producer's buffer bounds their bytes.
const MAX_UNNOTED: usize = 64 * 1024;

/// Values that are sent in turn when nobody has to tell them apart: enough that batches
/// do not compress better than one value does.
const VALUES: usize = 512;

/// Bytes to fill records with.
const FILLER_BYTES: usize = 1 << 20;

/// A record on its way.
struct Sent {
    due: Instant,
    delivery: Delivery,
}

pub(super) struct Writer {
    pub(super) topic: TopicProducer,
    pub(super) index: u32,
    pub(super) ledgers: Ledgers,
    pub(super) values: Values,
    pub(super) pace: Pace,
    /// Records that go to one partition before the next has its turn.
    pub(super) turn: u64,
    /// Records not yet acknowledged, at most.
    pub(super) in_flight: Option<u32>,
    /// Records in all, if not as many as the time allows.
    pub(super) records: Option<u64>,
}

impl Writer {
    /// Until the time is over and every record's fate is known.
    pub(super) async fn run(mut self) -> anyhow::Result<Sums> {
        let (mut sums, mut collectors) = (Sums::default(), Collectors::default());
        let room = self.in_flight.map(|records| Arc::new(Semaphore::new(records as usize)));
        while self.records.is_none_or(|records| sums.sent < records) {
            if let Some(room) = &room {
                room.acquire().await.context("it is never closed")?.forget();
            }
            let Some(due) = self.pace.next().await else { break };
            let turn = sums.sent / self.turn + u64::from(self.index);
            let partition = (turn % u64::from(self.topic.partitions())) as u32;
            let value = self.values.next(partition, due);
            let record =
                ProducerRecord { partition: Some(partition), ..ProducerRecord::value(value) };
            self.ledgers.get(self.index).sent(due, Instant::now());
            let delivery = self.topic.send(record).await?;
            sums.sent += 1;
            let to = collectors.of(partition, &self.ledgers, self.index, room.as_ref());
            to.send(Sent { due, delivery }).await.ok().context("a collector has ended")?;
        }
        collectors.end().await?;
        sums.not_sent = self.pace.left();
        sums.chains = self.values.chains();
        Ok(sums)
    }
}

/// Who waits for deliveries: one for each partition, where they come in order.
#[derive(Default)]
struct Collectors {
    by_partition: BTreeMap<u32, mpsc::Sender<Sent>>,
    tasks: JoinSet<()>,
}

impl Collectors {
    fn of(
        &mut self,
        partition: u32,
        ledgers: &Ledgers,
        index: u32,
        room: Option<&Arc<Semaphore>>,
    ) -> &mpsc::Sender<Sent> {
        self.by_partition.entry(partition).or_insert_with(|| {
            let (sender, sent) = mpsc::channel(MAX_UNNOTED);
            let (ledgers, room) = (ledgers.clone(), room.cloned());
            self.tasks.spawn(async move { collect(sent, ledgers.get(index), room).await });
            sender
        })
    }

    async fn end(mut self) -> anyhow::Result<()> {
        self.by_partition.clear();
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a collector failed")?;
        }
        Ok(())
    }
}

/// Waits for the first of what is under way; those of the same batch are known with it.
async fn collect(mut sent: mpsc::Receiver<Sent>, ledger: &Ledger, room: Option<Arc<Semaphore>>) {
    let mut waiting = None;
    let mut known = Vec::new();
    loop {
        let Some(Sent { due, delivery }) = (match waiting.take() {
            Some(first) => Some(first),
            None => sent.recv().await,
        }) else {
            return;
        };
        known.push((due, outcome(delivery.await)));
        let now = Instant::now();
        while let Ok(mut next) = sent.try_recv() {
            match (&mut next.delivery).now_or_never() {
                Some(delivered) => known.push((next.due, outcome(delivered))),
                None => {
                    waiting = Some(next);
                    break;
                }
            }
        }
        if let Some(room) = &room {
            room.add_permits(known.len());
        }
        ledger.came(now, known.drain(..));
    }
}

fn outcome<T>(delivered: Result<T, ottla_client::ClientError>) -> Result<(), &'static str> {
    delivered.map(drop).map_err(|error| error.reason_name())
}

/// What is written: hexadecimal digits drawn at random, in a chain or not.
pub(super) enum Values {
    /// The same ones again and again: making them costs nothing.
    Plain { values: Vec<Bytes>, next: usize },
    /// Each record with its place in the chain of its partition.
    Chained {
        author: Author,
        start: Instant,
        size: usize,
        filler: Bytes,
        chains: BTreeMap<u32, Chain>,
    },
}

impl Values {
    pub(super) fn new(size: usize, job: Job, writer: u32) -> Self {
        let filler = digits(FILLER_BYTES.max(2 * size));
        if job.chained {
            let (author, start) = (Author { run: job.run, writer }, job.start);
            let size = size - HEAD_BYTES;
            return Self::Chained { author, start, size, filler, chains: BTreeMap::new() };
        }
        let step = (filler.len() - size) / VALUES;
        let value = |index| filler.slice(index * step..index * step + size);
        Self::Plain { values: (0..VALUES).map(value).collect(), next: 0 }
    }

    fn next(&mut self, partition: u32, due: Instant) -> Bytes {
        match self {
            Self::Plain { values, next } => {
                *next = (*next + 1) % values.len();
                values[*next].clone()
            }
            Self::Chained { author, start, size, filler, chains } => {
                let chain = chains.entry(partition).or_insert_with(|| Chain::new(*author));
                // Another place for each, so that batches compress no better than records.
                let at = chain.len() as usize * 1009 % (filler.len() - *size);
                let due = due.saturating_duration_since(*start).as_nanos();
                let due = u64::try_from(due).unwrap_or(u64::MAX);
                chain.next(due, &filler[at..at + *size])
            }
        }
    }

    fn chains(self) -> Vec<(Author, u32, u64)> {
        match self {
            Self::Plain { .. } => Vec::new(),
            Self::Chained { author, chains, .. } => {
                chains.iter().map(|(partition, chain)| (author, *partition, chain.len())).collect()
            }
        }
    }
}

/// Chance enough for what nobody should compress: the standard library's.
fn digits(len: usize) -> Bytes {
    let state = RandomState::new();
    let word = |index: usize| {
        let mut hasher = state.build_hasher();
        hasher.write_usize(index);
        format!("{:016x}", hasher.finish())
    };
    let mut digits: Vec<u8> =
        (0..len.div_ceil(16)).flat_map(|index| word(index).into_bytes()).collect();
    digits.truncate(len);
    digits.into()
}
