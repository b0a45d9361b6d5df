//! Batch to records: a bounded parser of bytes that nobody has vouched for.

use super::varint::{Cursor, Input};
use super::{
    BatchHeader, FormatError, HEADER_LEN, MAX_HEADERS_PER_RECORD, Record, RecordHeader,
    TimestampType, check_batch, codec,
};
use bytes::Bytes;
use std::ops::Range;

/// Where the parts of one record lie, relative to the bytes it was parsed from.
pub(super) struct RawRecord {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    /// The headers' bytes, already walked once.
    headers: Range<usize>,
    pub(super) header_count: usize,
}

/// Parses the record at the cursor. `index` is only for errors.
pub(super) fn parse_record(cursor: &mut impl Input, index: u32) -> Result<RawRecord, FormatError> {
    let length = cursor.varint()?;
    let length = usize::try_from(length)
        .map_err(|_| FormatError::Field { field: "record length", value: length.into() })?;
    if length > cursor.may_remain() {
        return Err(FormatError::Truncated {
            needed: cursor.position().saturating_add(length),
            have: cursor.position() + cursor.may_remain(),
        });
    }
    let end = cursor.position() + length;
    cursor.u8()?; // attributes: unused, as in Kafka not checked
    let timestamp_delta = cursor.varlong()?;
    let offset_delta = cursor.varint()?;
    let key = nullable(cursor, "key length")?;
    let value = nullable(cursor, "value length")?;
    let stated = cursor.varint()?;
    let header_count = usize::try_from(stated)
        .ok()
        .filter(|&count| count <= MAX_HEADERS_PER_RECORD)
        .ok_or(FormatError::Field { field: "header count", value: stated.into() })?;
    let headers = cursor.position();
    // A header takes at least two bytes, so a false count ends this loop at
    // the end of the bytes at the latest.
    for _ in 0..header_count {
        header(cursor)?;
    }
    if cursor.position() != end {
        return Err(FormatError::RecordLength { index });
    }
    let headers = headers..end;
    Ok(RawRecord { timestamp_delta, offset_delta, key, value, headers, header_count })
}

fn header(cursor: &mut impl Input) -> Result<(Range<usize>, Option<Range<usize>>), FormatError> {
    let name = nullable(cursor, "header name length")?
        .ok_or(FormatError::Field { field: "header name length", value: -1 })?;
    Ok((name, nullable(cursor, "header value length")?))
}

fn nullable(
    cursor: &mut impl Input,
    field: &'static str,
) -> Result<Option<Range<usize>>, FormatError> {
    match cursor.varint()? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length)
                .map_err(|_| FormatError::Field { field, value: length.into() })?;
            cursor.skip(length).map(Some)
        }
    }
}

/// Reads the records of one or several whole batches, in order. Verifies each
/// batch's CRC; ends after the first error. Keys, values and headers are slices
/// of `batches`, not copies, unless they had to be decompressed.
///
/// Placeholders yield nothing. Nothing else is left out: control records come
/// too, and only [`batch_headers`](super::batch_headers) tells them apart.
pub fn decode_records(batches: &Bytes) -> impl Iterator<Item = Result<Record, FormatError>> {
    Records { batches: batches.clone(), position: 0, batch: None }
}

struct Records {
    batches: Bytes,
    /// Where the next batch starts.
    position: usize,
    batch: Option<OpenBatch>,
}

struct OpenBatch {
    header: BatchHeader,
    /// The bytes after the header.
    records: Bytes,
    position: usize,
    next_index: u32,
    /// Smallest offset delta that the next record may have.
    next_delta: u32,
}

impl Iterator for Records {
    type Item = Result<Record, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if matches!(next, Some(Err(_))) {
            self.batch = None;
            self.position = self.batches.len();
        }
        next
    }
}

impl Records {
    fn advance(&mut self) -> Option<Result<Record, FormatError>> {
        loop {
            if let Some(batch) = &mut self.batch {
                if batch.next_index < batch.header.record_count {
                    return Some(batch.next_record());
                }
                let extra = batch.records.len() - batch.position;
                self.batch = None;
                if extra != 0 {
                    return Some(Err(FormatError::Trailing { extra }));
                }
            }
            if self.position == self.batches.len() {
                return None;
            }
            if let Err(error) = self.open_batch() {
                return Some(Err(error));
            }
        }
    }

    fn open_batch(&mut self) -> Result<(), FormatError> {
        let header = check_batch(&self.batches[self.position..])?;
        let end = self.position + header.total_len();
        let records = self.batches.slice(self.position + HEADER_LEN..end);
        let records = codec::decompress(header.compression()?, records)?;
        self.position = end;
        self.batch = Some(OpenBatch { header, records, position: 0, next_index: 0, next_delta: 0 });
        Ok(())
    }
}

impl OpenBatch {
    fn next_record(&mut self) -> Result<Record, FormatError> {
        let bytes = &self.records[self.position..];
        let mut cursor = Cursor::new(bytes);
        let raw = parse_record(&mut cursor, self.next_index)?;
        let part = |range: Range<usize>| {
            self.records.slice(self.position + range.start..self.position + range.end)
        };
        let delta = u32::try_from(raw.offset_delta).ok();
        let delta = delta
            .filter(|delta| (self.next_delta..=self.header.last_offset_delta).contains(delta))
            .ok_or(FormatError::OffsetDelta { index: self.next_index, delta: raw.offset_delta })?;
        let mut headers = Vec::with_capacity(raw.header_count);
        let mut header_cursor = Cursor::new(&bytes[..raw.headers.end]);
        header_cursor.skip(raw.headers.start)?;
        for _ in 0..raw.header_count {
            let (name, value) = header(&mut header_cursor)?;
            headers.push(RecordHeader { name: part(name), value: value.map(part) });
        }
        let record = Record {
            offset: self.header.base_offset + u64::from(delta),
            timestamp_ms: match self.header.timestamp_type() {
                TimestampType::CreateTime => {
                    self.header.base_timestamp.saturating_add(raw.timestamp_delta)
                }
                TimestampType::LogAppendTime => self.header.max_timestamp,
            },
            key: raw.key.map(part),
            value: raw.value.map(part),
            headers,
        };
        self.position += cursor.position();
        self.next_index += 1;
        self.next_delta = delta + 1;
        Ok(record)
    }
}
