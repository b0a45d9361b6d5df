//! A record on standard output: its value's raw bytes and a newline, or a JSON
//! object.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ottla_client::Record;
use serde_json::{Value, json};
use std::io::{self, Write};

/// The value as it is, and a newline. A null value is an empty line.
pub(super) fn raw(out: &mut impl Write, record: &Record) -> io::Result<()> {
    out.write_all(record.value.as_deref().unwrap_or_default())?;
    out.write_all(b"\n")
}

/// One JSON object on a line.
pub(super) fn json(
    out: &mut impl Write,
    topic: &str,
    partition: u32,
    record: &Record,
) -> io::Result<()> {
    let header = |header: &ottla_client::RecordHeader| json!({ "name": bytes(&header.name), "value": optional(header.value.as_ref()) });
    let object = json!({
        "topic": topic,
        "partition": partition,
        "offset": record.offset,
        "timestamp": record.timestamp_ms,
        "key": optional(record.key.as_ref()),
        "value": optional(record.value.as_ref()),
        "headers": record.headers.iter().map(header).collect::<Vec<_>>(),
    });
    serde_json::to_writer(&mut *out, &object)?;
    out.write_all(b"\n")
}

/// Null, a string, or an object that says `base64`.
pub(crate) fn optional(value: Option<&Bytes>) -> Value {
    value.map_or(Value::Null, bytes)
}

/// A string where the bytes are UTF-8, else an object that says `base64`.
fn bytes(value: &Bytes) -> Value {
    match std::str::from_utf8(value) {
        Ok(text) => text.into(),
        Err(_) => json!({ "base64": STANDARD.encode(value) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_client::RecordHeader;

    fn record() -> Record {
        let header = |value| RecordHeader { name: Bytes::from_static(b"h"), value };
        Record {
            offset: 7,
            timestamp_ms: 1000,
            key: None,
            value: Some(Bytes::from_static(b"\xff\0")),
            headers: vec![header(None), header(Some(Bytes::new()))],
        }
    }

    #[test]
    fn json_keeps_null_empty_and_binary_apart() {
        let mut out = Vec::new();
        json(&mut out, "t", 3, &record()).expect("a vector takes it");
        let read: Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(
            read,
            json!({
                "topic": "t", "partition": 3, "offset": 7, "timestamp": 1000, "key": null,
                "value": { "base64": "/wA=" },
                "headers": [{ "name": "h", "value": null }, { "name": "h", "value": "" }],
            })
        );
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
    }

    #[test]
    fn raw_is_the_value_and_nothing_else() {
        let mut out = Vec::new();
        raw(&mut out, &record()).expect("a vector takes it");
        raw(&mut out, &Record { value: None, ..record() }).expect("a vector takes it");
        assert_eq!(out, b"\xff\0\n\n");
    }
}
