//! The record batch: Kafka's v2 layout, byte for byte, and nothing else.
//!
//! Encodes new batches, proves that received bytes are one good batch
//! ([`ValidBatch`]), and walks stored ones. Pure: bytes in, bytes out.
//!
//! Not its job: where batches are kept, and which of them may be appended.
//!
//! ```text
//!  0  i64 base offset             27 i64 base timestamp (ms)
//!  8  i32 batch length (from 12)  35 i64 max timestamp (ms)
//! 12  i32 leader epoch            43 i64 producer id
//! 16  i8  magic = 2               51 i16 producer epoch
//! 17  u32 CRC-32C of 21..end      53 i32 base sequence
//! 21  i16 attributes              57 i32 number of records
//! 23  i32 last offset delta       61 records
//! ```
//! All integers are big-endian. The CRC covers neither the base offset nor the
//! leader epoch, so a leader stamps both without touching the records.

mod encode;
mod header;
mod records;
mod valid;
mod varint;

#[cfg(test)]
mod tests;

pub use encode::{encode_batch, encoded_len_bound, encoded_record_len};
pub use header::{BatchHeader, HEADER_LEN, batch_headers, check_batch};
pub use records::decode_records;
pub use valid::ValidBatch;

use bytes::Bytes;
use thiserror::Error;

/// Offset of the first byte covered by the CRC: the attributes.
const CRC_START: usize = 21;

/// Bytes in front of those that `batch length` counts.
const LENGTH_END: usize = 12;

/// Largest number of records in one batch: bounds the offsets one batch may
/// take, so that a segment's relative offsets (31 bits) cannot be used up by a
/// few batches. A record takes at least 7 bytes, so an 8 MiB batch cannot hold
/// more than this anyway.
pub const MAX_RECORDS_PER_BATCH: u32 = 2 * 1024 * 1024;

/// Largest number of headers of one record: a decoded header takes about 64
/// bytes of memory for at least two in the batch, so a batch of nothing but
/// empty headers must not be able to ask for 32 times its size.
pub const MAX_HEADERS_PER_RECORD: usize = 64 * 1024;

/// A named value beside a record's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Name; may repeat within a record.
    pub name: Bytes,
    /// Value; `None` is distinct from empty.
    pub value: Option<Bytes>,
}

/// A record on its way into a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// Key; `None` is distinct from empty.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<RecordHeader>,
    /// Milliseconds since the Unix epoch; not negative.
    pub timestamp_ms: i64,
}

/// A record read from a batch. Its byte fields are slices of that batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Position in the partition.
    pub offset: u64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Key; `None` is distinct from empty.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<RecordHeader>,
}

/// A property of Kafka's batches that this release does not support. Bytes
/// that use one are well-formed but refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// Compressed records (attribute bits 0 to 2).
    Compression,
    /// Timestamps set by the broker (attribute bit 3).
    LogAppendTime,
    /// A transaction's records (attribute bit 4).
    Transaction,
    /// A control batch (attribute bit 5).
    Control,
    /// A delete horizon in the base timestamp (attribute bit 6).
    DeleteHorizon,
    /// Attribute bits 7 to 15, which have no meaning yet.
    UnknownAttribute,
    /// A producer id, epoch or sequence: idempotent produce.
    ProducerId,
}

/// Why bytes are not a good batch.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormatError {
    /// Fewer bytes than the layout asks for.
    #[error("truncated: needs {needed} bytes, has {have}")]
    Truncated {
        /// Bytes asked for, counted from the start of the batch or record.
        needed: usize,
        /// Bytes at hand.
        have: usize,
    },
    /// More bytes than one batch.
    #[error("{extra} bytes follow the batch")]
    Trailing {
        /// Bytes after the end of the batch.
        extra: usize,
    },
    /// A batch larger than its limit.
    #[error("batch of {size} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Bytes of the batch.
        size: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// Not version 2 of the layout.
    #[error("magic is {0}, expected 2")]
    Magic(i8),
    /// The bytes are not those that were checksummed.
    #[error("CRC-32C is {computed:08x}, the batch states {stated:08x}")]
    Crc {
        /// In the header.
        stated: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// A field that counts or positions something is negative or absurd.
    #[error("{field} is {value}")]
    Field {
        /// Name as in the layout.
        field: &'static str,
        /// What the bytes say.
        value: i64,
    },
    /// A batch without records.
    #[error("a batch must hold at least one record")]
    NoRecords,
    /// More records than a batch may hold.
    #[error("{count} records exceed the limit of {MAX_RECORDS_PER_BATCH}")]
    TooManyRecords {
        /// Records asked for.
        count: usize,
    },
    /// A variable-length integer runs too long or past the end.
    #[error("malformed variable-length integer")]
    Varint,
    /// A record's parts do not add up to its stated length.
    #[error("record {index} does not fill its stated length")]
    RecordLength {
        /// Index in the batch.
        index: u32,
    },
    /// Records must be numbered 0, 1, 2, … within their batch.
    #[error("record {index} has offset delta {delta}")]
    OffsetDelta {
        /// Index in the batch.
        index: u32,
        /// What the bytes say.
        delta: i32,
    },
    /// The header's largest timestamp is not that of the records.
    #[error("max timestamp is {stated}, that of the records is {actual}")]
    MaxTimestamp {
        /// In the header.
        stated: i64,
        /// Of the records.
        actual: i64,
    },
    /// Well-formed, but not supported by this release.
    #[error("not supported yet: {0:?}")]
    Unsupported(Unsupported),
}
