//! A buffer that messages are written into, and that takes large payloads as they are.

use bytes::buf::UninitSlice;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;

/// From this length on, in bytes, a payload is a part of its own: shorter ones are copied
/// faster than HTTP/2 makes a frame of them.
pub(crate) const MIN_PAYLOAD_BYTES: usize = 4 * 1024;

/// See the module.
#[derive(Default)]
pub(crate) struct Rope {
    done: VecDeque<Bytes>,
    /// What is written after them.
    open: BytesMut,
    len: usize,
}

impl Rope {
    /// Bytes that were written and not taken.
    pub(crate) fn len(&self) -> usize {
        self.len + self.open.len()
    }

    /// The next part, in order.
    pub(crate) fn take_part(&mut self) -> Option<Bytes> {
        self.seal();
        let part = self.done.pop_front()?;
        self.len -= part.len();
        Some(part)
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            let part = self.open.split().freeze();
            self.push(part);
        }
    }

    fn push(&mut self, part: Bytes) {
        self.len += part.len();
        self.done.push_back(part);
    }
}

// SAFETY: all of the contract is `BytesMut`'s, which every call goes to; `put` writes
// nothing into spare capacity by itself.
#[allow(unsafe_code)] // `BufMut` cannot be implemented otherwise, and prost writes into nothing else.
unsafe impl BufMut for Rope {
    fn remaining_mut(&self) -> usize {
        self.open.remaining_mut()
    }

    unsafe fn advance_mut(&mut self, count: usize) {
        // SAFETY: the caller's promise is about what `chunk_mut` gave, and that was this one's.
        unsafe { self.open.advance_mut(count) }
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        self.open.chunk_mut()
    }

    fn put<T: Buf>(&mut self, mut source: T) {
        let len = source.remaining();
        if len < MIN_PAYLOAD_BYTES {
            return self.open.put(source);
        }
        self.seal();
        // Of `Bytes`, as prost gives them, this is another reference.
        self.push(source.copy_to_bytes(len));
    }

    fn put_slice(&mut self, source: &[u8]) {
        self.open.put_slice(source);
    }
}
