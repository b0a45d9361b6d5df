//! Connections to the gRPC port.

use crate::limits::Connections;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;
use std::sync::Arc;

/// Shows them.
#[derive(Debug)]
pub(super) struct Shown(pub(super) Arc<Connections>);

impl Collector for Shown {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Open connections to the gRPC port";
        to.encode_descriptor("connections", help, None, MetricType::Gauge)?
            .encode_gauge(&(self.0.count() as u64))?;
        let counters = [
            (
                "connections_closed",
                "Connections that were silent longest when there were too many",
                self.0.closed(),
            ),
            (
                "requests_refused",
                "Requests of connections that had too many open",
                self.0.refused(),
            ),
        ];
        for (name, help, value) in counters {
            to.encode_descriptor(name, help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }
}
