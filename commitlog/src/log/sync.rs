//! Group commit, and the syncs that nobody asks for.

use super::segment::Segment;
use super::{Log, Unsynced};
use crate::LogError;
use ottla_proto::Offset;
use std::time::Instant;

impl Log {
    /// Makes everything appended before the call durable, and returns the
    /// offset below which all is. Appends go on meanwhile. Callers share: those
    /// who come while an fdatasync runs are all served by the next one.
    ///
    /// # Errors
    /// `Io` when the fdatasync fails: what was not synced before may be lost,
    /// and the log is offline from then on (a failed fdatasync is not retried,
    /// its pages may be gone). `Offline` afterwards.
    pub fn sync(&self) -> Result<Offset, LogError> {
        let (wanted, generation) = {
            let state = self.state.read();
            state.check_online()?;
            if state.synced == state.end {
                return Ok(state.synced);
            }
            (state.end, state.generation)
        };
        let called = Instant::now();
        let synced = self.sync_to(wanted, generation);
        self.shared.figures().sync_wait_micros.add_duration(called.elapsed());
        synced
    }

    fn sync_to(&self, wanted: Offset, generation: u64) -> Result<Offset, LogError> {
        let _gate = self.gate.lock();
        let segment = {
            let state = self.state.read();
            state.check_online()?;
            // Served by whoever held the gate, unless a truncation made the
            // offsets mean something else.
            let served = state.generation == generation && state.synced >= wanted;
            if served || state.synced == state.end {
                return Ok(state.synced);
            }
            // Earlier segments were synced when they were finished.
            state.active().segment.clone()
        };
        let end = self.sync_active(&segment)?;
        if let Err(error) = segment.index.lock().flush_if_due(self.vfs()) {
            tracing::warn!(path = %segment.path.display(), %error, "index not written");
        }
        Ok(end)
    }

    /// Syncs the segment being written; the offset below which all is durable.
    /// The caller holds the gate, so that it stays the one being written.
    pub(super) fn sync_active(&self, segment: &Segment) -> Result<Offset, LogError> {
        // What is appended from here on may be synced or not.
        let (covered, end) = {
            let mut state = self.state.write();
            (std::mem::take(&mut state.unsynced), state.end)
        };
        self.sync_file(segment)?;
        let mut state = self.state.write();
        assert!(state.synced <= end && end <= state.end, "the gate keeps truncations out");
        let records = end - state.synced;
        state.synced = end;
        drop(state);
        let figures = self.shared.figures();
        figures.sync_appends.add(covered.appends);
        figures.sync_records.add(records);
        figures.sync_bytes.add(covered.bytes);
        Ok(end)
    }

    /// The caller holds the gate. Any failure is final.
    pub(super) fn sync_file(&self, segment: &Segment) -> Result<(), LogError> {
        let begun = Instant::now();
        let result = segment.file.sync_data();
        self.shared.figures().sync_micros.add_duration(begun.elapsed());
        result.map_err(|source| {
            let (operation, path) = ("fdatasync", segment.path.clone());
            self.offline(LogError::Io { operation, path, source })
        })
    }

    /// Whether `flush.messages` or `flush.ms` asks for a [`Log::sync`]: whoever
    /// looks after the log asks this from time to time, milliseconds since the
    /// Unix epoch. A follower is not told when it appends: for it the time counts
    /// from the first call that finds something unsynced.
    pub fn flush_due(&self, now_ms: i64) -> bool {
        let config = self.config();
        if config.flush_ms.is_none() && config.flush_messages.is_none() {
            return false;
        }
        let mut state = self.state.write();
        let records = state.end.saturating_sub(state.synced);
        if records == 0 || state.offline.is_some() {
            return false;
        }
        let Unsynced { since_ms, .. } = &mut state.unsynced;
        let since = *since_ms.get_or_insert(now_ms);
        let age = u64::try_from(now_ms.saturating_sub(since)).unwrap_or(0);
        config.flush_messages.is_some_and(|most| records >= most)
            || config.flush_ms.is_some_and(|longest| age >= longest)
    }
}
