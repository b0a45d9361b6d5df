//! The fixed 61 bytes in front of a batch's records.

use super::{CRC_START, Compression, FormatError, LENGTH_END, ProducerSequence, TimestampType};
use bytes::{BufMut, BytesMut};
use ottla_proto::LeaderEpoch;
use std::ops::Range;

/// Bytes in front of a batch's records.
pub const HEADER_LEN: usize = 61;

/// Version of the layout.
const MAGIC: i8 = 2;

const COMPRESSION: u16 = 0b111;
pub(super) const APPEND_TIME: u16 = 1 << 3;
pub(super) const TRANSACTIONAL: u16 = 1 << 4;
pub(super) const CONTROL: u16 = 1 << 5;
pub(super) const DELETE_HORIZON: u16 = 1 << 6;
const KNOWN: u16 = COMPRESSION | APPEND_TIME | TRANSACTIONAL | CONTROL | DELETE_HORIZON;

/// The header of a batch. Parsed fields are within the ranges given here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record; at most 2^63 - 1.
    pub base_offset: u64,
    /// Bytes after this field: at least 49, at most 2^31 - 1.
    pub batch_length: u32,
    /// Epoch of the leader that appended the batch; at most 2^31 - 1.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C of everything from the attributes to the end.
    pub crc: u32,
    /// Attribute bits (int16).
    pub attributes: u16,
    /// Offset of the last record less that of the first; at most 2^31 - 1.
    pub last_offset_delta: u32,
    /// What timestamp deltas count from, ms: the timestamp of the first record,
    /// or the delete horizon.
    pub base_timestamp: i64,
    /// Largest timestamp of any record, ms.
    pub max_timestamp: i64,
    /// Idempotent producer, or -1.
    pub producer_id: i64,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// Number of records; at most 2^31 - 1. 0 in a placeholder.
    pub record_count: u32,
}

fn array<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn non_negative(field: &'static str, value: i64) -> Result<u64, FormatError> {
    u64::try_from(value).map_err(|_| FormatError::Field { field, value })
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`. Says nothing of the records.
    ///
    /// # Errors
    /// Too few bytes for a header, another magic, or a field out of range.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let bytes = bytes
            .first_chunk::<HEADER_LEN>()
            .ok_or(FormatError::Truncated { needed: HEADER_LEN, have: bytes.len() })?;
        let magic = bytes[16].cast_signed();
        if magic != MAGIC {
            return Err(FormatError::Magic(magic));
        }
        let int32 = |field, at| {
            non_negative(field, i64::from(i32::from_be_bytes(array(bytes, at))))
                .map(|value| u32::try_from(value).expect("a non-negative i32 is a u32"))
        };
        let batch_length = int32("batch length", 8)?;
        if (batch_length as usize) < HEADER_LEN - LENGTH_END {
            return Err(FormatError::Field {
                field: "batch length",
                value: i64::from(batch_length),
            });
        }
        let header = Self {
            base_offset: non_negative("base offset", i64::from_be_bytes(array(bytes, 0)))?,
            batch_length,
            leader_epoch: LeaderEpoch(int32("leader epoch", 12)?),
            crc: u32::from_be_bytes(array(bytes, 17)),
            attributes: u16::from_be_bytes(array(bytes, 21)),
            last_offset_delta: int32("last offset delta", 23)?,
            base_timestamp: i64::from_be_bytes(array(bytes, 27)),
            max_timestamp: i64::from_be_bytes(array(bytes, 35)),
            producer_id: i64::from_be_bytes(array(bytes, 43)),
            producer_epoch: i16::from_be_bytes(array(bytes, 51)),
            base_sequence: i32::from_be_bytes(array(bytes, 53)),
            record_count: int32("record count", 57)?,
        };
        // Offsets stay below 2^63 everywhere, so sums of them cannot overflow.
        if header.next_offset() > i64::MAX as u64 {
            return Err(FormatError::Field {
                field: "base offset",
                value: header.base_offset as i64,
            });
        }
        Ok(header)
    }

    /// Offset of the last record.
    #[must_use]
    pub fn last_offset(&self) -> u64 {
        self.base_offset + u64::from(self.last_offset_delta)
    }

    /// Offset that follows the batch.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.last_offset() + 1
    }

    /// Bytes of the whole batch, header included.
    #[must_use]
    pub fn total_len(&self) -> usize {
        LENGTH_END + self.batch_length as usize
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// `Field` for a code that means nothing.
    pub fn compression(&self) -> Result<Compression, FormatError> {
        Compression::from_code(self.attributes & COMPRESSION)
    }

    /// Whose clock the records carry.
    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        match self.attributes & APPEND_TIME {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        }
    }

    /// Whether the records belong to a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether this is a marker and not data.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// When compaction may drop the tombstones or the marker in here, in
    /// milliseconds since the Unix epoch (KIP-534); it takes the place of the
    /// base timestamp.
    #[must_use]
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// The producer, if it is an idempotent one.
    #[must_use]
    pub fn producer(&self) -> Option<ProducerSequence> {
        (self.producer_id >= 0).then_some(ProducerSequence {
            id: self.producer_id,
            epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
        })
    }

    /// Whether the batch stands for records that compaction removed: it holds
    /// none, covers their offsets, and may carry their producer's state.
    #[must_use]
    pub fn is_placeholder(&self) -> bool {
        self.record_count == 0
    }

    /// Whether the fields make sense together, in a batch that some leader
    /// stored. What is refused here no release ever wrote.
    fn check_consistency(&self) -> Result<(), FormatError> {
        let refuse = |field, value| Err(FormatError::Field { field, value });
        let codec = self.compression()?;
        if self.attributes & !KNOWN != 0 {
            return refuse("attributes", self.attributes.into());
        }
        // Compaction leaves gaps between records, never more records than offsets.
        if u64::from(self.record_count) > u64::from(self.last_offset_delta) + 1 {
            return refuse("record count", self.record_count.into());
        }
        let empty = self.total_len() == HEADER_LEN;
        if empty != self.is_placeholder() || (empty && codec != Compression::None) {
            return refuse("batch length", self.batch_length.into());
        }
        if self.producer_id < -1 {
            return refuse("producer id", self.producer_id);
        }
        // Without a producer id its epoch and sequence mean nothing: clients
        // are known to leave a 0 there.
        match self.producer() {
            Some(producer) if producer.epoch < 0 => refuse("producer epoch", producer.epoch.into()),
            Some(producer) if producer.base_sequence < 0 && !self.is_control() => {
                refuse("base sequence", producer.base_sequence.into())
            }
            None if self.is_transactional() || self.is_control() => {
                refuse("producer id", self.producer_id)
            }
            _ => Ok(()),
        }
    }

    /// Appends the header as it stands, length and CRC included.
    pub(super) fn put(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u64(self.base_offset);
        out.put_u32(self.batch_length);
        out.put_u32(self.leader_epoch.0);
        out.put_i8(MAGIC);
        out.put_u32(self.crc);
        out.put_u16(self.attributes);
        out.put_u32(self.last_offset_delta);
        out.put_i64(self.base_timestamp);
        out.put_i64(self.max_timestamp);
        out.put_i64(self.producer_id);
        out.put_i16(self.producer_epoch);
        out.put_i32(self.base_sequence);
        out.put_u32(self.record_count);
        assert_eq!(out.len() - start, HEADER_LEN);
    }

    /// Makes `now_ms` the timestamp of all records in `batch`, by attribute and
    /// largest timestamp alone; the CRC is made anew.
    pub(super) fn set_append_time(&mut self, batch: &mut [u8], now_ms: i64) {
        self.attributes |= APPEND_TIME;
        self.max_timestamp = now_ms;
        batch[CRC_START..CRC_START + 2].copy_from_slice(&self.attributes.to_be_bytes());
        batch[35..43].copy_from_slice(&now_ms.to_be_bytes());
        self.crc = crc32c::crc32c(&batch[CRC_START..]);
        batch[17..21].copy_from_slice(&self.crc.to_be_bytes());
    }

    /// Writes base offset and leader epoch over those in `batch`; the CRC
    /// covers neither.
    pub(super) fn stamp(&mut self, batch: &mut [u8], base_offset: u64, epoch: LeaderEpoch) {
        assert!(base_offset <= i64::MAX as u64 - (1 << 32), "offsets stay below 2^63");
        assert!(epoch.0 <= i32::MAX as u32, "epochs stay below 2^31");
        self.base_offset = base_offset;
        self.leader_epoch = epoch;
        batch[..8].copy_from_slice(&base_offset.to_be_bytes());
        batch[12..16].copy_from_slice(&epoch.0.to_be_bytes());
    }
}

/// Checks that `bytes` start with one whole batch whose CRC is right and whose
/// header makes sense, and returns that header. Does not look into the records,
/// nor decompress them: enough for bytes that another node validated before.
///
/// # Errors
/// As [`BatchHeader::parse`]; truncated; a wrong CRC; attributes, counts or a
/// producer that no leader stores.
pub fn check_batch(bytes: &[u8]) -> Result<BatchHeader, FormatError> {
    let header = BatchHeader::parse(bytes)?;
    let batch = bytes
        .get(..header.total_len())
        .ok_or(FormatError::Truncated { needed: header.total_len(), have: bytes.len() })?;
    let computed = crc32c::crc32c(&batch[CRC_START..]);
    if computed != header.crc {
        return Err(FormatError::Crc { stated: header.crc, computed });
    }
    header.check_consistency()?;
    Ok(header)
}

/// Walks the batches in `bytes`: each header and where its batch lies. Ends
/// after the first error; verifies no CRC.
pub fn batch_headers(
    bytes: &[u8],
) -> impl Iterator<Item = Result<(BatchHeader, Range<usize>), FormatError>> {
    let mut position = 0;
    std::iter::from_fn(move || {
        if position == bytes.len() {
            return None;
        }
        let next = BatchHeader::parse(&bytes[position..]).and_then(|header| {
            let range = position..position + header.total_len();
            if range.end > bytes.len() {
                let (needed, have) = (header.total_len(), bytes.len() - position);
                return Err(FormatError::Truncated { needed, have });
            }
            Ok((header, range))
        });
        position = next.as_ref().map_or(bytes.len(), |(_, range)| range.end);
        Some(next)
    })
}
