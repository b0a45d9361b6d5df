//! Between friendly records and record batches: what lets any language speak to
//! Ottla without knowing the batch format.

use bytes::{Bytes, BytesMut};
use ottla_commitlog::format::{
    self, BatchOptions, FormatError, NewRecord, RecordHeader, ValidBatch,
};
use ottla_proto::v1::{self, ErrorReason, produce_request::Payload};
use ottla_proto::{ApiError, MAX_BATCH_BYTES};

/// Turns a produce payload into one validated batch. `now_ms` stamps records
/// that carry no timestamp.
pub(crate) fn batch(payload: Option<Payload>, now_ms: i64) -> Result<ValidBatch, ApiError> {
    let bytes = match payload {
        Some(Payload::RecordBatch(bytes)) => BytesMut::from(bytes),
        Some(Payload::Records(set)) => encode(set, now_ms)?,
        None => {
            return Err(ApiError::new(
                ErrorReason::InvalidRequest,
                "the request has no payload: set `records` or `record_batch`",
            ));
        }
    };
    let batch = ValidBatch::new(bytes, MAX_BATCH_BYTES).map_err(refused)?;
    if batch.header().is_transactional() {
        let what = "transactions are not supported yet";
        return Err(ApiError::new(ErrorReason::InvalidRequest, what));
    }
    Ok(batch)
}

fn encode(set: v1::RecordSet, now_ms: i64) -> Result<BytesMut, ApiError> {
    if set.records.is_empty() {
        return Err(ApiError::new(ErrorReason::InvalidRequest, "`records` is empty"));
    }
    let mut records = Vec::with_capacity(set.records.len());
    for record in set.records {
        let timestamp_ms = record.timestamp_ms.unwrap_or(now_ms);
        if timestamp_ms < 0 {
            return Err(ApiError::new(
                ErrorReason::InvalidRequest,
                format!("timestamp {timestamp_ms} is before 1970"),
            ));
        }
        records.push(NewRecord {
            key: record.key,
            value: record.value,
            headers: record.headers.into_iter().map(header).collect(),
            timestamp_ms,
        });
    }
    format::encode_batch(&records, &BatchOptions::default()).map_err(refused)
}

fn header(header: v1::Header) -> RecordHeader {
    RecordHeader { name: header.name, value: header.value }
}

fn refused(error: FormatError) -> ApiError {
    let reason = match error {
        FormatError::TooLarge { .. } => ErrorReason::RecordTooLarge,
        _ => ErrorReason::CorruptBatch,
    };
    ApiError::new(reason, error.to_string())
}

/// Decodes stored batches into at most `limit` records from `from` on.
/// Returns them with the offset to go on from.
pub(crate) fn records(
    batches: &Bytes,
    from: u64,
    limit: u64,
) -> Result<(Vec<v1::ConsumedRecord>, u64), ApiError> {
    let mut records = Vec::new();
    let mut next = from;
    let broken = |error: FormatError| {
        ApiError::new(ErrorReason::Internal, format!("a stored batch cannot be read: {error}"))
    };
    for found in format::batch_headers(batches) {
        let (batch, range) = found.map_err(broken)?;
        // The marker of a transaction's end is no record that anybody wrote.
        let slice = if batch.is_control() { Bytes::new() } else { batches.slice(range) };
        for record in format::decode_records(&slice) {
            let record = record.map_err(broken)?;
            if record.offset < from {
                continue;
            }
            if records.len() as u64 == limit {
                return Ok((records, next));
            }
            next = record.offset + 1;
            records.push(v1::ConsumedRecord {
                offset: record.offset,
                timestamp_ms: record.timestamp_ms,
                leader_epoch: batch.leader_epoch.0,
                key: record.key,
                value: record.value,
                headers: record
                    .headers
                    .into_iter()
                    .map(|h| v1::Header { name: h.name, value: h.value })
                    .collect(),
            });
        }
        next = next.max(batch.next_offset());
    }
    Ok((records, next))
}

/// How many records the batches hold, and the offset after them. Whole batches
/// are sent, so all their records count: what compaction removed does not, and
/// the client counts in the same way.
pub(crate) fn extent(batches: &Bytes, from: u64) -> Result<(u64, u64), ApiError> {
    let (mut records, mut next) = (0, from);
    for found in format::batch_headers(batches) {
        let (batch, _) = found.map_err(|error| {
            ApiError::new(ErrorReason::Internal, format!("a stored batch cannot be read: {error}"))
        })?;
        records += u64::from(batch.record_count);
        next = next.max(batch.next_offset());
    }
    Ok((records, next))
}
