//! Records to batch.

use super::header::TRANSACTIONAL;
use super::varint::{MAX_VARINT_LEN, MAX_VARLONG_LEN, put_varint, put_varlong, varlong_len};
use super::{
    BatchHeader, CRC_START, Compression, FormatError, HEADER_LEN, LENGTH_END,
    MAX_HEADERS_PER_RECORD, MAX_RECORDS_PER_BATCH, NewRecord, ProducerSequence, RecordHeader,
    codec,
};
use bytes::{BufMut, Bytes, BytesMut};
use ottla_proto::LeaderEpoch;

/// How a new batch is made, besides its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchOptions {
    /// How the records are compressed. A batch that would not become smaller is
    /// left uncompressed, and says so.
    pub compression: Compression,
    /// The idempotent producer, if it is one: nothing in it may be negative.
    pub producer: Option<ProducerSequence>,
    /// Whether the records belong to the producer's open transaction.
    pub transactional: bool,
}

/// Most bytes that `record` can add to a batch, wherever it stands in it.
/// Together with [`HEADER_LEN`] this lets a client fill a batch up to a limit.
#[must_use]
pub fn encoded_record_len(record: &NewRecord) -> usize {
    // Length and offset delta at their longest; the timestamp delta too.
    2 * MAX_VARINT_LEN
        + MAX_VARLONG_LEN
        + 1
        + payload_len(record.key.as_ref(), record.value.as_ref(), &record.headers)
}

/// Most bytes that a batch of `records` can take, compressed or not.
#[must_use]
pub fn encoded_len_bound(records: &[NewRecord]) -> usize {
    HEADER_LEN + records.iter().map(encoded_record_len).sum::<usize>()
}

/// Encodes one batch with base offset 0 and leader epoch 0.
///
/// # Errors
/// No records or too many, too many headers, a negative timestamp, more than
/// 2^31 - 1 bytes, a negative producer id, epoch or sequence, a transaction
/// without a producer.
pub fn encode_batch(
    records: &[NewRecord],
    options: &BatchOptions,
) -> Result<BytesMut, FormatError> {
    let Some(first) = records.first() else {
        return Err(FormatError::NoRecords);
    };
    check_options(options)?;
    check_new(records)?;
    let count = u32::try_from(records.len())
        .ok()
        .filter(|&count| count <= MAX_RECORDS_PER_BATCH)
        .ok_or(FormatError::TooManyRecords { count: records.len() })?;
    let bound = encoded_len_bound(records);
    let limit = i32::MAX as usize;
    if bound > limit {
        return Err(FormatError::TooLarge { size: bound, limit });
    }
    let header = BatchHeader {
        attributes: if options.transactional { TRANSACTIONAL } else { 0 },
        last_offset_delta: count - 1,
        base_timestamp: first.timestamp_ms,
        max_timestamp: records.iter().fold(0, |max, record| max.max(record.timestamp_ms)),
        record_count: count,
        ..blank(options.producer)
    };
    let mut out = BytesMut::with_capacity(bound);
    header.put(&mut out);
    for (delta, record) in (0..).zip(records) {
        let timestamp_delta = record.timestamp_ms - header.base_timestamp;
        let (key, value) = (record.key.as_ref(), record.value.as_ref());
        put_record(&mut out, delta, timestamp_delta, key, value, &record.headers);
    }
    assert!(out.len() <= bound, "the bound on a batch's length is one");
    compress(&mut out, options.compression);
    seal(&mut out);
    Ok(out)
}

fn check_options(options: &BatchOptions) -> Result<(), FormatError> {
    let refuse = |field, value| Err(FormatError::Field { field, value });
    match options.producer {
        Some(producer) if producer.id < 0 => refuse("producer id", producer.id),
        Some(producer) if producer.epoch < 0 => refuse("producer epoch", producer.epoch.into()),
        Some(producer) if producer.base_sequence < 0 => {
            refuse("base sequence", producer.base_sequence.into())
        }
        None if options.transactional => refuse("producer id", -1),
        _ => Ok(()),
    }
}

fn check_new(records: &[NewRecord]) -> Result<(), FormatError> {
    for record in records {
        if record.timestamp_ms < 0 {
            return Err(FormatError::Field { field: "timestamp", value: record.timestamp_ms });
        }
        let headers = record.headers.len();
        if headers > MAX_HEADERS_PER_RECORD {
            return Err(FormatError::Field { field: "header count", value: headers as i64 });
        }
    }
    Ok(())
}

/// The header of a batch of nothing.
pub(super) fn blank(producer: Option<ProducerSequence>) -> BatchHeader {
    BatchHeader {
        base_offset: 0,
        batch_length: 0,
        leader_epoch: LeaderEpoch(0),
        crc: 0,
        attributes: 0,
        last_offset_delta: 0,
        base_timestamp: -1,
        max_timestamp: -1,
        producer_id: producer.map_or(-1, |producer| producer.id),
        producer_epoch: producer.map_or(-1, |producer| producer.epoch),
        base_sequence: producer.map_or(-1, |producer| producer.base_sequence),
        record_count: 0,
    }
}

/// Compresses the records behind the header, if that makes them smaller and
/// readers will take them, and notes it in the attributes.
pub(super) fn compress(batch: &mut BytesMut, codec: Compression) {
    let records = &batch[HEADER_LEN..];
    if records.len() > codec::MAX_INFLATED_BYTES {
        return;
    }
    let Some(compressed) = codec::compress(codec, records) else {
        return;
    };
    if compressed.len() < batch.len() - HEADER_LEN {
        batch.truncate(HEADER_LEN);
        batch.put_slice(&compressed);
        batch[CRC_START + 1] |= codec.code();
    }
}

/// Puts length and CRC of a batch that is otherwise complete in their places.
pub(super) fn seal(batch: &mut BytesMut) {
    let length = (batch.len() - LENGTH_END) as u32; // below 2^31, checked by the caller
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

pub(super) fn put_record(
    out: &mut BytesMut,
    offset_delta: i32,
    timestamp_delta: i64,
    key: Option<&Bytes>,
    value: Option<&Bytes>,
    headers: &[RecordHeader],
) {
    let len = 1
        + varlong_len(timestamp_delta)
        + varlong_len(i64::from(offset_delta))
        + payload_len(key, value, headers);
    put_varlong(out, len as i64);
    out.put_u8(0); // attributes: none are defined for a record
    put_varlong(out, timestamp_delta);
    put_varint(out, offset_delta);
    put_nullable(out, key);
    put_nullable(out, value);
    put_varlong(out, headers.len() as i64);
    for header in headers {
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
pub(super) fn payload_len(
    key: Option<&Bytes>,
    value: Option<&Bytes>,
    headers: &[RecordHeader],
) -> usize {
    nullable_len(key)
        + nullable_len(value)
        + varlong_len(headers.len() as i64)
        + headers
            .iter()
            .map(|header| nullable_len(Some(&header.name)) + nullable_len(header.value.as_ref()))
            .sum::<usize>()
}

fn nullable_len(bytes: Option<&Bytes>) -> usize {
    bytes.map_or(1, |bytes| varlong_len(bytes.len() as i64) + bytes.len())
}
