//! Records in a shape of the caller's: text with `%v` for the value, and so on.

use bytes::Bytes;
use ottla_client::{Record, RecordHeader};
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

/// What stands between the placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    KeyBytes,
    Value,
    ValueBytes,
    Headers,
    Millis,
    Time,
}

/// A parsed `--output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

impl Template {
    /// Reads placeholders and escapes. Anything else stands for itself.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            match char {
                '%' => match placeholder(chars.next())? {
                    Some(piece) => pieces.push(piece),
                    None => push(&mut pieces, b"%"),
                },
                '\\' => {
                    let byte = escape(&mut chars)?;
                    push(&mut pieces, &[byte]);
                }
                other => push(&mut pieces, other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Ok(Self(pieces))
    }

    /// Writes one record, and nothing after it.
    pub(super) fn write(
        &self,
        out: &mut impl Write,
        topic: &str,
        partition: u32,
        record: &Record,
        null: &str,
    ) -> io::Result<()> {
        let bytes = |out: &mut dyn Write, bytes: Option<&Bytes>| match bytes {
            Some(bytes) => out.write_all(bytes),
            None => out.write_all(null.as_bytes()),
        };
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.write_all(text)?,
                Piece::Topic => out.write_all(topic.as_bytes())?,
                Piece::Partition => write!(out, "{partition}")?,
                Piece::Offset => write!(out, "{}", record.offset)?,
                Piece::Key => bytes(out, record.key.as_ref())?,
                Piece::KeyBytes => write!(out, "{}", length(record.key.as_ref()))?,
                Piece::Value => bytes(out, record.value.as_ref())?,
                Piece::ValueBytes => write!(out, "{}", length(record.value.as_ref()))?,
                Piece::Headers => headers(out, &record.headers, null)?,
                Piece::Millis => write!(out, "{}", record.timestamp_ms)?,
                Piece::Time => out.write_all(time(record.timestamp_ms).as_bytes())?,
            }
        }
        Ok(())
    }
}

fn push(pieces: &mut Vec<Piece>, bytes: &[u8]) {
    match pieces.last_mut() {
        Some(Piece::Text(text)) => text.extend_from_slice(bytes),
        _ => pieces.push(Piece::Text(bytes.to_vec())),
    }
}

/// `None` for `%%`.
fn placeholder(letter: Option<char>) -> Result<Option<Piece>, String> {
    Ok(Some(match letter {
        Some('t') => Piece::Topic,
        Some('p') => Piece::Partition,
        Some('o') => Piece::Offset,
        Some('k') => Piece::Key,
        Some('K') => Piece::KeyBytes,
        Some('v') => Piece::Value,
        Some('V') => Piece::ValueBytes,
        Some('h') => Piece::Headers,
        Some('m') => Piece::Millis,
        Some('d') => Piece::Time,
        Some('%') => return Ok(None),
        Some(other) => {
            return Err(format!("%{other} is no placeholder: %t %p %o %k %K %v %V %h %m %d %%"));
        }
        None => return Err("ends with a lone %; write %% for a percent sign".to_owned()),
    }))
}

fn escape(chars: &mut std::str::Chars<'_>) -> Result<u8, String> {
    Ok(match chars.next() {
        Some('n') => b'\n',
        Some('t') => b'\t',
        Some('r') => b'\r',
        Some('0') => 0,
        Some('\\') => b'\\',
        Some('x') => {
            let digits: String = chars.by_ref().take(2).collect();
            let wrong = || format!("\\x{digits} is no byte: two hexadecimal digits follow \\x");
            if digits.len() != 2 {
                return Err(wrong());
            }
            u8::from_str_radix(&digits, 16).map_err(|_| wrong())?
        }
        Some(other) => return Err(format!("\\{other} is no escape: \\n \\t \\r \\0 \\\\ \\xHH")),
        None => return Err("ends with a lone \\; write \\\\ for a backslash".to_owned()),
    })
}

/// -1 for null.
fn length(bytes: Option<&Bytes>) -> i64 {
    bytes.map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX))
}

/// `name=value,name=value`.
fn headers(out: &mut impl Write, headers: &[RecordHeader], null: &str) -> io::Result<()> {
    for (index, header) in headers.iter().enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        out.write_all(&header.name)?;
        out.write_all(b"=")?;
        out.write_all(header.value.as_deref().unwrap_or(null.as_bytes()))?;
    }
    Ok(())
}

/// As RFC 3339 has it, if a calendar has it.
fn time(millis: i64) -> String {
    let since = u64::try_from(millis).ok().map(Duration::from_millis);
    let time = since.and_then(|since| UNIX_EPOCH.checked_add(since));
    // The last second of the year 9999: beyond it there is no such text.
    let known = time.filter(|_| millis < 253_402_300_800_000);
    known.map_or_else(
        || millis.to_string(),
        |time| humantime::format_rfc3339_millis(time).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let header = |name: &'static str, value: Option<&'static str>| RecordHeader {
            name: name.into(),
            value: value.map(Bytes::from),
        };
        Record {
            offset: 7,
            timestamp_ms: 1500,
            key: Some("k".into()),
            value: None,
            headers: vec![header("a", Some("1")), header("a", None)],
        }
    }

    fn shown(template: &str) -> String {
        let mut out = Vec::new();
        let template = Template::parse(template).expect("a template");
        template.write(&mut out, "orders", 3, &record(), "NULL").expect("a vector takes it");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn placeholders_and_escapes() {
        assert_eq!(shown(r"%t-%p@%o: %k=%v\n"), "orders-3@7: k=NULL\n");
        assert_eq!(shown(r"%K %V %h"), "1 -1 a=1,a=NULL");
        assert_eq!(shown(r"%m %d"), "1500 1970-01-01T00:00:01.500Z");
        assert_eq!(shown(r"100%% ü \\ \t\x41\0"), "100% ü \\ \tA\0");
        assert_eq!(shown(""), "");
    }

    #[test]
    fn a_time_beyond_the_calendar_is_a_number() {
        assert_eq!(time(i64::MAX), i64::MAX.to_string());
        assert_eq!(time(-5), "-5");
        assert_eq!(time(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn nonsense_is_refused_with_what_there_is() {
        for (text, told) in [
            ("%z", "%z is no placeholder: %t"),
            ("%", "%%"),
            (r"\q", r"\q is no escape"),
            ("\\", r"\\"),
            (r"\x4", r"\x4 is no byte"),
            (r"\xzz", r"\xzz is no byte"),
        ] {
            let error = Template::parse(text).expect_err(text);
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
