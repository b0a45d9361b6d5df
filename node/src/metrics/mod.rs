//! What `/metrics` on the HTTP port shows, in the OpenMetrics text that Prometheus
//! reads: `ottla_<area>_<what>_<unit>`.
//!
//! Figures are kept where they arise; a collector per area asks for them when
//! somebody scrapes.
//!
//! Not its job: measuring.

mod cluster;
mod connections;
mod disks;
mod groups;
mod logs;
mod machine;
mod replication;
mod requests;
#[cfg(test)]
mod tests;

pub(crate) use requests::{Kind, Requests};

use crate::changes::Changes;
use crate::lag::Lags;
use crate::limits::Connections;
use ottla_commitlog::Shared;
use ottla_metadata::Metadata;
use ottla_proto::NodeId;
use ottla_replication::{DiskStatus, SentBytes};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;
use tokio::sync::watch;

/// Media type of what is shown.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where the figures come from.
pub(crate) struct Sources<F, D> {
    pub(crate) logs: Arc<Shared>,
    pub(crate) sent: F,
    pub(crate) lags: watch::Receiver<Arc<Lags>>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) disks: D,
    pub(crate) metadata: Metadata,
    pub(crate) changes: Arc<Changes>,
    pub(crate) node_id: NodeId,
}

/// Everything that is shown.
pub(crate) struct Metrics {
    /// As many figures whatever the cluster holds.
    few: Registry,
    /// A figure for each group and partition.
    many: Registry,
}

impl Metrics {
    pub(crate) fn new(
        sources: Sources<
            impl Fn() -> SentBytes + Send + Sync + 'static,
            impl Fn() -> Vec<DiskStatus> + Send + Sync + 'static,
        >,
    ) -> Self {
        let Sources { logs, sent, lags, requests, connections, disks, metadata, changes, node_id } =
            sources;
        let mut few = Registry::with_prefix("ottla");
        few.register_collector(Box::new(machine::Machine));
        few.register_collector(Box::new(disks::Disks(disks)));
        few.register_collector(Box::new(cluster::Cluster { node_id, metadata, changes }));
        few.register_collector(Box::new(requests::Shown(requests)));
        few.register_collector(Box::new(connections::Shown(connections)));
        few.register_collector(Box::new(logs::Logs(logs)));
        few.register_collector(Box::new(replication::Replication(sent)));
        let mut many = Registry::with_prefix("ottla");
        many.register_collector(Box::new(groups::Groups(lags)));
        Self { few, many }
    }

    /// The figures of this moment.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        encoded(&[&self.few, &self.many])
    }

    /// Those whose number does not grow with what the cluster holds.
    pub(crate) fn public_text(&self) -> Result<String, fmt::Error> {
        encoded(&[&self.few])
    }
}

fn encoded(registries: &[&Registry]) -> Result<String, fmt::Error> {
    let mut text = String::new();
    for registry in registries {
        encode_registry(&mut text, registry)?;
    }
    encode_eof(&mut text)?;
    Ok(text)
}
