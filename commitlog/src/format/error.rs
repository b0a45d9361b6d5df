//! Why bytes are not a good batch.

use super::{Compression, MAX_RECORDS_PER_BATCH};
use thiserror::Error;

/// What only nodes put into a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Reserved {
    /// Timestamps set by the leader (attribute bit 3).
    #[error("append-time timestamps")]
    LogAppendTime,
    /// A control batch (attribute bit 5).
    #[error("the control attribute")]
    Control,
    /// A delete horizon in the base timestamp (attribute bit 6).
    #[error("a delete horizon")]
    DeleteHorizon,
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
    /// Well-formed, but not for a client to send.
    #[error("a client's batch must not have {0}")]
    Reserved(Reserved),
    /// The compressed records are not what the codec writes.
    #[error("{codec:?}: {reason}")]
    Decompress {
        /// The codec named by the attributes.
        codec: Compression,
        /// What it met.
        reason: String,
    },
    /// Compressed records that grow beyond any honest batch.
    #[error("the records exceed {limit} bytes once decompressed")]
    Inflates {
        /// Most bytes allowed.
        limit: usize,
    },
    /// Neither a commit nor an abort marker.
    #[error("not a transaction's marker: {0}")]
    NotMarker(&'static str),
}
