//! `ottla bench end-to-end`: from when a record was due at its producer until a consumer
//! has it.

use super::figures::{cores, percentiles, percentiles_text, quantile_ms, rounded, seconds};
use super::load::ledger::Point;
use super::load::{Job, LoadArgs, Written};
use super::page::{self, Page};
use super::readers::{Followed, ReadBack, Ready};
use super::setting::Figures;
use super::target::{Bed, Target, memory_text};
use crate::output::Format;
use anyhow::Context as _;
use clap::value_parser;
use ottla_client::StartPosition;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Records a second, if nothing else is said: so few that nobody waits for anybody.
pub(super) const DEFAULT_RATE: u64 = 1000;

/// Measure how long records take from producer to consumer, at a fixed rate.
///
/// Producers and consumers are this process, so that they have one clock. Latency is
/// counted from when a record was due. Consumers read each partition as it grows, and
/// verify what they read: each record is numbered and holds the hash of the one before
/// it. A record that is lost, repeated or changed is named, and the command fails.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla bench end-to-end
  ottla bench end-to-end --rate 10000 --linger 0ms --config durability=memory --format json
  ottla bench end-to-end --bootstrap ottla-1:7401 --partitions 100 --report page.html")]
pub(crate) struct Args {
    #[command(flatten)]
    load: LoadArgs,

    /// Clients that read; partitions are shared among them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=10_000))]
    consumers: u32,

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
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    args.load.check(true)?;
    let rate = args.load.rate.unwrap_or(DEFAULT_RATE);
    let measured = args.target.on_topic(async |bed: &Bed| {
        let live = Live::measure(&args.load, rate, args.consumers, bed).await?;
        let (topic, load, memory) = (bed.json(), args.load.json(Some(rate)), bed.memory()?);
        Ok(Report { topic, load, memory, live })
    });
    let report = measured.await?;
    if let Some(file) = &args.report {
        let page = report.page().html();
        std::fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let shown = args.target.setting.show(&report)?;
    report.live.read.found.intact()?;
    Ok(shown)
}

/// Records that were read as they were written.
pub(super) struct Live {
    job: Job,
    written: Written,
    pub(super) read: ReadBack,
    points: Vec<Point>,
    record_size: u64,
}

impl Live {
    /// Writes and reads at the same time.
    pub(super) async fn measure(
        load: &LoadArgs,
        rate: u64,
        consumers: u32,
        bed: &Bed,
    ) -> anyhow::Result<Self> {
        let ready = Ready::open(bed, StartPosition::End, consumers).await?;
        let job = load.job(Some(rate), true);
        let followed = Followed { run: job.run, start: job.start, window: job.window };
        let readers = ready.begin(followed)?;
        let ledgers = readers.ledgers().clone();
        let points = Mutex::default();
        let work = async {
            let written = load.run(bed, job).await?;
            let chains = &written.sums.chains;
            let read = readers.finish(bed, chains).await?;
            anyhow::Ok((written, read))
        };
        let (written, read) = tokio::select! {
            done = work => done?,
            () = ledgers.watch(job.start, &points) => unreachable!("it goes on for ever"),
        };
        let record_size = load.record_size.into();
        Ok(Self { job, written, read, points: points.into_inner(), record_size })
    }

    fn records_per_second(&self) -> f64 {
        let measured = self.read.counts.measured as f64;
        rounded(measured / self.job.window.duration().as_secs_f64())
    }
}

impl Live {
    pub(super) fn json(&self) -> Value {
        let Self { written, read, .. } = self;
        json!({
            "records": {
                "sent": written.sums.sent,
                "acknowledged": written.counts.records,
                "failed": written.counts.failed(),
                "failures": written.counts.failed,
                "due_and_not_sent": written.sums.not_sent,
                "read": read.counts.records,
            },
            "measured": {
                "seconds": seconds(self.job.window.duration()),
                "records": read.counts.measured,
                "records_per_second": self.records_per_second(),
                "due_to_read_ms": percentiles(&read.counts.latencies),
                "due_to_acknowledged_ms": percentiles(&written.counts.latencies),
                "sent_late_ms": percentiles(&written.counts.lateness),
            },
            "processor": written.processor.json(read.counts.measured * self.record_size),
            "integrity": read.found.json(),
            "timeline": self.points.iter().map(Point::json).collect::<Vec<_>>(),
        })
    }

    pub(super) fn text(&self) -> String {
        let Self { written, read, .. } = self;
        format!(
            "live       {} records/s over {} s\n\
             read       {} after due\n\
             acked      {} after due\n\
             sent late  {}\n\
             records    {} sent, {} acknowledged, {} failed, {} due and not sent\n\
             integrity  {}",
            self.records_per_second(),
            seconds(self.job.window.duration()),
            percentiles_text(&read.counts.latencies),
            percentiles_text(&written.counts.latencies),
            percentiles_text(&written.counts.lateness),
            written.sums.sent,
            written.counts.records,
            written.counts.failed(),
            written.sums.not_sent,
            read.found.text(),
        )
    }
}

struct Report {
    topic: Value,
    load: Value,
    memory: Value,
    live: Live,
}

impl Report {
    fn page(&self) -> Page {
        let latencies = &self.live.read.counts.latencies;
        let title = format!(
            "ottla bench end-to-end: p50 {} ms, p99 {} ms at {} records/s",
            quantile_ms(latencies, 0.5),
            quantile_ms(latencies, 0.99),
            self.live.records_per_second()
        );
        page::of(&title, &self.text(), &self.json(), &self.live.points)
    }
}

impl Figures for Report {
    fn text(&self) -> String {
        format!(
            "{} partitions, {} replicas each, on {} nodes and {} processors\n{}\n\
             memory     {}",
            self.topic["partitions"],
            self.topic["replication_factor"],
            self.topic["nodes"],
            cores(),
            self.live.text(),
            memory_text(&self.memory),
        )
    }

    fn json(&self) -> Value {
        let mut all = self.live.json();
        all["version"] = env!("CARGO_PKG_VERSION").into();
        all["cores"] = cores().into();
        all["topic"] = self.topic.clone();
        all["load"] = self.load.clone();
        all["memory"] = self.memory.clone();
        all
    }
}
