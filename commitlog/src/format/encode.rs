//! Records to batch.

use super::varint::{MAX_VARINT_LEN, MAX_VARLONG_LEN, put_varint, put_varlong, varlong_len};
use super::{
    CRC_START, FormatError, HEADER_LEN, LENGTH_END, MAX_HEADERS_PER_RECORD, MAX_RECORDS_PER_BATCH,
    NewRecord,
};
use bytes::{BufMut, Bytes, BytesMut};

/// Most bytes that `record` can add to a batch, wherever it stands in it.
/// Together with [`HEADER_LEN`] this lets a client fill a batch up to a limit.
#[must_use]
pub fn encoded_record_len(record: &NewRecord) -> usize {
    // Length and offset delta at their longest; the timestamp delta too.
    2 * MAX_VARINT_LEN + MAX_VARLONG_LEN + 1 + payload_len(record)
}

/// Most bytes that a batch of `records` can take.
#[must_use]
pub fn encoded_len_bound(records: &[NewRecord]) -> usize {
    HEADER_LEN + records.iter().map(encoded_record_len).sum::<usize>()
}

/// Encodes one batch: base offset 0, leader epoch 0, no producer id, not
/// compressed.
///
/// # Errors
/// No records or too many, too many headers, a negative timestamp, or more than 2^31 - 1 bytes.
pub fn encode_batch(records: &[NewRecord]) -> Result<BytesMut, FormatError> {
    let Some(first) = records.first() else {
        return Err(FormatError::NoRecords);
    };
    let count = i32::try_from(records.len())
        .ok()
        .filter(|&count| count <= MAX_RECORDS_PER_BATCH as i32)
        .ok_or(FormatError::TooManyRecords { count: records.len() })?;
    if let Some(record) = records.iter().find(|record| record.timestamp_ms < 0) {
        return Err(FormatError::Field { field: "timestamp", value: record.timestamp_ms });
    }
    if let Some(count) =
        records.iter().map(|record| record.headers.len()).find(|&n| n > MAX_HEADERS_PER_RECORD)
    {
        return Err(FormatError::Field { field: "header count", value: count as i64 });
    }
    let bound = encoded_len_bound(records);
    let limit = i32::MAX as usize;
    if bound > limit {
        return Err(FormatError::TooLarge { size: bound, limit });
    }
    let base_timestamp = first.timestamp_ms;
    let max_timestamp = records.iter().fold(0, |max, record| max.max(record.timestamp_ms));

    let mut out = BytesMut::with_capacity(bound);
    out.put_i64(0); // base offset
    out.put_i32(0); // batch length, below
    out.put_i32(0); // leader epoch
    out.put_i8(2); // magic
    out.put_u32(0); // CRC, below
    out.put_i16(0); // attributes
    out.put_i32(count - 1);
    out.put_i64(base_timestamp);
    out.put_i64(max_timestamp);
    out.put_i64(-1); // producer id
    out.put_i16(-1); // producer epoch
    out.put_i32(-1); // base sequence
    out.put_i32(count);
    assert_eq!(out.len(), HEADER_LEN);
    for (delta, record) in (0..count).zip(records) {
        put_record(&mut out, record, delta, record.timestamp_ms - base_timestamp);
    }
    assert!(out.len() <= bound, "the bound on a batch's length is one");
    let length = (out.len() - LENGTH_END) as u32; // below 2^31, checked above
    out[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&out[CRC_START..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    Ok(out)
}

fn put_record(out: &mut BytesMut, record: &NewRecord, offset_delta: i32, timestamp_delta: i64) {
    let len = 1
        + varlong_len(timestamp_delta)
        + varlong_len(i64::from(offset_delta))
        + payload_len(record);
    put_varlong(out, len as i64);
    out.put_u8(0); // attributes: none are defined for a record
    put_varlong(out, timestamp_delta);
    put_varint(out, offset_delta);
    put_nullable(out, record.key.as_ref());
    put_nullable(out, record.value.as_ref());
    put_varlong(out, record.headers.len() as i64);
    for header in &record.headers {
        put_nullable(out, Some(&header.name));
        put_nullable(out, header.value.as_ref());
    }
}

fn put_nullable(out: &mut BytesMut, bytes: Option<&Bytes>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varlong(out, bytes.len() as i64);
            out.put_slice(bytes);
        }
    }
}

/// Key, value and headers with their lengths.
fn payload_len(record: &NewRecord) -> usize {
    nullable_len(record.key.as_ref())
        + nullable_len(record.value.as_ref())
        + varlong_len(record.headers.len() as i64)
        + record
            .headers
            .iter()
            .map(|header| nullable_len(Some(&header.name)) + nullable_len(header.value.as_ref()))
            .sum::<usize>()
}

fn nullable_len(bytes: Option<&Bytes>) -> usize {
    bytes.map_or(1, |bytes| varlong_len(bytes.len() as i64) + bytes.len())
}
