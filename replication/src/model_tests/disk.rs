//! A log of the model: records, where epochs begin, what is on stable storage.

use crate::core::{EpochEnd, LogState, RequestId};
use ottla_proto::{LeaderEpoch, Offset};

/// A record: who wrote it under which epoch.
pub(super) type Record = (LeaderEpoch, RequestId);

/// What stays when the process goes.
#[derive(Clone, Default, Hash)]
pub(super) struct Disk {
    pub(super) log: Vec<Record>,
    pub(super) synced: usize,
    /// Starts of epochs. Every change is durable, as in the real log.
    epochs: Vec<(LeaderEpoch, usize)>,
    /// As the last process knew it.
    pub(super) watermark: Offset,
}

impl Disk {
    pub(super) fn state(&self) -> LogState {
        LogState {
            start: 0,
            end: self.log.len() as u64,
            synced: self.synced as u64,
            last_epoch: self.epochs.last().map(|(epoch, _)| *epoch),
        }
    }

    /// What a power loss leaves.
    pub(super) fn stable(&self) -> &[Record] {
        &self.log[..self.synced.min(self.log.len())]
    }

    pub(super) fn append(&mut self, record: Record) {
        self.note(record.0);
        self.log.push(record);
    }

    pub(super) fn note(&mut self, epoch: LeaderEpoch) {
        let last = self.epochs.last().map(|(epoch, _)| *epoch);
        assert!(last <= Some(epoch), "an epoch went back in a log");
        if last != Some(epoch) {
            self.epochs.push((epoch, self.log.len()));
        }
    }

    pub(super) fn truncate(&mut self, to: usize) {
        self.log.truncate(to);
        self.synced = self.log.len();
        self.epochs.retain(|(_, start)| *start < to);
    }

    pub(super) fn end_of(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        let at = self.epochs.iter().rposition(|(known, _)| *known <= epoch)?;
        let end = self.epochs.get(at + 1).map_or(self.log.len(), |(_, start)| *start);
        Some(EpochEnd { epoch: self.epochs[at].0, end: end as u64 })
    }

    /// Power loss: of what was not synced, `kept` records are there by chance.
    pub(super) fn lose(&mut self, kept: usize) {
        let end = self.log.len().min(self.synced + kept);
        self.log.truncate(end);
        self.synced = end;
        self.epochs.retain(|(_, start)| *start <= end);
    }
}
