//! When a segment is full, and how the next one begins.
//!
//! Not its job: what is written into it.

use super::segment::Segment;
use super::{Log, MAX_SEGMENT_BYTES, Slot, State};
use crate::format::BatchHeader;
use crate::{LogConfig, LogError};
use std::sync::Arc;

impl Log {
    /// The segment that takes the next `size` bytes, which hold `headers`. Age is
    /// that of the records, not of the file: so followers roll as leaders did.
    pub(super) fn roll_if_full(
        &self,
        config: &LogConfig,
        size: usize,
        headers: &[BatchHeader],
    ) -> Result<Slot, LogError> {
        let active = self.state.read().active().clone();
        if active.size == 0 {
            return Ok(active);
        }
        let segment = &active.segment;
        let limit = config.segment_bytes.min(MAX_SEGMENT_BYTES);
        let entries = segment.index.lock().resident_len();
        let index_full = entries >= config.max_index_entries as usize;
        let last = headers.last().map_or(segment.base, BatchHeader::last_offset);
        let too_far = last - segment.base > i32::MAX as u64;
        let too_large = active.size + size as u64 > limit;
        let newest = headers.iter().map(|header| header.max_timestamp).max();
        let first = segment.first_timestamp(active.size)?;
        let age = newest.zip(first).map_or(0, |(newest, first)| newest.saturating_sub(first));
        let too_old = u64::try_from(age).unwrap_or(0) > config.longest_segment_ms();
        if too_large || too_far || index_full || too_old { self.roll() } else { Ok(active) }
    }

    /// Finishes the segment being written and begins the next, if there is
    /// anything in it: for retention and compaction, which leave that one alone.
    /// Returns whether it did.
    ///
    /// # Errors
    /// `DiskFull` (nothing has changed), `Io` (offline now), `Offline`.
    pub fn finish_segment(&self) -> Result<bool, LogError> {
        let _writer = self.writer.lock();
        let empty = self.state.read().active().size == 0;
        if !empty {
            self.roll()?;
        }
        Ok(!empty)
    }

    /// Finishes the active segment, which is not empty, and begins the next; the
    /// caller is the writer. The finished one is synced first: recovery relies on
    /// only the last segment being unsynced.
    pub(super) fn roll(&self) -> Result<Slot, LogError> {
        let _gate = self.gate.lock();
        let (active, end) = {
            let state = self.state.read();
            state.check_online()?; // a sync may have failed while we waited
            (state.active().clone(), state.end)
        };
        self.sync_active(&active.segment)?;
        active.segment.finish_index(self.vfs());
        self.seal_aborted(&active.segment)?;
        let segment = Segment::create(self.vfs(), &self.dir, end)
            .map_err(|error| self.offline_unless_full(error))?;
        self.take_snapshot(end);
        self.sync_dir()?;
        let slot = Slot { segment: Arc::new(segment), size: 0 };
        self.publish_slot(&mut self.state.write(), slot.clone());
        active.segment.index.lock().forget();
        Ok(slot)
    }

    fn publish_slot(&self, state: &mut State, slot: Slot) {
        assert_eq!(slot.segment.base, state.end, "a segment starts at the log end");
        state.slots.push(slot);
    }
}
