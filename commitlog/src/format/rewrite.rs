//! What compaction writes: batches with fewer records, and placeholders.
//!
//! Both keep the place of what they replace: base offset, last offset, leader
//! epoch and producer never change, so a log stays without holes and producer
//! state can be rebuilt from it.

use super::encode::{blank, compress, payload_len, put_record, seal};
use super::header::{APPEND_TIME, CONTROL, DELETE_HORIZON, TRANSACTIONAL};
use super::varint::{MAX_VARINT_LEN, MAX_VARLONG_LEN};
use super::{
    BatchHeader, FormatError, HEADER_LEN, ProducerSequence, Record, TimestampType, check_batch,
};
use bytes::BytesMut;
use ottla_proto::{LeaderEpoch, MAX_BATCH_BYTES};

/// A batch without records, which takes the place of removed ones. Kafka's log
/// cleaner writes the same (`DefaultRecordBatch.writeEmptyHeader`) for the last
/// batch of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// First offset covered.
    pub base_offset: u64,
    /// Last offset covered; at most 2^31 - 1 more than the first.
    pub last_offset: u64,
    /// Leader epoch of all that was removed.
    pub leader_epoch: LeaderEpoch,
    /// Largest timestamp of what was removed, in ms, or -1.
    pub max_timestamp_ms: i64,
    /// Whose clock that was.
    pub timestamp_type: TimestampType,
    /// The producer whose state it carries, if any: then the placeholder covers
    /// exactly that producer's batch.
    pub producer: Option<ProducerSequence>,
    /// The batch was part of a transaction; only with a producer.
    pub transactional: bool,
    /// The batch was a marker; only with a producer.
    pub control: bool,
}

/// Encodes a placeholder.
///
/// # Panics
/// If the fields break the bounds that they state.
#[must_use]
pub fn encode_placeholder(placeholder: &Placeholder) -> BytesMut {
    let Placeholder { base_offset, last_offset, producer, .. } = *placeholder;
    assert!(base_offset <= last_offset, "a placeholder covers at least one offset");
    assert!(last_offset < i64::MAX as u64, "offsets stay below 2^63");
    let last_offset_delta = u32::try_from(last_offset - base_offset)
        .ok()
        .filter(|&delta| delta <= i32::MAX as u32)
        .expect("a placeholder covers at most 2^31 offsets");
    let mut attributes = 0;
    if placeholder.timestamp_type == TimestampType::LogAppendTime {
        attributes |= APPEND_TIME;
    }
    if placeholder.transactional {
        attributes |= TRANSACTIONAL;
    }
    if placeholder.control {
        attributes |= CONTROL;
    }
    let header = BatchHeader {
        base_offset,
        leader_epoch: placeholder.leader_epoch,
        attributes,
        last_offset_delta,
        max_timestamp: placeholder.max_timestamp_ms,
        ..blank(producer)
    };
    let mut out = BytesMut::with_capacity(HEADER_LEN);
    header.put(&mut out);
    seal(&mut out);
    check_batch(&out).expect("a placeholder as its type describes it");
    out
}

/// Encodes the batch of `header` with only `records` left of it: some of its own,
/// in order. Offsets, leader epoch, producer, codec and kind stay as they are;
/// the largest timestamp becomes that of what is left, unless it is the append
/// time. `delete_horizon_ms` is stamped if given, else one in `header` is kept.
///
/// # Errors
/// `NoRecords` (write a placeholder). `TooLarge` if the result would exceed
/// [`MAX_BATCH_BYTES`], as another encoder or longer deltas can make it: then
/// keep the batch as it is. `OffsetDelta` or `Field` for records of another
/// batch or a codec that means nothing.
pub fn encode_kept(
    header: &BatchHeader,
    records: &[Record],
    delete_horizon_ms: Option<i64>,
) -> Result<BytesMut, FormatError> {
    let Some(first) = records.first() else {
        return Err(FormatError::NoRecords);
    };
    let codec = header.compression()?;
    let horizon = delete_horizon_ms.or(header.delete_horizon_ms());
    let mut attributes = header.attributes & (APPEND_TIME | TRANSACTIONAL | CONTROL);
    if horizon.is_some() {
        attributes |= DELETE_HORIZON;
    }
    let newest = records.iter().map(|record| record.timestamp_ms).max().unwrap_or(-1);
    let kept = BatchHeader {
        attributes,
        base_timestamp: horizon.unwrap_or(first.timestamp_ms),
        max_timestamp: match header.timestamp_type() {
            TimestampType::CreateTime => newest,
            TimestampType::LogAppendTime => header.max_timestamp,
        },
        record_count: u32::try_from(records.len())
            .map_err(|_| FormatError::TooManyRecords { count: records.len() })?,
        ..*header
    };
    let bound = HEADER_LEN + records.iter().map(record_len_bound).sum::<usize>();
    let mut out = BytesMut::with_capacity(bound);
    kept.put(&mut out);
    let mut next = header.base_offset;
    for (index, record) in (0..).zip(records) {
        let delta = record.offset.wrapping_sub(header.base_offset) as i32;
        if !(next..=header.last_offset()).contains(&record.offset) {
            return Err(FormatError::OffsetDelta { index, delta });
        }
        next = record.offset + 1;
        let timestamp_delta = record
            .timestamp_ms
            .checked_sub(kept.base_timestamp)
            .ok_or(FormatError::Field { field: "timestamp", value: record.timestamp_ms })?;
        let (key, value) = (record.key.as_ref(), record.value.as_ref());
        put_record(&mut out, delta, timestamp_delta, key, value, &record.headers);
    }
    compress(&mut out, codec);
    if out.len() > MAX_BATCH_BYTES {
        return Err(FormatError::TooLarge { size: out.len(), limit: MAX_BATCH_BYTES });
    }
    seal(&mut out);
    Ok(out)
}

fn record_len_bound(record: &Record) -> usize {
    2 * MAX_VARINT_LEN
        + MAX_VARLONG_LEN
        + 1
        + payload_len(record.key.as_ref(), record.value.as_ref(), &record.headers)
}
