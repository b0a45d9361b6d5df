//! What a log must hold: a list of batches and a few numbers.

use crate::format::{BatchHeader, ValidBatch};
use crate::log::epochs::Epochs;
use bytes::{Bytes, BytesMut};

#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) header: BatchHeader,
    pub(super) bytes: Bytes,
}

pub(super) type EpochList = Vec<(u32, u64)>;

/// What the log must hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) batches: Vec<Stored>,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) synced: u64,
    pub(super) epochs: EpochList,
}

impl Model {
    pub(super) fn start_epoch(&mut self, epoch: u32, at: u64) {
        if self.epochs.last().is_none_or(|last| last.0 < epoch) {
            self.epochs.retain(|entry| entry.1 < at);
            self.epochs.push((epoch, at));
        }
    }

    pub(super) fn append(&mut self, batches: &[Stored]) {
        for batch in batches {
            self.start_epoch(batch.header.leader_epoch.0, batch.header.base_offset);
            self.end = batch.header.next_offset();
            self.batches.push(batch.clone());
        }
    }

    pub(super) fn truncate(&mut self, to: u64) {
        if to < self.end {
            let kept = self.batches.iter().take_while(|b| b.header.last_offset() < to).count();
            self.end = self.batches[kept].header.base_offset.max(self.start);
            self.batches.truncate(kept);
            self.synced = self.end;
        }
        // `to` is never beyond the end here.
        let end = self.end;
        self.epochs.retain(|entry| entry.1 < end);
    }

    pub(super) fn reset(&mut self, to: u64) {
        *self = Self { start: to, end: to, synced: to, ..Self::default() };
    }

    pub(super) fn delete_before(&mut self, start: u64) {
        if start > self.start {
            self.synced = self.synced.max(start);
            self.start = start;
            let covering = self.epochs.iter().rposition(|entry| entry.1 <= start);
            if let Some(covering) = covering {
                self.epochs[covering].1 = start;
                self.epochs.drain(..covering);
            }
            self.batches.retain(|batch| batch.header.last_offset() >= start);
        }
    }

    pub(super) fn readable(&self) -> Vec<u8> {
        let batches = self.batches.iter().filter(|b| b.header.last_offset() >= self.start);
        batches.flat_map(|batch| batch.bytes.iter().copied()).collect()
    }

    /// The epochs that the readable batches prove.
    pub(super) fn proven_epochs(&self) -> EpochList {
        let mut proven = EpochList::new();
        for batch in self.batches.iter().filter(|b| b.header.last_offset() >= self.start) {
            let epoch = batch.header.leader_epoch.0;
            if proven.last().is_none_or(|last| last.0 < epoch) {
                proven.push((epoch, batch.header.base_offset.max(self.start)));
            }
        }
        proven
    }

    /// What is left of this after the log has come back ending at `end`, if
    /// that is possible at all with everything below `least` kept.
    pub(super) fn cut_by_crash(&self, end: u64, least: u64) -> Option<Self> {
        let mut cut = self.clone();
        cut.batches.retain(|batch| batch.header.next_offset() <= end);
        let boundary = cut.batches.last().map_or(self.start, |b| b.header.next_offset());
        let possible = (end == boundary.max(self.start) || end == self.end)
            && (least..=self.end).contains(&end);
        (cut.end, cut.synced) = (end, end);
        cut.epochs.retain(|entry| entry.1 <= end);
        possible.then_some(cut)
    }
}

pub(super) fn stored(batches: &[ValidBatch]) -> Vec<Stored> {
    batches
        .iter()
        .map(|batch| Stored {
            header: *batch.header(),
            bytes: BytesMut::from(batch.as_bytes()).freeze(),
        })
        .collect()
}

pub(super) fn epochs_of(list: &EpochList) -> Epochs {
    let mut text = format!("0\n{}\n", list.len());
    for (epoch, start) in list {
        text.push_str(&format!("{epoch} {start}\n"));
    }
    Epochs::decode(text.as_bytes()).expect("in order")
}

pub(super) fn decode(epochs: &Epochs) -> EpochList {
    let text = epochs.encode();
    let pairs = text.lines().skip(2).filter_map(|line| line.split_once(' '));
    pairs.map(|(e, s)| (e.parse().expect("number"), s.parse().expect("number"))).collect()
}
