//! Writers that go on whatever happens, and remember when each record was
//! acknowledged and where it is.

use anyhow::{Context, bail};
use ottla_client::{
    Client, PartitionReader, Producer, ProducerOptions, ProducerRecord, ReaderOptions,
    StartPosition, TopicProducer,
};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// Longest wait for a partition to take a write again. A cluster that needs longer is
/// broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// A record that was acknowledged.
#[derive(Clone, Copy)]
struct Acked {
    offset: u64,
    sequence: u64,
    sent: Instant,
    at: Instant,
}

/// What one writer has done. Some tens of bytes a record: a run of minutes.
#[derive(Default)]
struct History {
    acked: Vec<Acked>,
    failures: Vec<String>,
}

/// One writer a partition.
pub(super) struct Writers {
    topic: String,
    producer: Producer,
    histories: Vec<Arc<Mutex<History>>>,
    /// Told of every acknowledgement.
    progress: watch::Sender<()>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// What all writers together have done, after everything was read back.
pub(super) struct Written {
    pub(super) acknowledged: u64,
    /// Records that failed for good, with the last reason.
    pub(super) failed: u64,
    pub(super) last_failure: Option<String>,
    pub(super) in_doubt: u64,
    /// Acknowledged, and not at its offset.
    pub(super) lost: u64,
}

impl Writers {
    pub(super) async fn start(
        client: &Client,
        topic: &str,
        partitions: u32,
        interval: Duration,
    ) -> anyhow::Result<Self> {
        let options = ProducerOptions { linger: Duration::ZERO, ..ProducerOptions::default() };
        let producer = Producer::new(client, options);
        let (progress, _) = watch::channel(());
        let (stop, _) = watch::channel(false);
        let mut writers = Self {
            topic: topic.to_owned(),
            producer,
            histories: Vec::new(),
            progress,
            stop,
            tasks: JoinSet::new(),
        };
        for partition in 0..partitions {
            let history = Arc::new(Mutex::new(History::default()));
            writers.histories.push(Arc::clone(&history));
            let writer = Writer {
                topic: writers.producer.topic(topic).await?,
                partition,
                interval,
                history,
                progress: writers.progress.clone(),
                stop: writers.stop.subscribe(),
            };
            writers.tasks.spawn(writer.run());
        }
        Ok(writers)
    }

    /// Waits until a record that was sent after a moment is acknowledged on each of
    /// these partitions, and returns when the first of them was.
    pub(super) async fn acknowledged_since(
        &self,
        moment: Instant,
        partitions: &[u32],
    ) -> anyhow::Result<Vec<Instant>> {
        let mut progress = self.progress.subscribe();
        let mut times = Vec::new();
        for &partition in partitions {
            let history = &self.histories[partition as usize];
            let first = || {
                let history = history.lock();
                let since = history.acked.iter().rev().take_while(|acked| acked.sent >= moment);
                since.last().map(|acked| acked.at)
            };
            let waited = timeout(PATIENCE, progress.wait_for(|()| first().is_some())).await;
            // The sender is here.
            let at = if waited.is_ok() { first() } else { None };
            let Some(at) = at else {
                let last = history.lock().failures.last().cloned().unwrap_or_default();
                bail!("nothing acknowledged on partition {partition} for {PATIENCE:?}: {last}");
            };
            times.push(at);
        }
        Ok(times)
    }

    /// The longest time without an acknowledgement on any partition that began
    /// between two moments.
    pub(super) fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let gap = |history: &Arc<Mutex<History>>| {
            let history = history.lock();
            let pairs = history.acked.windows(2).rev();
            let within = pairs.take_while(|pair| pair[1].at >= from);
            within.filter(|pair| pair[0].at <= to).map(|pair| pair[1].at - pair[0].at).max()
        };
        self.histories.iter().filter_map(gap).max().unwrap_or_default()
    }

    pub(super) fn failed(&self) -> u64 {
        self.histories.iter().map(|history| history.lock().failures.len() as u64).sum()
    }

    pub(super) fn in_doubt(&self) -> u64 {
        self.producer.stats().in_doubt
    }

    /// Stops the writers and reads back what they wrote.
    pub(super) async fn finish(mut self, client: &Client) -> anyhow::Result<Written> {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a writer failed")?;
        }
        let mut written = Written {
            acknowledged: 0,
            failed: self.failed(),
            last_failure: None,
            in_doubt: self.in_doubt(),
            lost: 0,
        };
        for (partition, history) in (0..).zip(&self.histories) {
            let History { acked, failures } = std::mem::take(&mut *history.lock());
            written.acknowledged += acked.len() as u64;
            written.last_failure = failures.last().cloned().or(written.last_failure);
            written.lost += lost(client, &self.topic, partition, &acked).await?;
        }
        self.producer.shutdown().await;
        Ok(written)
    }
}

/// How many acknowledged records are not at their offset.
async fn lost(
    client: &Client,
    topic: &str,
    partition: u32,
    acked: &[Acked],
) -> anyhow::Result<u64> {
    let Some(end) = acked.iter().map(|acked| acked.offset + 1).max() else { return Ok(0) };
    let options = ReaderOptions::default();
    let reader =
        PartitionReader::open(client, topic, partition, StartPosition::Offset(0), options).await?;
    let mut reader = reader.read_until(end);
    let mut values = vec![None; usize::try_from(end)?];
    while let Some(batch) = reader.next_batch().await? {
        for record in batch.records {
            if let Some(place) = values.get_mut(usize::try_from(record.offset)?) {
                *place = record.value;
            }
        }
    }
    let there = |acked: &&Acked| {
        let value = usize::try_from(acked.offset).ok().and_then(|at| values.get(at)?.as_deref());
        value == Some(value_of(partition, acked.sequence).as_bytes())
    };
    Ok((acked.len() - acked.iter().filter(there).count()) as u64)
}

fn value_of(partition: u32, sequence: u64) -> String {
    format!("{partition}/{sequence}")
}

struct Writer {
    topic: TopicProducer,
    partition: u32,
    interval: Duration,
    history: Arc<Mutex<History>>,
    progress: watch::Sender<()>,
    stop: watch::Receiver<bool>,
}

impl Writer {
    async fn run(mut self) {
        for sequence in 0.. {
            let sent = Instant::now();
            match self.write(sequence).await {
                Ok(offset) => {
                    let acked = Acked { offset, sequence, sent, at: Instant::now() };
                    self.history.lock().acked.push(acked);
                }
                Err(error) => self.history.lock().failures.push(format!("{error:#}")),
            }
            self.progress.send_replace(());
            tokio::select! {
                // The sender outlives the writers.
                _ = self.stop.wait_for(|stop| *stop) => return,
                () = sleep_until(sent + self.interval) => {}
            }
        }
    }

    async fn write(&self, sequence: u64) -> anyhow::Result<u64> {
        let record = ProducerRecord {
            partition: Some(self.partition),
            ..ProducerRecord::value(value_of(self.partition, sequence))
        };
        let delivered = self.topic.send(record).await?.await?;
        delivered.offset.context("acknowledged without an offset")
    }
}
