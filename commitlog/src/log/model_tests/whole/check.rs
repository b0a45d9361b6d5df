//! That a log is what its model says.

use super::Run;
use super::model::{Rec, records_of};
use crate::format::{BatchHeader, batch_headers};
use crate::log::Log;
use crate::producers::{AbortedTxn, Judge, Verdict};
use bytes::Bytes;
use std::path::Path;

impl Run {
    /// The log must be exactly the model, but for what compaction may remove.
    pub(super) fn check(&mut self) {
        let (log, model) = (self.log(), &self.model);
        let bounds = log.bounds();
        assert_eq!((bounds.start, bounds.end), (model.start, model.end));
        assert!((model.synced..=model.end).contains(&bounds.synced), "{bounds:?}");
        let batches = self.read_all();
        self.check_records(&batches);
        self.check_epochs();
        self.check_producers(&batches);
        self.check_timestamps(&batches);
        // More may be synced than was asked for: it is held to its word.
        self.model.synced = bounds.synced;
    }

    /// Every batch; each offset is covered by exactly one.
    fn read_all(&self) -> Vec<(BatchHeader, Bytes)> {
        let (mut next, mut all) = (self.model.start, Vec::new());
        while next < self.model.end {
            let bytes = self.log().read(next, u64::MAX, 200).expect("reads");
            assert!(!bytes.is_empty());
            for batch in batch_headers(&bytes) {
                let (header, range) = batch.expect("whole");
                let first = all.is_empty() && header.base_offset <= next;
                assert!(first || header.base_offset == next, "{header:?} where {next} follows");
                next = header.next_offset();
                all.push((header, bytes.slice(range)));
            }
        }
        all
    }

    fn check_records(&self, batches: &[(BatchHeader, Bytes)]) {
        let (_, aborted) = self.model.producers();
        let limit = self.model.compacted();
        let found: Vec<Rec> = batches.iter().flat_map(|(_, bytes)| records_of(bytes)).collect();
        let mut expected = Vec::new();
        for written in &self.model.batches {
            if written.header.last_offset() < self.model.start {
                continue;
            }
            if written.header.base_offset >= limit {
                let same = |(_, bytes): &&(BatchHeader, Bytes)| *bytes == written.bytes;
                assert!(batches.iter().any(|it| same(&it)), "{:?} is changed", written.header);
            }
            for record in written.records.iter().filter(|it| it.offset >= self.model.start) {
                let there = found.contains(record);
                let may_go = written.header.is_control()
                    || self.model.may_be_gone(written, record, &aborted);
                let control = written.header.is_control() && record.offset < limit;
                assert!(there || control || may_go && record.offset < limit, "{record:?} is gone");
                expected.push(record);
            }
        }
        for record in found.iter().filter(|it| it.offset >= self.model.start) {
            assert!(expected.contains(&record), "{record:?} was never written");
        }
    }

    fn check_epochs(&self) {
        let mut known = None;
        let readable = |it: &BatchHeader| it.last_offset() >= self.model.start;
        for header in self.model.batches.iter().map(|it| &it.header).filter(|it| readable(it)) {
            if known != Some(header.leader_epoch) {
                let start = header.base_offset.max(self.model.start);
                assert_eq!(self.log().epoch_start(header.leader_epoch), Some(start));
                known = Some(header.leader_epoch);
            }
        }
    }

    fn check_producers(&self, batches: &[(BatchHeader, Bytes)]) {
        let (expected, aborted) = self.model.producers();
        let state = self.log().state.read();
        if !self.model.producers_rebuilt {
            assert_eq!(state.producers, expected);
        }
        for id in 1..3 {
            // The last batch is known again, whatever happened.
            if let Some(last) = self.model.batches_of(id).last()
                && let Some(step) = &last.step
                && last.header.last_offset() >= self.model.start
            {
                let verdict = Judge::new(&state.producers).judge(step);
                assert_eq!(verdict, Verdict::Duplicate(last.header.base_offset));
            }
        }
        drop(state);
        let upper = self.log().last_stable_offset(self.model.end);
        if !self.model.producers_rebuilt {
            let unstable = expected.first_unstable(self.model.end).unwrap_or(u64::MAX);
            assert_eq!(upper, self.model.end.min(unstable.max(self.model.start)));
        }
        let middle = self.model.start + (upper - self.model.start) / 2;
        for from in [self.model.start, middle] {
            self.check_aborted(from, upper, &aborted, batches);
        }
    }

    fn check_aborted(
        &self,
        from: u64,
        upper: u64,
        aborted: &[AbortedTxn],
        batches: &[(BatchHeader, Bytes)],
    ) {
        let found = self.log().aborted_transactions(from, upper).expect("reads");
        let same = |it: &AbortedTxn| (it.producer_id, it.last_offset);
        let found: Vec<_> = found.iter().map(same).collect();
        let all: Vec<_> = aborted.iter().filter(|it| it.touches(from, upper)).map(same).collect();
        assert!(found.iter().all(|it| all.contains(it)), "{found:?} of {all:?}");
        for it in aborted.iter().filter(|it| it.touches(from, upper)) {
            let has_data = batches.iter().any(|(header, bytes)| {
                header.producer_id == it.producer_id
                    && !header.is_control()
                    && (it.first_offset..it.last_offset).contains(&header.base_offset)
                    && records_of(bytes).iter().any(|r| (from..upper).contains(&r.offset))
            });
            assert!(!has_data || found.contains(&same(it)), "{it:?} is not in {found:?}");
        }
    }

    fn check_timestamps(&self, batches: &[(BatchHeader, Bytes)]) {
        let mut found: Vec<Rec> = batches.iter().flat_map(|(_, bytes)| records_of(bytes)).collect();
        found.retain(|record| record.offset >= self.model.start);
        let probes = found.iter().step_by(1 + found.len() / 4).map(|it| it.timestamp_ms);
        for timestamp in probes.chain([0, self.now_ms, self.now_ms + 1]) {
            let first = found.iter().find(|it| it.timestamp_ms >= timestamp);
            let expected = first.map(|it| (it.offset, it.timestamp_ms));
            let answer = self.log().offset_for_timestamp(timestamp, u64::MAX).expect("reads");
            assert_eq!(answer, expected, "{timestamp}");
        }
    }

    pub(super) fn verify(&self) {
        let found = Log::verify(&self.vfs, Path::new("/log")).expect("reads");
        assert_eq!(found.damage().collect::<Vec<_>>(), Vec::<&crate::inspect::Problem>::new());
        assert_eq!((found.start, found.end), (self.model.start, self.model.end));
    }
}
