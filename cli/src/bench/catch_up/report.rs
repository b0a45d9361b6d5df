//! What `bench catch-up` measured, as text and as JSON.

use super::super::figures::{
    cores, per_second, percentiles, percentiles_text, quantile_ms, rounded, seconds,
};
use super::super::setting::Figures;
use super::load::Latencies;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// A time that is looked at.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) from: Instant,
    pub(super) to: Instant,
}

/// Everything.
pub(super) struct Report {
    /// What the node missed: values of records.
    pub(super) bytes: u64,
    pub(super) partitions: u32,
    pub(super) rate: u32,
    /// From the start of the process until all its replicas follow.
    pub(super) started_to_begun: Duration,
    /// From then until all of them are in sync.
    pub(super) caught_up: Duration,
    /// The same bytes without anything around them.
    pub(super) floor: Duration,
    /// Records of the writers that were not acknowledged.
    pub(super) failed: u64,
    pub(super) before: Latencies,
    pub(super) during: Latencies,
    pub(super) beside_floor: Latencies,
}

impl Figures for Report {
    fn json(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "cores": cores(),
            "nodes": 3,
            "partitions_of_each_topic": self.partitions,
            "missed_bytes": self.bytes,
            "started_to_following_seconds": seconds(self.started_to_begun),
            "caught_up_seconds": seconds(self.caught_up),
            "caught_up_bytes_per_second": per_second(self.bytes, self.caught_up),
            "floor_seconds": seconds(self.floor),
            "floor_bytes_per_second": per_second(self.bytes, self.floor),
            "of_the_floor": self.of_the_floor(),
            "live": {
                "records_per_second": self.rate,
                "failed": self.failed,
                "before_ms": percentiles(&self.before),
                "during_ms": percentiles(&self.during),
                "beside_the_floor_ms": percentiles(&self.beside_floor),
                "p99_during_to_before": self.p99_ratio(),
            },
        })
    }

    fn text(&self) -> String {
        format!(
            "{} MB missed, {} partitions, on 3 nodes and {} processors; {} records a second \
             meanwhile, acks=all\n\
             caught up  in {} s: {} MB/s; it followed {} s after its start\n\
             floor      in {} s: {} MB/s; {} of it\n\
             before     {}\n\
             during     {}; p99 {} of before\n\
             floor      {}\n\
             records    {} failed",
            self.bytes / 1_000_000,
            self.partitions,
            cores(),
            self.rate,
            seconds(self.caught_up),
            per_second(self.bytes, self.caught_up) / 1_000_000,
            seconds(self.started_to_begun),
            seconds(self.floor),
            per_second(self.bytes, self.floor) / 1_000_000,
            self.of_the_floor(),
            percentiles_text(&self.before),
            percentiles_text(&self.during),
            self.p99_ratio(),
            percentiles_text(&self.beside_floor),
            self.failed,
        )
    }
}

impl Report {
    fn of_the_floor(&self) -> f64 {
        rounded(self.floor.as_secs_f64() / self.caught_up.as_secs_f64())
    }

    fn p99_ratio(&self) -> f64 {
        rounded(quantile_ms(&self.during, 0.99) / quantile_ms(&self.before, 0.99))
    }
}
