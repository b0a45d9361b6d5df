//! What `bench controller` measured, as text and as JSON.

use super::super::figures::{Spread, cores, rounded, seconds, spread};
use super::super::setting::Figures;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// How long partitions took to come into being.
pub(super) struct Creation {
    /// Until the last topic's creation was answered.
    pub(super) committed: Duration,
    /// Until every partition's leader would take an acks=all write.
    pub(super) accepting: Duration,
    /// Writes to some of them, right after.
    pub(super) probes: Vec<Duration>,
}

/// What an idle node uses.
pub(super) struct NodeUse {
    pub(super) node: u64,
    /// Of one processor: 1 is all of it.
    pub(super) cpu: f64,
    pub(super) resident_bytes: u64,
}

/// The nodes while nobody asks them for anything.
pub(super) struct Idle {
    pub(super) watched: Duration,
    pub(super) nodes: Vec<NodeUse>,
}

/// A node was killed.
pub(super) struct Failover {
    /// It was the active controller.
    pub(super) controller: bool,
    /// Partitions that it led.
    pub(super) partitions: u32,
    /// Until every node knew a living leader for each partition.
    pub(super) elected: Duration,
    /// Until every partition's leader would take an acks=all write.
    pub(super) accepting: Duration,
    /// Writes to some of them, right after.
    pub(super) probes: Vec<Duration>,
    /// From its start until all its replicas were in sync again.
    pub(super) rejoined: Duration,
}

/// Everything.
pub(super) struct Report {
    pub(super) nodes: u16,
    pub(super) partitions: u32,
    pub(super) topics: usize,
    pub(super) replication_factor: u16,
    pub(super) creation: Creation,
    pub(super) idle: Idle,
    pub(super) failovers: Vec<Failover>,
    /// From the kill of the active controller to the next change of metadata.
    pub(super) successions: Vec<Duration>,
}

impl Figures for Report {
    fn json(&self) -> Value {
        let Self { creation, idle, .. } = self;
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "cores": cores(),
            "nodes": self.nodes,
            "partitions": self.partitions,
            "topics": self.topics,
            "replication_factor": self.replication_factor,
            "creation": {
                "committed_seconds": seconds(creation.committed),
                "accepting_seconds": seconds(creation.accepting),
                "probe_writes_ms": spread(&creation.probes),
            },
            "idle": {
                "watched_seconds": seconds(idle.watched),
                "nodes": idle.nodes.iter().map(|node| json!({
                    "node": node.node,
                    "cpu_percent_of_a_core": rounded(node.cpu * 100.0),
                    "resident_bytes": node.resident_bytes,
                })).collect::<Vec<_>>(),
            },
            "failovers": self.failovers.iter().map(|failover| json!({
                "of_the_controller": failover.controller,
                "partitions_led": failover.partitions,
                "elected_seconds": seconds(failover.elected),
                "accepting_seconds": seconds(failover.accepting),
                "probe_writes_ms": spread(&failover.probes),
                "rejoined_seconds": seconds(failover.rejoined),
            })).collect::<Vec<_>>(),
            "controller_losses_ms": spread(&self.successions),
        })
    }

    fn text(&self) -> String {
        let Self { creation, idle, .. } = self;
        let mut text = format!(
            "{} partitions in {} topics, {} replicas each, on {} nodes and {} processors\n\
             created    {} s in the metadata, {} s accepting acks=all; {}",
            self.partitions,
            self.topics,
            self.replication_factor,
            self.nodes,
            cores(),
            seconds(creation.committed),
            seconds(creation.accepting),
            writes(&creation.probes)
        );
        let mut line = |line: String| {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{line}");
        };
        for node in &idle.nodes {
            line(format!(
                "idle       node {}: {} % of a processor over {} s, {} MiB resident",
                node.node,
                rounded(node.cpu * 100.0),
                seconds(idle.watched),
                node.resident_bytes >> 20
            ));
        }
        for failover in &self.failovers {
            line(format!(
                "kill -9    {} that leads {}: {} s until led, {} s until accepting; {}; back in \
                 sync {} s after its start",
                if failover.controller { "the controller" } else { "a node" },
                failover.partitions,
                seconds(failover.elected),
                seconds(failover.accepting),
                writes(&failover.probes),
                seconds(failover.rejoined)
            ));
        }
        if !self.successions.is_empty() {
            let Spread { p50, p99, max } = Spread::of(&self.successions);
            line(format!(
                "succession next change after {} kills of the controller: p50 {p50} ms, p99 \
                 {p99} ms, longest {max} ms",
                self.successions.len()
            ));
        }
        text
    }
}

fn writes(probes: &[Duration]) -> String {
    let Spread { p50, max, .. } = Spread::of(probes);
    format!("{} writes to them p50 {p50} ms, longest {max} ms", probes.len())
}
