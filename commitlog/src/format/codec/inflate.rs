//! Decompressing: all at once, or in pieces for whoever only walks.

use super::super::varint::Input;
use super::{Compression, FormatError, MAX_INFLATED_BYTES, reader};
use bytes::Bytes;
use std::io::{self, Read};
use std::ops::Range;

/// Bytes decompressed at a time by a walk, and the smallest step by which a
/// buffer for all of them grows: a few blocks of any codec.
const CHUNK_BYTES: usize = 64 * 1024;

/// The records of a batch, decompressed; as they are if they were not compressed.
pub(in super::super) fn decompress(
    codec: Compression,
    records: Bytes,
) -> Result<Bytes, FormatError> {
    if codec == Compression::None {
        return Ok(records);
    }
    let failed = |reason| FormatError::Decompress { codec, reason };
    let mut reader = reader(codec, &records).map_err(failed)?;
    let mut out = Vec::new();
    let mut len = 0;
    loop {
        if len == out.len() {
            // One byte more than is allowed tells a batch that ends in time.
            let most = MAX_INFLATED_BYTES + 1;
            let step = len.max(CHUNK_BYTES).min(most - len);
            if step == 0 {
                return Err(FormatError::Inflates { limit: MAX_INFLATED_BYTES });
            }
            out.reserve_exact(step);
            out.resize(len + step, 0);
        }
        match read(&mut *reader, &mut out[len..]).map_err(|error| failed(error.to_string()))? {
            0 => break,
            read => len += read,
        }
    }
    out.truncate(len);
    Ok(Bytes::from(out))
}

fn read(reader: &mut dyn Read, out: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(out) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Compressed records, read forward. Holds one piece of them, whatever they say.
pub(in super::super) struct Inflated<'a> {
    codec: Compression,
    reader: Box<dyn Read + 'a>,
    piece: Vec<u8>,
    /// The part of `piece` that was not read yet.
    unread: Range<usize>,
    /// Bytes read.
    position: usize,
}

impl<'a> Inflated<'a> {
    pub(in super::super) fn new(
        codec: Compression,
        records: &'a [u8],
    ) -> Result<Self, FormatError> {
        let reader =
            reader(codec, records).map_err(|reason| FormatError::Decompress { codec, reason })?;
        Ok(Self { codec, reader, piece: vec![0; CHUNK_BYTES], unread: 0..0, position: 0 })
    }

    /// Makes sure that there is something unread, but for the end: `false`.
    fn fill(&mut self) -> Result<bool, FormatError> {
        if !self.unread.is_empty() {
            return Ok(true);
        }
        let codec = self.codec;
        let len = read(&mut *self.reader, &mut self.piece)
            .map_err(|error| FormatError::Decompress { codec, reason: error.to_string() })?;
        self.unread = 0..len;
        if self.position + len > MAX_INFLATED_BYTES {
            return Err(FormatError::Inflates { limit: MAX_INFLATED_BYTES });
        }
        Ok(len > 0)
    }

    fn ended(&self, needed: usize) -> FormatError {
        FormatError::Truncated { needed: self.position.saturating_add(needed), have: self.position }
    }
}

impl Input for Inflated<'_> {
    fn position(&self) -> usize {
        self.position
    }

    fn may_remain(&self) -> usize {
        MAX_INFLATED_BYTES - self.position
    }

    fn u8(&mut self) -> Result<u8, FormatError> {
        if !self.fill()? {
            return Err(self.ended(1));
        }
        let byte = self.piece[self.unread.start];
        self.unread.start += 1;
        self.position += 1;
        Ok(byte)
    }

    fn skip(&mut self, len: usize) -> Result<Range<usize>, FormatError> {
        let start = self.position;
        let mut left = len;
        while left > 0 {
            if !self.fill()? {
                return Err(self.ended(left));
            }
            let step = left.min(self.unread.len());
            self.unread.start += step;
            self.position += step;
            left -= step;
        }
        Ok(start..self.position)
    }

    /// Reading on to the end also checks the codec's own trailer.
    fn end(&mut self) -> Result<(), FormatError> {
        let mut extra = 0;
        while self.fill()? {
            extra += self.unread.len();
            self.position += self.unread.len();
            self.unread = 0..0;
        }
        if extra == 0 { Ok(()) } else { Err(FormatError::Trailing { extra }) }
    }
}
