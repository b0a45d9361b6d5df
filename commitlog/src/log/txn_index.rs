//! The aborted transactions of one segment: Kafka's `.txnindex`. An entry
//! stands in the segment that holds the marker.
//!
//! Derived data: made again from the batch headers where it is missing or
//! garbage. A log that has never seen a transaction has none of these files.

use crate::producers::{ABORTED_TXN_LEN, AbortedTxn};
use crate::vfs::{Vfs, VfsFile};
use ottla_proto::Offset;
use std::io;
use std::path::{Path, PathBuf};

const ENTRY_LEN: u64 = ABORTED_TXN_LEN as u64;

/// Entries read at a time: some 4 KiB.
const BLOCK_ENTRIES: u64 = 120;

/// Entries that recovery gathers before it writes them out: 34 KiB.
const BULK_ENTRIES: usize = 1024;

/// The index of one segment.
pub(super) struct TxnIndex {
    path: PathBuf,
    /// Entries in the file; `None` until it was looked at.
    written: Option<u64>,
    /// Entries that are not in the file yet, behind those. As good as written
    /// for readers.
    waiting: Vec<AbortedTxn>,
    /// The name belongs to another segment's index by now.
    pub(super) detached: bool,
}

impl TxnIndex {
    /// Of a segment that holds no marker; an old file of that name is replaced.
    pub(super) fn empty(log_path: &Path) -> Self {
        let path = log_path.with_extension("txnindex");
        Self { path, written: Some(0), waiting: Vec::new(), detached: false }
    }

    /// Of a segment whose index was not looked at yet.
    pub(super) fn on_disk(log_path: &Path) -> Self {
        Self { written: None, ..Self::empty(log_path) }
    }

    /// Looks at the file. `NotFound` or `InvalidData`: rebuild the index.
    pub(super) fn load(&mut self, vfs: &dyn Vfs) -> io::Result<()> {
        if self.written.is_none() {
            if self.detached {
                return Err(io::ErrorKind::NotFound.into());
            }
            let len = vfs.open_read_only(&self.path)?.len()?;
            if len % ENTRY_LEN != 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.written = Some(len / ENTRY_LEN);
        }
        Ok(())
    }

    /// Takes note of a transaction whose marker is in the segment.
    pub(super) fn note(&mut self, aborted: AbortedTxn) {
        self.waiting.push(aborted);
    }

    /// As [`TxnIndex::note`], one of many: writes out what waits now and then.
    pub(super) fn note_in_bulk(&mut self, vfs: &dyn Vfs, aborted: AbortedTxn) {
        self.note(aborted);
        if self.waiting.len() >= BULK_ENTRIES
            && let Err(error) = self.flush(vfs)
        {
            tracing::warn!(path = %self.path.display(), %error, "aborted not written");
        }
    }

    /// Writes out what waits. After an error it still does.
    pub(super) fn flush(&mut self, vfs: &dyn Vfs) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let written = self.written.unwrap_or(0);
        let file = if written == 0 { vfs.create(&self.path)? } else { vfs.open(&self.path)? };
        let bytes: Vec<u8> = self.waiting.iter().flat_map(AbortedTxn::encode).collect();
        file.write_all_at(written * ENTRY_LEN, &[&bytes])?;
        self.written = Some(written + self.waiting.len() as u64);
        self.waiting.clear();
        Ok(())
    }

    /// Writes out what waits, durably; an empty file where there is nothing.
    pub(super) fn seal(&mut self, vfs: &dyn Vfs) -> io::Result<()> {
        self.flush(vfs)?;
        if self.written == Some(0) {
            vfs.create(&self.path)?;
            return Ok(());
        }
        vfs.open(&self.path)?.sync_data()
    }

    /// Makes what is there durable; does nothing where nothing is.
    pub(super) fn close(&mut self, vfs: &dyn Vfs) -> io::Result<()> {
        self.flush(vfs)?;
        if self.written > Some(0) { vfs.open(&self.path)?.sync_data() } else { Ok(()) }
    }

    /// The file is about to be that of another segment of that name: takes its
    /// entries into memory for readers of this one, and writes no more.
    pub(super) fn detach(&mut self, vfs: &dyn Vfs) {
        self.detached = true;
        if self.written.is_none_or(|written| written > 0) {
            let all = vfs.open_read_only(&self.path).and_then(|file| {
                let count =
                    self.written.map_or_else(|| file.len().map(|len| len / ENTRY_LEN), Ok)?;
                read(&*file, 0, count)
            });
            // Without them it is made again in memory, should anybody ask.
            self.written = all.is_ok().then_some(0);
            self.waiting.splice(..0, all.unwrap_or_default());
        }
    }

    /// Removes the file and forgets what was in it.
    pub(super) fn clear(&mut self, vfs: &dyn Vfs) -> io::Result<()> {
        self.waiting.clear();
        self.written = Some(0);
        match vfs.remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Adds the transactions that a reader of `from..upper` meets to `into`.
    /// Returns whether no later segment can hold another. `InvalidData`: rebuild
    /// the index, which must have been loaded.
    pub(super) fn find(
        &self,
        vfs: &dyn Vfs,
        from: Offset,
        upper: Offset,
        into: &mut Vec<AbortedTxn>,
    ) -> io::Result<bool> {
        let written = self.written.unwrap_or(0);
        if written > 0 {
            let file = vfs.open_read_only(&self.path)?;
            let mut next = first_from(&*file, written, from)?;
            let mut last = None;
            while next < written {
                let block = read(&*file, next, BLOCK_ENTRIES.min(written - next))?;
                next += block.len() as u64;
                for entry in block {
                    // A marker ends one transaction.
                    if last >= Some(entry.last_offset) {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    last = Some(entry.last_offset);
                    if take(entry, from, upper, into) {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(self.waiting.iter().any(|entry| take(*entry, from, upper, into)))
    }

    /// Drops the transactions whose markers lie at or behind `end`, durably. Errors as
    /// [`TxnIndex::find`].
    pub(super) fn truncate(&mut self, vfs: &dyn Vfs, end: Offset) -> io::Result<()> {
        self.waiting.retain(|entry| entry.last_offset < end);
        let written = self.written.unwrap_or(0);
        if written > 0 {
            let kept = first_from(&*vfs.open_read_only(&self.path)?, written, end)?;
            if kept < written {
                let file = vfs.open(&self.path)?;
                file.set_len(kept * ENTRY_LEN)?;
                self.written = Some(kept);
                // Nobody may look at it again before the segment is finished.
                file.sync_data()?;
            }
        }
        Ok(())
    }
}

/// Whether this entry is the last that can matter: all later ones have begun at
/// or behind `upper`.
fn take(entry: AbortedTxn, from: Offset, upper: Offset, into: &mut Vec<AbortedTxn>) -> bool {
    if entry.touches(from, upper) {
        into.push(entry);
    }
    entry.last_stable_offset >= upper
}

/// Index of the first of `count` entries whose marker is at or behind `offset`.
fn first_from(file: &dyn VfsFile, count: u64, offset: Offset) -> io::Result<u64> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if read(file, middle, 1)?[0].last_offset < offset {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// Exactly `count` entries from the one at `first` on.
fn read(file: &dyn VfsFile, first: u64, count: u64) -> io::Result<Vec<AbortedTxn>> {
    let mut bytes = Vec::new();
    file.read_at(first * ENTRY_LEN, (count * ENTRY_LEN) as usize, &mut bytes)?;
    let (chunks, _) = bytes.as_chunks::<ABORTED_TXN_LEN>();
    let entries: Option<Vec<_>> = chunks.iter().map(AbortedTxn::decode).collect();
    entries
        .filter(|entries| entries.len() as u64 == count)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}
