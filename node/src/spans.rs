//! Where the spans of a node go.
//!
//! Not its job: what is traced: who sends a write says so (`ottla_trace`).

use crate::config::NodeConfig;
use anyhow::Context as _;
use ottla_host::blocking;
use ottla_trace::Exporter;

/// Where spans are to go, if anywhere.
pub(crate) fn exporter(config: &NodeConfig) -> anyhow::Result<Option<Exporter>> {
    let Some(endpoint) = &config.otlp_endpoint else { return Ok(None) };
    // Nodes begin no traces: which share of them is of no account.
    let exporter = Exporter::to(endpoint, "ottla-node", config.node_id.to_string(), 0.0);
    Ok(Some(exporter.context("configuration option `otlp_endpoint`")?))
}

/// Sends what is left. A collector that is away keeps no node from stopping.
pub(crate) async fn end(exporter: Option<Exporter>) {
    let Some(exporter) = exporter else { return };
    match blocking(move || exporter.shutdown()).await {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => tracing::info!(reason, "not every span was taken"),
        Err(lost) => tracing::info!(reason = %lost, "not every span was taken"),
    }
}
