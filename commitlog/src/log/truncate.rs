//! Removing records: from the end, from the start, or all.

use super::epochs::Epochs;
use super::segment::{Segment, remove_files};
use super::{Log, MAX_OFFSET, Slot, Unsynced, Writer};
use crate::LogError;
use crate::producers::Producers;
use ottla_proto::Offset;
use std::sync::Arc;

impl Log {
    /// Removes every record from `end` on, durably. A batch that holds `end`
    /// goes as a whole, so the log may end earlier. Epochs that would start at
    /// `end` or behind are forgotten, also where no record is removed
    /// (KAFKA-10706). All that remains is synced.
    ///
    /// # Errors
    /// `OutOfRange` below the log start offset; `Io` (offline now), `Offline`;
    /// `DiskFull` when only forgetting the epochs could not be written: the
    /// records are gone, and another call writes it.
    pub fn truncate_to(&self, end: Offset) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        let _gate = self.gate.lock();
        let _shape = self.shape.lock();
        let (target, start) = {
            let state = self.state.read();
            state.check_online()?;
            if end < state.start {
                let (start, end_offset) = (state.start, state.end);
                return Err(LogError::OutOfRange { requested: end, start, end: end_offset });
            }
            ((end < state.end).then(|| state.slots[state.slot_of(end)].clone()), state.start)
        };
        if let Some(slot) = &target {
            self.cut(slot, end, start)?;
            self.cut_producers(&slot.segment)?;
        }
        let epochs = {
            let mut state = self.state.write();
            let kept = if target.is_some() { state.end } else { end };
            let known = state.epochs.len();
            state.epochs.truncate_from(kept);
            // One that has no records starts at the end, so it goes first, and is
            // not on record.
            let begun = usize::from(std::mem::take(&mut writer.epoch_begun));
            let changed = known - state.epochs.len() > begun;
            (changed || writer.epochs_stale).then(|| state.epochs.clone())
        };
        match epochs {
            Some(epochs) => self.write_epochs(&mut writer, &epochs),
            None => Ok(()),
        }
    }

    /// Cuts within `slot`, which holds `target`, and drops what follows it.
    fn cut(&self, slot: &Slot, target: Offset, start: Offset) -> Result<(), LogError> {
        let segment = &slot.segment;
        let interval = self.config().index_interval_bytes;
        let Some((header, position)) = segment.locate(self.vfs(), target, slot.size, interval)?
        else {
            return Err(LogError::corrupt(&segment.path, slot.size, "ends before its successor"));
        };
        // The batch may have begun below the log start: it goes all the same.
        self.cut_at(segment, position, header.base_offset.max(start))
    }

    /// Cuts `segment` at `position` and drops those that follow. Durable.
    fn cut_at(&self, segment: &Segment, position: u64, new_end: Offset) -> Result<(), LogError> {
        self.forget_clean_beyond(new_end)?;
        let removed = {
            let mut state = self.state.write();
            let keep = state.slot_of(segment.base) + 1;
            let removed = state.slots.split_off(keep);
            state.slots[keep - 1].size = position;
            state.generation += 1;
            state.end = new_end;
            state.synced = state.synced.min(new_end);
            removed
        };
        self.tail.truncate(new_end);
        // Last first, each durably: a crash must not leave a hole.
        for gone in removed.iter().rev() {
            self.remove_segment(gone.segment.base)?;
            self.sync_dir()?;
        }
        segment
            .file
            .set_len(position)
            .map_err(|error| self.offline(LogError::io("truncate", &segment.path, error)))?;
        self.sync_file(segment)?;
        let interval = self.config().index_interval_bytes;
        segment.truncate_index(self.vfs(), position, new_end, interval)?;
        let mut state = self.state.write();
        (state.synced, state.unsynced) = (new_end, Unsynced::default());
        Ok(())
    }

    /// Removes a segment's files; that they are gone already is no error.
    fn remove_segment(&self, base: Offset) -> Result<(), LogError> {
        remove_files(self.vfs(), &self.dir, base).map_err(|error| self.offline(error))
    }

    /// Removes everything and continues at `start`, with no known epoch.
    /// Durable. A crash in the midst of it leaves the log as it was, or a
    /// beginning of it, or empty.
    ///
    /// # Errors
    /// `OutOfRange` above [`MAX_OFFSET`]; `DiskFull` (the log is as it was, or
    /// empty at its old start), `Io` (offline now), `Offline`.
    pub fn reset_to(&self, start: Offset) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        let _gate = self.gate.lock();
        let _shape = self.shape.lock();
        let (first, backward, old_start) = {
            let state = self.state.read();
            state.check_online()?;
            if start > MAX_OFFSET {
                let end = MAX_OFFSET;
                return Err(LogError::OutOfRange { requested: start, start: 0, end });
            }
            (Arc::clone(&state.slots[0].segment), start < state.end, state.start)
        };
        // Epochs first: records without them are walked for them at the next
        // start, but epochs without records would be believed.
        self.write_epochs(&mut writer, &Epochs::default())?;
        writer.epochs_stale = true;
        self.drop_snapshots([first.base, start])?;
        if backward {
            // A start further back would bring what is there to light.
            self.cut_at(&first, 0, old_start)?;
            self.clear_producers(&first)?;
            self.state.write().epochs = Epochs::default();
        }
        let moved = self.move_to(start);
        if matches!(moved, Err(LogError::DiskFull { .. })) {
            // Worth a try: else the next change, or the next start, does it.
            let epochs = self.state.read().epochs.clone();
            let _ = self.write_epochs(&mut writer, &epochs);
        }
        writer.epochs_stale &= moved.is_err();
        moved
    }

    /// Begins anew at `start`, to which the log does not reach, or which is its
    /// end, or it is empty: with `start` on record, what is there is obsolete.
    fn move_to(&self, start: Offset) -> Result<(), LogError> {
        let reused = {
            let state = self.state.read();
            let active = state.active();
            (active.segment.base == start && active.size == 0).then(|| active.clone())
        };
        // Until then recovery drops the new segment, which follows nothing.
        let created = reused.is_none();
        let slot = match reused {
            Some(slot) => slot,
            None => {
                // As where a segment ends: a crash may only touch the last one,
                // what is torn in another would be damage.
                let active = self.state.read().active().segment.clone();
                self.sync_active(&active)?;
                let segment = Segment::create(self.vfs(), &self.dir, start)
                    .map_err(|error| self.offline_unless_full(error))?;
                self.sync_dir()?;
                Slot { segment: Arc::new(segment), size: 0 }
            }
        };
        if let Err(error) = self.write_start(start) {
            if created {
                self.remove_segment(start)?;
                self.sync_dir()?;
            }
            return Err(error);
        }
        let old = {
            let mut state = self.state.write();
            let kept = std::mem::replace(&mut state.slots, vec![slot]);
            (state.start, state.end, state.synced) = (start, start, start);
            state.unsynced = Unsynced::default();
            state.epochs = Epochs::default();
            state.producers = Producers::default();
            state.generation += 1;
            kept
        };
        self.tail.truncate(0);
        for gone in old.iter().filter(|gone| gone.segment.base != start) {
            self.remove_segment(gone.segment.base)?;
        }
        self.sync_dir()
    }

    /// Raises the log start offset to `start`, durably, and deletes segments
    /// that lie wholly below. Lower than the log start offset: does nothing.
    ///
    /// # Errors
    /// `OutOfRange` above the log end offset; `DiskFull` (what was not done yet
    /// is by the next call or start), `Io` (offline now), `Offline`.
    pub fn delete_before(&self, start: Offset) -> Result<(), LogError> {
        let synced = self.bounds().synced;
        if start > synced {
            // A start must never be beyond what a crash leaves.
            self.sync()?;
        }
        let mut writer = self.writer.lock();
        {
            let state = self.state.read();
            state.check_online()?;
            if start <= state.start {
                return Ok(());
            }
            if start > state.synced {
                let (requested, end) = (start, state.end);
                return Err(LogError::OutOfRange { requested, start: state.start, end });
            }
        }
        self.raise_start(&mut writer, start)
    }

    /// The part of [`Log::delete_before`] behind its checks: everything below
    /// `start`, which is above the log start, is synced.
    pub(super) fn raise_start(&self, writer: &mut Writer, start: Offset) -> Result<(), LogError> {
        let _shape = self.shape.lock();
        self.write_start(start)?;
        let (removed, epochs) = {
            let mut state = self.state.write();
            state.start = start;
            let first = state.slot_of(start);
            let removed: Vec<Slot> = state.slots.drain(..first).collect();
            (removed, state.epochs.raise_start(start).then(|| state.epochs.clone()))
        };
        for gone in &removed {
            self.remove_segment(gone.segment.base)?;
        }
        if !removed.is_empty() {
            self.sync_dir()?;
        }
        match epochs {
            Some(epochs) => self.write_epochs(writer, &epochs),
            None => Ok(()),
        }
    }
}
