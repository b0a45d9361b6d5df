//! Walks the batches of a segment file in bounded reads.

use crate::LogError;
use crate::format::{BatchHeader, FormatError, HEADER_LEN};
use crate::vfs::VfsFile;
use ottla_proto::MAX_BATCH_BYTES;
use std::path::Path;

/// Bytes read at a time when looking for one batch: enough for the distance
/// between two index entries, so that a look-up is one or two reads.
pub(crate) const LOOKUP_CHUNK_BYTES: usize = 8 * 1024;

/// Bytes read at a time when every header of a segment is visited: batches of
/// ordinary size share a read, and a walk over large ones stays cheap.
pub(crate) const HEADERS_CHUNK_BYTES: usize = 64 * 1024;

/// Bytes read at a time when every byte is visited.
pub(crate) const SCAN_CHUNK_BYTES: usize = 1024 * 1024;

/// A batch met on the way.
pub(crate) struct WalkedBatch<'a> {
    pub(crate) header: BatchHeader,
    pub(crate) position: u64,
    pub(crate) bytes: &'a [u8],
}

/// A position in a segment, moving forward batch by batch. Holds one buffer.
pub(crate) struct Walker<'a> {
    path: &'a Path,
    file: &'a dyn VfsFile,
    position: u64,
    end: u64,
    chunk: usize,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<'a> Walker<'a> {
    /// From the batch at `position` on, up to the end of file `end`.
    pub(crate) fn new(
        path: &'a Path,
        file: &'a dyn VfsFile,
        position: u64,
        end: u64,
        chunk: usize,
    ) -> Self {
        Self { path, file, position, end, chunk, buffer: Vec::new(), buffer_at: 0 }
    }

    /// Where the next batch starts.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next batch's header and position; steps over its records.
    ///
    /// `Corrupt` for a bad header and for a batch that runs past the end.
    pub(crate) fn next_header(&mut self) -> Result<Option<(BatchHeader, u64)>, LogError> {
        let Some(header) = self.peek()? else {
            return Ok(None);
        };
        let position = self.position;
        self.position += header.total_len() as u64;
        Ok(Some((header, position)))
    }

    /// The next batch with all its bytes; nothing is checked but the header.
    pub(crate) fn next_batch(&mut self) -> Result<Option<WalkedBatch<'_>>, LogError> {
        let Some(header) = self.peek()? else {
            return Ok(None);
        };
        let position = self.position;
        self.fill(header.total_len())?;
        self.position += header.total_len() as u64;
        let start = (position - self.buffer_at) as usize;
        let bytes = &self.buffer[start..start + header.total_len()];
        Ok(Some(WalkedBatch { header, position, bytes }))
    }

    /// The next batch's header, without stepping over it.
    pub(crate) fn peek(&mut self) -> Result<Option<BatchHeader>, LogError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let left = self.end - self.position;
        self.fill(HEADER_LEN.min(usize::try_from(left).unwrap_or(HEADER_LEN)))?;
        let start = (self.position - self.buffer_at) as usize;
        let header =
            BatchHeader::parse(&self.buffer[start..]).map_err(|error| self.corrupt(error))?;
        let size = header.total_len();
        if size > MAX_BATCH_BYTES {
            return Err(self.corrupt(FormatError::TooLarge { size, limit: MAX_BATCH_BYTES }));
        }
        if size as u64 > left {
            let have = left as usize; // below `size`
            return Err(self.corrupt(FormatError::Truncated { needed: size, have }));
        }
        Ok(Some(header))
    }

    fn corrupt(&self, reason: FormatError) -> LogError {
        LogError::corrupt(self.path, self.position, reason)
    }

    /// Makes the buffer hold `needed` bytes from the position on; the caller
    /// has checked that they lie before the end.
    fn fill(&mut self, needed: usize) -> Result<(), LogError> {
        let held = self.buffer_at + self.buffer.len() as u64;
        if self.position >= self.buffer_at && self.position + needed as u64 <= held {
            return Ok(());
        }
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let want = needed.max(self.chunk).min(left);
        self.buffer.clear();
        self.buffer_at = self.position;
        let read = self
            .file
            .read_at(self.position, want, &mut self.buffer)
            .map_err(|error| LogError::io("read", self.path, error))?;
        if read < needed {
            return Err(LogError::corrupt(self.path, self.position, "the file ends early"));
        }
        Ok(())
    }
}
