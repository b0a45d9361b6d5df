//! `ottla cluster drain`: a node is emptied, so that it can be removed.

use crate::connection::Connection;
use crate::failure::diagnose;
use crate::output::{self, Format};
use crate::progress::{Progress, Unit};
use anyhow::Context as _;
use ottla_client::{Admin, ClientError, v1};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often the number of replicas is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Move all replicas of a node elsewhere, so that it can be removed.
///
/// The cluster does that by itself, a few at a time, and gives the node no new ones
/// meanwhile. This waits until none is left, and tells the progress on standard error;
/// it may be stopped and started again at will. It gives up waiting when no replica
/// has left for --timeout.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla cluster drain 4 && ottla cluster remove 4
  ottla cluster drain 4 --no-wait
  ottla cluster drain 4 --status
  ottla cluster drain 4 --cancel")]
pub(super) struct Drain {
    /// The node's number.
    node: u64,

    /// Only tell how far it is.
    #[arg(long)]
    status: bool,

    /// Have the node take replicas again, and those on their way go back to it.
    #[arg(long, conflicts_with = "status")]
    cancel: bool,

    /// Do not wait.
    #[arg(long, conflicts_with_all = ["status", "cancel"])]
    no_wait: bool,

    #[command(flatten)]
    pub(super) connection: Connection,
}

pub(super) async fn run(args: &Drain) -> anyhow::Result<ExitCode> {
    let admin = args.connection.client().await?.admin();
    if args.cancel {
        let answer = admin.drain_node(args.node, true).await?;
        show(args.connection.format, &cancelled_text(args.node, &answer), || {
            json!({
                "node": args.node, "changed": answer.changed, "draining": false,
                "replicas": answer.replicas, "taken_back": answer.taken_back,
            })
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.status {
        admin.drain_node(args.node, false).await?;
    }
    let mut node = look(&admin, args.node).await?;
    let waits = !args.status && !args.no_wait;
    let mut done = true;
    if waits {
        (node, done) = wait(&admin, node, args.connection.timeout).await?;
    }
    show(args.connection.format, &status_text(&node), || status_json(&node))?;
    if !done {
        let timeout = args.connection.timeout;
        diagnose(&format!(
            "ottla: no replica has left node {} for {timeout:?}: it goes on being drained, `ottla \
             cluster health` may tell what is in the way",
            args.node
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn show(format: Format, text: &str, json: impl FnOnce() -> Value) -> std::io::Result<()> {
    match format {
        Format::Text => output::line(text),
        Format::Json => output::json(&json()),
    }
}

async fn look(admin: &Admin, node: u64) -> anyhow::Result<v1::ClusterNode> {
    let info = admin.cluster_info().await?;
    let found = info.nodes.into_iter().find(|known| known.node_id == node);
    found.with_context(|| {
        format!("node {node} is not part of this cluster: `ottla cluster info` lists who is")
    })
}

/// Looks until nothing is left, or nothing has changed for too long. Nodes that cannot
/// be asked meanwhile are asked again.
async fn wait(
    admin: &Admin,
    mut node: v1::ClusterNode,
    patience: Duration,
) -> anyhow::Result<(v1::ClusterNode, bool)> {
    let mut changed = Instant::now();
    let at_first = u64::from(node.replicas);
    let progress = Progress::new(Unit::Things("replicas"), Some(at_first), true);
    while node.replicas > 0 {
        if changed.elapsed() > patience {
            return Ok((node, false));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        match look(admin, node.node_id).await {
            Ok(now) if !now.draining => {
                anyhow::bail!("the drain of node {} was cancelled", node.node_id)
            }
            Ok(now) => {
                if now.replicas != node.replicas {
                    changed = Instant::now();
                    progress.set(at_first.saturating_sub(u64::from(now.replicas)));
                    if !progress.is_shown() {
                        diagnose(&format!("ottla: {}", status_text(&now)));
                    }
                }
                node = now;
            }
            Err(error) if error.is::<ClientError>() => diagnose(&format!("ottla: {error}")),
            Err(error) => return Err(error),
        }
    }
    Ok((node, true))
}

fn status_text(node: &v1::ClusterNode) -> String {
    let id = node.node_id;
    let (replicas, leaving) = (node.replicas, node.leaving_replicas);
    match (node.draining, replicas) {
        (false, _) => format!("node {id} is not being drained; it has {replicas} replicas"),
        (true, 0) => {
            format!("node {id} is drained: it can be removed with `ottla cluster remove {id}`")
        }
        (true, _) => format!("node {id} has {replicas} replicas left, {leaving} on their way"),
    }
}

fn status_json(node: &v1::ClusterNode) -> Value {
    json!({
        "node": node.node_id,
        "draining": node.draining,
        "drained": node.draining && node.replicas == 0,
        "replicas": node.replicas,
        "leaving_replicas": node.leaving_replicas,
    })
}

fn cancelled_text(node: u64, answer: &v1::DrainNodeResponse) -> String {
    let (replicas, taken_back) = (answer.replicas, answer.taken_back);
    if answer.changed {
        format!("node {node} takes replicas again; it has {replicas}, {taken_back} taken back")
    } else {
        format!("node {node} was not being drained; it has {replicas} replicas")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_is_told() {
        let mut node = v1::ClusterNode {
            node_id: 4,
            draining: true,
            replicas: 7,
            leaving_replicas: 2,
            ..v1::ClusterNode::default()
        };
        assert_eq!(status_text(&node), "node 4 has 7 replicas left, 2 on their way");
        assert_eq!(status_json(&node)["drained"], false);
        node.replicas = 0;
        assert!(status_text(&node).ends_with("`ottla cluster remove 4`"));
        assert_eq!(status_json(&node)["drained"], true);
        node.draining = false;
        assert_eq!(status_json(&node)["drained"], false, "nobody asked for it");
    }
}
