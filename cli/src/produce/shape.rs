//! A line of input as a record: its bytes as the value, key and value with a separator,
//! or an object as `ottla consume --format json` prints it.

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ottla_client::{ProducerRecord, RecordHeader};
use serde::Deserialize;

/// How lines become records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Input {
    /// A line is a value, or, with --key-separator, a key and a value.
    #[default]
    Lines,
    /// A line is a JSON object, as `ottla consume --format json` prints it. Of its
    /// fields, key, value, headers and timestamp count; the others say where it was.
    Json,
}

/// What every record gets, and how lines are read.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    pub(super) input: Input,
    pub(super) key_separator: Option<String>,
    /// The key of every record.
    pub(super) key: Option<String>,
    /// A value that is this text is null: a tombstone.
    pub(super) null: Option<String>,
    /// Headers of every record.
    pub(super) headers: Vec<(String, String)>,
    pub(super) partition: Option<u32>,
}

impl Shape {
    pub(super) fn record(&self, line: Bytes) -> anyhow::Result<ProducerRecord> {
        let mut record = match self.input {
            Input::Json => from_json(&line)?,
            Input::Lines => self.split(line)?,
        };
        if let Some(key) = &self.key {
            record.key = Some(Bytes::from(key.clone()));
        }
        record.headers.extend(self.headers.iter().map(|(name, value)| RecordHeader {
            name: Bytes::from(name.clone()),
            value: Some(Bytes::from(value.clone())),
        }));
        Ok(ProducerRecord { partition: self.partition, ..record })
    }

    fn split(&self, line: Bytes) -> anyhow::Result<ProducerRecord> {
        let (key, value) = match &self.key_separator {
            None => (None, line),
            Some(separator) => {
                let Some(at) = find(&line, separator.as_bytes()) else {
                    bail!(
                        "there is no {separator:?} between key and value; without \
                         --key-separator the whole line is the value"
                    );
                };
                (Some(line.slice(..at)), line.slice(at + separator.len()..))
            }
        };
        let is_null = self.null.as_ref().is_some_and(|null| value == null.as_bytes());
        Ok(ProducerRecord { key, value: (!is_null).then_some(value), ..ProducerRecord::default() })
    }
}

fn find(bytes: &[u8], separator: &[u8]) -> Option<usize> {
    bytes.windows(separator.len()).position(|window| window == separator)
}

/// Bytes in JSON: a string, or an object that says `base64`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string, null, or {\"base64\": \"…\"}")]
enum Data {
    Text(String),
    Binary(Base64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64 {
    base64: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    name: Data,
    #[serde(default)]
    value: Option<Data>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    #[serde(default)]
    key: Option<Data>,
    value: Option<Data>,
    #[serde(default)]
    headers: Vec<Header>,
    #[serde(default)]
    timestamp: Option<i64>,
    /// Where it was: of no consequence.
    #[serde(default, rename = "topic")]
    _topic: serde::de::IgnoredAny,
    #[serde(default, rename = "partition")]
    _partition: serde::de::IgnoredAny,
    #[serde(default, rename = "offset")]
    _offset: serde::de::IgnoredAny,
}

fn bytes(data: Data) -> anyhow::Result<Bytes> {
    match data {
        Data::Text(text) => Ok(text.into()),
        Data::Binary(Base64 { base64 }) => {
            Ok(STANDARD.decode(&base64).context("what stands under base64 is not that")?.into())
        }
    }
}

fn from_json(line: &[u8]) -> anyhow::Result<ProducerRecord> {
    let object: Object = serde_json::from_slice(line).context(
        "not an object with a value, and perhaps key, headers and timestamp, such as \
         `ottla consume --format json` prints",
    )?;
    let header = |header: Header| {
        let value = header.value.map(bytes).transpose()?;
        Ok(RecordHeader { name: bytes(header.name)?, value })
    };
    Ok(ProducerRecord {
        key: object.key.map(bytes).transpose()?,
        value: object.value.map(bytes).transpose()?,
        headers: object.headers.into_iter().map(header).collect::<anyhow::Result<_>>()?,
        timestamp_ms: object.timestamp,
        partition: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(null: Option<&str>, key_separator: Option<&str>) -> Shape {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Shape { null: text(null), key_separator: text(key_separator), ..Shape::default() }
    }

    fn read(shape: &Shape, line: &'static str) -> (Option<Bytes>, Option<Bytes>) {
        let record = shape.record(Bytes::from(line)).expect(line);
        (record.key, record.value)
    }

    #[test]
    fn the_first_separator_splits() {
        assert_eq!(find(b"a::b::c", b"::"), Some(1));
        assert_eq!(find(b"::c", b"::"), Some(0));
        assert_eq!(find(b"a:b", b"::"), None);
        assert_eq!(find(b"", b":"), None);
    }

    /// Null differs from empty.
    #[test]
    fn tombstones_are_said_by_a_text() {
        let shape = lines(Some("NULL"), Some(":"));
        assert_eq!(read(&shape, "a:NULL"), (Some("a".into()), None));
        assert_eq!(read(&shape, "a:"), (Some("a".into()), Some("".into())));
        assert_eq!(read(&shape, "NULL:NULL"), (Some("NULL".into()), None), "keys are as they are");
        assert_eq!(read(&lines(Some(""), None), ""), (None, None));
        assert_eq!(read(&lines(None, None), ""), (None, Some("".into())));
        assert!(shape.record("no separator".into()).is_err());
    }

    #[test]
    fn an_object_says_all_of_a_record() {
        let shape = Shape { input: Input::Json, ..Shape::default() };
        let line = r#"{"partition":3,"offset":7,"timestamp":1000,"key":"k","value":{"base64":"/wA="},
            "headers":[{"name":"h","value":null},{"name":"h","value":""}]}"#;
        let record = shape.record(line.into()).expect("an object");
        let header = |value: Option<&'static str>| RecordHeader {
            name: "h".into(),
            value: value.map(Bytes::from),
        };
        let expected = ProducerRecord {
            key: Some("k".into()),
            value: Some(Bytes::from_static(b"\xff\0")),
            headers: vec![header(None), header(Some(""))],
            timestamp_ms: Some(1000),
            partition: None,
        };
        assert_eq!(record, expected);
        assert_eq!(read(&shape, r#"{"key":"k","value":null}"#), (Some("k".into()), None));
    }

    #[test]
    fn objects_that_say_something_else_are_refused() {
        let shape = Shape { input: Input::Json, ..Shape::default() };
        for line in [
            "",
            "text",
            "[]",
            r#"{"value":1}"#,
            r#"{"value":{"base64":"?"}}"#,
            r#"{"value":"v","colour":"red"}"#,
            r#"{"value":"v","headers":[{"value":"x"}]}"#,
            r#"{"value":"v"} {"value":"v"}"#,
        ] {
            assert!(shape.record(line.into()).is_err(), "{line}");
        }
    }

    #[test]
    fn every_record_gets_the_headers_and_the_key_of_the_command() {
        let headers = vec![("source".to_owned(), "test".to_owned())];
        let shape = Shape { key: Some("all".to_owned()), headers, ..Shape::default() };
        let record = shape.record("v".into()).expect("a value");
        assert_eq!(record.key, Some("all".into()));
        assert_eq!(record.headers.len(), 1);
    }
}
