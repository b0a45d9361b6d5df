//! `ottla produce`: each line of standard input becomes a record.

mod lines;
mod report;
mod shape;

use crate::connection::Connection;
use crate::failure::diagnose;
use crate::output::{self, Format};
use crate::progress::{Progress, Unit};
use crate::topic::key_value;
use anyhow::{Context, bail};
use ottla_client::{
    Acks, Compression, Delivery, Exporter, Producer, ProducerOptions, TopicProducer,
};
use report::Report;
use shape::{Input, Shape};
use std::process::ExitCode;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Lines whose fate is not noted yet, at most. The producer's buffer bounds
/// their bytes.
const MAX_UNNOTED: usize = 64 * 1024;

/// Exit code after Ctrl-C, as shells have it: 128 + SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// Write lines from standard input to a topic.
///
/// Each line becomes the value of a record: its bytes as they are, split at \n
/// only. With --key-separator it is a key and a value, with --input json an object. Every line is written once: where an attempt's outcome is not known it is
/// sent again, and its leader knows it. With --acks 0 or --no-idempotence nobody
/// would know: the summary on standard error counts such lines as possible
/// duplicates. The first failure ends the command.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  echo hello | ottla produce orders
  git log -p | ottla produce history --partition 0
  printf 'alice:1\\nbob:2\\n' | ottla produce accounts --key-separator :
  printf 'alice:NULL\\n' | ottla produce accounts --key-separator : --null NULL
  echo '{\"key\":\"k\",\"value\":\"v\",\"headers\":[{\"name\":\"h\",\"value\":\"1\"}]}' |
      ottla produce orders --input json --header source=shell")]
pub(crate) struct Args {
    topic: String,

    /// The part of a line before the first SEPARATOR is the record's key.
    #[arg(long, value_name = "SEPARATOR", conflicts_with_all = ["key", "input"])]
    key_separator: Option<String>,

    /// The key of every record.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,

    /// A value that is exactly this text is null: a tombstone, in a compacted topic.
    #[arg(long, value_name = "TEXT", conflicts_with = "input")]
    null: Option<String>,

    /// A header of every record. May be repeated, also with the same name.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = key_value)]
    headers: Vec<(String, String)>,

    /// What a line of the input is.
    #[arg(long, value_enum, default_value_t)]
    input: Input,

    /// When a record counts as written: 0 when it is sent, 1 when its leader
    /// has it, all when every in-sync replica has it.
    #[arg(long, value_enum, default_value_t)]
    acks: AcksArg,

    /// How batches are compressed on the way and on disk.
    #[arg(long, value_enum, default_value_t)]
    compression: CompressionArg,

    /// Write to this partition, whatever the keys.
    #[arg(long, value_name = "P")]
    partition: Option<u32>,

    /// Write without a producer id, so that a line which is sent again may be written
    /// twice. For a cluster at feature level 1, which has no ids to give.
    #[arg(long)]
    no_idempotence: bool,

    /// Trace what is written: spans go to this OTLP collector (gRPC), from here and from
    /// nodes that have one.
    #[arg(long, value_name = "URL", env = "OTTLA_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,

    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(crate) enum AcksArg {
    #[value(name = "0")]
    None,
    #[value(name = "1")]
    Leader,
    #[default]
    All,
}

impl From<AcksArg> for Acks {
    fn from(acks: AcksArg) -> Self {
        match acks {
            AcksArg::None => Self::None,
            AcksArg::Leader => Self::Leader,
            AcksArg::All => Self::All,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(crate) enum CompressionArg {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<CompressionArg> for Compression {
    fn from(compression: CompressionArg) -> Self {
        match compression {
            CompressionArg::None => Self::None,
            CompressionArg::Gzip => Self::Gzip,
            CompressionArg::Snappy => Self::Snappy,
            CompressionArg::Lz4 => Self::Lz4,
            CompressionArg::Zstd => Self::Zstd,
        }
    }
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        self.connection.format
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.key_separator.as_ref().is_some_and(String::is_empty) {
        bail!("--key-separator must not be empty");
    }
    let shape = Shape {
        input: args.input,
        key_separator: args.key_separator.clone(),
        key: args.key.clone(),
        null: args.null.clone(),
        headers: args.headers.clone(),
        partition: args.partition,
    };
    let client = args.connection.client().await?;
    let spans = args.otlp_endpoint.as_deref().map(spans_to).transpose()?;
    let options = ProducerOptions {
        tracer: spans.as_ref().map(Exporter::tracer).unwrap_or_default(),
        acks: args.acks.into(),
        compression: args.compression.into(),
        delivery_timeout: args.connection.timeout,
        idempotent: !args.no_idempotence,
        ..ProducerOptions::default()
    };
    let producer = Producer::new(&client, options);
    let topic = producer.topic(&args.topic).await?;
    let started = Instant::now();

    let stop = CancellationToken::new();
    let (deliveries, noted) = mpsc::channel(MAX_UNNOTED);
    let report = tokio::spawn(Report::collect(noted, stop.clone()));
    let progress = Progress::new(Unit::Bytes, lines::stdin_bytes(), lines::stdin_is_elsewhere());
    let sender = Sender { shape, progress, topic, deliveries, line: 0 };
    let sent = tokio::select! {
        sent = sender.send_all(&stop) => sent.map(|()| ExitCode::SUCCESS),
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(INTERRUPTED)),
    };
    tokio::select! {
        () = producer.shutdown() => {}
        // Ctrl-C while the rest is being sent: enough waited.
        _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(INTERRUPTED)),
    }
    let report = report.await.context("counting deliveries")?;
    if let Some(spans) = spans {
        let sent = tokio::task::spawn_blocking(move || spans.shutdown()).await?;
        if let Err(reason) = sent {
            diagnose(&format!("ottla: not every span was taken: {reason}"));
        }
    }

    let (stats, took) = (producer.stats(), started.elapsed());
    match args.format() {
        Format::Text => diagnose(&report.text(stats, took)),
        Format::Json => output::json(&report.json(stats, took))?,
    }
    match report.failure {
        Some((line, error)) => Err(error).context(format!("line {line}")),
        None => sent,
    }
}

/// Every batch is traced, and told apart by the process that wrote it.
fn spans_to(endpoint: &str) -> anyhow::Result<Exporter> {
    let process = std::process::id().to_string();
    Exporter::to(endpoint, "ottla-produce", process, 1.0).context("--otlp-endpoint")
}

struct Sender {
    shape: Shape,
    progress: Progress,
    topic: TopicProducer,
    deliveries: mpsc::Sender<(u64, Delivery)>,
    /// Number of the current line, from 1.
    line: u64,
}

impl Sender {
    /// Sends until the input ends, a line cannot be sent, or `stop`.
    async fn send_all(mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut chunks = lines::read_stdin();
        loop {
            let chunk = tokio::select! {
                chunk = chunks.recv() => chunk,
                () = stop.cancelled() => return Ok(()),
            };
            let Some(chunk) = chunk else { return Ok(()) };
            for line in chunk? {
                self.line += 1;
                self.progress.add(line.len() as u64 + 1);
                let record = self.shape.record(line);
                let record = record.with_context(|| format!("line {}", self.line))?;
                let delivery = tokio::select! {
                    delivery = self.topic.send(record) => delivery,
                    () = stop.cancelled() => return Ok(()),
                };
                let delivery = delivery.with_context(|| format!("line {}", self.line))?;
                if self.deliveries.send((self.line, delivery)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}
