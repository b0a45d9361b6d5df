//! Appending, as a leader and as a follower.

use super::segment::Segment;
use super::{Appended, Log, MAX_OFFSET, MAX_SEGMENT_BYTES, Slot, State, Writer};
use crate::LogError;
use crate::format::{BatchHeader, FormatError, ValidBatch, check_batch};
use bytes::Bytes;
use ottla_proto::{LeaderEpoch, MAX_BATCH_BYTES, Offset};
use std::sync::Arc;

/// Most bytes in one append. They go into one segment, whose positions are
/// 31-bit, and a failed append must be small enough to cut away at once.
pub const MAX_APPEND_BYTES: usize = 256 * 1024 * 1024;

impl Log {
    /// Appends `batches` in order: numbers their records from the log end
    /// offset, stamps `epoch`, and writes all of them or none. Readable at once,
    /// durable after [`Log::sync`]. A new epoch is recorded first, as by
    /// [`Log::start_epoch`].
    ///
    /// # Errors
    /// `Invalid` for none or too much at once, `EpochWentBack`, `DiskFull`
    /// (nothing was appended), `Io` (the log is offline now), `Offline`.
    pub fn append_as_leader(
        &self,
        mut batches: Vec<ValidBatch>,
        epoch: LeaderEpoch,
    ) -> Result<Appended, LogError> {
        check_epoch(epoch)?;
        let mut writer = self.writer.lock();
        let end = self.state.read().end;
        let mut next = end;
        for batch in &mut batches {
            check_offset(next)?;
            batch.stamp(next, epoch);
            next = batch.header().next_offset();
        }
        let buffers: Vec<&[u8]> = batches.iter().map(ValidBatch::as_bytes).collect();
        let headers: Vec<BatchHeader> = batches.iter().map(|batch| *batch.header()).collect();
        self.append_run(&mut writer, &buffers, &headers)
    }

    /// Appends whole batches that a leader numbered and stamped, as they are.
    /// The first must start at the log end offset. Their CRCs are verified,
    /// their records were by the leader. New epochs are recorded first.
    ///
    /// # Errors
    /// As [`Log::append_as_leader`], and `NotContiguous`.
    pub fn append_as_follower(&self, batches: Bytes) -> Result<Appended, LogError> {
        let mut headers = Vec::new();
        let mut position = 0;
        while position < batches.len() {
            let header = check_batch(&batches[position..])?;
            check_epoch(header.leader_epoch)?;
            check_offset(header.base_offset)?;
            position += header.total_len();
            headers.push(header);
        }
        let mut writer = self.writer.lock();
        self.append_run(&mut writer, &[&batches], &headers)
    }

    /// Records that `epoch` starts at the log end offset, durably: what a new
    /// leader does before its first append. Does nothing if it is the last
    /// epoch already.
    ///
    /// # Errors
    /// `EpochWentBack`, `DiskFull`, `Io` (offline now), `Offline`; `Invalid` for
    /// an epoch above 2^31 - 1.
    pub fn start_epoch(&self, epoch: LeaderEpoch) -> Result<(), LogError> {
        check_epoch(epoch)?;
        let mut writer = self.writer.lock();
        let end = self.state.read().end;
        self.record_epochs(&mut writer, [(epoch, end)].into_iter())
    }

    /// Writes stamped batches that follow the log end. `headers` describe what
    /// is in `buffers`.
    fn append_run(
        &self,
        writer: &mut Writer,
        buffers: &[&[u8]],
        headers: &[BatchHeader],
    ) -> Result<Appended, LogError> {
        let (Some(first), Some(last)) = (headers.first(), headers.last()) else {
            return Err(FormatError::NoRecords.into());
        };
        let size = buffers.iter().map(|buffer| buffer.len()).sum::<usize>();
        check_sizes(size, headers)?;
        let (expected, last_epoch) = {
            let state = self.state.read();
            state.check_online()?;
            (state.end, state.epochs.last())
        };
        check_order(expected, last_epoch, headers)?;
        let epochs = headers.iter().map(|header| (header.leader_epoch, header.base_offset));
        self.record_epochs(writer, epochs)?;
        let slot = self
            .roll_if_full(size, last.last_offset())
            .inspect_err(|_| self.forget_epochs_beyond_end(writer))?;
        if let Err(error) = slot.segment.file.write_all_at(slot.size, buffers) {
            self.forget_epochs_beyond_end(writer);
            return Err(self.undo_write(&slot, error));
        }
        self.note_in_index(&slot, headers);
        let mut state = self.state.write();
        assert_eq!(state.end, first.base_offset, "only the writer moves the end");
        let active = state.slots.last_mut().expect("a log has at least one segment");
        active.size += size as u64;
        state.end = last.next_offset();
        Ok(Appended {
            first_offset: first.base_offset,
            end_offset: last.next_offset(),
            base_offsets: headers.iter().map(|header| header.base_offset).collect(),
        })
    }

    /// Durably notes epochs that are new, before records of theirs are written.
    fn record_epochs(
        &self,
        writer: &mut Writer,
        epochs: impl Iterator<Item = (LeaderEpoch, Offset)>,
    ) -> Result<(), LogError> {
        let changed = {
            let state = self.state.read();
            state.check_online()?;
            let mut changed = writer.epochs_stale.then(|| state.epochs.clone());
            for (epoch, start) in epochs {
                let known = changed.as_ref().unwrap_or(&state.epochs).last();
                match known {
                    Some(last) if epoch < last => {
                        return Err(LogError::EpochWentBack { last, got: epoch });
                    }
                    Some(last) if epoch == last => {}
                    _ => {
                        changed.get_or_insert_with(|| state.epochs.clone()).assign(epoch, start);
                    }
                }
            }
            changed
        };
        if let Some(epochs) = changed {
            self.write_epochs(writer, &epochs)?;
            self.state.write().epochs = epochs;
        }
        Ok(())
    }

    /// After a failed append: epochs noted for records that were not written
    /// are untrue. The file still holds them until the next change.
    fn forget_epochs_beyond_end(&self, writer: &mut Writer) {
        let mut state = self.state.write();
        let end = state.end;
        if state.epochs.truncate_beyond(end) {
            writer.epochs_stale = true;
        }
    }

    /// Cuts away what a failed write may have left. If that works, a full disk
    /// is only a full disk. Durably, for whole batches may have been written:
    /// they must not come back after "nothing was appended".
    fn undo_write(&self, slot: &Slot, error: std::io::Error) -> LogError {
        let error = LogError::io("write", &slot.segment.path, error);
        let _gate = self.gate.lock();
        if slot.segment.file.set_len(slot.size).is_err() {
            return self.offline(error);
        }
        if let Err(error) = self.sync_file(&slot.segment) {
            return error;
        }
        let mut state = self.state.write();
        if state.offline.is_none() {
            state.synced = state.end;
        }
        drop(state);
        self.offline_unless_full(error)
    }

    fn note_in_index(&self, slot: &Slot, headers: &[BatchHeader]) {
        let segment = &slot.segment;
        let mut index = segment.index.lock();
        let mut position = slot.size;
        for header in headers {
            segment.note(&mut index, header, position, self.config.index_interval_bytes);
            position += header.total_len() as u64;
        }
    }

    /// The segment that takes the next `size` bytes up to `last_offset`.
    fn roll_if_full(&self, size: usize, last_offset: Offset) -> Result<Slot, LogError> {
        let active = self.state.read().active().clone();
        let limit = self.config.segment_bytes.min(MAX_SEGMENT_BYTES);
        let index_full =
            active.segment.index.lock().resident_len() >= self.config.max_index_entries as usize;
        let too_far = last_offset - active.segment.base > i32::MAX as u64;
        let too_large = active.size + size as u64 > limit;
        if active.size == 0 || !(too_large || too_far || index_full) {
            return Ok(active);
        }
        self.roll()
    }

    /// Finishes the active segment and begins the next. The finished one is
    /// synced first: recovery relies on only the last segment being unsynced.
    fn roll(&self) -> Result<Slot, LogError> {
        let _gate = self.gate.lock();
        let (active, end) = {
            let state = self.state.read();
            state.check_online()?; // a sync may have failed while we waited
            (state.active().clone(), state.end)
        };
        self.sync_file(&active.segment)?;
        self.state.write().synced = end;
        let segment = Segment::create(&*self.vfs, &self.dir, end)
            .map_err(|error| self.offline_unless_full(error))?;
        self.sync_dir()?;
        let slot = Slot { segment: Arc::new(segment), size: 0 };
        self.publish_slot(&mut self.state.write(), slot.clone());
        // A missing index is made anew when it is needed.
        if let Err(error) = active.segment.index.lock().seal(&*self.vfs) {
            tracing::warn!(path = %active.segment.path.display(), %error, "index not written");
        }
        Ok(slot)
    }

    fn publish_slot(&self, state: &mut State, slot: Slot) {
        assert_eq!(slot.segment.base, state.end, "a segment starts at the log end");
        state.slots.push(slot);
    }
}

fn check_epoch(epoch: LeaderEpoch) -> Result<(), LogError> {
    if epoch.0 > i32::MAX as u32 {
        return Err(FormatError::Field { field: "leader epoch", value: epoch.0.into() }.into());
    }
    Ok(())
}

fn check_offset(offset: Offset) -> Result<(), LogError> {
    if offset > MAX_OFFSET {
        return Err(FormatError::Field { field: "base offset", value: offset as i64 }.into());
    }
    Ok(())
}

fn check_sizes(size: usize, headers: &[BatchHeader]) -> Result<(), LogError> {
    let largest = headers.iter().map(BatchHeader::total_len).max().unwrap_or(0);
    if largest > MAX_BATCH_BYTES {
        return Err(FormatError::TooLarge { size: largest, limit: MAX_BATCH_BYTES }.into());
    }
    if size > MAX_APPEND_BYTES {
        return Err(FormatError::TooLarge { size, limit: MAX_APPEND_BYTES }.into());
    }
    Ok(())
}

/// Batches must follow each other and the log, in offsets and in epochs.
fn check_order(
    mut expected: Offset,
    mut last_epoch: Option<LeaderEpoch>,
    headers: &[BatchHeader],
) -> Result<(), LogError> {
    for header in headers {
        if header.base_offset != expected {
            return Err(LogError::NotContiguous { expected, got: header.base_offset });
        }
        if let Some(last) = last_epoch.filter(|last| header.leader_epoch < *last) {
            return Err(LogError::EpochWentBack { last, got: header.leader_epoch });
        }
        expected = header.next_offset();
        last_epoch = Some(header.leader_epoch);
    }
    Ok(())
}
