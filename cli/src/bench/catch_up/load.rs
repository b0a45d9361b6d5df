//! What writes meanwhile: at a fixed rate, whatever happens to what was sent before.

use super::report::Window;
use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use hdrhistogram::Histogram;
use ottla_client::{Client, Producer, ProducerOptions, ProducerRecord, TopicProducer};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Bytes of a record's value.
const RECORD_BYTES: usize = 1024;

/// Digits of a latency that a histogram keeps.
const DIGITS: u8 = 3;

/// A record that was acknowledged: when it was due, and how long after that.
struct Sample {
    due: Instant,
    took: Duration,
}

/// What was sent in all. Some tens of bytes a record: a run of minutes.
#[derive(Default)]
pub(super) struct History {
    samples: Vec<Sample>,
    pub(super) failed: u64,
}

/// Latencies in microseconds.
pub(super) type Latencies = Histogram<u64>;

impl History {
    /// Of the records that were due in a window.
    pub(super) fn latencies(&self, window: Window) -> anyhow::Result<Latencies> {
        let mut histogram = Histogram::new(DIGITS)?;
        for Sample { due, took } in &self.samples {
            if (window.from..window.to).contains(due) {
                histogram.record(u64::try_from(took.as_micros())?)?;
            }
        }
        Ok(histogram)
    }
}

/// Writers that run until they are told to stop.
pub(super) struct Load {
    producer: Producer,
    stop: watch::Sender<bool>,
    running: JoinHandle<History>,
}

impl Load {
    /// So many records a second, over all partitions in turn.
    pub(super) async fn start(client: &Client, topic: &str, rate: u32) -> anyhow::Result<Self> {
        let options = ProducerOptions { linger: Duration::ZERO, ..ProducerOptions::default() };
        let producer = Producer::new(client, options);
        let topic = producer.topic(topic).await?;
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(send(topic, Duration::from_secs(1) / rate, stopped));
        Ok(Self { producer, stop, running })
    }

    /// Waits for what is under way.
    pub(super) async fn finish(self) -> anyhow::Result<History> {
        self.stop.send_replace(true);
        let history = self.running.await.context("the writers failed")?;
        self.producer.shutdown().await;
        Ok(history)
    }
}

async fn send(
    topic: TopicProducer,
    interval: Duration,
    mut stopped: watch::Receiver<bool>,
) -> History {
    let value = Bytes::from(vec![b'x'; RECORD_BYTES]);
    let (mut history, mut under_way) = (History::default(), FuturesUnordered::new());
    let mut due = Instant::now();
    for partition in (0..topic.partitions()).cycle() {
        due += interval;
        let wait = async {
            tokio::select! {
                // The sender outlives this task.
                _ = stopped.wait_for(|stop| *stop) => true,
                () = sleep_until(due) => false,
            }
        };
        tokio::pin!(wait);
        let stop = loop {
            tokio::select! {
                stop = &mut wait => break stop,
                Some(done) = under_way.next() => history.note(done),
            }
        };
        if stop {
            break;
        }
        let record =
            ProducerRecord { partition: Some(partition), ..ProducerRecord::value(value.clone()) };
        let topic = topic.clone();
        under_way.push(async move {
            let delivered = async { topic.send(record).await?.await };
            delivered.await.ok().map(|_| Sample { due, took: due.elapsed() })
        });
    }
    while let Some(done) = under_way.next().await {
        history.note(done);
    }
    history
}

impl History {
    fn note(&mut self, done: Option<Sample>) {
        match done {
            Some(sample) => self.samples.push(sample),
            None => self.failed += 1,
        }
    }
}

/// Writes so many bytes of values to all partitions in turn, as fast as it goes.
pub(super) async fn write_all(client: &Client, topic: &str, bytes: u64) -> anyhow::Result<()> {
    let producer = Producer::new(client, ProducerOptions::default());
    let handle = producer.topic(topic).await?;
    let value = Bytes::from(vec![b'x'; RECORD_BYTES]);
    let records = bytes.div_ceil(RECORD_BYTES as u64);
    for (partition, _) in (0..handle.partitions()).cycle().zip(0..records) {
        let record =
            ProducerRecord { partition: Some(partition), ..ProducerRecord::value(value.clone()) };
        // Whether it was taken is counted by the producer.
        drop(handle.send(record).await?);
    }
    producer.shutdown().await;
    let stats = producer.stats();
    let written = stats.records;
    ensure!(written == records, "{written} of {records} records were written to {topic}");
    Ok(())
}
