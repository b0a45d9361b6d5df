//! What the logs of this node do.

use ottla_commitlog::{HistogramSnapshot, Shared};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt;
use std::sync::Arc;

/// See the module.
pub(super) struct Logs(pub(super) Arc<Shared>);

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
