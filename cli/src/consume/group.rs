//! `ottla consume --group`: as a member of a group, which goes on where it was.

use super::Args;
use super::position::Until;
use super::printer::{Enough, Printer};
use crate::failure::diagnose;
use crate::output::Format;
use crate::produce::INTERRUPTED;
use anyhow::{Context as _, ensure};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use ottla_client::{
    Client, ConsumedBatch, Consumer, ConsumerEvent, Next, OffsetReset, StartPosition,
    TopicPartition,
};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

/// How often it is looked at how far the other members are, with `--until`.
const OTHERS_INTERVAL: Duration = Duration::from_millis(500);

/// Exit code after SIGTERM, as shells have it.
const TERMINATED: u8 = 143;

/// Questions for offsets under way at once.
const OFFSETS_AT_ONCE: usize = 64;

pub(super) async fn run(args: &Args, group: &str) -> anyhow::Result<ExitCode> {
    let client = args.connection.client().await?;
    let ends = match args.until {
        None => None,
        Some(_) => Some(ends(&client, args).await?),
    };
    let consumer = consumer(&client, args, group).await?;
    let mut printer = Printer::new(args, None);
    let mut last = None;
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let printed = tokio::select! {
        printed = print(&client, group, &consumer, ends, (&mut printer, args.format()), &mut last) => printed.map(|()| ExitCode::SUCCESS),
        _ = interrupt.recv() => Ok(ExitCode::from(INTERRUPTED)),
        _ = terminate.recv() => Ok(ExitCode::from(TERMINATED)),
    };
    let flushed = printer.flush();
    // What could not be written is not processed.
    let code = printed?;
    flushed?;
    if let Some(last) = last {
        consumer.commit_offsets([last]).await?;
    }
    consumer.close().await?;
    Ok(code)
}

async fn consumer(client: &Client, args: &Args, group: &str) -> anyhow::Result<Consumer> {
    let reset = match args.from {
        StartPosition::Start => OffsetReset::Earliest,
        StartPosition::End => OffsetReset::Latest,
        StartPosition::Offset(_) | StartPosition::Timestamp(_) => anyhow::bail!(
            "a group goes on where it is; --from start or end is for where it has been nowhere \
             yet (`ottla group seek {group} TOPIC --to {}` moves it)",
            args.from
        ),
    };
    ensure!(args.partition.is_none(), "in a group the coordinator says which partitions are read");
    let mut builder = Consumer::builder(client).group(group).reset(reset);
    if !args.topics.is_empty() {
        builder = builder.subscribe(args.topics.iter().cloned());
    }
    if let Some(pattern) = &args.pattern {
        builder = builder.subscribe_pattern(pattern.clone());
    }
    if let Some(rack) = &args.rack {
        builder = builder.rack(rack.clone());
    }
    if let Some(name) = &args.instance {
        builder = builder.instance_id(name.clone());
    }
    builder = builder.options(|options| options.client_id = "ottla consume".to_owned());
    Ok(builder.build().await?)
}

/// What is to be read of each partition that has anything: up to what is there now.
async fn ends(client: &Client, args: &Args) -> anyhow::Result<BTreeMap<TopicPartition, u64>> {
    ensure!(args.pattern.is_none(), "--until takes topics by name");
    let mut all = Vec::new();
    for topic in &args.topics {
        let count = client.partitions(topic).await?;
        all.extend((0..count).map(|partition| TopicPartition::new(topic.as_str(), partition)));
    }
    let ends = stream::iter(all).map(|one| async move {
        let (topic, partition) = (&*one.topic, one.partition);
        let start = client.offset_of(topic, partition, StartPosition::Start).await?;
        let end = match args.until {
            Some(Until::Offset(offset)) => offset,
            _ => client.offset_of(topic, partition, StartPosition::End).await?,
        };
        anyhow::Ok((start < end).then_some((one, end)))
    });
    ends.buffered(OFFSETS_AT_ONCE).try_filter_map(async |end| Ok(end)).try_collect().await
}

/// Prints until enough was printed, or everything up to the ends was read by the group.
/// `last`: what was printed of the batch that was handed out last.
async fn print<W: Write>(
    client: &Client,
    group: &str,
    consumer: &Consumer,
    ends: Option<BTreeMap<TopicPartition, u64>>,
    (printer, format): (&mut Printer<W>, Format),
    last: &mut Option<(TopicPartition, u64)>,
) -> anyhow::Result<()> {
    let mut others = interval(OTHERS_INTERVAL);
    others.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while printer.left != Some(0) {
        // What is asked for more after counts as processed, so it has to be out.
        printer.flush()?;
        let next = tokio::select! {
            biased;
            next = consumer.next() => next?,
            _ = others.tick(), if ends.is_some() => {
                let ends = ends.as_ref().expect("guarded");
                if is_read(client, group, consumer, ends).await? {
                    return Ok(());
                }
                continue;
            }
        };
        *last = None;
        match next {
            None => anyhow::bail!("the group has ended"),
            Some(Next::Event(event)) => tell(&event, format),
            Some(Next::Batch(batch)) => {
                let end = ends.as_ref().map(|ends| ends.get(&batch.partition).copied());
                let (enough, beyond) = print_batch(printer, &batch, end, last)?;
                if enough == Enough::Yes {
                    break;
                }
                if let Some(beyond) = beyond {
                    // That is not processed; it may have been taken away in this moment.
                    let _ = consumer.pause([&batch.partition]);
                    let _ = consumer.seek(&batch.partition, StartPosition::Offset(beyond)).await;
                }
            }
        }
    }
    Ok(())
}

/// Prints what is before the end: `Some(None)` if nothing of the partition is wanted.
/// Returns the first offset that was left out, too.
fn print_batch<W: Write>(
    printer: &mut Printer<W>,
    batch: &ConsumedBatch,
    end: Option<Option<u64>>,
    last: &mut Option<(TopicPartition, u64)>,
) -> anyhow::Result<(Enough, Option<u64>)> {
    let partition = &batch.partition;
    for record in &batch.records {
        if end.is_some_and(|end| end.is_none_or(|end| record.offset >= end)) {
            return Ok((Enough::No, Some(record.offset)));
        }
        let enough = printer.record(&partition.topic, partition.partition, record)?;
        *last = Some((partition.clone(), record.offset + 1));
        if enough == Enough::Yes {
            return Ok((Enough::Yes, None));
        }
    }
    *last = Some((partition.clone(), batch.next_offset));
    Ok((Enough::No, None))
}

/// Whether the group, this member included, has read all of it.
async fn is_read(
    client: &Client,
    group: &str,
    consumer: &Consumer,
    ends: &BTreeMap<TopicPartition, u64>,
) -> anyhow::Result<bool> {
    let is_behind = |(one, end): &(&TopicPartition, &u64)| {
        consumer.position(one).is_none_or(|position| position < **end)
    };
    let behind: Vec<_> = ends.iter().filter(is_behind).collect();
    if behind.is_empty() {
        return Ok(true);
    }
    let described = client.admin().describe_group(group).await.context("how far the group is")?;
    let is_committed = |(one, end): &(&TopicPartition, &u64)| {
        let mut offsets = described.offsets.iter();
        offsets.any(|known| {
            known.topic == *one.topic && known.partition == one.partition && known.offset >= **end
        })
    };
    Ok(behind.iter().all(is_committed))
}

/// What happens beside records is for people.
fn tell(event: &ConsumerEvent, format: Format) {
    let line = match event {
        ConsumerEvent::Reset { partition, from, to } => {
            format!("{partition}: offset {from} is not there, reading goes on at {to}")
        }
        ConsumerEvent::Gone(partition) => format!("{partition} does not exist any more"),
        ConsumerEvent::Delayed { partition, error } => format!("{partition} is late: {error}"),
        ConsumerEvent::Lost(partitions) => {
            format!("put out of the group, {} partitions lost", partitions.len())
        }
        ConsumerEvent::Assigned(_) | ConsumerEvent::Revoking(_) => return,
    };
    match format {
        Format::Text => diagnose(&format!("ottla: {line}")),
        Format::Json => diagnose(&serde_json::json!({ "warning": line }).to_string()),
    }
}
