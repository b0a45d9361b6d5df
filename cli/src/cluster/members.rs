//! Who belongs to the cluster: voters are added, nodes removed, disks replaced.

use super::info::Quorum;
use crate::connection::Connection;
use crate::failure::diagnose;
use crate::output::{self, Format, list, table};
use ottla_client::v1;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Give a node a vote in the metadata quorum.
///
/// A node that was started with the addresses of others follows the quorum as a
/// learner, and hosts partitions, without being added. This gives it a vote, once
/// it has caught up. Up to five nodes vote; three or five are best, as an even
/// number survives no more failures than one fewer.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla cluster add 4
  ottla cluster add 4 --timeout 5m        # wait for it to catch up")]
pub(super) struct Add {
    /// The node's number.
    node: u64,

    #[command(flatten)]
    pub(super) connection: Connection,
}

/// Take a node out of the cluster for good.
///
/// Refused while it has replicas: `ottla cluster drain` moves them. Its vote goes first, then its registration and
/// the data directory it had: started again with that, it says so and stops. With
/// a blank directory the same number is a new node.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla cluster remove 4
  ottla cluster remove 4 --force          # it is dead and had replicas")]
pub(super) struct Remove {
    /// The node's number.
    node: u64,

    /// For a node that is dead and still has replicas: take its vote and its data
    /// directory away at once. It stays registered, its replicas assigned, until
    /// they are moved (`ottla cluster drain`); then remove it again.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    pub(super) connection: Connection,
}

/// Give up the disk of a node that is stopped, so that it can come back blank.
///
/// A voter that lost its disk has forgotten what it promised, and is refused. This
/// takes its vote away first. Then empty or replace its data directory, format it
/// with `ottla node format`, and start it: it follows as a learner, copies all its
/// replicas, and gets its vote back when it has caught up, if it is among the
/// voters of its own configuration (otherwise: `ottla cluster add`).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla cluster replace-disk 3 && ottla node format --config node-3.toml")]
pub(super) struct ReplaceDisk {
    /// The node's number.
    node: u64,

    #[command(flatten)]
    pub(super) connection: Connection,
}

pub(super) async fn add(args: &Add) -> anyhow::Result<ExitCode> {
    let admin = args.connection.client().await?.admin();
    let added = admin.add_voter(args.node).await?;
    match args.connection.format {
        Format::Json => output::json(&json!({
            "node": args.node, "changed": added.changed, "voters": added.voters,
        }))?,
        Format::Text => {
            let how = if added.changed { "votes now" } else { "votes already" };
            output::line(&format!("node {} {how}; voters {}", args.node, list(&added.voters)))?;
        }
    }
    if added.changed && added.voters.len() % 2 == 0 {
        let (now, fewer) = (added.voters.len(), added.voters.len() - 1);
        diagnose(&format!("ottla: {now} voters survive no more failures than {fewer}"));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn remove(args: &Remove) -> anyhow::Result<ExitCode> {
    let admin = args.connection.client().await?.admin();
    let removed = admin.remove_node(args.node, args.force).await?;
    let (node, left) = (args.node, removed.remaining_replicas);
    match args.connection.format {
        Format::Json => output::json(&json!({
            "node": node, "removed": left == 0, "remaining_replicas": left,
            "voters": removed.voters,
        }))?,
        Format::Text if left == 0 => {
            output::line(&format!("node {node} is removed; voters {}", list(&removed.voters)))?;
        }
        Format::Text => output::line(&format!(
            "node {node} has no vote and no disk any more; its replicas, {left} in all, keep it \
             registered: `ottla cluster drain {node}` moves them, then remove it again; voters {}",
            list(&removed.voters)
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn replace_disk(args: &ReplaceDisk) -> anyhow::Result<ExitCode> {
    let admin = args.connection.client().await?.admin();
    let replaced = admin.replace_disk(args.node).await?;
    match args.connection.format {
        Format::Json => output::json(&json!({
            "node": args.node, "replicas": replaced.replicas, "voters": replaced.voters,
        }))?,
        Format::Text => output::line(&format!(
            "the disk of node {} is given up; start it with a blank one, and its replicas, {} in \
             all, are copied there; voters {}",
            args.node,
            replaced.replicas,
            list(&replaced.voters)
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The quorum, a line for each member.
pub(super) fn quorum_text(quorum: &Quorum) -> String {
    let quorum = match quorum {
        Ok(quorum) => quorum,
        Err(error) => return format!("the metadata quorum does not answer: {error}"),
    };
    let heading = ["MEMBER", "ROLE", "UP", "BEHIND"];
    let mut rows = vec![heading.iter().map(|cell| (*cell).to_owned()).collect()];
    rows.extend(quorum.members.iter().map(|member| {
        vec![
            member.node_id.to_string(),
            role(quorum, member).to_owned(),
            if member.up { "yes" } else { "no" }.to_owned(),
            member.lag.to_string(),
        ]
    }));
    let change = if quorum.changing { "\na change of the members is running" } else { "" };
    table(&rows) + change
}

/// The same for programs.
pub(super) fn quorum_json(quorum: &Quorum) -> Value {
    let quorum = match quorum {
        Ok(quorum) => quorum,
        Err(error) => return json!({ "error": error }),
    };
    let member = |member: &v1::QuorumMember| {
        json!({
            "node": member.node_id,
            "role": role(quorum, member),
            "up": member.up,
            "behind": member.lag,
        })
    };
    json!({
        "leader": quorum.leader_id,
        "term": quorum.term,
        "last_index": quorum.last_index,
        "changing": quorum.changing,
        "members": quorum.members.iter().map(member).collect::<Vec<_>>(),
    })
}

fn role(quorum: &v1::DescribeQuorumResponse, member: &v1::QuorumMember) -> &'static str {
    match (member.node_id == quorum.leader_id, member.voter) {
        (true, _) => "leader",
        (false, true) => "voter",
        (false, false) => "learner",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_shown_with_what_they_lack() {
        let member = |node_id, voter, up, lag| v1::QuorumMember { node_id, voter, up, lag };
        let quorum = v1::DescribeQuorumResponse {
            leader_id: 1,
            members: vec![member(1, true, true, 0), member(4, false, false, 70)],
            ..v1::DescribeQuorumResponse::default()
        };
        let text = quorum_text(&Ok(quorum.clone()));
        let rows: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["1", "leader", "yes", "0"]);
        assert_eq!(rows[2], ["4", "learner", "no", "70"]);
        assert_eq!(quorum_json(&Ok(quorum))["members"][1]["role"], "learner");
        let nobody = Err("CONTROLLER_NOT_AVAILABLE".to_owned());
        assert!(quorum_text(&nobody).contains("CONTROLLER_NOT_AVAILABLE"));
    }
}
