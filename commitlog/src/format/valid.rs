//! The proof that bytes are exactly one good batch.

use super::records::parse_record;
use super::varint::{Cursor, Input};
use super::{
    BatchHeader, Compression, FormatError, HEADER_LEN, MAX_HEADERS_PER_BATCH,
    MAX_RECORDS_PER_BATCH, Reserved, TimestampType, check_batch, codec::Inflated, decode_marker,
};
use bytes::BytesMut;
use ottla_proto::{LeaderEpoch, MAX_BATCH_BYTES};

/// Exactly one whole batch that was checked to the last record: the only thing
/// a leader appends. Its base offset and leader epoch mean nothing before that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidBatch {
    bytes: BytesMut,
    header: BatchHeader,
    every_record_has_a_key: bool,
}

impl ValidBatch {
    /// Checks `bytes`, which come from a client, and takes them. A `Bytes` that
    /// shares its buffer is copied, so that it can be stamped. Compressed records
    /// are decompressed for the check and stay compressed.
    ///
    /// # Errors
    /// Anything that is not exactly one batch of at most `max_batch_bytes`, of
    /// magic 2, with the right CRC, with at least one record, with every record
    /// well-framed and numbered from 0, without negative timestamps; and
    /// [`Reserved`] for what only nodes write.
    pub fn new(bytes: impl Into<BytesMut>, max_batch_bytes: usize) -> Result<Self, FormatError> {
        let mut bytes = bytes.into();
        know_no_epoch(&mut bytes);
        let header = check_whole(&bytes, max_batch_bytes)?;
        check_reserved(&header)?;
        check_counts(&header)?;
        let every_record_has_a_key = check_records(&header, &bytes)?;
        Ok(Self { bytes, header, every_record_has_a_key })
    }

    /// Checks `bytes`, a transaction's marker that a node made, and takes them.
    ///
    /// # Errors
    /// Anything that is not exactly one batch with one such marker.
    pub fn marker(bytes: impl Into<BytesMut>) -> Result<Self, FormatError> {
        let bytes = bytes.into();
        let header = check_whole(&bytes, MAX_BATCH_BYTES)?;
        if !header.is_transactional() {
            return Err(FormatError::NotMarker("the batch is not transactional"));
        }
        let bytes = bytes.freeze();
        decode_marker(&bytes)?;
        check_counts(&header)?;
        Ok(Self { bytes: bytes.into(), header, every_record_has_a_key: true })
    }

    /// Whether no record's key is null, as a compacted topic asks.
    #[must_use]
    pub fn every_record_has_a_key(&self) -> bool {
        self.every_record_has_a_key
    }

    /// Makes `now_ms` the timestamp of all its records (attribute bit 3 and the
    /// largest timestamp); the records stay as they are.
    pub fn set_append_time(&mut self, now_ms: i64) {
        self.header.set_append_time(&mut self.bytes, now_ms);
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

    /// The batch's bytes, to be written.
    pub(crate) fn into_bytes(self) -> BytesMut {
        self.bytes
    }

    /// Gives the batch its place in the log.
    pub(crate) fn stamp(&mut self, base_offset: u64, epoch: LeaderEpoch) {
        self.header.stamp(&mut self.bytes, base_offset, epoch);
    }
}

fn check_whole(bytes: &[u8], max_batch_bytes: usize) -> Result<BatchHeader, FormatError> {
    if bytes.len() > max_batch_bytes {
        return Err(FormatError::TooLarge { size: bytes.len(), limit: max_batch_bytes });
    }
    let header = check_batch(bytes)?;
    let extra = bytes.len() - header.total_len();
    if extra != 0 {
        return Err(FormatError::Trailing { extra });
    }
    Ok(header)
}

/// Kafka's clients write the leader epoch -1, which no batch in a log has: the leader
/// stamps its own over whatever is there, and the CRC does not cover it.
fn know_no_epoch(bytes: &mut BytesMut) {
    const EPOCH: std::ops::Range<usize> = 12..16;
    if bytes.get(EPOCH) == Some(&[0xff; 4]) {
        bytes[EPOCH].fill(0);
    }
}

fn check_reserved(header: &BatchHeader) -> Result<(), FormatError> {
    let reserved = if header.is_control() {
        Reserved::Control
    } else if header.timestamp_type() == TimestampType::LogAppendTime {
        Reserved::LogAppendTime
    } else if header.delete_horizon_ms().is_some() {
        Reserved::DeleteHorizon
    } else {
        return Ok(());
    };
    Err(FormatError::Reserved(reserved))
}

/// Counts as a client must send them: records without gaps between them.
fn check_counts(header: &BatchHeader) -> Result<(), FormatError> {
    if header.is_placeholder() {
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

/// Walks the records of `batch`; says whether each of them has a key.
fn check_records(header: &BatchHeader, batch: &[u8]) -> Result<bool, FormatError> {
    let records = &batch[HEADER_LEN..];
    match header.compression()? {
        Compression::None => walk_records(header, &mut Cursor::new(records)),
        codec => walk_records(header, &mut Inflated::new(codec, records)?),
    }
}

fn walk_records(header: &BatchHeader, records: &mut impl Input) -> Result<bool, FormatError> {
    let mut record_headers = 0;
    let mut max_timestamp = i64::MIN;
    let mut every_record_has_a_key = true;
    for index in 0..header.record_count {
        let record = parse_record(records, index)?;
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
        every_record_has_a_key &= record.key.is_some();
        record_headers += record.header_count;
        if record_headers > MAX_HEADERS_PER_BATCH {
            let value = record_headers as i64;
            return Err(FormatError::Field { field: "header count", value });
        }
    }
    records.end()?;
    if header.base_timestamp < 0 {
        return Err(FormatError::Field { field: "base timestamp", value: header.base_timestamp });
    }
    if max_timestamp != header.max_timestamp {
        let stated = header.max_timestamp;
        return Err(FormatError::MaxTimestamp { stated, actual: max_timestamp });
    }
    Ok(every_record_has_a_key)
}
