//! `ottla cluster features`: what the metadata may hold, and raising that after an
//! upgrade of all nodes.

use crate::connection::Connection;
use crate::output::{self, Format, table};
use ottla_client::{Probe, v1};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Show the cluster's feature level and what each node's release supports, or raise it.
///
/// New releases bring new kinds of metadata. A cluster writes them only once its
/// level is raised, so nodes can be upgraded one by one. Do that when all of them
/// have the new release: from then on older releases cannot be part of the cluster.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla cluster features
  ottla cluster features --upgrade        # to the newest level
  ottla cluster features --upgrade 2")]
pub(super) struct Features {
    /// Raise the level, to the newest one if none is named. There is no way back.
    #[arg(long, value_name = "LEVEL", num_args = 0..=1, default_missing_value = "0")]
    upgrade: Option<u16>,

    #[command(flatten)]
    pub(super) connection: Connection,
}

pub(super) async fn run(args: &Features) -> anyhow::Result<ExitCode> {
    let admin = args.connection.client().await?.admin();
    if let Some(level) = args.upgrade {
        let level = Some(u32::from(level)).filter(|level| *level > 0);
        let raised = admin.upgrade_features(level).await?;
        let now = if raised.changed { "is now" } else { "was already" };
        match args.connection.format {
            Format::Text => output::line(&format!("the feature level {now} {}", raised.level))?,
            Format::Json => output::json(&json!({
                "feature_level": raised.level, "changed": raised.changed,
            }))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let info = admin.cluster_info().await?;
    let nodes = admin.probe(info.nodes.clone()).await;
    match args.connection.format {
        Format::Text => output::line(&text(info.feature_level, &nodes))?,
        Format::Json => output::json(&json(info.feature_level, &nodes))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn version(probe: &Probe) -> Option<&str> {
    probe.answer.as_ref().ok().map(|info| info.version.as_str())
}

/// The levels that a node's release supports, if it ever registered.
fn supported(node: &v1::ClusterNode) -> Option<(u32, u32)> {
    Some((node.min_feature_level, node.max_feature_level)).filter(|(_, max)| *max > 0)
}

fn text(finalised: u32, nodes: &[Probe]) -> String {
    let heading = ["NODE", "SUPPORTS", "VERSION"];
    let mut rows = vec![heading.iter().map(|cell| (*cell).to_owned()).collect()];
    rows.extend(nodes.iter().map(|probe| {
        let range = supported(&probe.node);
        vec![
            probe.node.node_id.to_string(),
            range.map_or_else(|| "-".to_owned(), |(min, max)| format!("{min} to {max}")),
            version(probe).unwrap_or("-").to_owned(),
        ]
    }));
    let mut text = format!("feature level {finalised}\n{}", table(&rows));
    if let Some(level) = upgrade(finalised, nodes) {
        text.push_str(&format!(
            "\nevery node supports level {level}: `ottla cluster features --upgrade {level}`"
        ));
    }
    text
}

/// A higher level that every node supports.
fn upgrade(finalised: u32, nodes: &[Probe]) -> Option<u32> {
    let newest = nodes.iter().map(|probe| probe.node.max_feature_level).min()?;
    Some(newest).filter(|newest| *newest > finalised)
}

pub(super) fn json(finalised: u32, nodes: &[Probe]) -> Value {
    let node = |probe: &Probe| {
        let range = supported(&probe.node);
        json!({
            "node": probe.node.node_id,
            "min_feature_level": range.map(|(min, _)| min),
            "max_feature_level": range.map(|(_, max)| max),
            "version": version(probe),
        })
    };
    json!({
        "feature_level": finalised,
        "possible_upgrade": upgrade(finalised, nodes),
        "nodes": nodes.iter().map(node).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(node_id: u64, max_feature_level: u32) -> Probe {
        let min_feature_level = max_feature_level.min(1);
        let node = v1::ClusterNode {
            node_id,
            min_feature_level,
            max_feature_level,
            ..v1::ClusterNode::default()
        };
        let version = "9.9".to_owned();
        let answer =
            v1::GetClusterInfoResponse { version, ..v1::GetClusterInfoResponse::default() };
        Probe { node, answer: Ok(answer) }
    }

    /// An upgrade is offered once every node supports it, also those that are down.
    #[test]
    fn an_upgrade_is_offered_when_it_is_possible() {
        let mut nodes = vec![probe(1, 3), probe(2, 1)];
        let shown = text(1, &nodes);
        let rows: Vec<Vec<&str>> =
            shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["feature", "level", "1"]);
        assert_eq!(rows[2], ["1", "1", "to", "3", "9.9"]);
        assert_eq!((rows.len(), json(1, &nodes)["possible_upgrade"].as_u64()), (4, None));
        nodes[1] = probe(2, 2);
        assert!(text(1, &nodes).ends_with("--upgrade 2`"), "{}", text(1, &nodes));
        assert_eq!(json(1, &nodes)["possible_upgrade"], 2);
        assert_eq!(upgrade(2, &nodes), None);
        nodes.push(probe(3, 0));
        assert_eq!(upgrade(1, &nodes), None, "nobody knows what node 3 supports");
        assert_eq!(json(1, &nodes)["nodes"][2]["min_feature_level"], Value::Null);
    }
}
