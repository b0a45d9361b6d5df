//! Bytes that came one piece after the other, to be read as if they were in one.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;

/// Shorter pieces, in bytes, are put together: what a piece costs beside its bytes must not
/// let a sender of very short ones fill the memory.
const SMALL_PIECE_BYTES: usize = 1024;

/// See the module.
#[derive(Default)]
pub(crate) struct Pieces {
    /// None of them empty.
    first: VecDeque<Bytes>,
    /// Small ones, behind all others.
    small: BytesMut,
    len: usize,
}

impl Pieces {
    pub(crate) fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        if piece.len() < SMALL_PIECE_BYTES {
            return self.small.extend_from_slice(&piece);
        }
        if !self.small.is_empty() {
            self.first.push_back(self.small.split().freeze());
        }
        self.first.push_back(piece);
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.first.front().map_or(&self.small, |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "{count} of {} bytes", self.len);
        self.len -= count;
        while let Some(piece) = self.first.front_mut() {
            if count < piece.len() {
                return piece.advance(count);
            }
            count -= piece.len();
            self.first.pop_front();
        }
        self.small.advance(count);
    }

    /// Without a copy where they lie in one piece.
    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        assert!(count <= self.len, "{count} of {} bytes", self.len);
        match self.first.front_mut() {
            Some(piece) if count < piece.len() => {
                self.len -= count;
                piece.split_to(count)
            }
            Some(piece) if count == piece.len() => {
                self.len -= count;
                self.first.pop_front().expect("it was there")
            }
            None => {
                self.len -= count;
                self.small.split_to(count).freeze()
            }
            Some(_) => {
                let mut together = BytesMut::with_capacity(count);
                together.put(self.take(count));
                together.freeze()
            }
        }
    }
}
