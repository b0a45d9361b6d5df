//! Everything that was appended and not truncated away, whatever retention and
//! compaction make of it.

use super::events::TOMBSTONES_MS;
use crate::format::{BatchHeader, ValidBatch, decode_records};
use crate::log::snapshots::step_of;
use crate::producers::{AbortedTxn, Producers, Step};
use bytes::Bytes;

/// A record as it was appended, or as it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rec {
    pub(super) offset: u64,
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
    pub(super) timestamp_ms: i64,
}

#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) header: BatchHeader,
    pub(super) bytes: Bytes,
    pub(super) records: Vec<Rec>,
    pub(super) step: Option<Step>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) batches: Vec<Written>,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) synced: u64,
    pub(super) high_watermark: u64,
    /// Compaction was allowed up to these offsets, at these times.
    pub(super) looked: Vec<(u64, i64)>,
    /// State of the producers may have been made from what compaction or a stopped
    /// reset left: what was below may be missing.
    pub(super) producers_rebuilt: bool,
    /// A reset stopped half way, below what was committed: of records below this,
    /// newer ones of the same key may have gone with it.
    pub(super) halved: u64,
}

pub(super) fn records_of(bytes: &Bytes) -> Vec<Rec> {
    let read = decode_records(bytes).map(|record| {
        let record = record.expect("good batches");
        let (offset, timestamp_ms) = (record.offset, record.timestamp_ms);
        Rec { offset, key: record.key, value: record.value, timestamp_ms }
    });
    read.collect()
}

impl Model {
    pub(super) fn append(&mut self, batch: &ValidBatch) {
        let header = *batch.header();
        let bytes = Bytes::copy_from_slice(batch.as_bytes());
        let step = step_of(&header, || bytes.clone()).expect("a good batch");
        self.end = header.next_offset();
        self.batches.push(Written { header, records: records_of(&bytes), bytes, step });
    }

    /// Drops what reaches beyond `to`.
    pub(super) fn truncate(&mut self, to: u64) {
        if to < self.end {
            self.batches.retain(|batch| batch.header.next_offset() <= to);
            let last = self.batches.last().map_or(self.start, |last| last.header.next_offset());
            self.end = last.max(self.start);
            self.synced = self.end;
        }
    }

    /// What is left after the log has come back with these bounds, if that can be
    /// with everything below `least` kept.
    pub(super) fn cut_by_crash(&self, start: u64, end: u64, least: u64) -> Option<Self> {
        let mut cut = self.clone();
        cut.start = start;
        if end < cut.end {
            cut.truncate(end);
        }
        cut.synced = end;
        if end < cut.high_watermark {
            cut.halved = cut.high_watermark;
            cut.high_watermark = end;
        }
        (cut.end == end && (least.max(start)..=self.end).contains(&end)).then_some(cut)
    }

    pub(super) fn reset(&mut self, to: u64) {
        let start = Self { start: to, end: to, synced: to, high_watermark: to, ..Self::default() };
        *self = start;
    }

    pub(super) fn compacted(&self) -> u64 {
        self.looked.iter().map(|(end, _)| *end).max().unwrap_or(0)
    }

    /// The ends of batches in `from..=to`, and `from`.
    pub(super) fn places(&self, from: u64, to: u64) -> Vec<u64> {
        let ends = self.batches.iter().map(|batch| batch.header.next_offset());
        let mut places: Vec<u64> =
            [from].into_iter().chain(ends).filter(|at| (from..=to).contains(at)).collect();
        places.dedup();
        places
    }

    pub(super) fn producers(&self) -> (Producers, Vec<AbortedTxn>) {
        let mut producers = Producers::default();
        let steps = self.batches.iter().filter_map(|batch| batch.step.as_ref());
        let aborted = steps.filter_map(|step| producers.apply(step)).collect();
        (producers, aborted)
    }

    /// Batches of a producer that have a sequence.
    pub(super) fn batches_of(&self, id: i64) -> Vec<&Written> {
        let of = |batch: &&Written| batch.header.producer_id == id && !batch.header.is_control();
        self.batches.iter().filter(of).collect()
    }

    pub(super) fn has_open(&self, id: i64) -> bool {
        self.batches
            .iter()
            .rfind(|batch| batch.header.producer_id == id)
            .is_some_and(|last| last.header.is_transactional() && !last.header.is_control())
    }

    /// The marker that ended the transaction of a batch, and whether by a commit.
    fn ended(&self, batch: &Written, aborted: &[AbortedTxn]) -> Option<(u64, bool)> {
        let marker = self.batches.iter().find(|it| {
            it.header.producer_id == batch.header.producer_id
                && it.header.is_control()
                && it.header.base_offset > batch.header.base_offset
        })?;
        let at = marker.header.base_offset;
        Some((at, !aborted.iter().any(|it| it.last_offset == at)))
    }

    /// Whether compaction had a reason to remove a record.
    pub(super) fn may_be_gone(
        &self,
        batch: &Written,
        record: &Rec,
        aborted: &[AbortedTxn],
    ) -> bool {
        let limit = self.compacted();
        let counts = |of: &Written| {
            !of.header.is_transactional()
                || self.ended(of, aborted).is_some_and(|(at, commit)| commit && at < limit)
        };
        if record.offset >= limit || record.offset < self.halved {
            return record.offset < self.halved;
        }
        let ended = self.ended(batch, aborted).filter(|_| batch.header.is_transactional());
        let aborts = ended.is_some_and(|(at, commit)| !commit && at < limit);
        let superseded = self.batches.iter().filter(|of| counts(of)).any(|of| {
            let newer = |it: &Rec| (record.offset + 1..limit).contains(&it.offset);
            !of.header.is_control() && of.records.iter().any(|it| newer(it) && it.key == record.key)
        });
        let first = self.looked.iter().find(|(end, _)| *end > record.offset).map(|it| it.1);
        let last = self.looked.last().map(|it| it.1);
        let tombstone = record.value.is_none()
            && last.zip(first).is_some_and(|(last, first)| last >= first + TOMBSTONES_MS);
        record.key.is_some() && (superseded || tombstone) || aborts
    }
}
