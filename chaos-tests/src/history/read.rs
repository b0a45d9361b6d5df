//! Reads a history line by line, whoever wrote it.

use super::{Entry, FORMAT};
use std::io::{self, BufRead, Read as _};

/// Longest line. A poll may hold everything that a fetch answered, some MiB.
pub const MAX_LINE_BYTES: u64 = 64 * 1024 * 1024;

/// Why something is not a history. Reading it again does not help.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file could not be read.
    #[error("line {line}: {source}")]
    Io {
        /// Where.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// A line beyond [`MAX_LINE_BYTES`].
    #[error("line {line} is longer than {MAX_LINE_BYTES} bytes")]
    TooLong {
        /// Where.
        line: u64,
    },
    /// Not an entry.
    #[error("line {line}: {source}")]
    Malformed {
        /// Where.
        line: u64,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// An entry that cannot be at this place.
    #[error("line {line}: {why}")]
    Invalid {
        /// Where.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// The entries of a history with their lines, counted from 1. Empty lines are skipped.
pub fn read(mut input: impl BufRead) -> impl Iterator<Item = Result<(u64, Entry), HistoryError>> {
    let (mut line, mut text, mut ended) = (0, Vec::new(), false);
    std::iter::from_fn(move || {
        loop {
            if ended {
                return None;
            }
            line += 1;
            let next = match next_line(&mut input, line, &mut text) {
                Ok(false) => None,
                Ok(true) if text.iter().all(u8::is_ascii_whitespace) => continue,
                Ok(true) => Some(parse(&text, line).map(|entry| (line, entry))),
                Err(error) => Some(Err(error)),
            };
            ended = !matches!(next, Some(Ok(_)));
            return next;
        }
    })
}

/// False at the end.
fn next_line(
    input: &mut impl BufRead,
    line: u64,
    text: &mut Vec<u8>,
) -> Result<bool, HistoryError> {
    text.clear();
    let read = input.take(MAX_LINE_BYTES).read_until(b'\n', text);
    let read = read.map_err(|source| HistoryError::Io { line, source })?;
    if read as u64 == MAX_LINE_BYTES && text.last() != Some(&b'\n') {
        return Err(HistoryError::TooLong { line });
    }
    Ok(read > 0)
}

fn parse(text: &[u8], line: u64) -> Result<Entry, HistoryError> {
    let entry =
        serde_json::from_slice(text).map_err(|source| HistoryError::Malformed { line, source })?;
    if let Entry::Run(run) = &entry
        && run.format != FORMAT
    {
        let why = format!("format {} is not known, only {FORMAT}", run.format);
        return Err(HistoryError::Invalid { line, why });
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Call, Final, Operation, Outcome, Run, Send, write};

    fn error(text: &str) -> String {
        let all: Result<Vec<_>, _> = read(text.as_bytes()).collect();
        all.expect_err("it is wrong").to_string()
    }

    #[test]
    fn what_is_written_is_read() {
        let send = Send { key: "t-0".into(), value: "a\n\"b\" ü".into(), offset: None };
        let poll = [("t-0".to_owned(), vec![(7, "a".to_owned())])].into();
        let operation = |call| Operation {
            process: "p".into(),
            start: 1,
            end: u64::MAX,
            outcome: Outcome::Info,
            error: Some("gone".into()),
            call,
            rebalanced: vec!["t-0".into()],
        };
        let entries = vec![
            Entry::Run(Run { no_gaps: true, ..Run::default() }),
            Entry::Op(operation(Call::Send(send))),
            Entry::Op(operation(Call::Poll(poll))),
            Entry::Op(operation(Call::Crash)),
            Entry::Final(Final { at: 9 }),
        ];
        let mut text = Vec::new();
        write(&entries, &mut text).expect("memory");
        let lines: Result<Vec<_>, _> = read(&text[..]).collect();
        let lines = lines.expect("as written");
        assert_eq!(lines.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(lines.into_iter().map(|(_, entry)| entry).collect::<Vec<_>>(), entries);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let good = r#"{"final":{"at":1}}"#;
        for (bad, what) in [
            ("{", "EOF"),
            (r#"{"op":{}}"#, "missing field `process`"),
            (r#"{"fault_end":{"id":1,"at":-2}}"#, "invalid value"),
            (r#"{"final":{"at":1,"why":2}}"#, "unknown field `why`"),
            (r#"{"frobnicate":{}}"#, "unknown variant `frobnicate`"),
            (r#"{"run":{"format":2,"name":"x"}}"#, "format 2 is not known"),
        ] {
            let said = error(&format!("{good}\n\n{bad}\n{good}"));
            assert!(said.starts_with("line 3: ") && said.contains(what), "{said}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_given_up() {
        struct Endless;
        impl io::Read for Endless {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                into.fill(b'x');
                Ok(into.len())
            }
        }
        let found = read(io::BufReader::new(Endless)).next().expect("an error");
        assert!(matches!(found, Err(HistoryError::TooLong { line: 1 })), "{found:?}");
    }
}
