//! Shows what is in the files of a log, one thing after the other.

use super::entries::Entries;
use super::files::FileKind;
use super::indexes::{offset_entry, time_entry};
use super::scan::{Found, Scan};
use crate::LogError;
use crate::checkpoint;
use crate::format::BatchHeader;
use crate::log::epochs::Epochs;
use crate::log::segment::log_path;
use crate::vfs::Vfs;
use bytes::Bytes;
use ottla_proto::{LeaderEpoch, Offset};
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::Path;

/// Something in a file.
#[derive(Clone, Debug)]
pub enum Item<'a> {
    /// What follows is in this file.
    File {
        /// Its path.
        path: &'a Path,
        /// What it is for.
        kind: FileKind,
        /// Its length.
        bytes: u64,
    },
    /// The file went away while the log was looked at.
    Gone {
        /// Its path.
        path: &'a Path,
    },
    /// A batch that is true to its CRC.
    Batch {
        /// Where it starts.
        position: u64,
        /// Its header.
        header: BatchHeader,
        /// All of it.
        bytes: Bytes,
    },
    /// A place that holds nothing good.
    Bad {
        /// Where it starts.
        position: u64,
        /// What is wrong.
        reason: String,
        /// The header of a batch that is not true to its CRC.
        header: Option<BatchHeader>,
        /// The file ends within what may be a good batch.
        torn: bool,
    },
    /// An entry of an offset index.
    OffsetEntry {
        /// Where the entry is.
        position: u64,
        /// Last offset of the batch.
        offset: Offset,
        /// Where the batch starts in the segment.
        at: u64,
    },
    /// An entry of a time index.
    TimeEntry {
        /// Where the entry is.
        position: u64,
        /// Largest timestamp so far, milliseconds since the Unix epoch.
        timestamp_ms: i64,
        /// Whose it is.
        offset: Offset,
    },
    /// An entry of an index of aborted transactions.
    TxnEntry {
        /// Where the entry is.
        position: u64,
        /// The transaction.
        aborted: AbortedEntry,
    },
    /// Where a leader epoch starts.
    Epoch {
        /// The epoch.
        epoch: LeaderEpoch,
        /// Its first offset.
        start: Offset,
    },
    /// The contents of a checkpoint that holds text.
    Text(String),
}

/// An aborted transaction, as Kafka's `.txnindex` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedEntry {
    /// Version of the entry.
    pub version: i16,
    /// Whose transaction.
    pub producer_id: i64,
    /// Its first offset.
    pub first_offset: i64,
    /// That of its marker.
    pub last_offset: i64,
    /// Last stable offset when it was aborted.
    pub last_stable_offset: i64,
}

/// What the caller says to an item.
pub type Shown<E> = Result<ControlFlow<()>, E>;

/// Shows the batches of a log that hold offsets in `range`, segment by segment.
///
/// # Errors
/// `Io` if the directory cannot be listed; what `show` says.
pub fn dump_log<E: From<LogError>>(
    vfs: &dyn Vfs,
    dir: &Path,
    range: &Range<Offset>,
    show: &mut impl FnMut(Item<'_>) -> Shown<E>,
) -> Shown<E> {
    let names = vfs.list(dir).map_err(|error| LogError::io("list", dir, error))?;
    let mut bases: Vec<Offset> = names
        .iter()
        .filter_map(|name| match FileKind::of(name) {
            FileKind::Segment(base) => Some(base),
            _ => None,
        })
        .collect();
    bases.sort_unstable();
    let first = bases.partition_point(|base| *base <= range.start).saturating_sub(1);
    for base in bases[first..].iter().take_while(|base| **base < range.end) {
        let shown = dump_file(vfs, &log_path(dir, *base), FileKind::Segment(*base), range, show)?;
        if shown.is_break() {
            return Ok(shown);
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Shows one file of a log; of a segment, the batches that hold offsets in
/// `range`. A disk error is an item, and ends the file.
///
/// # Errors
/// What `show` says.
pub fn dump_file<E: From<LogError>>(
    vfs: &dyn Vfs,
    path: &Path,
    kind: FileKind,
    range: &Range<Offset>,
    show: &mut impl FnMut(Item<'_>) -> Shown<E>,
) -> Shown<E> {
    let opened = vfs.open_read_only(path).and_then(|file| Ok((file.len()?, file)));
    let (bytes, file) = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return show(Item::Gone { path }),
        Err(error) => return Err(LogError::io("open", path, error).into()),
    };
    if show(Item::File { path, kind, bytes })?.is_break() {
        return Ok(ControlFlow::Break(()));
    }
    match kind {
        FileKind::Segment(base) => {
            let mut scan = Scan::new(path, &*file, bytes);
            seek(vfs, path, base, range.start, &mut scan)?;
            batches(&mut scan, range, show)
        }
        FileKind::OffsetIndex(base) => entries(vfs, path, show, |position, entry| {
            let (relative, at) = offset_entry(entry);
            Item::OffsetEntry { position, offset: base + u64::from(relative), at: at.into() }
        }),
        FileKind::TimeIndex(base) => entries(vfs, path, show, |position, entry| {
            let (timestamp_ms, relative) = time_entry(entry);
            Item::TimeEntry { position, timestamp_ms, offset: base + u64::from(relative) }
        }),
        FileKind::TxnIndex(_) => entries(vfs, path, show, |position, entry| Item::TxnEntry {
            position,
            aborted: AbortedEntry::from_bytes(entry),
        }),
        _ => dump_checkpoint(vfs, path, kind, show),
    }
}

/// Moves the scan near before `from`, if the index can tell.
fn seek(
    vfs: &dyn Vfs,
    path: &Path,
    base: Offset,
    from: Offset,
    scan: &mut Scan<'_>,
) -> Result<(), LogError> {
    let index = Entries::<8>::open(vfs, &path.with_extension("index"));
    let Ok(Some(mut index)) = index else { return Ok(()) };
    let mut near = None;
    while let Ok(Some(entry)) = index.peek() {
        let (relative, at) = offset_entry(entry);
        let last = base + u64::from(relative);
        if last >= from {
            break;
        }
        near = Some((u64::from(at), last));
        index.step();
    }
    if let Some((position, last_offset)) = near {
        // A false entry: the walk starts at the beginning.
        scan.resume(position, last_offset)?;
    }
    Ok(())
}

fn batches<E: From<LogError>>(
    scan: &mut Scan<'_>,
    range: &Range<Offset>,
    show: &mut impl FnMut(Item<'_>) -> Shown<E>,
) -> Shown<E> {
    loop {
        let position = scan.position();
        let item = match scan.next() {
            Ok(None) => return Ok(ControlFlow::Continue(())),
            Ok(Some(Found::Batch { header, position, bytes })) => {
                if header.base_offset >= range.end {
                    return Ok(ControlFlow::Continue(()));
                }
                if header.last_offset() < range.start {
                    continue;
                }
                Item::Batch { position, header, bytes }
            }
            Ok(Some(Found::Bad { header, position, torn, reason })) => {
                Item::Bad { position, reason, header, torn }
            }
            Err(LogError::Io { source, .. }) => {
                let reason = format!("cannot be read: {source}");
                return show(Item::Bad { position, reason, header: None, torn: false });
            }
            Err(error) => return Err(error.into()),
        };
        if show(item)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
}

fn entries<const N: usize, E>(
    vfs: &dyn Vfs,
    path: &Path,
    show: &mut impl FnMut(Item<'_>) -> Shown<E>,
    item: impl Fn(u64, [u8; N]) -> Item<'static>,
) -> Shown<E> {
    let bad = |position, reason| Item::Bad { position, reason, header: None, torn: false };
    let mut entries = match Entries::<N>::open(vfs, path) {
        Ok(Some(entries)) => entries,
        Ok(None) => return show(Item::Gone { path }),
        Err(error) => return show(bad(0, format!("cannot be read: {error}"))),
    };
    loop {
        let position = entries.position();
        let shown = match entries.peek() {
            Ok(Some(entry)) => show(item(position, entry))?,
            Ok(None) if entries.odd_bytes() == 0 => return Ok(ControlFlow::Continue(())),
            Ok(None) => {
                let reason = format!("{} bytes behind the last whole entry", entries.odd_bytes());
                return show(bad(position, reason));
            }
            Err(error) => return show(bad(position, format!("cannot be read: {error}"))),
        };
        if shown.is_break() {
            return Ok(shown);
        }
        entries.step();
    }
}

fn dump_checkpoint<E>(
    vfs: &dyn Vfs,
    path: &Path,
    kind: FileKind,
    show: &mut impl FnMut(Item<'_>) -> Shown<E>,
) -> Shown<E> {
    let bad = |reason| Item::Bad { position: 0, reason, header: None, torn: false };
    let read = match kind {
        FileKind::Epochs => checkpoint::read_plain(vfs, path),
        _ => checkpoint::read(vfs, path),
    };
    let bytes = match read {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return show(Item::Gone { path }),
        Err(error) => return show(bad(error.to_string())),
    };
    if kind != FileKind::Epochs {
        return match String::from_utf8(bytes) {
            Ok(text) => show(Item::Text(text)),
            Err(_) => show(bad("not text".to_owned())),
        };
    }
    let Some(epochs) = Epochs::decode(&bytes) else {
        return show(bad("not a checkpoint of leader epochs".to_owned()));
    };
    for (epoch, start) in epochs.iter() {
        let shown = show(Item::Epoch { epoch, start })?;
        if shown.is_break() {
            return Ok(shown);
        }
    }
    Ok(ControlFlow::Continue(()))
}

impl AbortedEntry {
    pub(super) fn from_bytes(entry: [u8; 34]) -> Self {
        let number = |index: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&entry[2 + 8 * index..10 + 8 * index]);
            i64::from_be_bytes(bytes)
        };
        Self {
            version: i16::from_be_bytes([entry[0], entry[1]]),
            producer_id: number(0),
            first_offset: number(1),
            last_offset: number(2),
            last_stable_offset: number(3),
        }
    }
}
