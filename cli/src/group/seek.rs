//! `ottla group seek`: where a group goes on.

use super::partitions;
use crate::connection::Connection;
use crate::consume::parse_from;
use crate::output::{self, Format, table};
use anyhow::ensure;
use ottla_client::v1::ErrorReason;
use ottla_client::{Client, StartPosition, v1};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Set where a group goes on reading.
///
/// The group must have no members: whoever reads would not notice. It need not be there
/// yet.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla group seek billing orders --to start --dry-run
  ottla group seek billing orders --to @2026-01-31T12:00:00Z
  ottla group seek billing orders --to 1500 --partition 3")]
pub(super) struct Seek {
    /// The group.
    #[arg(value_name = "GROUP")]
    group: String,

    /// The topic.
    #[arg(value_name = "TOPIC")]
    topic: String,

    /// start, end, an offset, or @TIME, the first record that is not older:
    /// milliseconds since 1970, 2026-01-31T12:00:00Z, or @-1h for an hour ago.
    #[arg(long, value_name = "POSITION", value_parser = parse_from, allow_hyphen_values = true)]
    to: StartPosition,

    /// Of one partition only. Default: of all.
    #[arg(long, value_name = "N")]
    partition: Option<u32>,

    /// Say what would be set, and set nothing.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    pub(super) connection: Connection,
}

pub(super) async fn run(args: &Seek) -> anyhow::Result<()> {
    let client = args.connection.client().await?;
    let chosen = match args.partition {
        Some(partition) => vec![partition],
        None => partitions(&client, &args.topic).await?,
    };
    let mut offsets = Vec::new();
    for partition in chosen {
        let offset = offset(&client, args, partition).await?;
        let topic = args.topic.clone();
        offsets.push(v1::OffsetCommit { topic, partition, offset, ..Default::default() });
    }
    let before = committed(&client, args).await?;
    let rows: Vec<Row> = offsets
        .iter()
        .map(|set| Row {
            partition: set.partition,
            committed: before.get(&set.partition).copied(),
            offset: set.offset,
        })
        .collect();
    if !args.dry_run {
        client.admin().commit_offsets(&args.group, offsets).await?;
    }
    match args.connection.format {
        Format::Text => output::line(&text(&rows, args.dry_run))?,
        Format::Json => output::json(&to_json(args, &rows))?,
    }
    Ok(())
}

/// A partition, how far the group was, and where it goes on.
struct Row {
    partition: u32,
    committed: Option<u64>,
    offset: u64,
}

/// How far the group is in the topic's partitions.
async fn committed(client: &Client, args: &Seek) -> anyhow::Result<BTreeMap<u32, u64>> {
    let offsets = match client.admin().describe_group(&args.group).await {
        Ok(group) => group.offsets,
        // It comes to be with its first commit.
        Err(error) if error.reason() == Some(ErrorReason::UnknownGroup) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let of_topic = offsets.into_iter().filter(|offset| offset.topic == args.topic);
    Ok(of_topic.map(|offset| (offset.partition, offset.offset)).collect())
}

fn text(rows: &[Row], dry_run: bool) -> String {
    let set = if dry_run { "WOULD BE" } else { "IS" };
    let mut lines = vec![["PARTITION", "WAS", set].map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| {
        let was = row.committed.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
        vec![row.partition.to_string(), was, row.offset.to_string()]
    }));
    table(&lines)
}

fn to_json(args: &Seek, rows: &[Row]) -> Value {
    let row = |Row { partition, committed, offset }: &Row| json!({ "partition": partition, "committed": committed, "offset": offset });
    json!({
        "group": args.group,
        "topic": args.topic,
        "set": !args.dry_run,
        "offsets": rows.iter().map(row).collect::<Vec<_>>(),
    })
}

/// An offset that is named must be one that the partition has, or its end.
async fn offset(client: &Client, args: &Seek, partition: u32) -> anyhow::Result<u64> {
    let topic = &args.topic;
    if let StartPosition::Offset(offset) = args.to {
        let start = client.offset_of(topic, partition, StartPosition::Start).await?;
        let end = client.offset_of(topic, partition, StartPosition::End).await?;
        let is_there = (start..=end).contains(&offset);
        ensure!(is_there, "partition {partition} of {topic} has {start} to {end}, not {offset}");
    }
    Ok(client.offset_of(topic, partition, args.to).await?)
}
