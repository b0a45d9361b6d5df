//! A walk over the batches of one segment that goes on behind a bad one where
//! it can, and the checks of one batch by itself.

use crate::LogError;
use crate::format::{
    BatchHeader, FormatError, HEADER_LEN, check_batch, decode_marker, decode_records,
};
use crate::log::walk::{SCAN_CHUNK_BYTES, Walker};
use crate::vfs::VfsFile;
use bytes::Bytes;
use ottla_proto::Offset;
use std::path::Path;

/// What stands at a place of a segment.
pub(super) enum Found {
    /// A whole batch, true to its CRC.
    Batch { header: BatchHeader, position: u64, bytes: Bytes },
    /// Something else. With `header`: a batch that is not true to its CRC,
    /// behind which the walk goes on. Without: nothing that could be stepped
    /// over, so the walk is at its end. `torn`: the bytes may be good, but the
    /// segment ends before them.
    Bad { header: Option<BatchHeader>, position: u64, torn: bool, reason: String },
}

/// Walks one segment. Holds one read of it and one batch.
pub(super) struct Scan<'a> {
    path: &'a Path,
    file: &'a dyn VfsFile,
    walker: Walker<'a>,
    end: u64,
    over: bool,
}

impl<'a> Scan<'a> {
    /// From the first batch up to byte `end`.
    pub(super) fn new(path: &'a Path, file: &'a dyn VfsFile, end: u64) -> Self {
        let walker = Walker::new(path, file, 0, end, SCAN_CHUNK_BYTES);
        Self { path, file, walker, end, over: false }
    }

    /// Where the walk stands.
    pub(super) fn position(&self) -> u64 {
        self.walker.position()
    }

    /// Whether every byte was walked over.
    pub(super) fn at_end(&self) -> bool {
        self.walker.position() >= self.end
    }

    /// Goes on at `position` if a good batch that ends at `last_offset` stands
    /// there.
    pub(super) fn resume(&mut self, position: u64, last_offset: Offset) -> Result<bool, LogError> {
        let walker = || Walker::new(self.path, self.file, position, self.end, SCAN_CHUNK_BYTES);
        let good = match walker().next_batch() {
            Ok(batch) => batch.is_some_and(|batch| {
                batch.header.last_offset() == last_offset && check_batch(batch.bytes).is_ok()
            }),
            Err(LogError::Corrupt { .. }) => false,
            Err(error) => return Err(error),
        };
        if good {
            self.walker = walker();
            self.over = false;
        }
        Ok(good)
    }

    /// What follows; `None` at the end. An error is the disk's.
    pub(super) fn next(&mut self) -> Result<Option<Found>, LogError> {
        if self.over {
            return Ok(None);
        }
        let position = self.walker.position();
        let (header, bytes) = match self.walker.next_batch() {
            Ok(None) => return Ok(None),
            Ok(Some(batch)) => (batch.header, Bytes::copy_from_slice(batch.bytes)),
            Err(LogError::Corrupt { reason, .. }) => {
                self.over = true;
                let torn = self.is_torn(position)?;
                return Ok(Some(Found::Bad { header: None, position, torn, reason }));
            }
            Err(error) => return Err(error),
        };
        match check_batch(&bytes) {
            Ok(header) => Ok(Some(Found::Batch { header, position, bytes })),
            Err(error) => {
                let reason = error.to_string();
                self.over = !self.continues_behind(&header)?;
                let header = (!self.over).then_some(header);
                Ok(Some(Found::Bad { header, position, torn: false, reason }))
            }
        }
    }

    /// Whether what stands at `position` could be the beginning of a batch.
    fn is_torn(&self, position: u64) -> Result<bool, LogError> {
        let mut bytes = Vec::new();
        self.file
            .read_at(position, HEADER_LEN, &mut bytes)
            .map_err(|error| LogError::io("read", self.path, error))?;
        Ok(match BatchHeader::parse(&bytes) {
            Ok(header) => header.total_len() as u64 > self.end - position,
            Err(error) => matches!(error, FormatError::Truncated { .. }),
        })
    }

    /// Whether a bad batch's header can be believed as to its length: what
    /// stands behind it continues it.
    fn continues_behind(&mut self, bad: &BatchHeader) -> Result<bool, LogError> {
        if self.walker.position() == self.end {
            return Ok(true);
        }
        match self.walker.peek() {
            Ok(next) => Ok(next.is_some_and(|next| next.base_offset == bad.next_offset())),
            Err(LogError::Corrupt { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Decodes every record of a batch that is true to its CRC.
pub(super) fn check_records(header: &BatchHeader, bytes: &Bytes) -> Result<(), String> {
    let mut before = None;
    let mut largest = None;
    let mut count = 0;
    for record in decode_records(bytes) {
        let record = record.map_err(|error| error.to_string())?;
        if before >= Some(record.offset) || record.offset > header.last_offset() {
            return Err(format!("record {count} has offset {}", record.offset));
        }
        before = Some(record.offset);
        largest = largest.max(Some(record.timestamp_ms));
        count += 1;
    }
    if count != header.record_count {
        return Err(format!("{count} records, the header states {}", header.record_count));
    }
    if header.is_control()
        && let Err(error) = decode_marker(bytes)
    {
        return Err(error.to_string());
    }
    // Compaction may have taken the record that had it.
    let stated = header.max_timestamp;
    let whole = count == header.last_offset_delta + 1;
    match largest {
        Some(largest) if largest > stated || (whole && largest != stated) => {
            Err(format!("max timestamp is {stated}, that of the records is {largest}"))
        }
        _ => Ok(()),
    }
}
