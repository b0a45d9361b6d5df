//! What `/metrics` on the HTTP port shows, in the OpenMetrics text that Prometheus
//! reads: `ottla_<area>_<what>_<unit>`.
//!
//! Figures are kept where they arise; a collector per area asks for them when
//! somebody scrapes.
//!
//! Not its job: measuring.

use crate::lag::{Lag, Lags};
use ottla_commitlog::{HistogramSnapshot, Shared};
use ottla_replication::SentBytes;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use tokio::sync::watch;

/// Media type of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is shown.
pub(crate) struct Metrics(Registry);

impl Metrics {
    pub(crate) fn new(
        logs: Arc<Shared>,
        sent: impl Fn() -> SentBytes + Send + Sync + 'static,
        lags: watch::Receiver<Arc<Lags>>,
    ) -> Self {
        let mut registry = Registry::with_prefix("ottla");
        registry.register_collector(Box::new(Logs(logs)));
        registry.register_collector(Box::new(Replication(sent)));
        registry.register_collector(Box::new(Groups(lags)));
        Self(registry)
    }

    /// The figures of this moment.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// What the logs of this node do.
struct Logs(Arc<Shared>);

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logs")
    }
}

impl Collector for Logs {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let (figures, hot) = (self.0.figures(), self.0.hot_tail_use());
        let counters = [
            ("log_appends", "Appends written", None, figures.appends.get()),
            ("log_appended_records", "Records appended", None, figures.appended_records.get()),
            ("log_appended", "Bytes appended", Some(Unit::Bytes), figures.appended_bytes.get()),
            ("log_hot_tail_hits", "Reads served from memory", None, hot.hits),
            ("log_hot_tail_misses", "Reads that went to the disk", None, hot.misses),
        ];
        for (name, help, unit, value) in counters {
            to.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        to.encode_descriptor(
            "log_hot_tail",
            "Memory held by what was appended last",
            Some(&Unit::Bytes),
            MetricType::Gauge,
        )?
        .encode_gauge(&hot.bytes)?;
        let (seconds, appends, records) =
            (Unit::Seconds, Unit::Other("appends".into()), Unit::Other("records".into()));
        let histograms = [
            ("log_sync", "Duration of an fdatasync", &seconds, &figures.sync_micros),
            ("log_sync_wait", "Wait of a caller for a sync", &seconds, &figures.sync_wait_micros),
            ("log_sync_batch", "Appends in one sync", &appends, &figures.sync_appends),
            ("log_sync_batch", "Records in one sync", &records, &figures.sync_records),
            ("log_sync_batch", "Bytes in one sync", &Unit::Bytes, &figures.sync_bytes),
        ];
        for (name, help, unit, histogram) in histograms {
            let scale = if matches!(unit, Unit::Seconds) { 1e-6 } else { 1.0 };
            let HistogramSnapshot { buckets, sum, count } = histogram.snapshot();
            let last = buckets.len() - 1;
            let bound = |index, bound: u64| {
                if index == last { f64::INFINITY } else { bound as f64 * scale }
            };
            let buckets: Vec<(f64, u64)> =
                buckets.iter().enumerate().map(|(i, (b, n))| (bound(i, *b), *n)).collect();
            to.encode_descriptor(name, help, Some(unit), MetricType::Histogram)?
                .encode_histogram::<NoLabelSet>(sum as f64 * scale, count, &buckets, None)?;
        }
        Ok(())
    }
}

/// What this node sends to followers.
struct Replication<F>(F);

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

/// How far the groups are behind that this node coordinates.
struct Groups(watch::Receiver<Arc<Lags>>);

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

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_commitlog::format::{BatchOptions, NewRecord, ValidBatch, encode_batch};
    use ottla_commitlog::vfs::SimVfs;
    use ottla_commitlog::{Log, LogConfig, OpenMode};
    use ottla_proto::LeaderEpoch;
    use std::path::Path;

    #[test]
    fn shows_what_the_node_did() {
        let shared = Shared::new(Arc::new(SimVfs::new()));
        let log = Log::open(&shared, Path::new("/log"), LogConfig::default(), OpenMode::Clean);
        let log = log.expect("opens").0;
        let records = [NewRecord::default(), NewRecord::default()];
        let batch = encode_batch(&records, &BatchOptions::default()).expect("encodes");
        let size = batch.len();
        let batch = ValidBatch::new(batch, 1 << 20).expect("valid");
        log.append_as_leader(vec![batch], LeaderEpoch(1), 0).expect("appends");
        log.sync().expect("syncs");
        log.read(0, 2, 1).expect("reads");
        let sent = || SentBytes { in_sync: 30, catch_up: 20, reassignment: 10 };
        let behind = Lag {
            group: "billing".into(),
            topic: "orders".to_owned(),
            partition: 3,
            records: 41,
            seconds: 1.5,
        };
        let (_lags, shown) = watch::channel(Arc::new(Lags { known: vec![behind], left_out: 2 }));
        let text = Metrics::new(shared, sent, shown).text().expect("encodes");
        let labels = r#"group="billing",topic="orders",partition="3""#;
        for line in [
            "# TYPE ottla_log_sync_seconds histogram".to_owned(),
            "ottla_log_sync_seconds_count 1".to_owned(),
            "ottla_log_sync_wait_seconds_count 1".to_owned(),
            "ottla_log_sync_seconds_bucket{le=\"+Inf\"} 1".to_owned(),
            "ottla_log_sync_batch_appends_sum 1.0".to_owned(),
            "ottla_log_sync_batch_records_bucket{le=\"1.0\"} 0".to_owned(),
            "ottla_log_sync_batch_records_bucket{le=\"2.0\"} 1".to_owned(),
            format!("ottla_log_sync_batch_bytes_sum {size}.0"),
            "ottla_log_appends_total 1".to_owned(),
            "ottla_log_appended_records_total 2".to_owned(),
            format!("ottla_log_appended_bytes_total {size}"),
            "ottla_log_hot_tail_hits_total 1".to_owned(),
            "ottla_log_hot_tail_misses_total 0".to_owned(),
            "ottla_replication_sent_bytes_total{traffic=\"in_sync\"} 30".to_owned(),
            "ottla_replication_sent_bytes_total{traffic=\"catch_up\"} 20".to_owned(),
            "ottla_replication_sent_bytes_total{traffic=\"reassignment\"} 10".to_owned(),
            format!("ottla_group_lag_records{{{labels}}} 41"),
            format!("ottla_group_lag_seconds{{{labels}}} 1.5"),
            "ottla_group_lag_left_out_partitions 2".to_owned(),
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
    }
}
