//! Snappy in the framing of snappy-java, which Kafka's Java clients write: a
//! header of 16 bytes, then blocks, each behind its length (i32, big-endian).
//!
//! Kafka also reads a bare snappy block without any framing, because librdkafka
//! writes that; so do we.

use std::io::{self, Read};

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";

/// Magic, version (i32), and the oldest version that can read it (i32).
const HEADER_LEN: usize = 16;

/// Version of the framing that is written, and the oldest that is read.
const VERSION: i32 = 1;

/// Bytes of records in one block; snappy-java's default.
const BLOCK_BYTES: usize = 32 * 1024;

/// Most that one compressed byte can stand for, rounded up: a copy of 64 bytes
/// takes three.
const MAX_RATIO: usize = 22;

pub(super) fn compress(records: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + records.len() / 2);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&VERSION.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in records.chunks(BLOCK_BYTES) {
        let block = encoder.compress_vec(block).expect("a small block can be compressed");
        out.extend_from_slice(&(block.len() as u32).to_be_bytes());
        out.extend_from_slice(&block);
    }
    out
}

/// Decompresses block by block.
pub(super) struct Blocks<'a> {
    rest: &'a [u8],
    framed: bool,
    /// The block in hand and how much of it was read.
    block: Vec<u8>,
    read: usize,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(compressed: &'a [u8]) -> Result<Self, String> {
        let framed = compressed.len() >= HEADER_LEN && compressed.starts_with(&MAGIC);
        if compressed.is_empty() {
            return Err("no bytes".to_owned());
        }
        Ok(Self { rest: compressed, framed, block: Vec::new(), read: 0 })
    }

    /// The bytes of the next block; `None` at the end.
    fn next_block(&mut self) -> Result<Option<&'a [u8]>, String> {
        if !self.framed {
            let rest = std::mem::take(&mut self.rest);
            return Ok((!rest.is_empty()).then_some(rest));
        }
        // A header may stand before any block: streams can be concatenated.
        while self.rest.starts_with(&MAGIC) {
            let (header, rest) =
                self.rest.split_at_checked(HEADER_LEN).ok_or("the header is cut off")?;
            let version = header[8..].first_chunk().copied().map(i32::from_be_bytes);
            if version < Some(VERSION) {
                return Err(format!("version {version:?} of the framing"));
            }
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (len, rest) = self.rest.split_first_chunk().ok_or("a block's length is cut off")?;
        let len = u32::from_be_bytes(*len) as usize;
        let (block, rest) = rest.split_at_checked(len).ok_or("a block is cut off")?;
        self.rest = rest;
        Ok(Some(block))
    }

    /// Whether there was another block.
    fn inflate_next(&mut self) -> Result<bool, String> {
        let Some(block) = self.next_block()? else {
            return Ok(false);
        };
        let size = snap::raw::decompress_len(block).map_err(|error| error.to_string())?;
        if size > super::MAX_INFLATED_BYTES || size > block.len().saturating_mul(MAX_RATIO) {
            return Err(format!("a block of {} bytes states {size}", block.len()));
        }
        self.read = 0;
        self.block.resize(size, 0);
        let written = snap::raw::Decoder::new()
            .decompress(block, &mut self.block)
            .map_err(|error| error.to_string())?;
        assert_eq!(written, size, "the decoder fills what the block states");
        Ok(true)
    }
}

impl Read for Blocks<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.read == self.block.len() {
            if !self.inflate_next().map_err(io::Error::other)? {
                return Ok(0);
            }
        }
        let rest = &self.block[self.read..];
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        self.read += len;
        Ok(len)
    }
}
