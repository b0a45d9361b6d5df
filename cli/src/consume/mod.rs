//! `ottla consume`: records of a topic on standard output.

mod position;
mod render;
mod template;

pub(crate) use position::parse_from;
pub(crate) use render::optional as json_bytes;

use crate::connection::Connection;
use crate::output::Format;
use crate::produce::INTERRUPTED;
use crate::progress::{Progress, Unit, output_is_elsewhere};
use anyhow::Context;
use futures::FutureExt;
use futures::stream::{self, BoxStream, SelectAll, StreamExt, TryStreamExt};
use ottla_client::{Client, ClientError, PartitionReader, ReadBatch, ReaderOptions, StartPosition};
use position::{Until, parse_until};
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use template::Template;

/// Bytes gathered before they are written, unless nothing more comes.
const OUTPUT_BUFFER_BYTES: usize = 256 * 1024;

/// Bytes that nodes may send ahead, over all partitions.
const WINDOW_BYTES: u64 = 64 * 1024 * 1024;

/// Least of that for one partition: what a message of a stream holds at best.
const MIN_PARTITION_WINDOW_BYTES: u64 = 256 * 1024;

/// Questions for offsets under way at once.
const OFFSETS_AT_ONCE: usize = 64;

/// Read a topic's records to standard output.
///
/// As text, each record is its value's bytes and a newline, or what --output says; as JSON,
/// an object with topic, offset, partition, timestamp, key, value and headers. Each partition
/// comes in its order; partitions come as they arrive. Partitions that the topic
/// gets meanwhile are read too, from their start, unless --until is given.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla consume orders --until end              everything there is, then exit
  ottla consume orders --from end               only what comes from now on
  ottla consume orders --from @-10m --format json
  ottla consume history --partition 0 --from 1000 --max 10
  ottla consume orders --output '%t-%p@%o %d %k: %v\\n'
  ottla consume orders --until end --format json | ottla produce copy --input json

--output takes these; what stands between them is written as it is:
  %t topic   %p partition   %o offset   %h headers, as name=value,name=value
  %k key     %K its bytes   %v value    %V its bytes (-1: null)
  %m milliseconds since 1970            %d date and time     %% a percent sign
  \\n newline   \\t tab   \\r carriage return   \\0 NUL   \\\\ backslash   \\xHH any byte")]
pub(crate) struct Args {
    topic: String,

    /// Where to begin: start, end, an offset, or @TIME, which is milliseconds
    /// since 1970, 2026-01-31T12:00:00Z, or @-1h for an hour ago.
    #[arg(long, value_name = "POSITION", default_value = "start", value_parser = parse_from, allow_hyphen_values = true)]
    from: StartPosition,

    /// Read only this partition.
    #[arg(long, value_name = "P")]
    partition: Option<u32>,

    /// Exit after this many records.
    #[arg(long, value_name = "N")]
    max: Option<u64>,

    /// Exit before an offset, or at the end, which is taken at the start:
    /// what is written meanwhile is left out.
    #[arg(long, value_name = "end|OFFSET", value_parser = parse_until)]
    until: Option<Until>,

    /// How each record is written, with placeholders such as %k and %v: see below. No
    /// newline is added.
    #[arg(long, value_name = "TEMPLATE", value_parser = Template::parse, conflicts_with = "format")]
    output: Option<Template>,

    /// What --output writes for a key, a value or a header's value that is null.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        requires = "output",
        hide_default_value = true
    )]
    null: String,

    /// Read from in-sync followers in this rack where the leader is elsewhere. The
    /// records are the same, perhaps a moment later.
    #[arg(long, value_name = "RACK")]
    rack: Option<String>,

    #[command(flatten)]
    connection: Connection,
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        self.connection.format
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = args.connection.client().await?;
    let known = client.partitions(&args.topic).await?;
    let partitions: Vec<u32> = match args.partition {
        Some(partition) => vec![partition],
        None => (0..known).collect(),
    };
    let (readers, ahead): (Vec<_>, Vec<_>) =
        open(&client, &args, &partitions).await?.into_iter().unzip();
    // Offsets, of which some may hold no record: good enough to show progress.
    let total = ahead.into_iter().sum::<Option<u64>>().map(|n| n.min(args.max.unwrap_or(n)));
    let batches = merged(readers);
    let batches = if args.partition.is_none() && args.until.is_none() {
        stream::select(batches, later_partitions(client, &args, known)).boxed()
    } else {
        batches.boxed()
    };
    let out = BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, io::stdout().lock());
    let shape = match (args.format(), args.output.clone()) {
        (Format::Json, _) => Shape::Json,
        (Format::Text, None) => Shape::Raw,
        (Format::Text, Some(template)) => Shape::Template(template, args.null.clone()),
    };
    let topic = args.topic.clone();
    let progress = Progress::new(Unit::Things("records"), total, output_is_elsewhere());
    let mut printer = Printer { out, topic, shape, left: args.max, progress };
    tokio::select! {
        printed = print(batches, &mut printer) => printed?,
        _ = tokio::signal::ctrl_c() => {
            printer.flush()?;
            return Ok(ExitCode::from(INTERRUPTED));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One reader per partition, and how many offsets are before its end, if it has one. All
/// ends are taken before anything is read.
async fn open(
    client: &Client,
    args: &Args,
    partitions: &[u32],
) -> Result<Vec<(PartitionReader, Option<u64>)>, ClientError> {
    let options = reader_options(args, partitions.len() as u64);
    let ends: Vec<Option<u64>> = stream::iter(partitions.iter().copied())
        .map(|partition| async move {
            match args.until {
                None => Ok(None),
                Some(Until::Offset(offset)) => Ok(Some(offset)),
                Some(Until::End) => {
                    client.offset_of(&args.topic, partition, StartPosition::End).await.map(Some)
                }
            }
        })
        .buffered(OFFSETS_AT_ONCE)
        .try_collect()
        .await?;
    stream::iter(partitions.iter().copied().zip(ends))
        .map(|(partition, end)| {
            let options = options.clone();
            async move {
                let reader =
                    PartitionReader::open(client, &args.topic, partition, args.from, options)
                        .await?;
                Ok(match end {
                    Some(end) => {
                        let ahead = end.saturating_sub(reader.position());
                        (reader.read_until(end), Some(ahead))
                    }
                    None => (reader, None),
                })
            }
        })
        .buffered(OFFSETS_AT_ONCE)
        .try_collect()
        .await
}

/// For one of so many partitions.
fn reader_options(args: &Args, partitions: u64) -> ReaderOptions {
    let per_partition = WINDOW_BYTES / partitions.max(1);
    ReaderOptions {
        window_bytes: per_partition
            .clamp(MIN_PARTITION_WINDOW_BYTES, ReaderOptions::default().window_bytes),
        recovery_timeout: args.connection.timeout,
        rack: args.rack.clone(),
        ..ReaderOptions::default()
    }
}

type Batches<'a> = BoxStream<'a, Result<ReadBatch, ClientError>>;

/// Polls in turn whoever has something, so no partition starves another.
fn merged(readers: Vec<PartitionReader>) -> SelectAll<Batches<'static>> {
    stream::select_all(readers.into_iter().map(|reader| reader.into_batches().boxed()))
}

/// What comes in the partitions that the topic gets from now on. All of it is
/// news, so each is read from its start. Never ends.
fn later_partitions(client: Client, args: &Args, known: u32) -> Batches<'_> {
    let read = move |client: Client, partition: u32, of: u32| async move {
        let options = reader_options(args, of.into());
        let start = StartPosition::Start;
        let reader = PartitionReader::open(&client, &args.topic, partition, start, options).await?;
        Ok::<_, ClientError>(reader.into_batches())
    };
    stream::unfold((client, known), move |(client, known)| async move {
        let now = client.more_partitions(&args.topic, known).await;
        let from = client.clone();
        let readers = (known..now).map(move |partition| {
            stream::once(read(from.clone(), partition, now)).try_flatten().boxed()
        });
        Some((stream::iter(readers), (client, now)))
    })
    .flatten()
    .flatten_unordered(None)
    .boxed()
}

/// Prints until every partition has reached its end, or enough was printed.
async fn print<W: Write>(mut batches: Batches<'_>, printer: &mut Printer<W>) -> anyhow::Result<()> {
    if printer.left == Some(0) {
        return Ok(());
    }
    loop {
        let next = match batches.next().now_or_never() {
            Some(next) => next,
            None => {
                printer.flush()?;
                batches.next().await
            }
        };
        let Some(batch) = next else { break };
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                printer.flush()?;
                return Err(error.into());
            }
        };
        if printer.print(&batch)? == Enough::Yes {
            break;
        }
        // A reader that always has more must not keep Ctrl-C from being heard.
        tokio::task::yield_now().await;
    }
    printer.flush()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Enough {
    Yes,
    No,
}

/// How records are written.
enum Shape {
    Raw,
    Json,
    /// And what stands for null.
    Template(Template, String),
}

struct Printer<W> {
    out: W,
    topic: String,
    shape: Shape,
    progress: Progress,
    /// Records still wanted; `None` is all.
    left: Option<u64>,
}

impl<W: Write> Printer<W> {
    fn print(&mut self, batch: &ReadBatch) -> anyhow::Result<Enough> {
        for record in &batch.records {
            let (out, topic, partition) = (&mut self.out, &self.topic, batch.partition);
            match &self.shape {
                Shape::Raw => render::raw(out, record),
                Shape::Json => render::json(out, topic, partition, record),
                Shape::Template(template, null) => {
                    template.write(out, topic, partition, record, null)
                }
            }
            .context("writing to standard output")?;
            self.progress.add(1);
            if let Some(left) = &mut self.left {
                *left -= 1;
                if *left == 0 {
                    return Ok(Enough::Yes);
                }
            }
        }
        Ok(Enough::No)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.out.flush().context("writing to standard output")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_client::Record;

    #[test]
    fn printing_stops_at_the_number_asked_for() {
        let record = |offset| Record {
            offset,
            timestamp_ms: 0,
            key: None,
            value: Some(offset.to_string().into()),
            headers: Vec::new(),
        };
        let batch = ReadBatch {
            partition: 0,
            records: (0..5).map(record).collect(),
            next_offset: 5,
            high_watermark: 5,
            log_start_offset: 0,
        };
        let progress = Progress::new(Unit::Things("records"), None, false);
        let (topic, shape) = ("t".to_owned(), Shape::Raw);
        let mut printer = Printer { out: Vec::new(), topic, shape, left: Some(7), progress };
        assert_eq!(printer.print(&batch).expect("a vector takes it"), Enough::No);
        assert_eq!(printer.print(&batch).expect("a vector takes it"), Enough::Yes);
        assert_eq!(printer.out, b"0\n1\n2\n3\n4\n0\n1\n");
    }
}
