//! `ottla cluster info`: who is there, who leads, who can be reached from here.

use super::{address, members, node_json, state};
use crate::connection::Connection;
use crate::output::{self, Format, list, table};
use ottla_client::{Admin, Probe, v1};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

/// Longest wait for the leader of the metadata quorum when the rest is there.
const QUORUM_TIMEOUT: Duration = Duration::from_secs(2);

/// Shows nodes, controller, and quorum.
pub(super) async fn run(connection: &Connection) -> anyhow::Result<ExitCode> {
    let admin = connection.client().await?.admin();
    let info = admin.cluster_info().await?;
    let (nodes, quorum) = tokio::join!(admin.probe(info.nodes.clone()), quorum(&admin));
    match connection.format {
        Format::Text => output::line(&info_text(&info, &nodes, &quorum))?,
        Format::Json => output::json(&info_json(&info, &nodes, &quorum))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The quorum as its leader sees it, or why nobody says.
pub(super) type Quorum = Result<v1::DescribeQuorumResponse, String>;

pub(super) async fn quorum(admin: &Admin) -> Quorum {
    match tokio::time::timeout(QUORUM_TIMEOUT, admin.describe_quorum()).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_elapsed) => Err(format!("nobody has led it for {QUORUM_TIMEOUT:?}")),
    }
}

fn info_text(info: &v1::GetClusterInfoResponse, nodes: &[Probe], quorum: &Quorum) -> String {
    let header = info.header.clone().unwrap_or_default();
    let controller = match info.controller_id {
        Some(id) => format!("node {id} (term {})", info.controller_term),
        None => "none".to_owned(),
    };
    let mut text = format!(
        "cluster {}\ncontroller {controller}\nvoters {}\nlearners {}\nversion {} (node {})\n",
        header.cluster_id,
        list(&info.voters),
        list_or_none(&info.learners),
        info.version,
        header.node_id
    );
    let heading = ["NODE", "ADDRESS", "RACK", "STATE", "REACHABLE", "LEADERS", "REPLICAS"];
    let mut rows = vec![heading.iter().map(|cell| (*cell).to_owned()).collect()];
    rows.extend(nodes.iter().map(|Probe { node, answer }| {
        vec![
            node.node_id.to_string(),
            address(node),
            node.rack.clone().unwrap_or_else(|| "-".to_owned()),
            if node.draining {
                format!("{},draining", state(node))
            } else {
                state(node).to_owned()
            },
            if answer.is_ok() { "yes" } else { "no" }.to_owned(),
            node.leaders.to_string(),
            node.replicas.to_string(),
        ]
    }));
    text.push_str(&table(&rows));
    text.push('\n');
    text.push_str(&members::quorum_text(quorum));
    text
}

fn list_or_none(nodes: &[u64]) -> String {
    if nodes.is_empty() { "none".to_owned() } else { list(nodes) }
}

pub(super) fn info_json(
    info: &v1::GetClusterInfoResponse,
    nodes: &[Probe],
    quorum: &Quorum,
) -> Value {
    let header = info.header.clone().unwrap_or_default();
    json!({
        "cluster_id": header.cluster_id,
        "controller": info.controller_id,
        "controller_term": info.controller_term,
        "voters": info.voters,
        "learners": info.learners,
        "answered_by": header.node_id,
        "metadata_offset": header.metadata_offset,
        "version": info.version,
        "nodes": nodes.iter().map(node_json).collect::<Vec<_>>(),
        "quorum": members::quorum_json(quorum),
    })
}
