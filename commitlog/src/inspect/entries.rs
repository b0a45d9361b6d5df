//! The fixed-size entries of an index file, read one after the other.

use crate::vfs::{Vfs, VfsFile};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Entries read at a time.
const CHUNK_ENTRIES: usize = 4096;

/// A position in an index file whose entries have `N` bytes. Holds one read.
pub(super) struct Entries<const N: usize> {
    pub(super) path: PathBuf,
    file: Arc<dyn VfsFile>,
    len: u64,
    position: u64,
    chunk: Vec<u8>,
    chunk_at: u64,
}

impl<const N: usize> Entries<N> {
    /// `None` where there is no such file.
    pub(super) fn open(vfs: &dyn Vfs, path: &Path) -> io::Result<Option<Self>> {
        let file = match vfs.open_read_only(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let (path, len) = (path.to_owned(), file.len()?);
        Ok(Some(Self { path, file, len, position: 0, chunk: Vec::new(), chunk_at: 0 }))
    }

    /// Bytes behind the last whole entry.
    pub(super) fn odd_bytes(&self) -> u64 {
        self.len % N as u64
    }

    /// Where the next entry is.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next entry; `None` behind the last whole one.
    pub(super) fn peek(&mut self) -> io::Result<Option<[u8; N]>> {
        if self.position + N as u64 > self.len {
            return Ok(None);
        }
        if self.position < self.chunk_at
            || self.position + N as u64 > self.chunk_at + self.chunk.len() as u64
        {
            self.chunk.clear();
            self.chunk_at = self.position;
            self.file.read_at(self.position, CHUNK_ENTRIES * N, &mut self.chunk)?;
        }
        let start = (self.position - self.chunk_at) as usize;
        // Shorter when the file was cut meanwhile.
        Ok(self.chunk.get(start..).and_then(|rest| rest.first_chunk::<N>()).copied())
    }

    /// Goes on to the entry behind the next.
    pub(super) fn step(&mut self) {
        self.position += N as u64;
    }
}
