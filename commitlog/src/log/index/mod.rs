//! The sparse indexes of one segment: Kafka's `.index` and `.timeindex`.
//!
//! Offset index, 8 bytes an entry, big-endian: the last offset of a batch less
//! the segment's base (u32), and where that batch starts (u32). Time index, 12
//! bytes: the largest timestamp of the segment so far (i64), and the last offset
//! of the batch that brought it, less the base (u32). Where the offset index gets
//! an entry, the time index gets one too if the largest timestamp has grown; and
//! a last one when the segment is finished.
//!
//! Derived data: an entry is believed only after the batch it points to agreed,
//! and a missing or doubtful file is rebuilt from the segment.

mod table;

use table::Entry;

use crate::format::BatchHeader;
use crate::vfs::Vfs;
use ottla_proto::Offset;
use std::io;
use std::path::Path;
use table::Table;

/// Entries that a segment being written gathers before it writes them out, a
/// page's worth. A clean start walks the headers of at most the data they stand
/// for (2 MiB at one entry per 4 KiB), should they not have been written.
const FLUSH_ENTRIES: usize = 512;

/// An entry of the offset index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OffsetEntry {
    /// Last offset of the batch, less the segment's base.
    pub(super) relative: u32,
    /// Where the batch starts; never 0.
    pub(super) position: u32,
}

/// An entry of the time index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeEntry {
    /// Largest timestamp of the segment when the entry was made, ms.
    pub(super) timestamp: i64,
    /// Last offset of the first batch that has it, less the segment's base.
    pub(super) relative: u32,
}

impl Entry for OffsetEntry {
    const LEN: usize = 8;

    fn encode(self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.relative.to_be_bytes());
        into.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        Self { relative: u32_at(bytes, 0), position: u32_at(bytes, 4) }
    }

    fn precedes(&self, next: &Self) -> bool {
        self.relative < next.relative && self.position < next.position
    }
}

impl Entry for TimeEntry {
    const LEN: usize = 12;

    fn encode(self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.timestamp.to_be_bytes());
        into.extend_from_slice(&self.relative.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        let timestamp = i64::from(u32_at(bytes, 0)) << 32 | i64::from(u32_at(bytes, 4));
        Self { timestamp, relative: u32_at(bytes, 8) }
    }

    fn precedes(&self, next: &Self) -> bool {
        self.timestamp < next.timestamp && self.relative < next.relative
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(out)
}

/// The indexes of one segment.
pub(super) struct Index {
    offsets: Table<OffsetEntry>,
    times: Table<TimeEntry>,
    /// Bytes appended to the segment since the last offset entry.
    bytes_since: u64,
    largest: Largest,
    /// Largest timestamp of the segment's first batch, once known.
    first_timestamp: Option<i64>,
    /// The names belong to another segment's indexes by now.
    pub(super) detached: bool,
}

/// The largest timestamp in a segment.
#[derive(Clone, Copy)]
enum Largest {
    /// Nobody has looked.
    Unknown,
    /// `None`: no batch has one.
    Known(Option<TimeEntry>),
}

impl Index {
    /// Of an empty segment; old files are replaced.
    pub(super) fn empty(log: &Path) -> Self {
        Self {
            offsets: Table::empty(log.with_extension("index")),
            times: Table::empty(log.with_extension("timeindex")),
            bytes_since: 0,
            largest: Largest::Known(None),
            first_timestamp: None,
            detached: false,
        }
    }

    /// Of a finished segment, not looked at yet.
    pub(super) fn on_disk(log: &Path) -> Self {
        Self {
            offsets: Table::on_disk(log.with_extension("index")),
            times: Table::on_disk(log.with_extension("timeindex")),
            bytes_since: 0,
            largest: Largest::Unknown,
            first_timestamp: None,
            detached: false,
        }
    }

    /// Whether the segment is finished and its entries are not in memory.
    pub(super) fn is_on_disk(&self) -> bool {
        self.offsets.is_on_disk()
    }

    /// Takes note of a batch appended to the segment that starts at `base`; every
    /// `interval` bytes one gets an entry.
    pub(super) fn note(
        &mut self,
        base: Offset,
        header: &BatchHeader,
        position: u64,
        interval: u32,
    ) {
        let relative = u32::try_from(header.last_offset().saturating_sub(base));
        let (Ok(relative), Ok(position)) = (relative, u32::try_from(position)) else {
            return; // no segment grows that far
        };
        if position == 0 {
            self.first_timestamp = Some(header.max_timestamp);
        }
        let timestamp = header.max_timestamp;
        if let Largest::Known(largest) = &mut self.largest
            && timestamp > largest.map_or(-1, |entry| entry.timestamp)
        {
            *largest = Some(TimeEntry { timestamp, relative });
        }
        if self.bytes_since > u64::from(interval) {
            self.offsets.push(OffsetEntry { relative, position });
            self.push_largest();
            self.bytes_since = 0;
        }
        self.bytes_since += header.total_len() as u64;
    }

    fn push_largest(&mut self) {
        if let Largest::Known(Some(largest)) = self.largest {
            let last = self.times.resident().last();
            if last.is_none_or(|last| last.timestamp < largest.timestamp) {
                self.times.push(largest);
            }
        }
    }

    /// Entries in memory of the index that has more.
    pub(super) fn resident_len(&self) -> usize {
        self.offsets.resident().len().max(self.times.resident().len())
    }

    /// The last entry whose batch ends at or before `relative`: where a walk to
    /// that offset may start. An I/O error or absurd file: rebuild the index.
    pub(super) fn floor(
        &mut self,
        vfs: &dyn Vfs,
        relative: u32,
    ) -> io::Result<Option<OffsetEntry>> {
        self.offsets.floor(vfs, |entry| entry.relative <= relative)
    }

    /// The last entry of a timestamp below `timestamp`: what is wanted comes
    /// behind it. An I/O error or absurd file: rebuild the index.
    pub(super) fn floor_time(
        &mut self,
        vfs: &dyn Vfs,
        timestamp: i64,
    ) -> io::Result<Option<TimeEntry>> {
        self.times.floor(vfs, |entry| entry.timestamp < timestamp)
    }

    /// The largest timestamp and whose it is, if it has been found out;
    /// `Some(None)` for a segment without any.
    pub(super) fn largest(&self) -> Option<Option<TimeEntry>> {
        match self.largest {
            Largest::Unknown => None,
            Largest::Known(largest) => Some(largest),
        }
    }

    /// The last entry of a finished segment's time index.
    pub(super) fn last_time(&mut self, vfs: &dyn Vfs) -> io::Result<Option<TimeEntry>> {
        self.times.floor(vfs, |_| true)
    }

    /// Keeps what [`Index::last_time`] said, if nobody found out meanwhile.
    pub(super) fn believe_largest(&mut self, entry: TimeEntry) {
        if matches!(self.largest, Largest::Unknown) {
            self.largest = Largest::Known(Some(entry));
        }
    }

    /// Largest timestamp of the first batch, if it has been seen.
    pub(super) fn first_timestamp(&self) -> Option<i64> {
        self.first_timestamp
    }

    pub(super) fn set_first_timestamp(&mut self, timestamp: i64) {
        self.first_timestamp = Some(timestamp);
    }

    /// Writes out gathered entries if they are worth a write.
    pub(super) fn flush_if_due(&mut self, vfs: &dyn Vfs) -> io::Result<()> {
        if self.offsets.unflushed() >= FLUSH_ENTRIES { self.flush(vfs) } else { Ok(()) }
    }

    /// Writes out gathered entries. The times first: whoever starts behind the
    /// last offset entry must find the largest timestamp up to there.
    pub(super) fn flush(&mut self, vfs: &dyn Vfs) -> io::Result<()> {
        self.times.flush(vfs)?;
        self.offsets.flush(vfs)
    }

    /// Makes the files whole and durable, for a segment that is finished. Where
    /// that fails they are removed: a missing index is rebuilt, but one that ends
    /// early would hide the largest timestamp.
    pub(super) fn write_whole(&mut self, vfs: &dyn Vfs) -> io::Result<()> {
        self.push_largest();
        let written = self.times.write_whole(vfs).and_then(|()| self.offsets.write_whole(vfs));
        if written.is_err() {
            let _ = (self.times.remove_file(vfs), self.offsets.remove_file(vfs));
        }
        written
    }

    /// Drops the memory of what the files hold.
    pub(super) fn forget(&mut self) {
        self.times.forget();
        self.offsets.forget();
    }

    /// The files are about to be those of another segment of that name: keeps
    /// what is there for readers of this one, and writes no more.
    pub(super) fn detach(&mut self, vfs: &dyn Vfs) {
        self.times.detach(vfs);
        self.offsets.detach(vfs);
        self.detached = true;
    }

    /// Reads the files into memory and checks that they could be the indexes of a
    /// segment of `size` bytes. `InvalidData` if not. The last entries.
    pub(super) fn load(
        &mut self,
        vfs: &dyn Vfs,
        size: u64,
    ) -> io::Result<(Option<OffsetEntry>, Option<TimeEntry>)> {
        // One entry needs more than its own length of log.
        self.offsets.load(vfs, size)?;
        self.times.load(vfs, size)?;
        let (offsets, times) = (self.offsets.resident(), self.times.resident());
        let first = offsets.first().is_none_or(|entry| entry.position > 0);
        let last = offsets.last().copied();
        if !first || last.is_some_and(|entry| u64::from(entry.position) >= size) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let largest = times.last().copied();
        self.bytes_since = 0;
        self.largest = Largest::Known(largest);
        Ok((last, largest))
    }

    /// Drops the entries of batches at or behind `position`, which end at or
    /// behind `relative`. They must be in memory. Returns where the last entry
    /// that remains points to: batches from there on are to be noted again.
    pub(super) fn truncate(
        &mut self,
        vfs: &dyn Vfs,
        position: u64,
        relative: u64,
    ) -> io::Result<u64> {
        self.offsets.truncate(vfs, |entry| u64::from(entry.position) < position)?;
        self.times.truncate(vfs, |entry| u64::from(entry.relative) < relative)?;
        self.bytes_since = 0;
        self.largest = Largest::Known(self.times.resident().last().copied());
        Ok(self.offsets.resident().last().map_or(0, |entry| u64::from(entry.position)))
    }
}
