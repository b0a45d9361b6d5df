//! `ottla bench produce`: how much can be written, and how long an acknowledgement takes.

use super::figures::{
    cores, per_gigabyte, per_second, percentiles, percentiles_text, rounded, seconds,
};
use super::load::ledger::Point;
use super::load::{LoadArgs, Written};
use super::page::{self, Page};
use super::readers::offsets;
use super::setting::{Figures, Setting};
use super::target::{Bed, Target, memory_text};
use crate::output::Format;
use anyhow::{Context as _, ensure};
use ottla_client::StartPosition;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Measure writing: throughput and latency, at a fixed rate or as fast as it goes.
///
/// Without --bootstrap nodes are started as `ottla dev` does, in a temporary directory and
/// on free ports. With --rate records are due at even times, whether earlier ones are
/// answered or not, and latency is counted from when a record was due; what was due and
/// never sent is counted, too. Without, from when it was handed to the client, which waits
/// for room. The warm-up is excluded. A new topic must hold what was acknowledged, or the
/// command fails.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla bench produce
  ottla bench produce --rate 20000 --record-size 100 --linger 0ms --report page.html
  ottla bench produce --config durability=memory --batch-bytes 1 --linger 0ms --in-flight 1024
  ottla bench produce --bootstrap ottla-1:7401 --topic load --chain --format json")]
pub(crate) struct Args {
    #[command(flatten)]
    load: LoadArgs,

    /// Number the records and have each hold the hash of the one before it, so that
    /// `ottla bench consume --topic` can verify them.
    #[arg(long)]
    chain: bool,

    /// Write a page with plots to this file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    #[command(flatten)]
    target: Target,
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        self.target.setting.format
    }

    fn setting(&self) -> &Setting {
        &self.target.setting
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    args.load.check(args.chain)?;
    let measured = args.target.on_topic(async |bed: &Bed| Report::measure(&args, bed).await);
    let report = measured.await?;
    if let Some(file) = &args.report {
        let page = report.page().html();
        std::fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))?;
    }
    args.setting().show(&report)
}

/// What was measured.
struct Report {
    topic: Value,
    load: Value,
    /// Length of the measured time.
    duration: Duration,
    record_size: u64,
    written: Written,
    memory: Value,
    /// Records that the topic has got.
    in_the_log: u64,
}

impl Report {
    async fn measure(args: &Args, bed: &Bed) -> anyhow::Result<Self> {
        let load = &args.load;
        let before = records(bed).await?;
        let job = load.job(load.rate, args.chain);
        let written = load.run(bed, job).await?;
        let memory = bed.memory()?;
        let in_the_log = records(bed).await? - before;
        let acknowledged = written.counts.records;
        ensure!(
            !bed.is_own || load.acks_nothing() || in_the_log >= acknowledged,
            "{acknowledged} records were acknowledged, and {in_the_log} are there"
        );
        Ok(Self {
            topic: bed.json(),
            load: load.json(load.rate),
            duration: job.window.duration(),
            record_size: load.record_size.into(),
            written,
            memory,
            in_the_log,
        })
    }

    fn bytes(&self) -> u64 {
        self.written.counts.measured * self.record_size
    }

    fn records_per_second(&self) -> f64 {
        rounded(self.written.counts.measured as f64 / self.duration.as_secs_f64())
    }

    fn page(&self) -> Page {
        let title = format!(
            "ottla bench produce: {} records/s, {:.1} MB/s",
            self.records_per_second(),
            per_second(self.bytes(), self.duration) as f64 / 1e6
        );
        page::of(&title, &self.text(), &self.json(), &self.written.points)
    }
}

/// Records that are committed in all partitions.
async fn records(bed: &Bed) -> anyhow::Result<u64> {
    let ends = offsets(&bed.client, &bed.topic, StartPosition::End).await?;
    Ok(ends.values().sum())
}

impl Figures for Report {
    fn text(&self) -> String {
        let Self { written, .. } = self;
        let counts = &written.counts;
        let failures = counts.failed.iter().map(|(reason, count)| format!(", {reason} {count}"));
        format!(
            "{} partitions, {} replicas each, on {} nodes and {} processors; records of {} bytes, \
             acks={}\n\
             written    {} records/s, {:.1} MB/s over {} s\n\
             latency    {}\n\
             sent late  {}\n\
             records    {} sent, {} acknowledged, {} failed{}, {} in doubt, {} due and not sent; \
             {} in the log\n\
             processor  {} s, {} s/GB; {} s of them this program\n\
             memory     {}",
            self.topic["partitions"],
            self.topic["replication_factor"],
            self.topic["nodes"],
            cores(),
            self.record_size,
            self.load["acks"].as_str().unwrap_or_default(),
            self.records_per_second(),
            per_second(self.bytes(), self.duration) as f64 / 1e6,
            seconds(self.duration),
            percentiles_text(&counts.latencies),
            percentiles_text(&counts.lateness),
            written.sums.sent,
            counts.records,
            counts.failed(),
            failures.collect::<String>(),
            written.in_doubt,
            written.sums.not_sent,
            self.in_the_log,
            seconds(written.processor.total()),
            per_gigabyte(written.processor.total(), self.bytes()),
            seconds(written.processor.client()),
            memory_text(&self.memory),
        )
    }

    fn json(&self) -> Value {
        let Self { written, .. } = self;
        let counts = &written.counts;
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "cores": cores(),
            "topic": self.topic,
            "load": self.load,
            "records": {
                "sent": written.sums.sent,
                "acknowledged": counts.records,
                "failed": counts.failed(),
                "failures": counts.failed,
                "in_doubt": written.in_doubt,
                "due_and_not_sent": written.sums.not_sent,
                "in_the_log": self.in_the_log,
            },
            "measured": {
                "seconds": seconds(self.duration),
                "records": counts.measured,
                "records_per_second": self.records_per_second(),
                "bytes": self.bytes(),
                "bytes_per_second": per_second(self.bytes(), self.duration),
                "latency_ms": percentiles(&counts.latencies),
                "sent_late_ms": percentiles(&counts.lateness),
            },
            "processor": written.processor.json(self.bytes()),
            "memory": self.memory,
            "timeline": written.points.iter().map(Point::json).collect::<Vec<_>>(),
        })
    }
}
