//! What this node sends to followers.

use ottla_replication::SentBytes;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt;

/// See the module.
pub(super) struct Replication<F>(pub(super) F);

impl<F> fmt::Debug for Replication<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replication")
    }
}

impl<F: Fn() -> SentBytes + Send + Sync + 'static> Collector for Replication<F> {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let sent = (self.0)();
        let mut family = to.encode_descriptor(
            "replication_sent",
            "Bytes of records sent to followers",
            Some(&Unit::Bytes),
            MetricType::Counter,
        )?;
        for (traffic, bytes) in [
            ("in_sync", sent.in_sync),
            ("catch_up", sent.catch_up),
            ("reassignment", sent.reassignment),
        ] {
            family
                .encode_family(&[("traffic", traffic)])?
                .encode_counter::<NoLabelSet, _, u64>(&bytes, None)?;
        }
        Ok(())
    }
}
