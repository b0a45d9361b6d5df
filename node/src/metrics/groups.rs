//! How far the groups are behind that this node coordinates.

use crate::lag::{Lag, Lags};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt;
use std::sync::Arc;
use tokio::sync::watch;

/// See the module.
pub(super) struct Groups(pub(super) watch::Receiver<Arc<Lags>>);

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Groups")
    }
}

impl Collector for Groups {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let lags = Arc::clone(&self.0.borrow());
        let help = "Committed records that a group has yet to read";
        let records = Unit::Other("records".into());
        each_lag(&mut to, &lags, (help, &records), |lag| lag.records)?;
        let help = "Age of the first record that a group has yet to read";
        each_lag(&mut to, &lags, (help, &Unit::Seconds), |lag| lag.seconds)?;
        let help = "Partitions of groups that are too many to be shown";
        let left_out = u64::try_from(lags.left_out).unwrap_or(u64::MAX);
        let unit = Unit::Other("partitions".into());
        to.encode_descriptor("group_lag_left_out", help, Some(&unit), MetricType::Gauge)?
            .encode_gauge(&left_out)
    }
}

fn each_lag<V: EncodeGaugeValue>(
    to: &mut DescriptorEncoder<'_>,
    lags: &Lags,
    (help, unit): (&str, &Unit),
    value: impl Fn(&Lag) -> V,
) -> fmt::Result {
    let mut family = to.encode_descriptor("group_lag", help, Some(unit), MetricType::Gauge)?;
    for lag in &lags.known {
        let partition = lag.partition.to_string();
        let labels = [("group", &*lag.group), ("topic", &*lag.topic), ("partition", &*partition)];
        family.encode_family(&labels)?.encode_gauge(&value(lag))?;
    }
    Ok(())
}
