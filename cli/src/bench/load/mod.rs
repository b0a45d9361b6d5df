//! Writers that put a load on a topic: at a fixed rate, whatever becomes of what was sent
//! before, or as fast as it goes.
//!
//! Latency is counted from when a record was due, not from when there was room to send it:
//! what waits because others wait is slow too.

pub(super) mod ledger;
mod pace;
mod writer;

use super::chain::{Author, HEAD_BYTES};
use super::target::{Bed, Processor};
use crate::connection::duration;
use crate::produce::{AcksArg, CompressionArg};
use anyhow::{Context as _, ensure};
use clap::{ValueEnum, value_parser};
use ledger::{Counts, Ledgers, Point, Window};
use ottla_client::{Producer, ProducerOptions};
use pace::{Clock, Pace};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use writer::{Values, Writer};

/// Longest time for a topic to be filled that is to be read.
const FILLING: Duration = Duration::from_secs(3600);

/// The flags of everything that writes.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct LoadArgs {
    /// Records a second of all producers together, due at even times. 0: as fast as it
    /// goes.
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(..=10_000_000))]
    pub(super) rate: Option<u64>,

    /// Bytes of a record's value.
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = value_parser!(u32).range(1..=8 << 20))]
    pub(super) record_size: u32,

    /// Clients, each with connections and a buffer of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=10_000))]
    producers: u32,

    /// When a record counts as written: 0 when it is sent, 1 when its leader has it, all
    /// when every in-sync replica has it.
    #[arg(long, value_enum, default_value_t)]
    acks: AcksArg,

    /// Write without producer ids: what is sent again may be there twice. To see what they
    /// cost.
    #[arg(long)]
    no_idempotence: bool,

    /// Bytes of a batch at most. 1: each record by itself.
    #[arg(long, value_name = "BYTES", default_value_t = 512 * 1024, value_parser = value_parser!(u32).range(1..=8 << 20))]
    batch_bytes: u32,

    /// How long a batch waits for more records; 0ms: not at all.
    #[arg(long, value_name = "DURATION", default_value = "5ms", value_parser = humantime::parse_duration)]
    linger: Duration,

    /// How batches are compressed. Values are hexadecimal digits drawn at random: twice as
    /// long as what is in them.
    #[arg(long, value_enum, default_value_t)]
    compression: CompressionArg,

    /// Memory of each producer for what is not yet acknowledged.
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 20, value_parser = value_parser!(u32).range(1 << 10..))]
    buffer_bytes: u32,

    /// Records of each producer that are not yet acknowledged, at most. Default: as many
    /// as its buffer holds.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1 << 20))]
    in_flight: Option<u32>,

    /// How long is measured.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(super) duration: Duration,

    /// How long the same is done before, and not measured.
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = humantime::parse_duration)]
    pub(super) warm_up: Duration,
}

/// What is written and until when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    /// Records a second; `None`: as fast as it goes.
    pub(super) rate: Option<u64>,
    /// Records in all, if not as many as the time allows.
    pub(super) records: Option<u64>,
    /// Whether each record says what was before it, so that readers can verify.
    pub(super) chained: bool,
    /// Begins each record of a chain.
    pub(super) run: u64,
    /// When the first record is due.
    pub(super) start: Instant,
    pub(super) window: Window,
}

/// What was written.
pub(super) struct Written {
    pub(super) counts: Counts,
    pub(super) sums: Sums,
    /// Records sent again after an attempt that may have been carried out.
    pub(super) in_doubt: u64,
    pub(super) points: Vec<Point>,
    /// Of all processes in the measured time.
    pub(super) processor: Processor,
}

/// What writers know when they end.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// Handed to the client.
    pub(super) sent: u64,
    /// Due, and not sent before the time was over.
    pub(super) not_sent: u64,
    /// Author, partition and length of every chain.
    pub(super) chains: Vec<(Author, u32, u64)>,
}

impl Job {
    fn paces(&self, writers: u32) -> Vec<Pace> {
        let (start, until) = (self.start, self.window.to);
        match self.rate {
            Some(rate) => Clock { start, until, rate }.paces(writers.into()),
            None => (0..writers).map(|_| Pace::Unbounded { until }).collect(),
        }
    }

    /// Processor time of all in the measured time, which is waited for; of a job that ends
    /// when everything is written nobody asks.
    async fn processor(&self, bed: &Bed) -> anyhow::Result<Processor> {
        if self.records.is_none() {
            sleep_until(self.window.from).await;
        }
        let before = bed.processor()?;
        if self.records.is_none() {
            sleep_until(self.window.to).await;
        }
        Ok(bed.processor()?.since(&before))
    }
}

async fn join_all(mut writers: JoinSet<anyhow::Result<Sums>>) -> anyhow::Result<Sums> {
    let mut all = Sums::default();
    while let Some(ended) = writers.join_next().await {
        let sums = ended.context("a writer failed")??;
        all.sent += sums.sent;
        all.not_sent += sums.not_sent;
        all.chains.extend(sums.chains);
    }
    Ok(all)
}

/// The name of a flag's value.
fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

impl LoadArgs {
    /// Checks what the flags of one cannot say about another.
    pub(super) fn check(&self, chained: bool) -> anyhow::Result<()> {
        let least = if chained { HEAD_BYTES } else { 1 };
        ensure!(
            self.record_size as usize >= least,
            "records that can be verified have at least {least} bytes: --record-size"
        );
        Ok(())
    }

    /// A job with the times of these flags, that begins now.
    pub(super) fn job(&self, rate: Option<u64>, chained: bool) -> Job {
        let start = Instant::now();
        let from = start + self.warm_up;
        let window = Window { from, to: from + self.duration };
        // As good as a number drawn for it: the middle of a random id.
        let run = uuid::Uuid::new_v4().as_u64_pair().1;
        Job { rate: rate.filter(|rate| *rate > 0), records: None, chained, run, start, window }
    }

    /// Writes until the time is over, or everything is written, and every record's fate
    /// is known.
    pub(super) async fn run(&self, bed: &Bed, job: Job) -> anyhow::Result<Written> {
        let ledgers = Ledgers::new(job.window, self.producers);
        let (mut writers, mut producers) = (JoinSet::new(), Vec::new());
        for (index, pace) in (0..).zip(job.paces(self.producers)) {
            let client = bed.another_client().await?;
            let producer = Producer::new(&client, self.options());
            let writer = Writer {
                topic: producer.topic(&bed.topic).await?,
                index,
                ledgers: ledgers.clone(),
                values: Values::new(self.record_size as usize, job, index),
                pace,
                turn: self.turn(),
                in_flight: self.in_flight,
                records: job.records.map(|all| all.div_ceil(u64::from(self.producers))),
            };
            writers.spawn(writer.run());
            producers.push(producer);
        }
        let points = Mutex::default();
        let work = async { tokio::join!(join_all(writers), job.processor(bed)) };
        let (sums, processor) = tokio::select! {
            done = work => done,
            () = ledgers.watch(job.start, &points) => unreachable!("it goes on for ever"),
        };
        for producer in &producers {
            producer.shutdown().await;
        }
        let in_doubt = producers.iter().map(|producer| producer.stats().in_doubt).sum();
        let (points, processor) = (points.into_inner(), processor?);
        Ok(Written { counts: ledgers.counts(), sums: sums?, in_doubt, points, processor })
    }

    /// Writes so many records as fast as it goes.
    pub(super) async fn fill(&self, bed: &Bed, records: u64) -> anyhow::Result<Written> {
        let mut job = self.job(None, true);
        job.records = Some(records);
        job.window = Window { from: job.start, to: job.start + FILLING };
        let written = self.run(bed, job).await?;
        let (counts, sent) = (&written.counts, written.sums.sent);
        ensure!(
            counts.records == sent && sent >= records,
            "{} of {records} records were written: {:?}",
            counts.records,
            counts.failed
        );
        Ok(written)
    }

    /// Whether nobody knows what became of records.
    pub(super) fn acks_nothing(&self) -> bool {
        matches!(self.acks, AcksArg::None)
    }

    fn options(&self) -> ProducerOptions {
        ProducerOptions {
            acks: self.acks.into(),
            idempotent: !self.no_idempotence,
            compression: self.compression.into(),
            linger: self.linger,
            batch_bytes: self.batch_bytes as usize,
            buffer_bytes: self.buffer_bytes as usize,
            ..ProducerOptions::default()
        }
    }

    /// Records that go to one partition before the next has its turn: a batch's worth.
    fn turn(&self) -> u64 {
        u64::from(self.batch_bytes / self.record_size).max(1)
    }

    /// As they are told.
    pub(super) fn json(&self, rate: Option<u64>) -> Value {
        json!({
            "rate": rate.filter(|rate| *rate > 0),
            "record_size": self.record_size,
            "producers": self.producers,
            "acks": name(&self.acks),
            "idempotent": !self.no_idempotence,
            "batch_bytes": self.batch_bytes,
            "linger_ms": super::figures::millis(self.linger),
            "compression": name(&self.compression),
            "buffer_bytes": self.buffer_bytes,
            "in_flight": self.in_flight,
            "warm_up_seconds": super::figures::seconds(self.warm_up),
        })
    }
}
