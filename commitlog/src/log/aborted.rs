//! Aborted transactions of a log in use: how far readers of committed ones may
//! read, what they skip, and the indexes that say so.
//!
//! Not its job: the files (`txn_index.rs`), and what a transaction is
//! (`producers/`).

use super::segment::Segment;
use super::snapshots::{self, Restored};
use super::txn_index::TxnIndex;
use super::{Log, Slot};
use crate::LogError;
use crate::producers::{AbortedTxn, Step};
use crate::vfs::Vfs;
use ottla_proto::Offset;
use std::io;
use std::path::Path;

impl Log {
    /// How far readers of committed transactions may read while records below
    /// `high_watermark` are committed: up to the first record of a transaction
    /// that is open, or whose marker is not committed. Not below the log start.
    ///
    /// The caller reads the high watermark once and uses that figure for all of
    /// a read (KAFKA-9807).
    #[must_use]
    pub fn last_stable_offset(&self, high_watermark: Offset) -> Offset {
        let state = self.state.read();
        let unstable = state.producers.first_unstable(high_watermark);
        unstable.map_or(high_watermark, |first| high_watermark.min(first.max(state.start)))
    }

    /// The aborted transactions whose records a reader of `from..upper` meets,
    /// in the order of their markers. `upper` is at most the last stable offset.
    ///
    /// # Errors
    /// `OutOfRange`, as [`Log::read`]; `Io`; `Corrupt` where an index must be made
    /// again from bad batches.
    pub fn aborted_transactions(
        &self,
        from: Offset,
        upper: Offset,
    ) -> Result<Vec<AbortedTxn>, LogError> {
        loop {
            let (slots, first, generation) = {
                let state = self.state.read();
                if from < state.start || from > state.end {
                    let (start, end) = (state.start, state.end);
                    return Err(LogError::OutOfRange { requested: from, start, end });
                }
                if !state.producers.has_seen_transactions() {
                    return Ok(Vec::new());
                }
                (state.slots.clone(), state.slot_of(from), state.generation)
            };
            let found = self.find_aborted(&slots, first, from, upper);
            if self.state.read().generation == generation {
                return found;
            }
        }
    }

    pub(super) fn find_aborted(
        &self,
        slots: &[Slot],
        first: usize,
        from: Offset,
        upper: Offset,
    ) -> Result<Vec<AbortedTxn>, LogError> {
        let (vfs, interval) = (self.vfs(), self.config().index_interval_bytes);
        let mut found = Vec::new();
        for at in first..slots.len() {
            let segment = &slots[at].segment;
            let mut index = segment.aborted.lock();
            let before = found.len();
            let searched = index.load(vfs).and_then(|()| index.find(vfs, from, upper, &mut found));
            let complete = match searched {
                Ok(complete) => complete,
                Err(error) => {
                    found.truncate(before);
                    rebuild(vfs, &self.dir, &slots[..=at], interval, &mut index, &error)?;
                    index
                        .find(vfs, from, upper, &mut found)
                        .map_err(|error| LogError::io("read", &segment.path, error))?
                }
            };
            if complete {
                break;
            }
        }
        Ok(found)
    }

    /// Makes sure that what is appended next can be noted: nothing may wait from
    /// before that does not fit on the disk.
    pub(super) fn make_room_for(&self, slot: &Slot, steps: &[Step]) -> Result<(), LogError> {
        if !steps.iter().any(Step::is_marker) {
            return Ok(());
        }
        let segment = &slot.segment;
        segment.aborted.lock().flush(self.vfs()).map_err(|error| self.txn_error(segment, error))
    }

    pub(super) fn txn_error(&self, segment: &Segment, error: io::Error) -> LogError {
        let path = segment.path.with_extension("txnindex");
        self.offline_unless_full(LogError::io("write", &path, error))
    }

    /// Before the next segment begins: what this one aborted is made durable.
    pub(super) fn seal_aborted(&self, finished: &Segment) -> Result<(), LogError> {
        if !self.state.read().producers.has_seen_transactions() {
            return Ok(());
        }
        let sealed = finished.aborted.lock().seal(self.vfs());
        sealed.map_err(|error| self.txn_error(finished, error))
    }
}

/// Makes a segment's index of aborted transactions anew: the last of `slots`.
/// Nobody may have looked at it with success.
pub(super) fn rebuild(
    vfs: &dyn Vfs,
    dir: &Path,
    slots: &[Slot],
    interval: u32,
    index: &mut TxnIndex,
    why: &io::Error,
) -> Result<(), LogError> {
    let Some((slot, _)) = slots.split_last() else { return Ok(()) };
    let segment = &slot.segment;
    tracing::info!(path = %segment.path.display(), %why, "rebuilding the aborted transactions");
    let Restored { mut producers, .. } =
        snapshots::state_at(vfs, dir, slots, segment.base, interval)?;
    let mut rebuilt = TxnIndex::empty(&segment.path);
    snapshots::replay(
        vfs,
        slot,
        segment.base,
        Offset::MAX,
        interval,
        &mut producers,
        &mut |entry| {
            rebuilt.note(entry);
        },
    )?;
    rebuilt.detached = index.detached;
    *index = rebuilt;
    // Derived data: what a disk refuses is kept in memory.
    if !index.detached
        && let Err(error) = index.seal(vfs)
    {
        tracing::warn!(path = %segment.path.display(), %error, "aborted not written");
    }
    Ok(())
}
