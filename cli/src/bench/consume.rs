//! `ottla bench consume`: how fast what is there can be read, and how soon what comes.

use super::end_to_end::{DEFAULT_RATE, Live};
use super::figures::{cores, per_gigabyte, per_second, rounded, seconds};
use super::load::LoadArgs;
use super::load::ledger::Window;
use super::readers::{Followed, ReadBack, Ready};
use super::setting::Figures;
use super::target::{Bed, Processor, Target, memory_text};
use crate::output::Format;
use clap::value_parser;
use ottla_client::StartPosition;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// Measure reading: what is there, as fast as it goes, and what comes meanwhile.
///
/// A new topic is filled first, and read from its start to its end: that is catching up.
/// Then records are written at a fixed rate and read as they come: that is live, measured
/// as `ottla bench end-to-end` does. Every record is numbered and holds the hash of the
/// one before it; one that is lost, repeated or changed is named, and the command fails.
/// A --topic is read as it is, and not filled: `ottla bench produce --chain` fills one.
/// What was just written is read from memory; to read from disks, fill more than that.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla bench consume
  ottla bench consume --megabytes 5000 --consumers 3 --mode catch-up --format json
  ottla bench consume --bootstrap ottla-1:7401 --topic load --mode catch-up")]
pub(crate) struct Args {
    /// What is measured.
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,

    /// What a new topic is filled with, in millions of bytes of values.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u64).range(1..=1_000_000), conflicts_with = "topic")]
    megabytes: u64,

    /// Clients that read; partitions are shared among them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=10_000))]
    consumers: u32,

    #[command(flatten)]
    load: LoadArgs,

    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// First what is there, then what comes.
    #[default]
    Both,
    /// What is there.
    CatchUp,
    /// What comes.
    Live,
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        self.target.setting.format
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    args.load.check(true)?;
    let measured = args.target.on_topic(async |bed: &Bed| Report::measure(&args, bed).await);
    let report = measured.await?;
    let shown = args.target.setting.show(&report)?;
    for read in report.read() {
        read.found.intact()?;
    }
    Ok(shown)
}

/// What was there was read.
struct CaughtUp {
    took: Duration,
    read: ReadBack,
    processor: Processor,
}

struct Report {
    topic: Value,
    load: Value,
    memory: Value,
    catch_up: Option<CaughtUp>,
    live: Option<Live>,
}

impl CaughtUp {
    async fn measure(args: &Args, bed: &Bed) -> anyhow::Result<Self> {
        let chains = match args.target.existing_topic() {
            Some(_) => Vec::new(),
            None => {
                let bytes = args.megabytes * 1_000_000;
                let records = bytes.div_ceil(args.load.record_size.into());
                args.load.fill(bed, records).await?.sums.chains
            }
        };
        let ready = Ready::open(bed, StartPosition::Start, args.consumers).await?;
        let (start, before) = (Instant::now(), bed.processor()?);
        // Whose records they are does not matter: nobody waited for them.
        let window = Window { from: start, to: start };
        let readers = ready.begin(Followed { run: 0, start, window })?;
        let read = readers.finish(bed, &chains).await?;
        let took = start.elapsed();
        Ok(Self { took, read, processor: bed.processor()?.since(&before) })
    }

    fn records(&self) -> u64 {
        self.read.found.good + self.read.found.foreign
    }

    fn records_per_second(&self) -> f64 {
        rounded(self.records() as f64 / self.took.as_secs_f64())
    }

    fn json(&self) -> Value {
        let Self { took, read, processor } = self;
        json!({
            "seconds": seconds(*took),
            "records": self.records(),
            "records_per_second": self.records_per_second(),
            "bytes": read.bytes,
            "bytes_per_second": per_second(read.bytes, *took),
            "processor": processor.json(read.bytes),
            "integrity": read.found.json(),
        })
    }

    fn text(&self) -> String {
        let Self { took, read, processor } = self;
        format!(
            "catch up   {} records/s, {:.1} MB/s; {} MB in {} s\n\
             processor  {} s, {} s/GB\n\
             integrity  {}",
            self.records_per_second(),
            per_second(read.bytes, *took) as f64 / 1e6,
            read.bytes / 1_000_000,
            seconds(*took),
            seconds(processor.total()),
            per_gigabyte(processor.total(), read.bytes),
            read.found.text(),
        )
    }
}

impl Report {
    async fn measure(args: &Args, bed: &Bed) -> anyhow::Result<Self> {
        let rate = args.load.rate.unwrap_or(DEFAULT_RATE);
        let catch_up = match args.mode {
            Mode::Both | Mode::CatchUp => Some(CaughtUp::measure(args, bed).await?),
            Mode::Live => None,
        };
        let live = match args.mode {
            Mode::Both | Mode::Live => {
                Some(Live::measure(&args.load, rate, args.consumers, bed).await?)
            }
            Mode::CatchUp => None,
        };
        let (topic, memory, load) = (bed.json(), bed.memory()?, args.load.json(Some(rate)));
        Ok(Self { topic, load, memory, catch_up, live })
    }

    fn read(&self) -> impl Iterator<Item = &ReadBack> {
        let catch_up = self.catch_up.iter().map(|catch_up| &catch_up.read);
        catch_up.chain(self.live.iter().map(|live| &live.read))
    }
}

impl Figures for Report {
    fn text(&self) -> String {
        let mut lines = vec![format!(
            "{} partitions, {} replicas each, on {} nodes and {} processors",
            self.topic["partitions"],
            self.topic["replication_factor"],
            self.topic["nodes"],
            cores()
        )];
        lines.extend(self.catch_up.as_ref().map(CaughtUp::text));
        lines.extend(self.live.as_ref().map(Live::text));
        lines.push(format!("memory     {}", memory_text(&self.memory)));
        lines.join("\n")
    }

    fn json(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "cores": cores(),
            "topic": self.topic,
            "load": self.load,
            "catch_up": self.catch_up.as_ref().map(CaughtUp::json),
            "live": self.live.as_ref().map(Live::json),
            "memory": self.memory,
        })
    }
}
