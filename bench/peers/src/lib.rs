//! What the loads on other systems share: counting, and one JSON object with the names of
//! `ottla bench produce`.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Records of one connection whose acknowledgement nobody has looked at, at most.
pub const MAX_UNNOTED: usize = 64 * 1024;

/// The flags that all have.
#[derive(clap::Args, Clone, Debug)]
pub struct Load {
    /// Addresses of the servers.
    #[arg(long, value_delimiter = ',', required = true)]
    pub servers: Vec<String>,

    /// Streams or queues, each with a leader of its own: what partitions are elsewhere.
    #[arg(long, default_value_t = 6)]
    pub streams: u32,

    /// Replicas of each of them.
    #[arg(long, default_value_t = 3)]
    pub replicas: u16,

    /// Bytes of a record.
    #[arg(long, default_value_t = 1024)]
    pub record_size: usize,

    /// Connections.
    #[arg(long, default_value_t = 1)]
    pub producers: u32,

    /// Records of each connection that are not yet acknowledged, at most.
    #[arg(long, default_value_t = 4096)]
    pub in_flight: usize,

    /// Seconds that are measured.
    #[arg(long, default_value_t = 10)]
    pub duration: u64,

    /// Seconds before, that are not.
    #[arg(long, default_value_t = 3)]
    pub warm_up: u64,
}

/// What became of records, of all connections.
pub struct Ledger {
    from: Instant,
    /// When sending ends.
    pub to: Instant,
    counts: Mutex<Counts>,
}

struct Counts {
    sent: u64,
    acknowledged: u64,
    measured: u64,
    failures: BTreeMap<String, u64>,
    /// In microseconds.
    latencies: Histogram<u64>,
}

impl Ledger {
    /// Of a load that begins now.
    ///
    /// # Errors
    /// None that can be met with these digits.
    pub fn new(load: &Load) -> anyhow::Result<Self> {
        let from = Instant::now() + Duration::from_secs(load.warm_up);
        let to = from + Duration::from_secs(load.duration);
        let latencies = Histogram::new(3)?;
        let (sent, acknowledged, measured, failures) = (0, 0, 0, BTreeMap::new());
        let counts = Mutex::new(Counts { sent, acknowledged, measured, failures, latencies });
        Ok(Self { from, to, counts })
    }

    /// A producer has ended that has sent so many.
    pub fn sent(&self, records: u64) {
        self.counts.lock().expect("no thread panics with it").sent += records;
    }

    /// A record that was sent at some moment is acknowledged, or is not.
    pub fn note(&self, sent: Instant, outcome: Result<(), String>) {
        let now = Instant::now();
        let within = |at: Instant| self.from <= at && at < self.to;
        let mut counts = self.counts.lock().expect("no thread panics with it");
        if let Err(reason) = outcome {
            *counts.failures.entry(reason).or_default() += 1;
            return;
        }
        counts.acknowledged += 1;
        counts.measured += u64::from(within(now));
        if within(sent) {
            let micros = u64::try_from((now - sent).as_micros()).unwrap_or(u64::MAX);
            counts.latencies.record(micros).expect("a histogram that grows");
        }
    }

    /// Everything, with how many records the servers say they have.
    ///
    /// # Errors
    /// They have fewer than they have acknowledged.
    pub fn report(&self, load: &Load, stored: u64) -> anyhow::Result<serde_json::Value> {
        let counts = self.counts.lock().expect("no thread panics with it");
        anyhow::ensure!(
            stored >= counts.acknowledged,
            "{} records were acknowledged, and {stored} are there",
            counts.acknowledged
        );
        let ms = |quantile| counts.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        let bytes = counts.measured * load.record_size as u64;
        let per_second = |amount: u64| amount as f64 / load.duration as f64;
        Ok(serde_json::json!({
            "records": {
                "sent": counts.sent,
                "acknowledged": counts.acknowledged,
                "failed": counts.failures.values().sum::<u64>(),
                "failures": counts.failures,
                "in_the_log": stored,
            },
            "measured": {
                "seconds": load.duration,
                "records": counts.measured,
                "records_per_second": per_second(counts.measured),
                "bytes": bytes,
                "bytes_per_second": per_second(bytes),
                "latency_ms": {
                    "count": counts.latencies.len(),
                    "p50": ms(0.5),
                    "p90": ms(0.9),
                    "p99": ms(0.99),
                    "p999": ms(0.999),
                    "max": ms(1.0),
                },
            },
        }))
    }
}
