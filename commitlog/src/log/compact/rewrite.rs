//! The second pass: writes what stays of some neighbouring segments into a new
//! file, which stands for nothing yet.

use super::decide::{Fate, Rules};
use super::swap::cleaned_path;
use super::{Pace, Stop};
use crate::LogError;
use crate::format::{
    BatchHeader, Placeholder, Record, check_batch, decode_records, encode_kept, encode_placeholder,
};
use crate::log::segment::Segment;
use crate::log::walk::{SCAN_CHUNK_BYTES, WalkedBatch};
use crate::log::{Log, MAX_SEGMENT_BYTES, Slot};
use bytes::Bytes;

/// Bytes gathered before they are written.
const WRITE_CHUNK_BYTES: usize = 1024 * 1024;

/// A segment that was written anew, in a file named `….cleaned`.
pub(super) struct Rewritten {
    pub(super) slot: Slot,
    /// Something is different from before.
    pub(super) changed: bool,
    /// Records that are in it no more.
    pub(super) removed: u64,
}

struct Output<'a> {
    log: &'a Log,
    segment: Segment,
    interval: u32,
    written: u64,
    buffer: Vec<u8>,
    pending: Option<Pending>,
    changed: bool,
    removed: u64,
    /// Bytes of the segments that were not read yet: there is room for them.
    left: u64,
}

/// A placeholder that may still grow.
struct Pending {
    placeholder: Placeholder,
    /// The bytes it was read from, if it was there before and has not grown.
    as_read: Option<Bytes>,
}

/// Writes what stays of `slots` and syncs it.
pub(super) fn rewrite(
    log: &Log,
    slots: &[Slot],
    rules: &mut Rules<'_>,
    pace: &mut Pace<'_>,
) -> Result<Rewritten, Stop> {
    let base = slots[0].segment.base;
    let path = cleaned_path(&log.dir, base);
    let file = (log.vfs().create(&path)).map_err(|error| LogError::io("create", &path, error))?;
    let mut out = Output {
        log,
        segment: Segment::of_file(&log.dir, base, file),
        interval: log.config().index_interval_bytes,
        written: 0,
        buffer: Vec::with_capacity(WRITE_CHUNK_BYTES),
        pending: None,
        changed: slots.len() > 1,
        removed: 0,
        left: slots.iter().map(|slot| slot.size).sum(),
    };
    for slot in slots {
        let mut walker = slot.segment.walk(0, slot.size, SCAN_CHUNK_BYTES);
        while let Some(batch) = walker.next_batch()? {
            pace.did(2 * batch.bytes.len())?;
            out.take(slot, &batch, rules)?;
        }
    }
    out.put_pending()?;
    out.flush()?;
    let Output { segment, written: size, changed, removed, .. } = out;
    segment.file.sync_data().map_err(|source| {
        let operation = "fdatasync";
        LogError::Io { operation, path: path.clone(), source }
    })?;
    Ok(Rewritten { slot: Slot { segment: segment.into(), size }, changed, removed })
}

impl Output<'_> {
    fn take(
        &mut self,
        slot: &Slot,
        batch: &WalkedBatch<'_>,
        rules: &mut Rules<'_>,
    ) -> Result<(), LogError> {
        let corrupt = |error| LogError::corrupt(&slot.segment.path, batch.position, error);
        // What is damaged must not be given a good checksum, nor go unnoticed.
        check_batch(batch.bytes).map_err(corrupt)?;
        self.left -= batch.bytes.len() as u64;
        let header = &batch.header;
        let keeps_producer = rules.producers.contain(header);
        if header.is_placeholder() {
            return self.put_placeholder(header, keeps_producer, Some(batch.bytes));
        }
        let records = || {
            let bytes = Bytes::copy_from_slice(batch.bytes);
            decode_records(&bytes).collect::<Result<Vec<Record>, _>>().map_err(corrupt)
        };
        let fate = rules.judge(header, records)?;
        // An aborted transaction is known as long as its marker is there, which
        // tells readers where it ends.
        if fate != Fate::Nothing
            && let Some(aborted) = rules.transactions.aborted_by(header)
        {
            self.segment.aborted.lock().note(aborted);
        }
        match fate {
            Fate::Whole => self.put(header, batch.bytes),
            Fate::Nothing => {
                self.removed += u64::from(header.record_count);
                self.put_placeholder(header, keeps_producer, None)
            }
            Fate::Some(records, horizon) => {
                match encode_kept(header, &records, horizon) {
                    Ok(bytes) if self.has_room(bytes.len(), batch.bytes.len()) => {
                        self.changed = true;
                        self.removed += u64::from(header.record_count) - records.len() as u64;
                        let header = BatchHeader::parse(&bytes).map_err(corrupt)?;
                        self.put(&header, &bytes)
                    }
                    // It would be too large with the horizon, or as another
                    // encoder compresses it: it stays as it is.
                    _ => self.put(header, batch.bytes),
                }
            }
        }
    }

    /// Whether a batch may grow: all that follows must fit into the segment.
    fn has_room(&self, len: usize, before: usize) -> bool {
        let all = self.written + (self.buffer.len() + len) as u64 + self.left;
        len <= before || all + 2 * crate::format::HEADER_LEN as u64 <= MAX_SEGMENT_BYTES
    }

    /// Removed batches of one leader epoch become one placeholder, unless they
    /// carry a producer's state.
    fn put_placeholder(
        &mut self,
        header: &BatchHeader,
        keeps_producer: bool,
        as_read: Option<&[u8]>,
    ) -> Result<(), LogError> {
        let placeholder = Placeholder {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            leader_epoch: header.leader_epoch,
            max_timestamp_ms: header.max_timestamp,
            timestamp_type: header.timestamp_type(),
            producer: header.producer().filter(|_| keeps_producer),
            // Of the producer's state only the sequence is needed: a transaction
            // that it belonged to is over.
            transactional: false,
            control: false,
        };
        let grown = self.pending.as_ref().and_then(|old| merged(&old.placeholder, &placeholder));
        if let Some(placeholder) = grown {
            self.pending = Some(Pending { placeholder, as_read: None });
            return Ok(());
        }
        self.put_pending()?;
        let as_read = as_read.map(Bytes::copy_from_slice);
        self.pending = Some(Pending { placeholder, as_read });
        Ok(())
    }

    fn put_pending(&mut self) -> Result<(), LogError> {
        let Some(Pending { placeholder, as_read }) = self.pending.take() else {
            return Ok(());
        };
        let bytes = encode_placeholder(&placeholder);
        self.changed |= as_read.is_none_or(|as_read| as_read != bytes);
        let header = BatchHeader::parse(&bytes)?;
        self.write(&header, &bytes)
    }

    fn put(&mut self, header: &BatchHeader, bytes: &[u8]) -> Result<(), LogError> {
        self.put_pending()?;
        self.write(header, bytes)
    }

    fn write(&mut self, header: &BatchHeader, bytes: &[u8]) -> Result<(), LogError> {
        let position = self.written + self.buffer.len() as u64;
        let mut index = self.segment.index.lock();
        index.note(self.segment.base, header, position, self.interval);
        drop(index);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), LogError> {
        let written = self.segment.file.write_all_at(self.written, &[&self.buffer]);
        let path = || cleaned_path(&self.log.dir, self.segment.base);
        written.map_err(|error| LogError::io("write", &path(), error))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// One placeholder for both, if that is possible.
fn merged(first: &Placeholder, second: &Placeholder) -> Option<Placeholder> {
    let fits = first.producer.is_none()
        && second.producer.is_none()
        && first.leader_epoch == second.leader_epoch
        && first.last_offset + 1 == second.base_offset
        && second.last_offset - first.base_offset <= i32::MAX as u64;
    fits.then(|| Placeholder {
        last_offset: second.last_offset,
        max_timestamp_ms: first.max_timestamp_ms.max(second.max_timestamp_ms),
        ..*first
    })
}
