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

mod codec;
mod encode;
mod error;
mod header;
mod marker;
mod records;
mod rewrite;
mod valid;
mod varint;

#[cfg(test)]
mod tests;

pub use encode::{BatchOptions, encode_batch, encoded_len_bound, encoded_record_len};
pub use error::{FormatError, Reserved};
pub use header::{BatchHeader, HEADER_LEN, batch_headers, check_batch};
pub use marker::{EndTxnMarker, TxnOutcome, decode_marker, encode_marker};
pub use records::decode_records;
pub use rewrite::{Placeholder, encode_kept, encode_placeholder};
pub use valid::ValidBatch;

use bytes::Bytes;

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

/// Largest number of headers in a batch that a client sends: what bounds the
/// memory for all of its records at once, however well they are compressed.
pub const MAX_HEADERS_PER_BATCH: usize = 2 * 1024 * 1024;

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

/// How a batch's records are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy blocks in the framing of snappy-java.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// Zstandard frames.
    Zstd,
}

impl Compression {
    fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    fn from_code(code: u16) -> Result<Self, FormatError> {
        Ok(match code {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            _ => return Err(FormatError::Field { field: "compression", value: code.into() }),
        })
    }
}

/// Whose clock a batch's timestamps come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The leader's, at the append: the batch's largest timestamp is that of all
    /// its records.
    LogAppendTime,
}

/// An idempotent producer and where a batch stands in its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerSequence {
    /// The producer; not negative.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of the batch's first record; -1 in a marker.
    pub base_sequence: i32,
}
