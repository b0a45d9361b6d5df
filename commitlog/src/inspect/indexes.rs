//! Whether the entries of a segment's index files are true, by walking them
//! beside the batches: both are in order, so one look at each is enough.

use super::entries::Entries;
use super::problem::{Problems, Severity};
use crate::format::BatchHeader;
use crate::vfs::Vfs;
use ottla_proto::Offset;
use std::cmp::Ordering;
use std::io;
use std::path::Path;

/// Timestamp, and offset less the base, of an entry in a time index.
pub(super) fn time_entry(entry: [u8; 12]) -> (i64, u32) {
    let [a, b, c, d, e, f, g, h, relative @ ..] = entry;
    (i64::from_be_bytes([a, b, c, d, e, f, g, h]), u32::from_be_bytes(relative))
}

/// What becomes of an index that is not true.
const REBUILT: &str = "made again from the batches when it is used";

/// The index files of one segment.
pub(super) struct Indexes {
    base: Offset,
    finished: bool,
    offsets: Option<Entries<8>>,
    times: Option<Entries<12>>,
    /// Largest timestamp of the batches so far.
    largest: Option<i64>,
    /// The last entry of the time index so far.
    last_time: Option<i64>,
    /// Batches were bad since the last good one.
    gap: bool,
    /// No batch was bad.
    whole: bool,
}

impl Indexes {
    /// Opens what there is. `finished`: every index should be there, and whole.
    pub(super) fn open(
        vfs: &dyn Vfs,
        log: &Path,
        base: Offset,
        finished: bool,
        problems: &mut Problems,
    ) -> Self {
        Self {
            base,
            finished,
            offsets: open(vfs, &log.with_extension("index"), finished, problems),
            times: open(vfs, &log.with_extension("timeindex"), finished, problems),
            largest: None,
            last_time: None,
            gap: false,
            whole: true,
        }
    }

    /// A batch that is true. Complains of entries that point before it and at
    /// none, and of one that points to it and does not match.
    pub(super) fn batch(&mut self, header: &BatchHeader, position: u64, problems: &mut Problems) {
        let last = header.last_offset();
        check(&mut self.offsets, problems, |entry| {
            let (relative, at) = offset_entry(entry);
            let offset = self.base + u64::from(relative);
            match u64::from(at).cmp(&position) {
                Ordering::Greater => Match::Later,
                Ordering::Less => {
                    Match::False(format!("points to byte {at}, where no batch starts"))
                }
                Ordering::Equal if offset == last => Match::True,
                Ordering::Equal => Match::False(format!("says {offset}, the batch ends at {last}")),
            }
        });
        self.time_of(header, problems);
        self.largest = self.largest.max(Some(header.max_timestamp));
        self.gap = false;
    }

    fn time_of(&mut self, header: &BatchHeader, problems: &mut Problems) {
        let (base, gap, before, whole) = (self.base, self.gap, self.largest, self.whole);
        let last_time = &mut self.last_time;
        check(&mut self.times, problems, |entry| {
            let (time, relative) = time_entry(entry);
            let offset = base + u64::from(relative);
            if offset > header.last_offset() {
                return Match::Later;
            }
            if last_time.replace(time) >= Some(time) {
                return Match::False(format!("says {time}, not after the entry before"));
            }
            if gap && offset < header.base_offset {
                return Match::True; // of a batch that is bad: who knows
            }
            if offset != header.last_offset() {
                return Match::False(format!("says {offset}, where no batch ends"));
            }
            let stated = header.max_timestamp;
            if time != stated {
                return Match::False(format!("says {time}, the batch's timestamp is {stated}"));
            }
            if whole && before >= Some(time) {
                return Match::False(format!("says {time}, which an earlier batch has"));
            }
            Match::True
        });
    }

    /// A place that cannot be told from the batches: entries up to `position`
    /// are neither true nor false.
    pub(super) fn skip(&mut self, position: u64) {
        (self.gap, self.whole) = (true, false);
        if let Some(entries) = &mut self.offsets {
            while let Ok(Some(entry)) = entries.peek()
                && u64::from(offset_entry(entry).1) <= position
            {
                entries.step();
            }
        }
    }

    /// The next entry: where a batch should begin, and its last offset.
    pub(super) fn next_batch(&mut self) -> Option<(u64, Offset)> {
        let (relative, at) = offset_entry(self.offsets.as_mut()?.peek().ok()??);
        Some((u64::from(at), self.base + u64::from(relative)))
    }

    /// The segment's end was reached: nothing may point behind it, and of a
    /// finished one the largest timestamp must be there.
    pub(super) fn end(&mut self, problems: &mut Problems) {
        check(&mut self.offsets, problems, |entry| {
            let at = offset_entry(entry).1;
            Match::False(format!("points to byte {at}, behind the last batch"))
        });
        let base = self.base;
        check(&mut self.times, problems, |entry| {
            let offset = base + u64::from(time_entry(entry).1);
            Match::False(format!("says {offset}, behind the last batch"))
        });
        let largest = self.largest.filter(|largest| *largest >= 0);
        if self.finished
            && self.whole
            && self.last_time != largest
            && let Some(times) = &self.times
        {
            let (last, largest) = (shown(self.last_time), shown(largest));
            let reason = format!("ends with timestamp {last}, the largest is {largest}");
            problems.add(&times.path, times.position(), Severity::Derived, reason, REBUILT);
        }
    }
}

fn shown(timestamp: Option<i64>) -> String {
    timestamp.map_or("none".to_owned(), |timestamp| timestamp.to_string())
}

/// Last offset less the base, and the position, of an entry in an offset index.
pub(super) fn offset_entry(entry: [u8; 8]) -> (u32, u32) {
    let raw = u64::from_be_bytes(entry);
    ((raw >> 32) as u32, raw as u32)
}

fn open<const N: usize>(
    vfs: &dyn Vfs,
    path: &Path,
    finished: bool,
    problems: &mut Problems,
) -> Option<Entries<N>> {
    let mut add = |at, reason: String| problems.add(path, at, Severity::Derived, reason, REBUILT);
    match Entries::open(vfs, path) {
        Ok(None) => {
            if finished {
                add(0, "missing".to_owned());
            }
            None
        }
        Ok(Some(entries)) => {
            let odd = entries.odd_bytes();
            if odd > 0 {
                add(0, format!("{odd} bytes behind the last whole entry"));
            }
            Some(entries)
        }
        Err(error) => {
            add(0, format!("cannot be read: {error}"));
            None
        }
    }
}

/// What an entry is beside a batch.
enum Match {
    /// It belongs to a batch that comes later.
    Later,
    True,
    False(String),
}

/// Compares entries until one belongs further behind. After the first false
/// one the file is not believed any more.
fn check<const N: usize>(
    slot: &mut Option<Entries<N>>,
    problems: &mut Problems,
    mut compare: impl FnMut([u8; N]) -> Match,
) {
    let Some(entries) = slot else { return };
    let reason = loop {
        match entries.peek() {
            Ok(None) => return,
            Ok(Some(entry)) => match compare(entry) {
                Match::Later => return,
                Match::True => entries.step(),
                Match::False(reason) => break reason,
            },
            Err(error) => break unreadable(&error),
        }
    };
    problems.add(&entries.path, entries.position(), Severity::Derived, reason, REBUILT);
    *slot = None;
}

fn unreadable(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}
