//! `ottla produce`: each line of standard input becomes a record.

mod lines;
mod report;

use crate::connection::Connection;
use crate::failure::diagnose;
use crate::output::{self, Format};
use anyhow::{Context, bail};
use bytes::Bytes;
use ottla_client::{
    Acks, Compression, Delivery, Producer, ProducerOptions, ProducerRecord, TopicProducer,
};
use report::Report;
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
/// only. Every line is written once: where an attempt's outcome is not known it is
/// sent again, and its leader knows it. With --acks 0 or --no-idempotence nobody
/// would know: the summary on standard error counts such lines as possible
/// duplicates. The first failure ends the command.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  echo hello | ottla produce orders
  git log -p | ottla produce history --partition 0
  printf 'alice:1\\nbob:2\\n' | ottla produce accounts --key-separator :")]
pub(crate) struct Args {
    topic: String,

    /// The part of a line before the first SEPARATOR is the record's key.
    #[arg(long, value_name = "SEPARATOR")]
    key_separator: Option<String>,

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

    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum AcksArg {
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

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum CompressionArg {
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
    let client = args.connection.client().await?;
    let options = ProducerOptions {
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
    let sender = Sender { args: &args, topic, deliveries, line: 0 };
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

struct Sender<'a> {
    args: &'a Args,
    topic: TopicProducer,
    deliveries: mpsc::Sender<(u64, Delivery)>,
    /// Number of the current line, from 1.
    line: u64,
}

impl Sender<'_> {
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
                let record = self.record(line).with_context(|| format!("line {}", self.line))?;
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

    fn record(&self, line: Bytes) -> anyhow::Result<ProducerRecord> {
        let record = match &self.args.key_separator {
            None => ProducerRecord::value(line),
            Some(separator) => {
                let Some(at) = find(&line, separator.as_bytes()) else {
                    bail!("there is no {separator:?} between key and value");
                };
                ProducerRecord::keyed(line.slice(..at), line.slice(at + separator.len()..))
            }
        };
        Ok(ProducerRecord { partition: self.args.partition, ..record })
    }
}

fn find(bytes: &[u8], separator: &[u8]) -> Option<usize> {
    bytes.windows(separator.len()).position(|window| window == separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_separator_splits() {
        assert_eq!(find(b"a::b::c", b"::"), Some(1));
        assert_eq!(find(b"::c", b"::"), Some(0));
        assert_eq!(find(b"a:b", b"::"), None);
        assert_eq!(find(b"", b":"), None);
    }
}
