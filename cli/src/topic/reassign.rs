//! `ottla topic reassign`: partitions on other nodes, and how far they are.

use super::to_json;
use crate::connection::Connection;
use crate::output::{self, Format, list, table};
use anyhow::bail;
use ottla_client::{Admin, Reassigned, v1};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Move partitions to other nodes, say how far that is, or take them back.
///
/// Returns when the move has begun. Partitions are written and read meanwhile; each
/// leaves its old nodes once all the new ones are in sync.
#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true).multiple(true),
    after_help = "\
Examples:
  ottla topic reassign orders --partition 0 --replicas 4,2,3
  ottla topic reassign orders --partition 0 --replicas 4,2,3 --partition 1 --replicas 2,3,4
  ottla topic reassign orders --status
  ottla topic reassign orders --cancel --partition 0"
)]
pub(super) struct Reassign {
    name: String,

    /// A partition; once for each. With --cancel: only these.
    #[arg(long = "partition", value_name = "P", group = "what")]
    partitions: Vec<u32>,

    /// The nodes it is to be on, the preferred leader first; once for each
    /// --partition, in the same order.
    #[arg(long, value_name = "NODE,NODE,…", value_parser = nodes, conflicts_with_all = ["status", "cancel"])]
    replicas: Vec<Nodes>,

    /// Show what is under way.
    #[arg(long, group = "what", conflicts_with_all = ["cancel", "dry_run", "partitions"])]
    status: bool,

    /// Take partitions back to the nodes they were on; all that are being moved,
    /// or those named by --partition.
    #[arg(long, group = "what", conflicts_with = "dry_run")]
    cancel: bool,

    /// Check everything, begin nothing.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    pub(super) connection: Connection,
}

/// One list of replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Nodes(Vec<u64>);

fn nodes(text: &str) -> Result<Nodes, String> {
    let ids: Result<Vec<u64>, _> = text.split(',').map(|id| id.trim().parse()).collect();
    ids.map(Nodes).map_err(|_| "is not a list of node ids such as 1,2,3".to_owned())
}

pub(super) async fn run(admin: &Admin, args: Reassign, format: Format) -> anyhow::Result<()> {
    if args.status {
        let under_way = admin.reassignments(Some(&args.name)).await?;
        match format {
            Format::Json => output::json(&status_json(&under_way))?,
            Format::Text => output::line(&status_text(&args.name, &under_way))?,
        }
        return Ok(());
    }
    let (outcome, what) = if args.cancel {
        (admin.cancel_reassignments(&args.name, args.partitions).await?, "cancelled")
    } else {
        let wanted = pairs(args.partitions, args.replicas)?;
        let what = if args.dry_run { "would move" } else { "moving" };
        (admin.reassign(&args.name, wanted, args.dry_run).await?, what)
    };
    match format {
        Format::Json => {
            let mut json = to_json(&outcome.topic);
            json["changed"] = outcome.changed.into();
            output::json(&json)?;
        }
        Format::Text => output::line(&changed_text(&outcome, what))?,
    }
    Ok(())
}

fn pairs(partitions: Vec<u32>, replicas: Vec<Nodes>) -> anyhow::Result<BTreeMap<u32, Vec<u64>>> {
    if partitions.len() != replicas.len() {
        let (partitions, replicas) = (partitions.len(), replicas.len());
        bail!("{partitions} --partition and {replicas} --replicas: each needs the other");
    }
    let mut wanted = BTreeMap::new();
    for (partition, Nodes(replicas)) in partitions.into_iter().zip(replicas) {
        if wanted.insert(partition, replicas).is_some() {
            bail!("--partition {partition} is given twice");
        }
    }
    Ok(wanted)
}

fn changed_text(outcome: &Reassigned, what: &str) -> String {
    if outcome.changed.is_empty() {
        return "nothing to do".to_owned();
    }
    let name = &outcome.topic.name;
    let line = |partition: &v1::PartitionMetadata| {
        let moving =
            !partition.adding_replicas.is_empty() || !partition.removing_replicas.is_empty();
        let state = if what == "moving" && !moving { "moved" } else { what };
        format!(
            "{name}-{} {state}: replicas {}, in sync {}",
            partition.partition,
            list(&partition.replicas),
            list(&partition.isr)
        )
    };
    let changed =
        outcome.topic.partitions.iter().filter(|p| outcome.changed.contains(&p.partition));
    changed.map(line).collect::<Vec<_>>().join("\n")
}

fn status_text(topic: &str, under_way: &[v1::Reassignment]) -> String {
    if under_way.is_empty() {
        return format!("no partition of {topic} is being moved");
    }
    let heading = ["PARTITION", "FROM", "TO", "LEADER", "IN SYNC", "NEW", "BEHIND", "LIMIT"];
    let mut rows = vec![heading.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    for moving in under_way {
        let adding = moving.to.iter().filter(|node| !moving.from.contains(node));
        let new: Vec<u64> = adding.copied().collect();
        let behind = new.iter().map(|node| behind_text(moving, *node)).collect::<Vec<_>>();
        rows.push(vec![
            moving.partition.to_string(),
            list(&moving.from),
            list(&moving.to),
            moving.leader_id.map_or_else(|| "none".to_owned(), |id| id.to_string()),
            list(&moving.isr),
            list(&new),
            behind.join(","),
            limit_text(moving.limit_bytes_per_second),
        ]);
    }
    table(&rows)
}

/// Offsets that a new replica lacks; `?` if its leader did not say.
fn behind_text(moving: &v1::Reassignment, node: u64) -> String {
    behind(moving, node).map_or_else(|| "?".to_owned(), |offsets| offsets.to_string())
}

/// What the leader sends to new replicas at most.
fn limit_text(bytes_per_second: Option<u64>) -> String {
    bytes_per_second.map_or_else(|| "none".to_owned(), |limit| format!("{limit} B/s"))
}

fn behind(moving: &v1::Reassignment, node: u64) -> Option<u64> {
    let progress = moving.progress.iter().find(|progress| progress.node_id == node)?;
    let reached = progress.log_end_offset.unwrap_or(0).max(progress.leader_start_offset);
    Some(progress.leader_end_offset.saturating_sub(reached))
}

pub(crate) fn status_json(under_way: &[v1::Reassignment]) -> Value {
    let one = |moving: &v1::Reassignment| {
        let adding = moving.to.iter().filter(|node| !moving.from.contains(node));
        let progress = adding.map(|&node| {
            json!({
                "node": node,
                "in_sync": moving.isr.contains(&node),
                "behind_offsets": behind(moving, node),
            })
        });
        json!({
            "topic": moving.topic,
            "partition": moving.partition,
            "from": moving.from,
            "to": moving.to,
            "isr": moving.isr,
            "leader": moving.leader_id,
            "limit_bytes_per_second": moving.limit_bytes_per_second,
            "adding": progress.collect::<Vec<_>>(),
        })
    };
    json!({ "reassignments": under_way.iter().map(one).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_and_replicas_come_in_pairs() {
        let replicas = |lists: &[&str]| lists.iter().map(|l| nodes(l).expect(l)).collect();
        let wanted = pairs(vec![1, 0], replicas(&["4, 2", "3"])).expect("two pairs");
        assert_eq!(wanted, BTreeMap::from([(0, vec![3]), (1, vec![4, 2])]));
        assert!(pairs(vec![1, 0], replicas(&["1"])).is_err());
        assert!(pairs(vec![1, 1], replicas(&["1", "2"])).is_err());
        assert!(nodes("").is_err() && nodes("1,").is_err() && nodes("a").is_err());
    }

    #[test]
    fn status_says_how_much_each_new_replica_lacks() {
        let progress = |node_id, log_end_offset| v1::ReplicaProgress {
            node_id,
            log_end_offset,
            leader_start_offset: 100,
            leader_end_offset: 350,
        };
        let moving = v1::Reassignment {
            topic: "orders".to_owned(),
            partition: 7,
            from: vec![1, 2, 3],
            to: vec![4, 5, 6, 1],
            isr: vec![4, 1, 2, 3],
            leader_id: Some(1),
            progress: vec![progress(4, Some(350)), progress(5, None)],
            limit_bytes_per_second: Some(1000),
        };
        let text = status_text("orders", std::slice::from_ref(&moving));
        assert!(
            text.ends_with("7          1,2,3  4,5,6,1  1       4,1,2,3  4,5,6  0,250,?  1000 B/s"),
            "{text}"
        );
        let json = status_json(&[moving]);
        let adding = &json["reassignments"][0]["adding"];
        assert_eq!(adding[1], json!({ "node": 5, "in_sync": false, "behind_offsets": 250 }));
        assert!(adding[2]["behind_offsets"].is_null());
    }
}
