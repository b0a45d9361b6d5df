//! The proof that bytes are exactly one good batch.

use super::records::parse_record;
use super::varint::Cursor;
use super::{BatchHeader, FormatError, HEADER_LEN, MAX_RECORDS_PER_BATCH, check_batch};
use bytes::BytesMut;
use ottla_proto::LeaderEpoch;

/// Exactly one whole batch that was checked to the last record: the only thing
/// a leader appends. Its base offset and leader epoch mean nothing before that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidBatch {
    bytes: BytesMut,
    header: BatchHeader,
}

impl ValidBatch {
    /// Checks `bytes`, which come from a client, and takes them. A `Bytes` that
    /// shares its buffer is copied, so that it can be stamped.
    ///
    /// # Errors
    /// Anything that is not exactly one batch of at most `max_batch_bytes`, of
    /// magic 2, with the right CRC, with at least one record, with every record
    /// well-framed and numbered from 0, without negative timestamps, and with
    /// only what this release supports.
    pub fn new(bytes: impl Into<BytesMut>, max_batch_bytes: usize) -> Result<Self, FormatError> {
        let bytes = bytes.into();
        if bytes.len() > max_batch_bytes {
            return Err(FormatError::TooLarge { size: bytes.len(), limit: max_batch_bytes });
        }
        let header = check_batch(&bytes)?;
        let extra = bytes.len() - header.total_len();
        if extra != 0 {
            return Err(FormatError::Trailing { extra });
        }
        if let Some(what) = header.unsupported() {
            return Err(FormatError::Unsupported(what));
        }
        check_counts(&header)?;
        check_records(&header, &bytes[HEADER_LEN..])?;
        Ok(Self { bytes, header })
    }

    /// The parsed header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Bytes of the batch, header included.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The batch as it would be written.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the batch its place in the log.
    pub(crate) fn stamp(&mut self, base_offset: u64, epoch: LeaderEpoch) {
        self.header.stamp(&mut self.bytes, base_offset, epoch);
    }
}

fn check_counts(header: &BatchHeader) -> Result<(), FormatError> {
    if header.record_count == 0 {
        return Err(FormatError::NoRecords);
    }
    if header.record_count > MAX_RECORDS_PER_BATCH {
        return Err(FormatError::TooManyRecords { count: header.record_count as usize });
    }
    if header.last_offset_delta != header.record_count - 1 {
        let value = i64::from(header.last_offset_delta);
        return Err(FormatError::Field { field: "last offset delta", value });
    }
    Ok(())
}

fn check_records(header: &BatchHeader, records: &[u8]) -> Result<(), FormatError> {
    let mut cursor = Cursor::new(records);
    let mut max_timestamp = i64::MIN;
    for index in 0..header.record_count {
        let record = parse_record(&mut cursor, index)?;
        let delta = record.offset_delta;
        if u32::try_from(delta).ok() != Some(index) {
            return Err(FormatError::OffsetDelta { index, delta });
        }
        let timestamp = header
            .base_timestamp
            .checked_add(record.timestamp_delta)
            .filter(|&timestamp| timestamp >= 0)
            .ok_or(FormatError::Field { field: "timestamp", value: record.timestamp_delta })?;
        max_timestamp = max_timestamp.max(timestamp);
    }
    if header.base_timestamp < 0 {
        return Err(FormatError::Field { field: "base timestamp", value: header.base_timestamp });
    }
    if max_timestamp != header.max_timestamp {
        let stated = header.max_timestamp;
        return Err(FormatError::MaxTimestamp { stated, actual: max_timestamp });
    }
    let extra = cursor.remaining();
    if extra == 0 { Ok(()) } else { Err(FormatError::Trailing { extra }) }
}
