//! One segment: a file of whole batches, named by its first offset, and the
//! index beside it.

use super::index::{Index, OffsetEntry, TimeEntry};
use super::txn_index::TxnIndex;
use super::walk::{HEADERS_CHUNK_BYTES, LOOKUP_CHUNK_BYTES, Walker};
use crate::LogError;
use crate::format::{BatchHeader, check_batch};
use crate::vfs::{Vfs, VfsFile};
use ottla_proto::Offset;
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A segment. Its length is known to the log, which says how much is visible.
pub(super) struct Segment {
    pub(super) base: Offset,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn VfsFile>,
    pub(super) index: Mutex<Index>,
    pub(super) aborted: Mutex<TxnIndex>,
}

/// What a walk for index entries met.
#[derive(Default)]
struct Noted {
    last: Option<BatchHeader>,
    last_position: u64,
    odd: Option<Odd>,
}

/// The first batch whose offsets did not continue those before.
struct Odd {
    position: u64,
    base: Offset,
    expected: Offset,
}

/// `00000000000000000042.log`
pub(crate) fn log_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{base:020}.log"))
}

/// Extensions of the files that stand beside a segment's `.log`, named like it,
/// and say where in it something is: offset index, time index, aborted
/// transactions. All can be made again from the log.
const INDEXES: [&str; 3] = ["index", "timeindex", "txnindex"];

/// Extension of the file that holds the producers' state at the segment's start.
const SNAPSHOT: &str = "snapshot";

/// Removes every file of a segment, the batches last; that some are gone already
/// is no error. The caller syncs the directory.
pub(super) fn remove_files(vfs: &dyn Vfs, dir: &Path, base: Offset) -> Result<(), LogError> {
    remove_with(vfs, dir, base, &INDEXES)?;
    remove_with(vfs, dir, base, &[SNAPSHOT, "log"])
}

/// Removes what is true only of the batches that a segment holds now.
pub(super) fn remove_indexes(vfs: &dyn Vfs, dir: &Path, base: Offset) -> Result<(), LogError> {
    remove_with(vfs, dir, base, &INDEXES)
}

fn remove_with(
    vfs: &dyn Vfs,
    dir: &Path,
    base: Offset,
    extensions: &[&str],
) -> Result<(), LogError> {
    let log = log_path(dir, base);
    for path in extensions.iter().map(|extension| log.with_extension(extension)) {
        match vfs.remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LogError::io("remove", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
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
        Ok(Self::of_file(dir, base, file))
    }

    /// An empty one whose file may have another name until it is put in place.
    pub(super) fn of_file(dir: &Path, base: Offset, file: Arc<dyn VfsFile>) -> Self {
        let path = log_path(dir, base);
        let index = Mutex::new(Index::empty(&path));
        let aborted = Mutex::new(TxnIndex::empty(&path));
        Self { base, path, file, index, aborted }
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
        let index = Mutex::new(Index::on_disk(&path));
        let aborted = Mutex::new(TxnIndex::on_disk(&path));
        Ok(Self { base, path, file, index, aborted })
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
        self.locate_exactly(vfs, target, Offset::MAX, size, interval)
    }

    /// The same where offsets must continue each other from `start` on; below,
    /// batches may be missing. No CRC covers a batch's base offset: a false one is
    /// `Corrupt` for whoever looks for that batch, and for nobody else.
    pub(super) fn locate_exactly(
        &self,
        vfs: &dyn Vfs,
        target: Offset,
        start: Offset,
        size: u64,
        interval: u32,
    ) -> Result<Option<(BatchHeader, u64)>, LogError> {
        let mut walker = self.walk_near(vfs, target, size, interval)?;
        let mut next = (walker.position() == 0).then_some(self.base);
        while let Some((header, position)) = walker.next_header()? {
            // The first one met at an index entry is as the entry says.
            let expected = next.unwrap_or(header.base_offset);
            let follows = (expected..=start.max(expected)).contains(&header.base_offset);
            let first = if follows { header.base_offset } else { expected };
            let after = first + u64::from(header.last_offset_delta) + 1;
            if after > target && !follows {
                let reason = format!("offset {} where {expected} follows", header.base_offset);
                return Err(LogError::corrupt(&self.path, position, reason));
            }
            if after > target {
                return Ok(Some((header, position)));
            }
            next = Some(after);
        }
        Ok(None)
    }

    /// A walk that begins near before `target`, where a true index entry points.
    pub(super) fn walk_near(
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

    /// Makes the indexes anew from the headers. Those of a finished segment are
    /// written whole, those of the one being written stay in memory.
    pub(super) fn rebuild(
        &self,
        vfs: &dyn Vfs,
        index: &mut Index,
        size: u64,
        interval: u32,
    ) -> Result<(), LogError> {
        tracing::info!(path = %self.path.display(), "rebuilding the indexes");
        let finished = index.is_on_disk();
        let mut rebuilt = Index::empty(&self.path);
        self.note_from(&mut rebuilt, 0, size, interval)?;
        rebuilt.detached = index.detached;
        *index = rebuilt;
        if index.detached {
            return Ok(());
        }
        let written = if finished { index.write_whole(vfs) } else { index.flush(vfs) };
        match written {
            Ok(()) if finished => index.forget(),
            Ok(()) => {}
            // Derived data: a disk that refuses it costs the next start a walk.
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "index not written");
            }
        }
        Ok(())
    }

    /// Notes the batches from `position` to `size` in `index`. No CRC covers their
    /// offsets, and a false entry would agree with its batch: so one that leaves
    /// out offsets (as may be right at the log start) counts only if the next
    /// continues it, and one that repeats offsets does not.
    fn note_from(
        &self,
        index: &mut Index,
        position: u64,
        size: u64,
        interval: u32,
    ) -> Result<Noted, LogError> {
        let mut noted = Noted::default();
        let mut walker = self.walk(position, size, HEADERS_CHUNK_BYTES);
        let mut next = (position == 0).then_some(self.base);
        let mut doubtful: Option<(BatchHeader, u64)> = None;
        while let Some((header, position)) = walker.next_header()? {
            let base = header.base_offset;
            if let Some((before, at)) = doubtful.take()
                && before.next_offset() == base
            {
                index.note(self.base, &before, at, interval);
                next = Some(base);
            }
            let expected = next.unwrap_or(base);
            if expected == base {
                index.note(self.base, &header, position, interval);
            } else {
                noted.odd.get_or_insert(Odd { position, base, expected });
                doubtful = (base > expected).then_some((header, position));
            }
            next = Some(expected + u64::from(header.last_offset_delta) + 1);
            (noted.last, noted.last_position) = (Some(header), position);
        }
        if let Some((last, at)) = doubtful {
            index.note(self.base, &last, at, interval);
        }
        Ok(noted)
    }

    /// The last batch's header, through the index and a short walk; `None` for
    /// an empty segment. The walk must end exactly at `size`, and offsets continue
    /// each other but below the log start. Leaves the indexes in memory.
    pub(super) fn tail(
        &self,
        vfs: &dyn Vfs,
        start: Offset,
        size: u64,
        interval: u32,
    ) -> Result<Option<BatchHeader>, LogError> {
        let loaded = self.index.lock().load(vfs, size);
        let from = match loaded {
            Ok((last, largest)) if self.entries_hold(vfs, last, largest, size, interval)? => {
                last.map_or(0, |entry| u64::from(entry.position))
            }
            loaded => {
                if loaded.is_ok() {
                    tracing::warn!(path = %self.path.display(), "index does not match");
                }
                *self.index.lock() = Index::empty(&self.path);
                0
            }
        };
        let noted = self.note_from(&mut self.index.lock(), from, size, interval)?;
        match noted.odd {
            Some(Odd { position, base, expected }) if !(expected..=start).contains(&base) => {
                let reason = format!("offset {base} where {expected} follows");
                Err(LogError::corrupt(&self.path, position, reason))
            }
            _ => {
                self.check_last(&noted, size)?;
                Ok(noted.last)
            }
        }
    }

    /// The last batch decides where the log ends. Where the number of its records
    /// does not say the same, its CRC must.
    fn check_last(&self, noted: &Noted, size: u64) -> Result<(), LogError> {
        if let Some(last) = noted.last
            && last.record_count != last.last_offset_delta + 1
            && let Some(batch) =
                self.walk(noted.last_position, size, HEADERS_CHUNK_BYTES).next_batch()?
        {
            check_batch(batch.bytes)
                .map_err(|error| LogError::corrupt(&self.path, noted.last_position, error))?;
        }
        Ok(())
    }

    /// Whether the batches say what the last entries of the indexes say.
    fn entries_hold(
        &self,
        vfs: &dyn Vfs,
        last: Option<OffsetEntry>,
        largest: Option<TimeEntry>,
        size: u64,
        interval: u32,
    ) -> Result<bool, LogError> {
        if let Some(entry) = last {
            let at = u64::from(entry.position);
            let found = self.walk(at, size, LOOKUP_CHUNK_BYTES).next_header();
            let ends = found.ok().flatten().map(|(header, _)| header.last_offset());
            if ends != Some(self.base + u64::from(entry.relative)) {
                return Ok(false);
            }
        }
        match largest {
            Some(entry) => self.agrees(vfs, entry, size, interval),
            // Where an offset entry was made, the largest timestamp was noted.
            None => Ok(last.is_none()),
        }
    }

    /// Writes the indexes of a segment that is finished. Before the next one has
    /// a name: so an index file of a finished segment is whole or missing.
    pub(super) fn finish_index(&self, vfs: &dyn Vfs) {
        if let Err(error) = self.index.lock().write_whole(vfs) {
            tracing::warn!(path = %self.path.display(), %error, "index not written");
        }
    }

    /// Drops from the indexes what lies at or behind `position`; the batches before
    /// it end below `end`, those behind do not.
    pub(super) fn truncate_index(
        &self,
        vfs: &dyn Vfs,
        position: u64,
        end: Offset,
        interval: u32,
    ) -> Result<(), LogError> {
        let mut index = self.index.lock();
        let was_finished = index.is_on_disk();
        let loaded = if was_finished { index.load(vfs, u64::MAX).map(drop) } else { Ok(()) };
        let relative = if position == 0 { 0 } else { end.saturating_sub(self.base) };
        let from = loaded.and_then(|()| index.truncate(vfs, position, relative));
        match from {
            Ok(from) => self.note_from(&mut index, from, position, interval).map(drop),
            Err(_) => {
                *index = Index::empty(&self.path); // it is written again
                self.rebuild(vfs, &mut index, position, interval)
            }
        }
    }

    /// Walks from the batch at `position`.
    pub(super) fn walk(&self, position: u64, size: u64, chunk: usize) -> Walker<'_> {
        Walker::new(&self.path, &*self.file, position, size, chunk)
    }
}
