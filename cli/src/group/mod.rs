//! `ottla group`: consumer groups, their members, and how far they are.

mod seek;

use crate::connection::Connection;
use crate::output::{self, Format, table};
use anyhow::Context as _;
use clap::Subcommand;
use futures::stream::{self, StreamExt};
use ottla_client::{Client, ClientError, StartPosition, v1};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Questions to leaders under way at once.
const LEADERS_AT_ONCE: usize = 64;

/// Consumer groups: who reads what, and how far.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List all groups.
    #[command(after_help = "\
Examples:
  ottla group list
  ottla group list --format json | jq -r '.groups[] | select(.members == 0).group'")]
    List(Connection),
    /// Show a group's members, what they read, and how far it is behind.
    #[command(after_help = "\
Examples:
  ottla group describe billing
  ottla group describe billing --format json")]
    Describe(Named),
    Seek(seek::Seek),
    /// Delete a group that nobody is in, and what it remembers.
    #[command(after_help = "\
Examples:
  ottla group delete billing")]
    Delete(Named),
}

#[derive(clap::Args)]
struct Named {
    /// The group.
    #[arg(value_name = "GROUP")]
    group: String,

    #[command(flatten)]
    connection: Connection,
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        match &self.command {
            Command::List(connection) => connection.format,
            Command::Describe(args) | Command::Delete(args) => args.connection.format,
            Command::Seek(args) => args.connection.format,
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List(connection) => list(&connection).await?,
        Command::Describe(args) => describe(&args).await?,
        Command::Seek(args) => seek::run(&args).await?,
        Command::Delete(args) => {
            args.connection.client().await?.admin().delete_group(&args.group).await?;
            match args.connection.format {
                Format::Text => output::line(&format!("deleted group {}", args.group))?,
                Format::Json => output::json(&json!({ "deleted": args.group }))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn state(state: i32) -> &'static str {
    match v1::GroupState::try_from(state) {
        Ok(v1::GroupState::Empty) => "empty",
        Ok(v1::GroupState::Reconciling) => "reconciling",
        Ok(v1::GroupState::Stable) => "stable",
        Ok(v1::GroupState::Unspecified) | Err(_) => "unknown",
    }
}

async fn list(connection: &Connection) -> anyhow::Result<()> {
    let groups = connection.client().await?.admin().list_groups().await?;
    if connection.format == Format::Json {
        return Ok(output::json(&list_json(&groups))?);
    }
    let mut rows = vec![["GROUP", "STATE", "MEMBERS"].map(str::to_owned).to_vec()];
    rows.extend(groups.iter().map(|group| {
        vec![group.group.clone(), state(group.state).to_owned(), group.members.to_string()]
    }));
    Ok(output::line(&table(&rows))?)
}

pub(crate) fn list_json(groups: &[v1::ListedGroup]) -> Value {
    let group = |group: &v1::ListedGroup| json!({ "group": group.group, "state": state(group.state), "members": group.members });
    json!({ "groups": groups.iter().map(group).collect::<Vec<_>>() })
}

/// A partition of a group: how far the group is, where the partition ends, who reads.
struct Row {
    topic: String,
    partition: u32,
    committed: Option<u64>,
    end: Option<u64>,
    /// Records, and the age of the first of them in seconds.
    lag: Option<(u64, f64)>,
    member: Option<String>,
}

async fn describe(args: &Named) -> anyhow::Result<()> {
    let client = args.connection.client().await?;
    let group = client.admin().describe_group(&args.group).await?;
    let rows = rows(&client, &group).await;
    match args.connection.format {
        Format::Text => output::line(&text(&group, &rows))?,
        Format::Json => output::json(&to_json(&group, &rows))?,
    }
    Ok(())
}

/// A group with its members and its lag, for programs.
pub(crate) async fn described(client: &Client, group: &str) -> Result<Value, ClientError> {
    let group = client.admin().describe_group(group).await?;
    let rows = rows(client, &group).await;
    Ok(to_json(&group, &rows))
}

async fn rows(client: &Client, group: &v1::DescribeGroupResponse) -> Vec<Row> {
    // What is committed, and who reads.
    type Place<'a> = (Option<u64>, Option<&'a str>);
    let mut places: BTreeMap<(&str, u32), Place<'_>> = BTreeMap::new();
    for offset in &group.offsets {
        places.entry((&offset.topic, offset.partition)).or_default().0 = Some(offset.offset);
    }
    for member in &group.members {
        for listed in &member.assigned {
            for partition in &listed.partitions {
                let place = places.entry((&listed.topic, *partition)).or_default();
                place.1 = Some(&member.member_id);
            }
        }
    }
    let row = |((topic, partition), (committed, member)): ((&str, u32), _)| {
        let (topic, member): (String, Option<&str>) = (topic.to_owned(), member);
        let member = member.map(str::to_owned);
        async move {
            let (end, lag) = behind(client, &topic, partition, committed).await;
            Row { topic, partition, committed, end, lag, member }
        }
    };
    stream::iter(places).map(row).buffered(LEADERS_AT_ONCE).collect().await
}

/// Where a partition ends, and how far behind the group is. A partition without a leader,
/// or a topic that is gone: unknown.
async fn behind(
    client: &Client,
    topic: &str,
    partition: u32,
    committed: Option<u64>,
) -> (Option<u64>, Option<(u64, f64)>) {
    let Some(committed) = committed else {
        return (client.offset_of(topic, partition, StartPosition::End).await.ok(), None);
    };
    let Ok(lag) = client.lag(topic, partition, committed).await else { return (None, None) };
    let written = lag.oldest_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = written.map_or(Duration::ZERO, |written| now.saturating_sub(written));
    (Some(lag.end), Some((lag.records, age.as_secs_f64())))
}

fn text(group: &v1::DescribeGroupResponse, rows: &[Row]) -> String {
    let or_none = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let heading = ["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "SECONDS", "MEMBER"];
    let mut lines = vec![heading.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| {
        vec![
            row.topic.clone(),
            row.partition.to_string(),
            or_none(row.committed),
            or_none(row.end),
            or_none(row.lag.map(|(records, _)| records)),
            row.lag.map_or_else(|| "-".to_owned(), |(_, seconds)| format!("{seconds:.1}")),
            row.member.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }));
    format!(
        "group {}: {}, {} members, epoch {}, assignor {}\n{}",
        group.group,
        state(group.state),
        group.members.len(),
        group.epoch,
        group.assignor,
        table(&lines)
    )
}

fn to_json(group: &v1::DescribeGroupResponse, rows: &[Row]) -> Value {
    let member = |member: &v1::GroupMember| {
        let subscription = member.subscription.clone().unwrap_or_default();
        json!({
            "member": member.member_id,
            "instance": member.instance_id,
            "client_id": member.client_id,
            "rack": member.rack,
            "epoch": member.member_epoch,
            "topics": subscription.topics,
            "pattern": subscription.pattern,
        })
    };
    let row = |row: &Row| {
        json!({
            "topic": row.topic,
            "partition": row.partition,
            "committed": row.committed,
            "end": row.end,
            "lag": row.lag.map(|(records, _)| records),
            "lag_seconds": row.lag.map(|(_, seconds)| seconds),
            "member": row.member,
        })
    };
    json!({
        "group": group.group,
        "state": state(group.state),
        "epoch": group.epoch,
        "assignor": group.assignor,
        "members": group.members.iter().map(member).collect::<Vec<_>>(),
        "partitions": rows.iter().map(row).collect::<Vec<_>>(),
    })
}

/// All partitions of a topic.
async fn partitions(client: &Client, topic: &str) -> anyhow::Result<Vec<u32>> {
    let count = client.partitions(topic).await.with_context(|| format!("topic {topic}"))?;
    Ok((0..count).collect())
}
