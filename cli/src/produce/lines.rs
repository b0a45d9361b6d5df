//! Splits standard input into lines of raw bytes, within bounded memory.

use bytes::{Bytes, BytesMut};
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use tokio::sync::mpsc;

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Longest line, in bytes: no topic takes a larger batch.
const MAX_LINE_BYTES: usize = ottla_proto::MAX_BATCH_BYTES;

/// Chunks read ahead of the producer.
const CHUNKS_AHEAD: usize = 4;

/// Lines without their newline, or why there are no more.
pub(super) type Chunk = Result<Vec<Bytes>, LineError>;

#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error("reading standard input: {0}")]
    Io(#[from] io::Error),
    #[error("line {line} is longer than {MAX_LINE_BYTES} bytes")]
    TooLong { line: u64 },
}

/// Reads standard input in a thread of its own. Not one of the runtime's: it
/// cannot be stopped while it waits for input.
pub(super) fn read_stdin() -> mpsc::Receiver<Chunk> {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    std::thread::spawn(move || {
        let mut lines = Lines::new(io::stdin().lock());
        loop {
            let chunk = lines.next_chunk();
            let last = !matches!(&chunk, Ok(Some(_)));
            if let Some(chunk) = chunk.transpose()
                && sender.blocking_send(chunk).is_err()
            {
                return;
            }
            if last {
                return;
            }
        }
    });
    receiver
}

/// How many bytes standard input has, if it is a file.
pub(super) fn stdin_bytes() -> Option<u64> {
    let file = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
    let metadata = file.metadata().ok()?;
    metadata.is_file().then_some(metadata.len())
}

/// Whether nobody types it.
pub(super) fn stdin_is_elsewhere() -> bool {
    !io::stdin().is_terminal()
}

/// Lines of any input: split at `\n` and nothing else, with nothing removed,
/// and a last one without `\n` if something follows the last `\n`.
struct Lines<R> {
    input: R,
    /// What is not split yet.
    rest: BytesMut,
    /// How much of it is known to hold no `\n`.
    searched: usize,
    complete: u64,
    ended: bool,
}

impl<R: Read> Lines<R> {
    fn new(input: R) -> Self {
        Self { input, rest: BytesMut::new(), searched: 0, complete: 0, ended: false }
    }

    /// The next lines, at least one; `None` at the end.
    fn next_chunk(&mut self) -> Result<Option<Vec<Bytes>>, LineError> {
        loop {
            let lines = self.split();
            self.complete += lines.len() as u64;
            if !lines.is_empty() {
                return Ok(Some(lines));
            }
            if self.rest.len() > MAX_LINE_BYTES {
                return Err(LineError::TooLong { line: self.complete + 1 });
            }
            if self.ended {
                let last = std::mem::take(&mut self.rest).freeze();
                self.searched = 0;
                return Ok(if last.is_empty() { None } else { Some(vec![last]) });
            }
            self.read()?;
        }
    }

    fn split(&mut self) -> Vec<Bytes> {
        let mut lines = Vec::new();
        while let Some(at) = self.rest[self.searched..].iter().position(|byte| *byte == b'\n') {
            let mut line = self.rest.split_to(self.searched + at + 1);
            line.truncate(line.len() - 1);
            lines.push(line.freeze());
            self.searched = 0;
        }
        self.searched = self.rest.len();
        lines
    }

    fn read(&mut self) -> io::Result<()> {
        let start = self.rest.len();
        self.rest.resize(start + CHUNK_BYTES, 0);
        let read = loop {
            match self.input.read(&mut self.rest[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.rest.truncate(start + *read.as_ref().unwrap_or(&0));
        self.ended = read? == 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out its bytes a few at a time, so that lines lie across reads.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(to.len());
            to[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn split(input: &[u8], step: usize) -> Vec<Vec<u8>> {
        let mut lines = Lines::new(Slow(input, step));
        let mut all = Vec::new();
        while let Some(chunk) = lines.next_chunk().expect("no error") {
            assert!(!chunk.is_empty());
            all.extend(chunk.iter().map(|line| line.to_vec()));
        }
        all
    }

    #[test]
    fn only_newlines_split_and_nothing_is_lost() {
        let cases: [(&[u8], &[&[u8]]); 6] = [
            (b"", &[]),
            (b"\n", &[b""]),
            (b"a\n\nb", &[b"a", b"", b"b"]),
            (b"a\r\nb\r", &[b"a\r", b"b\r"]),
            (b"\xff\xfe\0\n last", &[b"\xff\xfe\0", b" last"]),
            (b"one\ntwo\n", &[b"one", b"two"]),
        ];
        for (input, expected) in cases {
            for step in [1, 2, 3, 1000] {
                assert_eq!(split(input, step), expected, "{input:?} by {step}");
            }
        }
    }

    #[test]
    fn a_long_line_comes_in_one_piece() {
        let mut input = vec![b'x'; 3 * CHUNK_BYTES + 7];
        input.extend_from_slice(b"\nend");
        let lines = split(&input, 100_000);
        assert_eq!((lines.len(), lines[0].len()), (2, 3 * CHUNK_BYTES + 7));
    }

    /// An endless line does not fill memory, and is named.
    #[test]
    fn a_line_without_end_is_refused() {
        let input = io::Read::chain(&b"first\n"[..], io::repeat(b'x'));
        let mut lines = Lines::new(input);
        assert_eq!(lines.next_chunk().expect("good").expect("one").len(), 1);
        assert!(matches!(lines.next_chunk(), Err(LineError::TooLong { line: 2 })));
        assert!(lines.rest.len() <= MAX_LINE_BYTES + CHUNK_BYTES);
    }
}
