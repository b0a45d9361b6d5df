//! The sparse offset index of one segment: Kafka's `.index` file.
//!
//! Entries of 8 bytes, big-endian: the last offset of a batch relative to the
//! segment's base (u32), and where that batch starts (u32). Derived data: an
//! entry is believed only after the batch it points to agreed, and a missing or
//! doubtful file is rebuilt from the segment.
//!
//! The segment being written keeps its entries in memory; those of finished
//! segments stay on disk and are searched there, so that memory does not grow
//! with the log.

use crate::vfs::{Vfs, VfsFile};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of an entry.
const ENTRY_LEN: u64 = 8;

/// Entries that a segment being written gathers before it writes them out, a
/// page's worth. A clean start walks the headers of at most the data they stand
/// for (2 MiB at one entry per 4 KiB), should they not have been written.
const FLUSH_ENTRIES: usize = 512;

/// Entries that a search on disk reads at once, when it has come that close.
const SEARCH_BLOCK: u64 = 64;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Last offset of the batch, less the segment's base.
    pub(super) relative: u32,
    /// Where the batch starts; never 0.
    pub(super) position: u32,
}

impl Entry {
    fn to_bytes(self) -> [u8; 8] {
        (u64::from(self.relative) << 32 | u64::from(self.position)).to_be_bytes()
    }

    fn from_bytes(bytes: [u8; 8]) -> Self {
        let raw = u64::from_be_bytes(bytes);
        Self { relative: (raw >> 32) as u32, position: raw as u32 }
    }
}

/// The index of one segment.
pub(super) struct Index {
    path: PathBuf,
    entries: Entries,
    /// Bytes appended to the segment since the last entry.
    bytes_since: u64,
}

enum Entries {
    /// All in memory; the first `flushed` are in the file as well.
    Resident { list: Vec<Entry>, flushed: usize },
    /// Only in the file, opened at the first search.
    OnDisk(Option<Arc<dyn VfsFile>>),
}

impl Index {
    /// The index of an empty segment; an old file of that name is replaced.
    pub(super) fn empty(path: PathBuf) -> Self {
        Self { path, entries: Entries::Resident { list: Vec::new(), flushed: 0 }, bytes_since: 0 }
    }

    /// The index of a finished segment, not looked at yet.
    pub(super) fn on_disk(path: PathBuf) -> Self {
        Self { path, entries: Entries::OnDisk(None), bytes_since: 0 }
    }

    /// Takes note of a batch appended; every `interval` bytes one gets an entry.
    pub(super) fn note(&mut self, relative: u32, position: u32, len: usize, interval: u32) {
        if self.bytes_since > u64::from(interval)
            && let Entries::Resident { list, .. } = &mut self.entries
        {
            list.push(Entry { relative, position });
            self.bytes_since = 0;
        }
        self.bytes_since += len as u64;
    }

    /// Number of entries in memory.
    pub(super) fn resident_len(&self) -> usize {
        match &self.entries {
            Entries::Resident { list, .. } => list.len(),
            Entries::OnDisk(_) => 0,
        }
    }

    /// The last entry whose batch ends at or before `relative`: where a walk to
    /// that offset may start. An I/O error or absurd file: rebuild the index.
    pub(super) fn floor(&mut self, vfs: &dyn Vfs, relative: u32) -> io::Result<Option<Entry>> {
        match &mut self.entries {
            Entries::Resident { list, .. } => {
                let after = list.partition_point(|entry| entry.relative <= relative);
                Ok(after.checked_sub(1).map(|index| list[index]))
            }
            Entries::OnDisk(slot) => {
                let file = match slot {
                    Some(file) => Arc::clone(file),
                    None => Arc::clone(slot.insert(vfs.open_read_only(&self.path)?)),
                };
                floor_on_disk(&*file, relative)
            }
        }
    }

    /// Writes out gathered entries if they are worth a write.
    pub(super) fn flush_if_due(&mut self, vfs: &dyn Vfs) -> io::Result<()> {
        match &self.entries {
            Entries::Resident { list, flushed } if list.len() - flushed >= FLUSH_ENTRIES => {
                self.flush(vfs)
            }
            _ => Ok(()),
        }
    }

    /// Writes out gathered entries.
    pub(super) fn flush(&mut self, vfs: &dyn Vfs) -> io::Result<()> {
        if let Entries::Resident { list, flushed } = &mut self.entries
            && (*flushed < list.len())
        {
            let file = if *flushed == 0 { vfs.create(&self.path)? } else { vfs.open(&self.path)? };
            let bytes: Vec<u8> =
                list[*flushed..].iter().flat_map(|entry| entry.to_bytes()).collect();
            file.write_all_at(*flushed as u64 * ENTRY_LEN, &[&bytes])?;
            *flushed = list.len();
        }
        Ok(())
    }

    /// Writes the file whole and durably, and forgets the entries in memory.
    pub(super) fn seal(&mut self, vfs: &dyn Vfs) -> io::Result<()> {
        if let Entries::Resident { list, flushed } = &self.entries {
            if list.is_empty() || *flushed == 0 {
                vfs.create(&self.path)?;
            }
            self.flush(vfs)?;
            let file = vfs.open(&self.path)?;
            file.sync_data()?;
            self.entries = Entries::OnDisk(None);
        }
        Ok(())
    }

    /// Reads the file into memory and checks that it could be the index of a
    /// segment of `size` bytes. `InvalidData` if not.
    pub(super) fn load(&mut self, vfs: &dyn Vfs, size: u64) -> io::Result<Option<Entry>> {
        let file = vfs.open_read_only(&self.path)?;
        let len = file.len()?;
        // One entry needs more than its own length of log.
        if len % ENTRY_LEN != 0 || len > size {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = Vec::new();
        file.read_at(0, len as usize, &mut bytes)?;
        let (chunks, _) = bytes.as_chunks::<8>();
        let list: Vec<Entry> = chunks.iter().map(|chunk| Entry::from_bytes(*chunk)).collect();
        let ordered =
            list.windows(2).all(|w| w[0].relative < w[1].relative && w[0].position < w[1].position);
        let first = list.first().is_none_or(|entry| entry.position > 0);
        let last = list.last().copied();
        if !ordered || !first || last.is_some_and(|entry| u64::from(entry.position) >= size) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.bytes_since = 0;
        self.entries = Entries::Resident { flushed: list.len(), list };
        Ok(last)
    }

    /// Drops the entries of batches at or behind `position`. The entries must
    /// be in memory.
    pub(super) fn truncate(&mut self, vfs: &dyn Vfs, position: u64) -> io::Result<()> {
        if let Entries::Resident { list, flushed } = &mut self.entries {
            list.retain(|entry| u64::from(entry.position) < position);
            self.bytes_since = position - list.last().map_or(0, |e| u64::from(e.position));
            if *flushed > list.len() {
                *flushed = list.len();
                vfs.open(&self.path)?.set_len(list.len() as u64 * ENTRY_LEN)?;
            }
        }
        Ok(())
    }
}

/// Binary search by positioned reads, ending with one block.
fn floor_on_disk(file: &dyn VfsFile, relative: u32) -> io::Result<Option<Entry>> {
    let len = file.len()?;
    if len % ENTRY_LEN != 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut buffer = Vec::with_capacity((SEARCH_BLOCK * ENTRY_LEN) as usize);
    // Entries before `low` end at or before the offset, those from `high` on
    // after it.
    let (mut low, mut high) = (0, len / ENTRY_LEN);
    while high - low > SEARCH_BLOCK {
        let middle = low + (high - low) / 2;
        if read_entries(file, middle, 1, &mut buffer)?[0].relative <= relative {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    // The last one known to be low enough is the answer if none in here is.
    let first = low.saturating_sub(1);
    let block = read_entries(file, first, high - first, &mut buffer)?;
    Ok(block.into_iter().take_while(|entry| entry.relative <= relative).last())
}

fn read_entries(
    file: &dyn VfsFile,
    first: u64,
    count: u64,
    buffer: &mut Vec<u8>,
) -> io::Result<Vec<Entry>> {
    buffer.clear();
    file.read_at(first * ENTRY_LEN, (count * ENTRY_LEN) as usize, buffer)?;
    let (chunks, _) = buffer.as_chunks::<8>();
    if chunks.len() as u64 != count {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(chunks.iter().map(|chunk| Entry::from_bytes(*chunk)).collect())
}
