//! The producers' state while a log is opened: found in snapshots, fed what is
//! scanned, and settled at the log's end.

use super::aborted::rebuild;
use super::open::Opening;
use super::segment::Segment;
use super::snapshots;
use super::txn_index::TxnIndex;
use crate::LogError;
use crate::format::BatchHeader;
use crate::producers::Producers;
use bytes::Bytes;
use ottla_proto::Offset;

impl Opening<'_> {
    /// The state at the start of the segment where a scan begins.
    pub(super) fn begin_producers(&mut self, at: Offset) -> Result<(), LogError> {
        let interval = self.config.index_interval_bytes;
        let restored = snapshots::state_at(self.vfs, self.dir, &self.slots, at, interval)?;
        if restored.rebuilt {
            self.recovery.producers_rebuilt = true;
            self.keep_rebuilt(at, &restored.producers);
        }
        self.producers = Some(restored.producers);
        Ok(())
    }

    /// The next start finds what this one had to look for.
    fn keep_rebuilt(&self, at: Offset, producers: &Producers) {
        let bytes = producers.encode(at);
        let written = snapshots::write_durably(self.vfs, self.dir, at, &bytes);
        if let Err(error) = written.and_then(|()| self.vfs.sync_dir(self.dir)) {
            tracing::warn!(dir = %self.dir.display(), %error, "producers' state not written");
        }
    }

    /// Before a segment is scanned: its aborted transactions are found anew.
    pub(super) fn begin_segment(&self, segment: &Segment) -> Result<(), LogError> {
        let cleared = segment.aborted.lock().clear(self.vfs);
        cleared.map_err(|error| LogError::io("remove", &segment.path, error))
    }

    /// Takes note of a good batch that was scanned.
    pub(super) fn note_producer(&mut self, segment: &Segment, header: &BatchHeader, bytes: &[u8]) {
        let step = snapshots::step_of(header, || Bytes::copy_from_slice(bytes));
        let producers = self.producers.get_or_insert_default();
        let step = step.unwrap_or_else(|error| {
            tracing::warn!(path = %segment.path.display(), %error, "no marker in a control batch");
            None
        });
        if let Some(aborted) = step.and_then(|step| producers.apply(&step)) {
            segment.aborted.lock().note_in_bulk(self.vfs, aborted);
        }
    }

    /// After a segment was scanned.
    pub(super) fn end_segment(&self, segment: &Segment) {
        let mut index = segment.aborted.lock();
        let seen = self.producers.as_ref().is_some_and(Producers::has_seen_transactions);
        if let Err(error) = if seen { index.seal(self.vfs) } else { Ok(()) } {
            tracing::warn!(path = %segment.path.display(), %error, "aborted not written");
        }
    }

    /// The state at the log's end, and the snapshot nearest to it. Removes those
    /// that could be mistaken for one of what will follow.
    pub(super) fn settle_producers(
        &mut self,
        end: Offset,
    ) -> Result<(Producers, Option<Offset>), LogError> {
        let scanned = self.producers.take();
        let of_segment = |at: &Offset| self.slots.iter().any(|slot| slot.segment.base == *at);
        let (kept, gone): (Vec<Offset>, Vec<Offset>) =
            snapshots::offsets(self.vfs, self.dir)?.into_iter().partition(|at| {
                // After a crash one that stands by itself is worth nothing.
                *at <= end && (of_segment(at) || (*at == end && scanned.is_none()))
            });
        for at in &gone {
            snapshots::remove(self.vfs, self.dir, *at)?;
        }
        if !gone.is_empty() {
            self.sync_dir()?;
        }
        if let Some(producers) = scanned {
            return Ok((producers, kept.last().copied()));
        }
        let interval = self.config.index_interval_bytes;
        let restored = snapshots::state_at(self.vfs, self.dir, &self.slots, end, interval)?;
        let mut snapshot = restored.snapshot;
        if restored.rebuilt {
            self.recovery.producers_rebuilt = true;
            self.keep_rebuilt(end, &restored.producers);
            snapshot = Some(end);
        }
        self.load_aborted(&restored.producers, interval)?;
        Ok((restored.producers, snapshot))
    }

    /// The segment being written must know how many it has aborted.
    fn load_aborted(&self, producers: &Producers, interval: u32) -> Result<(), LogError> {
        let Some(slot) = self.slots.last() else { return Ok(()) };
        let mut index = slot.segment.aborted.lock();
        if !producers.has_seen_transactions() {
            *index = TxnIndex::empty(&slot.segment.path);
            return Ok(());
        }
        match index.load(self.vfs) {
            Ok(()) => Ok(()),
            Err(why) => rebuild(self.vfs, self.dir, &self.slots, interval, &mut index, &why),
        }
    }
}
