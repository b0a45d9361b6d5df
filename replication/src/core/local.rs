//! What every role of a replica needs: who it is, what the metadata says, how far its log
//! goes.

use super::types::{Durability, LogState, Millis, SessionRef, Stage, View};
use ottla_proto::{LeaderEpoch, NodeId, Offset};

/// What a replica is told once.
#[derive(Clone, Copy, Debug, Hash)]
pub struct ReplicaConfig {
    /// This node.
    pub me: NodeId,
    /// Wait before a refused or failed request to another node is repeated.
    pub retry_backoff: Millis,
}

/// What every role needs.
#[derive(Clone, Debug, Hash)]
pub(super) struct Local {
    pub(super) config: ReplicaConfig,
    pub(super) view: View,
    pub(super) log: LogState,
    /// Records below are known to be committed. May lie behind the truth.
    pub(super) watermark: Offset,
    pub(super) stage: Stage,
    last_session: u64,
}

impl Local {
    pub(super) fn new(config: ReplicaConfig, log: LogState, watermark: Offset, view: View) -> Self {
        let mut local = Self { config, view, log, watermark, stage: Stage(0), last_session: 0 };
        local.settle(log);
        local
    }

    pub(super) fn me(&self) -> NodeId {
        self.config.me
    }

    pub(super) fn epoch(&self) -> LeaderEpoch {
        self.view.leader_epoch
    }

    pub(super) fn next_stage(&mut self) -> Stage {
        self.stage = Stage(self.stage.0 + 1);
        self.stage
    }

    pub(super) fn next_session(&mut self) -> SessionRef {
        self.last_session += 1;
        SessionRef { session: self.last_session, leader_epoch: self.epoch() }
    }

    /// The offset up to which this replica's own log counts.
    pub(super) fn own_position(&self) -> Offset {
        match self.view.durability {
            Durability::Disk => self.log.synced.min(self.log.end),
            Durability::Memory => self.log.end,
        }
    }

    /// Something is appended that acknowledgements need on stable storage.
    pub(super) fn owes_sync(&self) -> bool {
        self.view.durability == Durability::Disk && self.log.synced < self.log.end
    }

    pub(super) fn appended_to(&mut self, end: Offset) {
        assert!(end >= self.log.end, "an append moved the log end back");
        self.log.end = end;
    }

    pub(super) fn synced_to(&mut self, up_to: Offset) {
        self.log.synced = self.log.synced.max(up_to);
    }

    /// Takes over the log as it was found. The watermark stays inside it.
    pub(super) fn settle(&mut self, log: LogState) {
        assert!(log.start <= log.end, "a log ends before it starts");
        self.log = log;
        self.watermark = self.watermark.clamp(log.start, log.end);
    }
}
