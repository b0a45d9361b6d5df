//! A file of entries of one size in ascending order, and the memory of it.
//!
//! The segment being written keeps its entries in memory; those of finished
//! segments stay on disk and are searched there, so that memory does not grow
//! with the log.
//!
//! Not its job: what the entries mean, and whether they are true.

use crate::vfs::{Vfs, VfsFile};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Entries that a search on disk reads at once, when it has come that close.
const SEARCH_BLOCK: u64 = 64;

/// An entry of a table.
pub(super) trait Entry: Copy {
    /// Bytes of one on disk.
    const LEN: usize;

    /// Appends its bytes.
    fn encode(self, into: &mut Vec<u8>);

    /// From exactly [`Entry::LEN`] bytes.
    fn decode(bytes: &[u8]) -> Self;

    /// Whether `next` may follow this one.
    fn precedes(&self, next: &Self) -> bool;
}

/// The entries of one file.
pub(super) struct Table<E> {
    path: PathBuf,
    entries: Entries<E>,
}

enum Entries<E> {
    /// All in memory; the first `flushed` are in the file as well.
    Resident { list: Vec<E>, flushed: usize },
    /// Only in the file, opened at the first search.
    OnDisk(Option<Arc<dyn VfsFile>>),
}

/// The entries in the bytes of a file; `None` where they are not in order or the
/// last is not whole.
fn parse<E: Entry>(bytes: &[u8]) -> Option<Vec<E>> {
    if !bytes.len().is_multiple_of(E::LEN) {
        return None;
    }
    let list: Vec<E> = bytes.chunks_exact(E::LEN).map(E::decode).collect();
    list.windows(2).all(|pair| pair[0].precedes(&pair[1])).then_some(list)
}

impl<E: Entry> Table<E> {
    /// Without entries; an old file of that name is replaced.
    pub(super) fn empty(path: PathBuf) -> Self {
        Self { path, entries: Entries::Resident { list: Vec::new(), flushed: 0 } }
    }

    /// What is in the file, which is not looked at yet.
    pub(super) fn on_disk(path: PathBuf) -> Self {
        Self { path, entries: Entries::OnDisk(None) }
    }

    pub(super) fn is_on_disk(&self) -> bool {
        matches!(self.entries, Entries::OnDisk(_))
    }

    /// Appends an entry, unless it does not follow the last one: then a batch on
    /// disk states a false offset, and gets no entry.
    pub(super) fn push(&mut self, entry: E) {
        if let Entries::Resident { list, .. } = &mut self.entries
            && list.last().is_none_or(|last| last.precedes(&entry))
        {
            list.push(entry);
        }
    }

    /// The entries in memory.
    pub(super) fn resident(&self) -> &[E] {
        match &self.entries {
            Entries::Resident { list, .. } => list,
            Entries::OnDisk(_) => &[],
        }
    }

    /// Entries in memory that are not in the file.
    pub(super) fn unflushed(&self) -> usize {
        match &self.entries {
            Entries::Resident { list, flushed } => list.len() - flushed,
            Entries::OnDisk(_) => 0,
        }
    }

    /// The last of the entries for which `low` holds: it holds for a beginning of
    /// them. An I/O error or absurd file: not to be used.
    pub(super) fn floor(
        &mut self,
        vfs: &dyn Vfs,
        low: impl Fn(&E) -> bool,
    ) -> io::Result<Option<E>> {
        match &mut self.entries {
            Entries::Resident { list, .. } => {
                let after = list.partition_point(low);
                Ok(after.checked_sub(1).map(|index| list[index]))
            }
            Entries::OnDisk(slot) => {
                let file = match slot {
                    Some(file) => Arc::clone(file),
                    None => Arc::clone(slot.insert(vfs.open_read_only(&self.path)?)),
                };
                floor_on_disk(&*file, low)
            }
        }
    }

    /// Writes out what is only in memory.
    pub(super) fn flush(&mut self, vfs: &dyn Vfs) -> io::Result<()> {
        if let Entries::Resident { list, flushed } = &mut self.entries
            && (*flushed < list.len())
        {
            let file = if *flushed == 0 { vfs.create(&self.path)? } else { vfs.open(&self.path)? };
            let mut bytes = Vec::with_capacity((list.len() - *flushed) * E::LEN);
            list[*flushed..].iter().for_each(|entry| entry.encode(&mut bytes));
            file.write_all_at((*flushed * E::LEN) as u64, &[&bytes])?;
            *flushed = list.len();
        }
        Ok(())
    }

    /// Makes the file whole and its bytes durable. The entries stay in memory.
    pub(super) fn write_whole(&mut self, vfs: &dyn Vfs) -> io::Result<()> {
        if let Entries::Resident { list, flushed } = &self.entries {
            if list.is_empty() || *flushed == 0 {
                vfs.create(&self.path)?;
            }
            self.flush(vfs)?;
            vfs.open(&self.path)?.sync_data()?;
        }
        Ok(())
    }

    /// Removes the file, which may be a part of what it should be.
    pub(super) fn remove_file(&mut self, vfs: &dyn Vfs) -> io::Result<()> {
        if let Entries::Resident { flushed, .. } = &mut self.entries {
            *flushed = 0;
        }
        vfs.remove_file(&self.path)
    }

    /// Opens the file for good, before the name is another's; without one there
    /// are no entries.
    pub(super) fn detach(&mut self, vfs: &dyn Vfs) {
        if matches!(self.entries, Entries::OnDisk(None)) {
            self.entries = match vfs.open_read_only(&self.path) {
                Ok(file) => Entries::OnDisk(Some(file)),
                Err(_) => Entries::Resident { list: Vec::new(), flushed: 0 },
            };
        }
    }

    /// Drops the memory of a file that is whole.
    pub(super) fn forget(&mut self) {
        if self.unflushed() == 0 {
            self.entries = Entries::OnDisk(None);
        }
    }

    /// Reads the file into memory. `InvalidData` if it is not a table of at most
    /// `limit` bytes.
    pub(super) fn load(&mut self, vfs: &dyn Vfs, limit: u64) -> io::Result<()> {
        let file = vfs.open_read_only(&self.path)?;
        let len = file.len()?;
        if len > limit {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = Vec::new();
        file.read_at(0, len as usize, &mut bytes)?;
        let list = parse(&bytes).ok_or(io::ErrorKind::InvalidData)?;
        self.entries = Entries::Resident { flushed: list.len(), list };
        Ok(())
    }

    /// Keeps the entries for which `keep` holds, a beginning of them. They must
    /// be in memory.
    pub(super) fn truncate(&mut self, vfs: &dyn Vfs, keep: impl Fn(&E) -> bool) -> io::Result<()> {
        if let Entries::Resident { list, flushed } = &mut self.entries {
            list.truncate(list.partition_point(keep));
            if *flushed > list.len() {
                *flushed = list.len();
                vfs.open(&self.path)?.set_len((list.len() * E::LEN) as u64)?;
            }
        }
        Ok(())
    }
}

/// Binary search by positioned reads, ending with one block.
fn floor_on_disk<E: Entry>(file: &dyn VfsFile, low: impl Fn(&E) -> bool) -> io::Result<Option<E>> {
    let len = file.len()?;
    if len % E::LEN as u64 != 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut buffer = Vec::with_capacity(SEARCH_BLOCK as usize * E::LEN);
    // Entries before `from` are low, those from `to` on are not.
    let (mut from, mut to) = (0, len / E::LEN as u64);
    while to - from > SEARCH_BLOCK {
        let middle = from + (to - from) / 2;
        if low(&read_entries::<E>(file, middle, 1, &mut buffer)?[0]) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    // The last one known to be low is the answer if none in here is.
    let first = from.saturating_sub(1);
    let block = read_entries::<E>(file, first, to - first, &mut buffer)?;
    Ok(block.into_iter().take_while(low).last())
}

fn read_entries<E: Entry>(
    file: &dyn VfsFile,
    first: u64,
    count: u64,
    buffer: &mut Vec<u8>,
) -> io::Result<Vec<E>> {
    buffer.clear();
    let wanted = count as usize * E::LEN;
    if file.read_at(first * E::LEN as u64, wanted, buffer)? != wanted {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(buffer.chunks_exact(E::LEN).map(E::decode).collect())
}
