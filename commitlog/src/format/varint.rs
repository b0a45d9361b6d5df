//! Zig-zag variable-length integers, as in protocol buffers' `sint32/sint64`.

use super::FormatError;
use bytes::BufMut;
use std::ops::Range;

/// Longest encoding of 32 bits, in bytes.
pub(super) const MAX_VARINT_LEN: usize = 5;
/// Longest encoding of 64 bits, in bytes.
pub(super) const MAX_VARLONG_LEN: usize = 10;

/// What records are parsed from, read forward; no step goes beyond the end.
pub(super) trait Input {
    /// Bytes read.
    fn position(&self) -> usize;

    /// Most bytes that can follow.
    fn may_remain(&self) -> usize;

    fn u8(&mut self) -> Result<u8, FormatError>;

    /// Steps over `len` bytes and returns where they are.
    fn skip(&mut self, len: usize) -> Result<Range<usize>, FormatError>;

    /// Makes sure that nothing follows.
    fn end(&mut self) -> Result<(), FormatError>;

    fn varint(&mut self) -> Result<i32, FormatError> {
        let raw = unsigned(self, MAX_VARINT_LEN)?;
        let raw = u32::try_from(raw).map_err(|_| FormatError::Varint)?;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    fn varlong(&mut self) -> Result<i64, FormatError> {
        let raw = unsigned(self, MAX_VARLONG_LEN)?;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }
}

fn unsigned(input: &mut (impl Input + ?Sized), max_len: usize) -> Result<u64, FormatError> {
    let mut value: u64 = 0;
    for index in 0..max_len {
        let byte = input.u8()?;
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * u32::try_from(index).map_err(|_| FormatError::Varint)?;
        if shift == 63 && bits > 1 {
            return Err(FormatError::Varint);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(FormatError::Varint)
}

/// A slice, read forward.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }
}

impl Input for Cursor<'_> {
    fn position(&self) -> usize {
        self.position
    }

    fn may_remain(&self) -> usize {
        self.bytes.len() - self.position
    }

    fn u8(&mut self) -> Result<u8, FormatError> {
        let byte = *self
            .bytes
            .get(self.position)
            .ok_or(FormatError::Truncated { needed: self.position + 1, have: self.bytes.len() })?;
        self.position += 1;
        Ok(byte)
    }

    fn skip(&mut self, len: usize) -> Result<Range<usize>, FormatError> {
        if len > self.may_remain() {
            return Err(FormatError::Truncated {
                needed: self.position.saturating_add(len),
                have: self.bytes.len(),
            });
        }
        let start = self.position;
        self.position += len;
        Ok(start..self.position)
    }

    fn end(&mut self) -> Result<(), FormatError> {
        let extra = self.may_remain();
        if extra == 0 { Ok(()) } else { Err(FormatError::Trailing { extra }) }
    }
}

pub(super) fn put_varint(out: &mut impl BufMut, value: i32) {
    put_varlong(out, i64::from(value));
}

/// The encoding of a value does not depend on its declared width.
pub(super) fn put_varlong(out: &mut impl BufMut, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while raw >= 0x80 {
        out.put_u8((raw & 0x7f) as u8 | 0x80);
        raw >>= 7;
    }
    out.put_u8(raw as u8);
}

pub(super) fn varlong_len(value: i64) -> usize {
    let raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    (64 - (raw | 1).leading_zeros() as usize).div_ceil(7)
}
