//! One segment: a file of whole batches, named by its first offset, and the
//! index beside it.

use super::index::Index;
use super::walk::{HEADERS_CHUNK_BYTES, LOOKUP_CHUNK_BYTES, Walker};
use crate::LogError;
use crate::format::BatchHeader;
use crate::vfs::{Vfs, VfsFile};
use ottla_proto::Offset;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A segment. Its length is known to the log, which says how much is visible.
pub(super) struct Segment {
    pub(super) base: Offset,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn VfsFile>,
    pub(super) index: Mutex<Index>,
}

/// `00000000000000000042.log`
pub(super) fn log_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{base:020}.log"))
}

pub(super) fn index_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{base:020}.index"))
}

/// The base offset in a segment's file name, if it is one with that extension.
pub(super) fn base_of(name: &str, extension: &str) -> Option<Offset> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

impl Segment {
    /// Creates an empty one, or empties the one that has the name. The caller
    /// syncs the directory.
    pub(super) fn create(vfs: &dyn Vfs, dir: &Path, base: Offset) -> Result<Self, LogError> {
        let path = log_path(dir, base);
        let file = vfs.create(&path).map_err(|error| LogError::io("create", &path, error))?;
        let index = Mutex::new(Index::empty(index_path(dir, base)));
        Ok(Self { base, path, file, index })
    }

    /// Opens one that exists; its index is not looked at.
    pub(super) fn open(
        vfs: &dyn Vfs,
        dir: &Path,
        base: Offset,
        read_only: bool,
    ) -> Result<Self, LogError> {
        let path = log_path(dir, base);
        let file = if read_only { vfs.open_read_only(&path) } else { vfs.open(&path) };
        let file = file.map_err(|error| LogError::io("open", &path, error))?;
        let index = Mutex::new(Index::on_disk(index_path(dir, base)));
        Ok(Self { base, path, file, index })
    }

    pub(super) fn file_len(&self) -> Result<u64, LogError> {
        self.file.len().map_err(|error| LogError::io("stat", &self.path, error))
    }

    /// The first batch whose last offset is at least `target`, among the first
    /// `size` bytes.
    pub(super) fn locate(
        &self,
        vfs: &dyn Vfs,
        target: Offset,
        size: u64,
        interval: u32,
    ) -> Result<Option<(BatchHeader, u64)>, LogError> {
        let mut walker = self.walk_near(vfs, target, size, interval)?;
        while let Some((header, position)) = walker.next_header()? {
            if header.last_offset() >= target {
                return Ok(Some((header, position)));
            }
        }
        Ok(None)
    }

    /// A walk that begins near before `target`, where a true index entry points.
    fn walk_near(
        &self,
        vfs: &dyn Vfs,
        target: Offset,
        size: u64,
        interval: u32,
    ) -> Result<Walker<'_>, LogError> {
        let relative = u32::try_from(target.saturating_sub(self.base)).unwrap_or(u32::MAX);
        // The lock is not held while the segment is read: an append needs it.
        let found = self.index.lock().floor(vfs, relative);
        match found {
            Ok(None) => return Ok(self.walk(0, size, LOOKUP_CHUNK_BYTES)),
            Ok(Some(entry)) => {
                let position = u64::from(entry.position);
                // Beyond the end when a truncation has overtaken this reader,
                // who will notice and look again.
                if position >= size {
                    return Ok(self.walk(0, size, LOOKUP_CHUNK_BYTES));
                }
                let mut walker = self.walk(position, size, LOOKUP_CHUNK_BYTES);
                if let Ok(Some(header)) = walker.peek()
                    && header.last_offset() == self.base + u64::from(entry.relative)
                {
                    return Ok(walker);
                }
                tracing::warn!(path = %self.path.display(), position, "index entry does not match");
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "index cannot be used");
            }
        }
        let mut index = self.index.lock();
        self.rebuild(vfs, &mut index, size, interval)?;
        let entry = index.floor(vfs, relative).ok().flatten();
        let from = entry.map_or(0, |entry| u64::from(entry.position));
        Ok(self.walk(from, size, LOOKUP_CHUNK_BYTES))
    }

    /// Makes the index anew from the headers; it stays in memory.
    pub(super) fn rebuild(
        &self,
        vfs: &dyn Vfs,
        index: &mut Index,
        size: u64,
        interval: u32,
    ) -> Result<(), LogError> {
        tracing::info!(path = %self.path.display(), "rebuilding the offset index");
        let mut rebuilt = Index::empty(self.path.with_extension("index"));
        let mut walker = self.walk(0, size, HEADERS_CHUNK_BYTES);
        while let Some((header, position)) = walker.next_header()? {
            self.note(&mut rebuilt, &header, position, interval);
        }
        *index = rebuilt;
        // Derived data: a disk that refuses it costs the next start a walk.
        if let Err(error) = index.flush(vfs) {
            tracing::warn!(path = %self.path.display(), %error, "index not written");
        }
        Ok(())
    }

    /// Takes note of a batch in an index of this segment.
    pub(super) fn note(&self, index: &mut Index, header: &BatchHeader, position: u64, every: u32) {
        let relative = u32::try_from(header.last_offset().saturating_sub(self.base));
        if let (Ok(relative), Ok(position)) = (relative, u32::try_from(position)) {
            index.note(relative, position, header.total_len(), every);
        }
    }

    /// The last batch's header, through the index and a short walk; `None` for
    /// an empty segment. The walk must end exactly at `size`. Leaves the index
    /// in memory.
    pub(super) fn tail(
        &self,
        vfs: &dyn Vfs,
        size: u64,
        interval: u32,
    ) -> Result<Option<BatchHeader>, LogError> {
        let mut index = self.index.lock();
        let mut from = 0;
        match index.load(vfs, size) {
            Ok(Some(entry)) => {
                from = u64::from(entry.position);
                let found = self.walk(from, size, LOOKUP_CHUNK_BYTES).next_header();
                let last = found.ok().flatten().map(|(header, _)| header.last_offset());
                if last != Some(self.base + u64::from(entry.relative)) {
                    tracing::warn!(path = %self.path.display(), "index does not match");
                    *index = Index::empty(self.path.with_extension("index"));
                    from = 0;
                }
            }
            Ok(None) => {}
            Err(_) => *index = Index::empty(self.path.with_extension("index")),
        }
        let mut last = None;
        let mut walker = self.walk(from, size, HEADERS_CHUNK_BYTES);
        while let Some((header, position)) = walker.next_header()? {
            self.note(&mut index, &header, position, interval);
            last = Some(header);
        }
        Ok(last)
    }

    /// Walks from the batch at `position`.
    pub(super) fn walk(&self, position: u64, size: u64, chunk: usize) -> Walker<'_> {
        Walker::new(&self.path, &*self.file, position, size, chunk)
    }
}
