//! `ottla consume`: records of a topic on standard output.

mod group;
mod position;
mod printer;
mod render;
mod template;

pub(crate) use position::parse_from;
pub(crate) use render::optional as json_bytes;

use crate::connection::Connection;
use crate::output::Format;
use crate::produce::INTERRUPTED;
use futures::FutureExt;
use futures::stream::{self, BoxStream, SelectAll, StreamExt, TryStreamExt};
use ottla_client::{Client, ClientError, PartitionReader, ReadBatch, ReaderOptions, StartPosition};
use position::{Until, parse_until};
use printer::{Enough, Printer};
use std::io::Write;
use std::process::ExitCode;
use template::Template;

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
///
/// With --group it is a member of a consumer group: it shares the partitions with the
/// other members, goes on where the group was, and commits what it has printed, also
/// when it is stopped by SIGINT or SIGTERM. With --until it exits when the group has read
/// everything up to there.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla consume orders --until end              everything there is, then exit
  ottla consume orders --from end               only what comes from now on
  ottla consume orders --from @-10m --format json
  ottla consume history --partition 0 --from 1000 --max 10
  ottla consume orders refunds --group billing  as a member of a group
  ottla consume --pattern 'orders-.*' --group audit
  ottla consume orders --output '%t-%p@%o %d %k: %v\\n'
  ottla consume orders --until end --format json | ottla produce copy --input json

--output takes these; what stands between them is written as it is:
  %t topic   %p partition   %o offset   %h headers, as name=value,name=value
  %k key     %K its bytes   %v value    %V its bytes (-1: null)
  %m milliseconds since 1970            %d date and time     %% a percent sign
  \\n newline   \\t tab   \\r carriage return   \\0 NUL   \\\\ backslash   \\xHH any byte")]
pub(crate) struct Args {
    /// The topic; with --group one or more.
    #[arg(value_name = "TOPIC", required_unless_present = "pattern")]
    topics: Vec<String>,

    /// Read as a member of this group.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,

    /// All topics whose whole name matches this regular expression, those to come
    /// included.
    #[arg(long, value_name = "REGEX", requires = "group")]
    pattern: Option<String>,

    /// Be the same member as the last one of this name, if it has not been gone for
    /// longer than a session.
    #[arg(long, value_name = "NAME", requires = "group")]
    instance: Option<String>,

    /// Where to begin: start, end, an offset, or @TIME, which is milliseconds
    /// since 1970, 2026-01-31T12:00:00Z, or @-1h for an hour ago. With --group start or
    /// end, for where the group has committed nothing yet.
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

    /// Without a group.
    fn topic(&self) -> anyhow::Result<&str> {
        match self.topics.as_slice() {
            [topic] => Ok(topic),
            _ => anyhow::bail!("one topic at a time; a member of a --group reads several"),
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(group) = &args.group {
        return group::run(&args, group).await;
    }
    let topic = args.topic()?;
    let client = args.connection.client().await?;
    let known = client.partitions(topic).await?;
    let partitions: Vec<u32> = match args.partition {
        Some(partition) => vec![partition],
        None => (0..known).collect(),
    };
    let (readers, ahead): (Vec<_>, Vec<_>) =
        open(&client, &args, topic, &partitions).await?.into_iter().unzip();
    // Offsets, of which some may hold no record: good enough to show progress.
    let total = ahead.into_iter().sum::<Option<u64>>().map(|n| n.min(args.max.unwrap_or(n)));
    let batches = merged(readers);
    let batches = if args.partition.is_none() && args.until.is_none() {
        stream::select(batches, later_partitions(client, &args, topic, known)).boxed()
    } else {
        batches.boxed()
    };
    let mut printer = Printer::new(&args, total);
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
    topic: &str,
    partitions: &[u32],
) -> Result<Vec<(PartitionReader, Option<u64>)>, ClientError> {
    let options = reader_options(args, partitions.len() as u64);
    let ends: Vec<Option<u64>> = stream::iter(partitions.iter().copied())
        .map(|partition| async move {
            match args.until {
                None => Ok(None),
                Some(Until::Offset(offset)) => Ok(Some(offset)),
                Some(Until::End) => {
                    client.offset_of(topic, partition, StartPosition::End).await.map(Some)
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
                    PartitionReader::open(client, topic, partition, args.from, options).await?;
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
fn later_partitions<'a>(client: Client, args: &'a Args, topic: &'a str, known: u32) -> Batches<'a> {
    let read = move |client: Client, partition: u32, of: u32| async move {
        let options = reader_options(args, of.into());
        let start = StartPosition::Start;
        let reader = PartitionReader::open(&client, topic, partition, start, options).await?;
        Ok::<_, ClientError>(reader.into_batches())
    };
    stream::unfold((client, known), move |(client, known)| async move {
        let now = client.more_partitions(topic, known).await;
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
