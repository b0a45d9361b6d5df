//! Control batches: the markers that end transactions.
//!
//! One record in a batch with the transactional and the control bit. Its key is
//! version (i16) and type (i16: 0 abort, 1 commit), its value version (i16) and
//! the coordinator's epoch (i32), as in Kafka's `EndTransactionMarker`.

use super::encode::{blank, put_record, seal};
use super::header::{CONTROL, TRANSACTIONAL};
use super::{BatchHeader, FormatError, ProducerSequence, decode_records};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Version of the key and of the value that is written.
const VERSION: i16 = 0;

const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnOutcome {
    /// Its records count.
    Commit,
    /// Its records must not be seen.
    Abort,
}

/// What a marker says of its producer's open transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTxnMarker {
    /// How it ended.
    pub kind: TxnOutcome,
    /// Epoch of the transaction coordinator that said so; not negative.
    pub coordinator_epoch: i32,
}

/// Encodes the batch of a marker, with base offset 0 and leader epoch 0.
///
/// # Panics
/// For a negative producer id, producer epoch, coordinator epoch or timestamp.
#[must_use]
pub fn encode_marker(
    marker: &EndTxnMarker,
    producer_id: i64,
    producer_epoch: i16,
    timestamp_ms: i64,
) -> BytesMut {
    assert!(producer_id >= 0 && producer_epoch >= 0, "a marker ends a producer's transaction");
    assert!(marker.coordinator_epoch >= 0 && timestamp_ms >= 0, "neither is ever negative");
    let mut key = BytesMut::new();
    key.put_i16(VERSION);
    key.put_i16(match marker.kind {
        TxnOutcome::Abort => ABORT,
        TxnOutcome::Commit => COMMIT,
    });
    let mut value = BytesMut::new();
    value.put_i16(VERSION);
    value.put_i32(marker.coordinator_epoch);

    let producer = ProducerSequence { id: producer_id, epoch: producer_epoch, base_sequence: -1 };
    let header = BatchHeader {
        attributes: TRANSACTIONAL | CONTROL,
        base_timestamp: timestamp_ms,
        max_timestamp: timestamp_ms,
        record_count: 1,
        ..blank(Some(producer))
    };
    let mut out = BytesMut::new();
    header.put(&mut out);
    put_record(&mut out, 0, 0, Some(&key.freeze()), Some(&value.freeze()), &[]);
    seal(&mut out);
    out
}

/// Reads the marker in `batch`: one whole control batch that holds a record.
/// Later versions may add fields behind those known here.
///
/// # Errors
/// As [`decode_records`]; `NotMarker` for anything else than a commit or abort.
pub fn decode_marker(batch: &Bytes) -> Result<EndTxnMarker, FormatError> {
    let header = BatchHeader::parse(batch)?;
    if !header.is_control() {
        return Err(FormatError::NotMarker("the batch is not a control batch"));
    }
    let mut records = decode_records(batch);
    let record = records.next().ok_or(FormatError::NotMarker("the batch has no record"))??;
    if records.next().is_some() {
        return Err(FormatError::NotMarker("the batch has several records"));
    }
    let (mut key, mut value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
    let short = |_| FormatError::NotMarker("the record is too short");
    let (key_version, kind) =
        (key.try_get_i16().map_err(short)?, key.try_get_i16().map_err(short)?);
    let (value_version, coordinator_epoch) =
        (value.try_get_i16().map_err(short)?, value.try_get_i32().map_err(short)?);
    if key_version < 0 || value_version < 0 {
        return Err(FormatError::NotMarker("a version is negative"));
    }
    if coordinator_epoch < 0 {
        return Err(FormatError::NotMarker("the coordinator's epoch is negative"));
    }
    let kind = match kind {
        ABORT => TxnOutcome::Abort,
        COMMIT => TxnOutcome::Commit,
        _ => return Err(FormatError::NotMarker("the type is unknown")),
    };
    Ok(EndTxnMarker { kind, coordinator_epoch })
}
