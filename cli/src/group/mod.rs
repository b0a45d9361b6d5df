//! `ottla group`: consumer groups, their members, and how far they are.

mod seek;

use crate::connection::Connection;
use crate::output::{self, Format, table};
use anyhow::Context as _;
use clap::Subcommand;
use futures::future::join_all;
use ottla_client::{Client, StartPosition, v1};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Consumer groups: who reads what, and how far.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(List),
    Describe(Describe),
    Seek(seek::Seek),
    Delete(Delete),
}

/// List all groups.
#[derive(clap::Args)]
struct List {
    #[command(flatten)]
    connection: Connection,
}

/// Show a group's members, what they read, and how far it is behind.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla group describe billing
  ottla group describe billing --format json")]
struct Describe {
    /// The group.
    #[arg(value_name = "GROUP")]
    group: String,

    #[command(flatten)]
    connection: Connection,
}

/// Delete a group that nobody is in, and what it remembers.
#[derive(clap::Args)]
struct Delete {
    /// The group.
    #[arg(value_name = "GROUP")]
    group: String,

    #[command(flatten)]
    connection: Connection,
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        match &self.command {
            Command::List(args) => args.connection.format,
            Command::Describe(args) => args.connection.format,
            Command::Seek(args) => args.connection.format,
            Command::Delete(args) => args.connection.format,
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List(args) => list(&args).await?,
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

async fn list(args: &List) -> anyhow::Result<()> {
    let groups = args.connection.client().await?.admin().list_groups().await?;
    if args.connection.format == Format::Json {
        let group = |group: &v1::ListedGroup| json!({ "group": group.group, "state": state(group.state), "members": group.members });
        let groups: Vec<Value> = groups.iter().map(group).collect();
        return Ok(output::json(&json!({ "groups": groups }))?);
    }
    let mut rows = vec![["GROUP", "STATE", "MEMBERS"].map(str::to_owned).to_vec()];
    rows.extend(groups.iter().map(|group| {
        vec![group.group.clone(), state(group.state).to_owned(), group.members.to_string()]
    }));
    Ok(output::line(&table(&rows))?)
}

/// A partition of a group: how far the group is, where the partition ends, who reads.
struct Row {
    topic: String,
    partition: u32,
    committed: Option<u64>,
    end: Option<u64>,
    member: Option<String>,
}

impl Row {
    fn lag(&self) -> Option<u64> {
        Some(self.end?.saturating_sub(self.committed?))
    }
}

async fn describe(args: &Describe) -> anyhow::Result<()> {
    let client = args.connection.client().await?;
    let group = client.admin().describe_group(&args.group).await?;
    let rows = rows(&client, &group).await;
    match args.connection.format {
        Format::Text => output::line(&text(&group, &rows))?,
        Format::Json => output::json(&to_json(&group, &rows))?,
    }
    Ok(())
}

async fn rows(client: &Client, group: &v1::DescribeGroupResponse) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for offset in &group.offsets {
        let (topic, partition) = (offset.topic.clone(), offset.partition);
        let committed = Some(offset.offset);
        rows.push(Row { topic, partition, committed, end: None, member: None });
    }
    for member in &group.members {
        for listed in &member.assigned {
            for partition in &listed.partitions {
                let member = Some(member.member_id.clone());
                let same =
                    |row: &&mut Row| row.topic == listed.topic && row.partition == *partition;
                match rows.iter_mut().find(same) {
                    Some(row) => row.member = member,
                    None => rows.push(Row {
                        topic: listed.topic.clone(),
                        partition: *partition,
                        committed: None,
                        end: None,
                        member,
                    }),
                }
            }
        }
    }
    let end = |row: Row| async move {
        let end = client.offset_of(&row.topic, row.partition, StartPosition::End).await;
        // A partition without a leader, or a topic that is gone: shown as unknown.
        Row { end: end.ok(), ..row }
    };
    let mut rows = join_all(rows.into_iter().map(end)).await;
    rows.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    rows
}

fn text(group: &v1::DescribeGroupResponse, rows: &[Row]) -> String {
    let or_none = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let heading = ["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER"];
    let mut lines = vec![heading.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| {
        vec![
            row.topic.clone(),
            row.partition.to_string(),
            or_none(row.committed),
            or_none(row.end),
            or_none(row.lag()),
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
            "lag": row.lag(),
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
