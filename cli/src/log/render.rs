//! A thing in a file as a line of text, or as a JSON object.

use crate::consume::json_bytes;
use ottla_node::inspect::{
    AbortedEntry, BatchHeader, EndTxnMarker, FileKind, Item, Record, RecordHeader, TimestampType,
    TxnOutcome,
};
use serde_json::{Value, json};
use std::fmt::Write;

/// One item, without what is inside a batch.
pub(super) fn json(item: &Item<'_>) -> Value {
    match item {
        Item::File { path, kind, bytes } => {
            json!({ "type": "file", "path": path, "kind": kind_name(*kind), "bytes": bytes })
        }
        Item::Gone { path } => json!({ "type": "gone", "path": path }),
        Item::Batch { position, header, .. } => batch_json(*position, header),
        Item::Bad { position, reason, header, torn } => json!({
            "type": "bad", "position": position, "reason": reason, "torn": torn,
            "base_offset": header.map(|header| header.base_offset),
        }),
        Item::OffsetEntry { position, offset, at } => {
            json!({ "type": "offset_entry", "position": position, "offset": offset, "at": at })
        }
        Item::TimeEntry { position, timestamp_ms, offset } => json!({
            "type": "time_entry", "position": position, "timestamp": timestamp_ms, "offset": offset,
        }),
        Item::TxnEntry { position, aborted } => {
            let AbortedEntry { producer_id, first_offset, last_offset, last_stable_offset, .. } =
                aborted;
            json!({
                "type": "txn_entry", "position": position, "producer_id": producer_id,
                "first_offset": first_offset, "last_offset": last_offset,
                "last_stable_offset": last_stable_offset,
            })
        }
        Item::Epoch { epoch, start } => {
            json!({ "type": "epoch", "epoch": epoch.0, "start_offset": start })
        }
        Item::Text(text) => json!({ "type": "text", "text": text }),
    }
}

/// The same for people.
pub(super) fn text(item: &Item<'_>) -> String {
    match item {
        Item::File { path, kind, bytes } => {
            format!("{}: {}, {bytes} bytes", path.display(), kind_name(*kind))
        }
        Item::Gone { path } => format!("{}: gone", path.display()),
        Item::Batch { position, header, .. } => batch_text(*position, header),
        Item::Bad { position, reason, torn: true, .. } => {
            format!("byte {position}: TORN or being written: {reason}")
        }
        Item::Bad { position, reason, header, .. } => {
            let offset = header.map(|header| format!(" (offset {})", header.base_offset));
            format!("byte {position}{}: BAD: {reason}", offset.unwrap_or_default())
        }
        Item::OffsetEntry { position, offset, at } => {
            format!("byte {position}: offset {offset} at byte {at}")
        }
        Item::TimeEntry { position, timestamp_ms, offset } => {
            format!("byte {position}: timestamp {timestamp_ms} offset {offset}")
        }
        Item::TxnEntry { position, aborted } => format!(
            "byte {position}: producer {} offsets {}..{} last stable offset {}",
            aborted.producer_id,
            aborted.first_offset,
            aborted.last_offset,
            aborted.last_stable_offset
        ),
        Item::Epoch { epoch, start } => format!("epoch {epoch} from offset {start}"),
        Item::Text(text) => text.trim_end().to_owned(),
    }
}

fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Segment(_) => "segment",
        FileKind::OffsetIndex(_) => "offset index",
        FileKind::TimeIndex(_) => "time index",
        FileKind::TxnIndex(_) => "aborted transactions",
        FileKind::Snapshot(_) => "producer snapshot",
        FileKind::Epochs => "leader epochs",
        FileKind::Start => "log start offset",
        FileKind::Cleaner => "cleaner offset",
        FileKind::Leftover => "leftover",
        FileKind::Unknown => "unknown",
    }
}

fn codec(header: &BatchHeader) -> String {
    match header.compression() {
        Ok(codec) => format!("{codec:?}").to_lowercase(),
        Err(error) => error.to_string(),
    }
}

fn timestamp_type(header: &BatchHeader) -> &'static str {
    match header.timestamp_type() {
        TimestampType::CreateTime => "create",
        TimestampType::LogAppendTime => "append",
    }
}

fn batch_json(position: u64, header: &BatchHeader) -> Value {
    let producer = header.producer();
    json!({
        "type": "batch",
        "position": position,
        "base_offset": header.base_offset,
        "last_offset": header.last_offset(),
        "leader_epoch": header.leader_epoch.0,
        "records": header.record_count,
        "bytes": header.total_len(),
        "codec": codec(header),
        "timestamp_type": timestamp_type(header),
        "base_timestamp": header.base_timestamp,
        "max_timestamp": header.max_timestamp,
        "delete_horizon": header.delete_horizon_ms(),
        "producer_id": producer.map(|producer| producer.id),
        "producer_epoch": producer.map(|producer| producer.epoch),
        "base_sequence": producer.map(|producer| producer.base_sequence),
        "transactional": header.is_transactional(),
        "control": header.is_control(),
        "placeholder": header.is_placeholder(),
        "crc": format!("{:08x}", header.crc),
    })
}

fn batch_text(position: u64, header: &BatchHeader) -> String {
    let mut line = format!(
        "offsets {}..{}  byte {position}  bytes {}  records {}  epoch {}  codec {}  {} time {}..{}",
        header.base_offset,
        header.last_offset(),
        header.total_len(),
        header.record_count,
        header.leader_epoch,
        codec(header),
        timestamp_type(header),
        header.base_timestamp,
        header.max_timestamp,
    );
    if let Some(producer) = header.producer() {
        // Writing to a string cannot fail.
        let _ = write!(
            line,
            "  producer {} epoch {} sequence {}",
            producer.id, producer.epoch, producer.base_sequence
        );
    }
    let flags = [
        (header.is_transactional(), "transactional"),
        (header.is_control(), "control"),
        (header.is_placeholder(), "placeholder"),
    ];
    for (_, flag) in flags.iter().filter(|(set, _)| *set) {
        line.push_str("  ");
        line.push_str(flag);
    }
    if let Some(horizon) = header.delete_horizon_ms() {
        let _ = write!(line, "  delete horizon {horizon}");
    }
    let _ = write!(line, "  crc {:08x} ok", header.crc);
    line
}

fn outcome(marker: &EndTxnMarker) -> &'static str {
    match marker.kind {
        TxnOutcome::Commit => "commit",
        TxnOutcome::Abort => "abort",
    }
}

pub(super) fn marker_json(header: &BatchHeader, marker: &EndTxnMarker) -> Value {
    json!({
        "type": "marker",
        "offset": header.base_offset,
        "timestamp": header.max_timestamp,
        "outcome": outcome(marker),
        "coordinator_epoch": marker.coordinator_epoch,
    })
}

pub(super) fn marker_text(header: &BatchHeader, marker: &EndTxnMarker) -> String {
    format!(
        "  {}  time {}  {} by coordinator epoch {}",
        header.base_offset,
        header.max_timestamp,
        outcome(marker),
        marker.coordinator_epoch
    )
}

pub(super) fn record_json(record: &Record) -> Value {
    let header = |header: &RecordHeader| json!({ "name": json_bytes(Some(&header.name)), "value": json_bytes(header.value.as_ref()) });
    json!({
        "type": "record",
        "offset": record.offset,
        "timestamp": record.timestamp_ms,
        "key": json_bytes(record.key.as_ref()),
        "value": json_bytes(record.value.as_ref()),
        "headers": record.headers.iter().map(header).collect::<Vec<_>>(),
    })
}

pub(super) fn record_text(record: &Record) -> String {
    let mut line = format!(
        "  {}  time {}  key {}  value {}",
        record.offset,
        record.timestamp_ms,
        bytes_text(record.key.as_ref()),
        bytes_text(record.value.as_ref()),
    );
    for header in &record.headers {
        let _ = write!(
            line,
            "  header {}={}",
            bytes_text(Some(&header.name)),
            bytes_text(header.value.as_ref())
        );
    }
    line
}

/// A JSON string, so that nothing in it can play with the terminal; `null`; or
/// `base64:…`.
fn bytes_text(bytes: Option<&bytes::Bytes>) -> String {
    match json_bytes(bytes) {
        Value::Object(base64) => match base64.get("base64").and_then(Value::as_str) {
            Some(text) => format!("base64:{text}"),
            None => Value::Object(base64).to_string(),
        },
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use ottla_node::inspect::RecordHeader;

    #[test]
    fn null_empty_text_and_binary_are_told_apart() {
        let record = Record {
            offset: 7,
            timestamp_ms: 1000,
            key: Some(Bytes::new()),
            value: None,
            headers: vec![
                RecordHeader {
                    name: Bytes::from_static(b"h"),
                    value: Some(Bytes::from_static(b"a\x1b[0m")),
                },
                RecordHeader {
                    name: Bytes::from_static(b"h"),
                    value: Some(Bytes::from_static(b"\xff\0")),
                },
            ],
        };
        assert_eq!(
            record_text(&record),
            r#"  7  time 1000  key ""  value null  header "h"="a\u001b[0m"  header "h"=base64:/wA="#
        );
        assert_eq!(
            record_json(&record),
            json!({
                "type": "record", "offset": 7, "timestamp": 1000, "key": "", "value": null,
                "headers": [
                    { "name": "h", "value": "a\u{1b}[0m" },
                    { "name": "h", "value": { "base64": "/wA=" } },
                ],
            })
        );
    }
}
