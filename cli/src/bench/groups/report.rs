//! What `bench groups` measured, as text and as JSON.

use super::super::figures::{Spread, cores, millis, rounded, seconds, spread};
use super::super::setting::Figures;
use super::commits::Commits;
use super::ledger::{Seen, Slow};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// Members that died.
#[derive(Default)]
pub(super) struct Rebalance {
    /// From the first join until everybody had its share.
    pub(super) settled_in: Duration,
    /// Of each partition, while nothing happened.
    pub(super) calm: Seen,
    /// From each crash until the coordinator noticed.
    pub(super) detections: Vec<Duration>,
    /// Of each partition that a dead member had: from then until it was read again.
    pub(super) resumed: Vec<Duration>,
    /// Of each other partition, from the crash until then.
    pub(super) kept: Seen,
    /// The longest waits in these after each death.
    pub(super) slowest: Vec<SlowRead>,
    /// Partitions that members gave back, or lost, although nobody had died who read them.
    pub(super) moved_without_need: u64,
    pub(super) records: u64,
}

/// A record of a partition that did not move, which waited for its reader.
pub(super) struct SlowRead {
    pub(super) slow: Slow,
    /// When the coordinator had noticed the death.
    pub(super) detected: Instant,
    /// Whether the reader took over something that the dead member had read.
    pub(super) took_over: bool,
}

impl SlowRead {
    fn json(&self) -> Value {
        let Slow { partition, reader, waited, acknowledged } = &self.slow;
        let after = millis(acknowledged.saturating_duration_since(self.detected));
        let before = millis(self.detected.saturating_duration_since(*acknowledged));
        json!({
            "partition": partition,
            "reader": reader,
            "waited_ms": millis(*waited),
            "acknowledged_after_detection_ms": after - before,
            "reader_took_over": self.took_over,
        })
    }
}

/// Everything.
pub(super) struct Report {
    pub(super) members: u32,
    pub(super) partitions: u32,
    pub(super) interval: Duration,
    pub(super) rebalance: Rebalance,
    pub(super) commits: Option<Commits>,
    pub(super) with_members: Option<Commits>,
}

impl Figures for Report {
    fn json(&self) -> Value {
        let Rebalance {
            settled_in,
            calm,
            detections,
            resumed,
            kept,
            slowest,
            moved_without_need,
            records,
        } = &self.rebalance;
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "cores": cores(),
            "members": self.members,
            "partitions": self.partitions,
            "interval_ms": millis(self.interval),
            "settled_seconds": seconds(*settled_in),
            "crashes": {
                "detected_ms": spread(detections),
                "moved_read_again_after_detection_ms": spread(resumed),
                "unmoved_longest_gap_ms": spread(&kept.silences),
                "unmoved_longest_wait_ms": spread(&kept.waits),
                "unmoved_slowest": slowest.iter().map(SlowRead::json).collect::<Vec<_>>(),
                "moved_without_need": moved_without_need,
                "calm_longest_gap_ms": spread(&calm.silences),
                "calm_longest_wait_ms": spread(&calm.waits),
            },
            "records": records,
            "commits": self.commits.as_ref().map(commits),
            "commits_of_members": self.with_members.as_ref().map(commits),
        })
    }

    fn text(&self) -> String {
        let Rebalance {
            settled_in,
            calm,
            detections,
            resumed,
            kept,
            moved_without_need,
            records,
            ..
        } = &self.rebalance;
        let line = |what: &str, times: &[Duration]| {
            let Spread { p50, p99, max } = Spread::of(times);
            format!("{what}: p50 {p50} ms, p99 {p99} ms, longest {max} ms ({})", times.len())
        };
        let mut lines = vec![
            format!(
                "{} members, {} partitions, a record each {} ms; settled in {} s; {records} records",
                self.members,
                self.partitions,
                millis(self.interval),
                seconds(*settled_in)
            ),
            line("a death was noticed after", detections),
            line("then what it had was read again after", resumed),
            line("longest silence of other partitions", &kept.silences),
            line("the same while nothing happened", &calm.silences),
            line("longest wait of one of their records for its reader", &kept.waits),
            line("the same while nothing happened", &calm.waits),
            format!("partitions that others gave back or lost: {moved_without_need}"),
        ];
        for commits in [&self.commits, &self.with_members].into_iter().flatten() {
            lines.push(format!(
                "{} groups {}, a commit a second each, for {} s: {} acknowledged a second, {} failed",
                commits.groups,
                if commits.heartbeats.is_some() { "of one member" } else { "without members" },
                seconds(commits.duration),
                rate(commits),
                commits.failed
            ));
            lines.push(line("from when it was due", &commits.latencies));
            if let Some(heartbeats) = &commits.heartbeats {
                lines.push(line("the same of heartbeats", heartbeats));
            }
        }
        lines.join("\n")
    }
}

fn rate(commits: &Commits) -> f64 {
    rounded(commits.latencies.len() as f64 / commits.duration.as_secs_f64())
}

fn commits(commits: &Commits) -> Value {
    json!({
        "groups": commits.groups,
        "seconds": seconds(commits.duration),
        "acknowledged_per_second": rate(commits),
        "failed": commits.failed,
        "last_failure": commits.last_failure,
        "since_due_ms": spread(&commits.latencies),
        "heartbeats_since_due_ms": commits.heartbeats.as_deref().map(spread),
        "last_round_latest_start_ms": millis(commits.latest_start),
        "nodes_cpu_seconds": seconds(commits.nodes_cpu),
    })
}
