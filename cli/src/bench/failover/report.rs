//! What `bench failover` measured, as text and as JSON.

use super::super::figures::{Spread, cores, millis, spread};
use super::super::setting::Figures;
use super::writers::Written;
use serde_json::{Value, json};
use std::time::Duration;

/// Nodes that were stopped on purpose.
#[derive(Default)]
pub(super) struct Planned {
    /// For each: the longest time without an acknowledgement on a partition.
    pub(super) restarts: Vec<Duration>,
    /// The same while its leaderships were given back to it.
    pub(super) moves: Vec<Duration>,
    /// Leaderships that were given back.
    pub(super) moved: u32,
    /// Writes that failed meanwhile.
    pub(super) failed: u64,
    /// Records that were sent again meanwhile though they may have been written.
    pub(super) in_doubt: u64,
}

/// Everything.
pub(super) struct Report {
    pub(super) nodes: u16,
    pub(super) partitions: u32,
    pub(super) interval: Duration,
    /// Longest time without an acknowledgement while nothing happened.
    pub(super) calm: Duration,
    /// For each partition that a killed node led: until it was written to again.
    pub(super) kills: Vec<Duration>,
    pub(super) planned: Planned,
    pub(super) written: Written,
}

impl Figures for Report {
    fn json(&self) -> Value {
        let Self { planned, written, .. } = self;
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "cores": cores(),
            "nodes": self.nodes,
            "partitions": self.partitions,
            "interval_ms": millis(self.interval),
            "calm_longest_gap_ms": millis(self.calm),
            "kills_to_next_write_ms": spread(&self.kills),
            "planned": {
                "restarts_longest_gap_ms": spread(&planned.restarts),
                "moves_longest_gap_ms": spread(&planned.moves),
                "leaderships_moved": planned.moved,
                "failed": planned.failed,
                "in_doubt": planned.in_doubt,
            },
            "records": {
                "acknowledged": written.acknowledged,
                "failed": written.failed,
                "last_failure": written.last_failure,
                "in_doubt": written.in_doubt,
                "lost": written.lost,
            },
        })
    }

    fn text(&self) -> String {
        let Self { planned, written, .. } = self;
        let kills = Spread::of(&self.kills);
        let (restarts, moves) = (Spread::of(&planned.restarts), Spread::of(&planned.moves));
        let failure = written.last_failure.as_ref();
        let failure = failure.map(|last| format!(" (the last: {last})")).unwrap_or_default();
        format!(
            "{} partitions on {} nodes and {} processors, a writer each, a record every {} ms at \
             most\n\
             calm       longest gap between two acknowledgements {} ms\n\
             kill -9    {} partitions lost their leader: next write acknowledged after p50 {} ms, \
             p99 {} ms, longest {} ms\n\
             restart    {} planned: longest gap p50 {} ms, longest {} ms\n\
             moves      {} leaderships given back: longest gap p50 {} ms, longest {} ms\n\
             both       {} writes failed, {} in doubt\n\
             records    {} acknowledged, {} failed{failure}, {} in doubt, {} lost",
            self.partitions,
            self.nodes,
            cores(),
            millis(self.interval),
            millis(self.calm),
            self.kills.len(),
            kills.p50,
            kills.p99,
            kills.max,
            planned.restarts.len(),
            restarts.p50,
            restarts.max,
            planned.moved,
            moves.p50,
            moves.max,
            planned.failed,
            planned.in_doubt,
            written.acknowledged,
            written.failed,
            written.in_doubt,
            written.lost,
        )
    }
}
