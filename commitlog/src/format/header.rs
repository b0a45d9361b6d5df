//! The fixed 61 bytes in front of a batch's records.

use super::{CRC_START, FormatError, LENGTH_END, Unsupported};
use ottla_proto::LeaderEpoch;
use std::ops::Range;

/// Bytes in front of a batch's records.
pub const HEADER_LEN: usize = 61;

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
    /// Timestamp of the first record, ms.
    pub base_timestamp: i64,
    /// Largest timestamp of any record, ms.
    pub max_timestamp: i64,
    /// Idempotent producer, or -1.
    pub producer_id: i64,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// Number of records; at most 2^31 - 1.
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
        if magic != 2 {
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

    /// What the batch asks for that this release does not support.
    pub(super) fn unsupported(&self) -> Option<Unsupported> {
        let attributes = self.attributes;
        let bits = [
            (0b111, Unsupported::Compression),
            (1 << 3, Unsupported::LogAppendTime),
            (1 << 4, Unsupported::Transaction),
            (1 << 5, Unsupported::Control),
            (1 << 6, Unsupported::DeleteHorizon),
            (!0b111_1111, Unsupported::UnknownAttribute),
        ];
        let producer = self.producer_id != -1 || self.producer_epoch != -1;
        bits.into_iter()
            .find(|(mask, _)| attributes & mask != 0)
            .map(|(_, what)| what)
            .or((producer || self.base_sequence != -1).then_some(Unsupported::ProducerId))
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

/// Checks that `bytes` start with one whole batch whose CRC is right, and
/// returns its header. Does not look into the records: enough for bytes that
/// another node validated before.
///
/// # Errors
/// As [`BatchHeader::parse`]; truncated; a wrong CRC.
pub fn check_batch(bytes: &[u8]) -> Result<BatchHeader, FormatError> {
    let header = BatchHeader::parse(bytes)?;
    let batch = bytes
        .get(..header.total_len())
        .ok_or(FormatError::Truncated { needed: header.total_len(), have: bytes.len() })?;
    let computed = crc32c::crc32c(&batch[CRC_START..]);
    if computed != header.crc {
        return Err(FormatError::Crc { stated: header.crc, computed });
    }
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
