//! What clients ask of this node's logs, and how that ends. Kept here, by the services that
//! answer.

use ottla_proto::{ApiError, reason_name};
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::{MetricType, TypedMetric as _};
use prometheus_client::registry::Unit;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of durations: from a quarter of a millisecond, each twice the one before, to
/// eight seconds.
const BUCKETS: (f64, f64, u16) = (0.000_25, 2.0, 16);

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Writing one batch.
    Produce,
    /// Reading once; a stream reads again and again.
    Fetch,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Fetch => "fetch",
        }
    }
}

/// See the module.
pub(crate) struct Requests {
    produced: Histogram,
    fetched: AtomicU64,
    fetched_bytes: AtomicU64,
    fetched_records: AtomicU64,
    /// As many as there are reasons, at most, for each kind.
    failed: Mutex<BTreeMap<(Kind, &'static str), u64>>,
    produce_streams: Arc<AtomicI64>,
    consume_streams: Arc<AtomicI64>,
}

impl Default for Requests {
    fn default() -> Self {
        let (first, factor, count) = BUCKETS;
        Self {
            produced: Histogram::new(exponential_buckets(first, factor, count)),
            fetched: AtomicU64::default(),
            fetched_bytes: AtomicU64::default(),
            fetched_records: AtomicU64::default(),
            failed: Mutex::default(),
            produce_streams: Arc::default(),
            consume_streams: Arc::default(),
        }
    }
}

/// A stream that is open, as long as this lives.
pub(crate) struct Open(Arc<AtomicI64>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Requests {
    /// A batch was written, or not, after so long.
    pub(crate) fn produced<T>(&self, took: Duration, outcome: &Result<T, ApiError>) {
        match outcome {
            Ok(_) => self.produced.observe(took.as_secs_f64()),
            Err(error) => self.failed(Kind::Produce, error),
        }
    }

    /// So many bytes and records were read.
    pub(crate) fn fetched(&self, bytes: usize, records: u64) {
        self.fetched.fetch_add(1, Ordering::Relaxed);
        self.fetched_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.fetched_records.fetch_add(records, Ordering::Relaxed);
    }

    /// A request was refused, or could not be carried out.
    pub(crate) fn failed(&self, kind: Kind, error: &ApiError) {
        *self.failed.lock().entry((kind, reason_name(error.reason))).or_default() += 1;
    }

    /// A stream of requests is open.
    pub(crate) fn opened(&self, kind: Kind) -> Open {
        let open = match kind {
            Kind::Produce => &self.produce_streams,
            Kind::Fetch => &self.consume_streams,
        };
        open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(open))
    }
}

/// Shows them.
pub(super) struct Shown(pub(super) Arc<Requests>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Requests")
    }
}

impl Collector for Shown {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let Requests { produced, fetched, fetched_bytes, fetched_records, .. } = &*self.0;
        let (help, unit) = ("Time to acknowledge a batch, as its acks asks", Some(&Unit::Seconds));
        produced.encode(to.encode_descriptor("produce", help, unit, Histogram::TYPE)?)?;
        let counters = [
            ("fetches", "Reads of clients that were answered", None, fetched),
            ("fetched", "Bytes of records given to clients", Some(Unit::Bytes), fetched_bytes),
            ("fetched_records", "Records given to clients", None, fetched_records),
        ];
        for (name, help, unit, value) in counters {
            to.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, u64>(&value.load(Ordering::Relaxed), None)?;
        }
        let help = "Requests that were refused or could not be carried out";
        let mut family = to.encode_descriptor("request_errors", help, None, MetricType::Counter)?;
        for ((kind, reason), count) in &*self.0.failed.lock() {
            family
                .encode_family(&[("kind", kind.name()), ("reason", reason)])?
                .encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
        let help = "Open streams of clients";
        let mut family = to.encode_descriptor("client_streams", help, None, MetricType::Gauge)?;
        let open =
            [(Kind::Produce, &self.0.produce_streams), (Kind::Fetch, &self.0.consume_streams)];
        for (kind, open) in open {
            family
                .encode_family(&[("kind", kind.name())])?
                .encode_gauge(&open.load(Ordering::Relaxed))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_proto::v1::ErrorReason;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    #[test]
    fn counts_what_ends_well_and_what_does_not_by_reason() {
        let requests = Arc::new(Requests::default());
        let refused = ApiError::new(ErrorReason::NotEnoughReplicas, "one of two");
        requests.produced(Duration::from_millis(3), &Ok(()));
        requests.produced::<()>(Duration::from_millis(3), &Err(refused.clone()));
        requests.fetched(100, 7);
        requests.failed(Kind::Fetch, &refused);
        let stream = requests.opened(Kind::Produce);
        let mut registry = Registry::with_prefix("ottla");
        registry.register_collector(Box::new(Shown(Arc::clone(&requests))));
        let text = || {
            let mut text = String::new();
            encode(&mut text, &registry).expect("encodes");
            text
        };
        let found = text();
        for line in [
            "ottla_produce_seconds_count 1",
            "ottla_produce_seconds_bucket{le=\"0.002\"} 0",
            "ottla_produce_seconds_bucket{le=\"0.004\"} 1",
            "ottla_fetches_total 1",
            "ottla_fetched_bytes_total 100",
            "ottla_fetched_records_total 7",
            "ottla_request_errors_total{kind=\"produce\",reason=\"NOT_ENOUGH_REPLICAS\"} 1",
            "ottla_request_errors_total{kind=\"fetch\",reason=\"NOT_ENOUGH_REPLICAS\"} 1",
            "ottla_client_streams{kind=\"produce\"} 1",
            "ottla_client_streams{kind=\"fetch\"} 0",
        ] {
            assert!(found.lines().any(|have| have == line), "{line} is not in\n{found}");
        }
        drop(stream);
        assert!(text().contains("ottla_client_streams{kind=\"produce\"} 0"));
    }
}
