//! Appending, as a leader and as a follower.

use super::compact;
use super::producer_state::{Admission, Placement};
use super::snapshots::step_of;
use super::{Appended, Log, MAX_OFFSET, Slot, Unsynced, Writer};
use crate::LogError;
use crate::format::{BatchHeader, FormatError, TimestampType, ValidBatch, check_batch};
use crate::producers::Step;
use crate::shared::Run;
use bytes::{Bytes, BytesMut};
use ottla_proto::{LeaderEpoch, MAX_BATCH_BYTES, Offset};

/// Most bytes in one append. They go into one segment, whose positions are
/// 31-bit, and a failed append must be small enough to cut away at once.
pub const MAX_APPEND_BYTES: usize = 256 * 1024 * 1024;

/// Batches below this are put together before they are written: copying them is
/// cheaper than a buffer of each in the write and in memory.
const GATHER_BELOW_BYTES: usize = 64 * 1024;

/// Memory that received bytes are taken to keep from being freed, as a multiple
/// of their length: they are a part of a message that was read into a buffer
/// which may be larger.
const RECEIVED_COST_FACTOR: usize = 2;

impl Unsynced {
    fn add(&mut self, bytes: usize, now_ms: Option<i64>) {
        self.appends += 1;
        self.bytes += bytes as u64;
        self.since_ms = self.since_ms.or(now_ms);
    }
}

impl Log {
    /// Appends `batches` in order: numbers their records from the log end
    /// offset, stamps `epoch`, and writes all of them or none. Readable at once,
    /// durable after [`Log::sync`]. A new epoch is recorded first, as by
    /// [`Log::start_epoch`]. `now_ms` is milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// `Invalid` for none or too much at once, `EpochWentBack`, `DiskFull`
    /// (nothing was appended), `Io` (the log is offline now), `Offline`.
    pub fn append_as_leader(
        &self,
        mut batches: Vec<ValidBatch>,
        epoch: LeaderEpoch,
        now_ms: i64,
    ) -> Result<Appended, LogError> {
        check_epoch(epoch)?;
        if now_ms < 0 {
            return Err(FormatError::Field { field: "append time", value: now_ms }.into());
        }
        let append_time = self.config().timestamp_type == TimestampType::LogAppendTime;
        let mut writer = self.writer.lock();
        let (placed, steps, end) = {
            let state = self.state.read();
            state.check_online()?;
            if let Some(last) = state.epochs.last().filter(|last| epoch < *last) {
                return Err(LogError::EpochWentBack { last, got: epoch });
            }
            let mut admission = Admission::new(&state);
            let mut placed = Vec::with_capacity(batches.len());
            let mut next = state.end;
            for batch in &mut batches {
                check_offset(next)?;
                if append_time {
                    batch.set_append_time(now_ms);
                }
                batch.stamp(next, epoch);
                let place = admission.admit(batch.header(), batch.as_bytes())?;
                if matches!(place, Placement::At(_)) {
                    next = batch.header().next_offset();
                }
                placed.push(place);
            }
            (placed, admission.steps, state.end)
        };
        let mut places = placed.iter();
        batches.retain(|_| matches!(places.next(), Some(Placement::At(_))));
        if batches.is_empty() && !placed.is_empty() {
            return Ok(Appended { first_offset: end, end_offset: end, placed });
        }
        let headers: Vec<BatchHeader> = batches.iter().map(|batch| *batch.header()).collect();
        self.append_run(&mut writer, gather(batches), &headers, &steps, Some(now_ms))?;
        let end_offset = headers[headers.len() - 1].next_offset();
        Ok(Appended { first_offset: end, end_offset, placed })
    }

    /// Appends whole batches that a leader numbered and stamped, as they are.
    /// The first must start at the log end offset, or be a placeholder that
    /// reaches beyond it, of which only that part is appended. Their CRCs are verified,
    /// their records were by the leader. New epochs are recorded first.
    ///
    /// # Errors
    /// As [`Log::append_as_leader`], and `NotContiguous`.
    pub fn append_as_follower(&self, batches: Bytes) -> Result<Appended, LogError> {
        let (mut headers, mut steps) = (Vec::new(), Vec::new());
        let mut position = 0;
        while position < batches.len() {
            let header = check_batch(&batches[position..])?;
            check_epoch(header.leader_epoch)?;
            check_offset(header.base_offset)?;
            let range = position..position + header.total_len();
            position = range.end;
            steps.extend(step_of(&header, || batches.slice(range))?);
            headers.push(header);
        }
        let mut run = match (headers.first(), headers.last()) {
            (Some(first), Some(last)) => {
                let (base, next) = (first.base_offset, last.next_offset());
                received(batches, base, next)
            }
            _ => return Err(FormatError::NoRecords.into()),
        };
        let mut writer = self.writer.lock();
        let end = self.state.read().end;
        if let Some(rest) = compact::rest_of_placeholder(&run.bytes, &mut headers, end) {
            run = received(rest, end, run.next);
        }
        self.append_run(&mut writer, vec![run], &headers, &steps, None)?;
        let placed: Vec<_> = headers.iter().map(|h| Placement::At(h.base_offset)).collect();
        let (first, last) = (headers[0].base_offset, headers[headers.len() - 1].next_offset());
        Ok(Appended { first_offset: first, end_offset: last, placed })
    }

    /// Notes that `epoch` starts at the log end offset: what a new leader does
    /// before its first append, which makes the note durable before a record of the
    /// epoch can be read. An epoch without records leaves no trace, and needs none:
    /// nobody has anything of it. Does nothing if it is the last epoch already.
    ///
    /// # Errors
    /// `EpochWentBack`, `Offline`; `Invalid` for an epoch above 2^31 - 1.
    pub fn start_epoch(&self, epoch: LeaderEpoch) -> Result<(), LogError> {
        check_epoch(epoch)?;
        let mut writer = self.writer.lock();
        let mut state = self.state.write();
        state.check_online()?;
        match state.epochs.last() {
            Some(last) if epoch < last => Err(LogError::EpochWentBack { last, got: epoch }),
            Some(last) if epoch == last => Ok(()),
            _ => {
                let (end, known) = (state.end, state.epochs.len());
                state.epochs.assign(epoch, end);
                // One that had no records either may be on record.
                writer.epochs_stale |= state.epochs.len() <= known;
                writer.epoch_begun = true;
                Ok(())
            }
        }
    }

    /// Writes stamped batches that follow the log end. `headers` describe what
    /// is in `runs`, `steps` those of producers among them.
    fn append_run(
        &self,
        writer: &mut Writer,
        runs: Vec<Run>,
        headers: &[BatchHeader],
        steps: &[Step],
        now_ms: Option<i64>,
    ) -> Result<(), LogError> {
        let (Some(first), Some(last)) = (headers.first(), headers.last()) else {
            return Err(FormatError::NoRecords.into());
        };
        let size = runs.iter().map(|run| run.bytes.len()).sum::<usize>();
        check_sizes(size, headers)?;
        let (expected, last_epoch) = {
            let state = self.state.read();
            state.check_online()?;
            (state.end, state.epochs.last())
        };
        check_order(expected, last_epoch, headers)?;
        let epochs = headers.iter().map(|header| (header.leader_epoch, header.base_offset));
        self.record_epochs(writer, epochs)?;
        let config = self.config();
        let slot = self
            .roll_if_full(&config, size, headers)
            .and_then(|slot| self.make_room_for(&slot, steps).map(|()| slot))
            .inspect_err(|_| self.forget_epochs_beyond_end(writer))?;
        let written = match &runs[..] {
            [run] => slot.segment.file.write_all_at(slot.size, &[&run.bytes]),
            runs => {
                let buffers: Vec<&[u8]> = runs.iter().map(|run| &run.bytes[..]).collect();
                slot.segment.file.write_all_at(slot.size, &buffers)
            }
        };
        if let Err(error) = written {
            self.forget_epochs_beyond_end(writer);
            return Err(self.undo_write(&slot, error));
        }
        note_in_index(&slot, headers, config.index_interval_bytes);
        // In memory first: whoever sees the new end finds it there.
        self.tail.push(runs);
        let noted = self.note_producers(&slot.segment, steps, |state| {
            assert_eq!(state.end, first.base_offset, "only the writer moves the end");
            let active = state.slots.last_mut().expect("a log has at least one segment");
            active.size += size as u64;
            state.end = last.next_offset();
            state.unsynced.add(size, now_ms);
        });
        self.count(first.base_offset, last.next_offset(), size);
        noted
    }

    fn count(&self, first: Offset, next: Offset, size: usize) {
        let figures = self.shared.figures();
        figures.appends.add(1);
        figures.appended_records.add(next - first);
        figures.appended_bytes.add(size as u64);
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
            let owed = writer.epochs_stale || writer.epoch_begun;
            let mut changed = owed.then(|| state.epochs.clone());
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
            state.unsynced = Unsynced::default();
        }
        drop(state);
        self.offline_unless_full(error)
    }
}

fn note_in_index(slot: &Slot, headers: &[BatchHeader], interval: u32) {
    let segment = &slot.segment;
    let mut index = segment.index.lock();
    let mut position = slot.size;
    for header in headers {
        index.note(segment.base, header, position, interval);
        position += header.total_len() as u64;
    }
}

/// Puts small batches together, to be written and kept as one; large ones stay as
/// they are.
fn gather(batches: Vec<ValidBatch>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::with_capacity(1);
    let mut rest = batches.into_iter();
    while let Some(first) = rest.next() {
        let (base, mut next) = (first.header().base_offset, first.header().next_offset());
        let small = |batch: &&ValidBatch| batch.len() < GATHER_BELOW_BYTES;
        if !small(&&first) {
            let bytes = first.into_bytes();
            let cost = bytes.capacity();
            runs.push(Run { bytes: bytes.freeze(), base, next, cost });
            continue;
        }
        let few = rest.as_slice().iter().take_while(small);
        let (count, size) = few.fold((0, first.len()), |(n, sum), b| (n + 1, sum + b.len()));
        let mut bytes = BytesMut::with_capacity(size);
        bytes.extend_from_slice(first.as_bytes());
        for batch in rest.by_ref().take(count) {
            bytes.extend_from_slice(batch.as_bytes());
            next = batch.header().next_offset();
        }
        runs.push(Run { bytes: bytes.freeze(), base, next, cost: size });
    }
    runs
}

/// Batches as a leader sent them, `base..next`.
fn received(bytes: Bytes, base: Offset, next: Offset) -> Run {
    let bytes =
        if bytes.len() < GATHER_BELOW_BYTES { Bytes::copy_from_slice(&bytes) } else { bytes };
    let cost = RECEIVED_COST_FACTOR * bytes.len();
    Run { bytes, base, next, cost }
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
