//! Reading. Positioned reads of shared files, outside every lock; how far a
//! file may be read is looked up once per read.

use super::segment::Segment;
use super::{Log, Slot};
use crate::LogError;
use crate::format::{BatchHeader, TimestampType, batch_headers, check_batch, decode_records};
use bytes::Bytes;
use ottla_proto::Offset;
use std::ops::Range;

/// Most bytes that one read returns, unless a single batch is larger: twice the
/// largest batch, so that a caller without a limit of its own cannot ask for a
/// whole segment in memory.
const MAX_READ_BYTES: usize = 2 * ottla_proto::MAX_BATCH_BYTES;

/// What a read looks at; good as long as the generation is.
struct View {
    slots: Vec<Slot>,
    start: Offset,
    end: Offset,
    generation: u64,
}

impl Log {
    /// Whole batches from the one that holds `from` on; none with an offset at
    /// or above `up_to`. About `max_bytes`, but at least one batch if there is
    /// any, however large. Empty when there is none, as at the log end. The
    /// first batch may begin below `from`.
    ///
    /// # Errors
    /// `OutOfRange` for a `from` below the log start or above the log end;
    /// `Io`; `Corrupt`. None of them takes the log offline.
    pub fn read(&self, from: Offset, up_to: Offset, max_bytes: usize) -> Result<Bytes, LogError> {
        self.consistently(from, 2, |view| {
            let limit = up_to.min(view.end);
            if from < limit
                && let Some(bytes) = self.tail.read(from, limit, max_bytes.min(MAX_READ_BYTES))
            {
                return Ok(bytes);
            }
            for slot in &view.slots {
                if let Some(bytes) = self.read_slot(view, slot, from..limit, max_bytes)? {
                    return Ok(bytes);
                }
            }
            Ok(Bytes::new())
        })
    }

    /// The same from memory, for who must not wait for a disk; `None` if it is not
    /// there.
    ///
    /// # Errors
    /// `OutOfRange`.
    pub fn read_hot(
        &self,
        from: Offset,
        up_to: Offset,
        max_bytes: usize,
    ) -> Result<Option<Bytes>, LogError> {
        self.consistently(from, 0, |view| {
            let limit = up_to.min(view.end);
            if from >= limit {
                return Ok(Some(Bytes::new()));
            }
            Ok(self.tail.read_if_held(from, limit, max_bytes.min(MAX_READ_BYTES)))
        })
    }

    /// The first record whose timestamp is at least `timestamp_ms`, below
    /// `up_to`: its offset and timestamp. Looks at the largest timestamp of each
    /// segment (timestamps need not ascend, so that is no binary search, but they
    /// are remembered), then into one segment through its indexes.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    pub fn offset_for_timestamp(
        &self,
        timestamp_ms: i64,
        up_to: Offset,
    ) -> Result<Option<(Offset, i64)>, LogError> {
        let start = self.bounds().start;
        let found = self.consistently(start, usize::MAX, |view| {
            let limit = up_to.min(view.end);
            for slot in &view.slots {
                if let Some(found) = self.find_timestamp(slot, timestamp_ms, start, limit)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        });
        match found {
            // Records were deleted since the start was looked up.
            Err(LogError::OutOfRange { .. }) if self.bounds().start > start => {
                self.offset_for_timestamp(timestamp_ms, up_to)
            }
            found => found,
        }
    }

    /// The first record at or above `from`, below `up_to`: its offset, and the timestamp
    /// of the first record of its batch (the largest, where the batch says no other).
    /// Markers of transactions are no records. Reads batch headers, and only of a batch that
    /// compaction has left in part what is in it.
    ///
    /// # Errors
    /// `OutOfRange` as for [`read`](Self::read); `Io`, `Corrupt`.
    pub fn timestamp_from(
        &self,
        from: Offset,
        up_to: Offset,
    ) -> Result<Option<(Offset, i64)>, LogError> {
        self.consistently(from, usize::MAX, |view| {
            let limit = up_to.min(view.end);
            let interval = self.config().index_interval_bytes;
            for slot in &view.slots {
                let mut walker = slot.segment.walk_near(self.vfs(), from, slot.size, interval)?;
                while let Some((header, position)) = walker.next_header()? {
                    if header.base_offset >= limit {
                        return Ok(None);
                    }
                    if header.last_offset() < from || header.is_control() {
                        continue;
                    }
                    if let Some(offset) = first_left(&slot.segment, &header, position, from)? {
                        return Ok((offset < limit).then(|| (offset, first_timestamp(&header))));
                    }
                }
            }
            Ok(None)
        })
    }

    /// Runs `body` on the segments from the one holding `from` on (at most
    /// `slots` of them), again if a truncation came between.
    fn consistently<T>(
        &self,
        from: Offset,
        slots: usize,
        body: impl Fn(&View) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        loop {
            let view = {
                let state = self.state.read();
                if from < state.start || from > state.end {
                    let (start, end) = (state.start, state.end);
                    return Err(LogError::OutOfRange { requested: from, start, end });
                }
                let first = state.slot_of(from);
                let slots = state.slots.iter().skip(first).take(slots).cloned().collect();
                View { slots, start: state.start, end: state.end, generation: state.generation }
            };
            let result = body(&view);
            if self.state.read().generation == view.generation {
                return result;
            }
        }
    }

    fn read_slot(
        &self,
        view: &View,
        slot: &Slot,
        wanted: Range<Offset>,
        max_bytes: usize,
    ) -> Result<Option<Bytes>, LogError> {
        let segment = &slot.segment;
        let Range { start: from, end: limit } = wanted;
        if from >= limit {
            return Ok(Some(Bytes::new()));
        }
        let interval = self.config().index_interval_bytes;
        let found = segment.locate_exactly(self.vfs(), from, view.start, slot.size, interval)?;
        let Some((first, position)) = found else {
            return Ok(None);
        };
        if first.base_offset > from || first.last_offset() >= view.end {
            let (base, last) = (first.base_offset, first.last_offset());
            let reason = format!("offsets {base} to {last} where {from} is looked for");
            return Err(LogError::corrupt(&segment.path, position, reason));
        }
        if first.last_offset() >= limit {
            return Ok(Some(Bytes::new()));
        }
        let left = usize::try_from(slot.size - position).unwrap_or(usize::MAX);
        let want = max_bytes.min(MAX_READ_BYTES).max(first.total_len()).min(left);
        let mut buffer = Vec::new();
        segment
            .file
            .read_at(position, want, &mut buffer)
            .map_err(|error| LogError::io("read", &segment.path, error))?;
        let bytes = Bytes::from(buffer);
        let (mut take, mut next) = (0, first.base_offset);
        for batch in batch_headers(&bytes) {
            match batch {
                // An offset that does not follow, or a batch that is not what was
                // written, is told to whoever asks for it: another replica may have it.
                Ok((header, range))
                    if header.base_offset == next
                        && header.last_offset() < limit
                        && check_batch(&bytes[range.clone()]).is_ok() =>
                {
                    (take, next) = (range.end, header.next_offset());
                }
                // Past the limit, or the cut-off end of what was read.
                _ => break,
            }
        }
        if take == 0 {
            let reason = match check_batch(&bytes) {
                Ok(_) => "batch changed while read".to_owned(),
                Err(error) => error.to_string(),
            };
            return Err(LogError::corrupt(&segment.path, position, reason));
        }
        Ok(Some(bytes.slice(..take)))
    }
}

impl Log {
    /// The first record in `slot` of at least that timestamp, if it is within
    /// `start..limit`.
    fn find_timestamp(
        &self,
        slot: &Slot,
        timestamp_ms: i64,
        start: Offset,
        limit: Offset,
    ) -> Result<Option<(Offset, i64)>, LogError> {
        let (vfs, segment) = (self.vfs(), &slot.segment);
        let interval = self.config().index_interval_bytes;
        let largest = segment.largest_timestamp(vfs, slot.size, interval)?;
        if largest < Some(timestamp_ms) {
            return Ok(None);
        }
        let mut walker =
            segment.walk_near_timestamp(vfs, timestamp_ms, start, slot.size, interval)?;
        while let Some((header, position)) = walker.next_header()? {
            if header.base_offset >= limit {
                return Ok(None);
            }
            if header.max_timestamp < timestamp_ms || header.last_offset() < start {
                continue;
            }
            for record in decode_records(&bytes_of(segment, &header, position)?) {
                let record =
                    record.map_err(|error| LogError::corrupt(&segment.path, position, error))?;
                if record.offset >= limit {
                    return Ok(None);
                }
                if record.offset >= start && record.timestamp_ms >= timestamp_ms {
                    return Ok(Some((record.offset, record.timestamp_ms)));
                }
            }
        }
        Ok(None)
    }
}

/// The first record at or above `from` of a batch that ends there or above, if any is left.
fn first_left(
    segment: &Segment,
    header: &BatchHeader,
    position: u64,
    from: Offset,
) -> Result<Option<Offset>, LogError> {
    let covers = header.next_offset() - header.base_offset;
    match u64::from(header.record_count) {
        0 => return Ok(None),
        count if count == covers => return Ok(Some(header.base_offset.max(from))),
        _ => {}
    }
    for record in decode_records(&bytes_of(segment, header, position)?) {
        let record = record.map_err(|error| LogError::corrupt(&segment.path, position, error))?;
        if record.offset >= from {
            return Ok(Some(record.offset));
        }
    }
    Ok(None)
}

/// A whole batch.
fn bytes_of(segment: &Segment, header: &BatchHeader, position: u64) -> Result<Bytes, LogError> {
    let mut buffer = Vec::new();
    segment
        .file
        .read_at(position, header.total_len(), &mut buffer)
        .map_err(|error| LogError::io("read", &segment.path, error))?;
    Ok(buffer.into())
}

/// The base timestamp, unless something else stands in its place.
fn first_timestamp(header: &BatchHeader) -> i64 {
    let at_append = header.timestamp_type() == TimestampType::LogAppendTime;
    if at_append || header.delete_horizon_ms().is_some() {
        header.max_timestamp
    } else {
        header.base_timestamp
    }
}
