//! Snapshots of the producers' state, `NNNNNNNNNNNNNNNNNNNN.snapshot`: what all
//! batches below the offset in the name have made of it.
//!
//! One is taken at the start of every segment but the first, durably, and lives
//! as long as that segment; one when the log is closed, at its end, until the
//! next segment begins: not synced, since only a start after a clean stop looks
//! at it. Each has a CRC, so that none needs a temporary file. They are what the state is made from, together with the
//! headers behind them: records that retention or compaction removed are in no
//! header any more.

use super::Slot;
use super::segment::base_of;
use super::walk::HEADERS_CHUNK_BYTES;
use crate::LogError;
use crate::checkpoint;
use crate::format::{BatchHeader, FormatError, decode_marker};
use crate::producers::{AbortedTxn, Marker, Producers, Step};
use crate::vfs::Vfs;
use bytes::Bytes;
use ottla_proto::Offset;
use std::io;
use std::path::{Path, PathBuf};

const EXTENSION: &str = "snapshot";

/// The state at some offset, and how it was come by.
#[derive(Default)]
pub(super) struct Restored {
    pub(super) producers: Producers,
    /// The snapshot it was made from, if any.
    pub(super) snapshot: Option<Offset>,
    /// A snapshot that should have been there was missing or damaged.
    pub(super) rebuilt: bool,
}

pub(super) fn snapshot_path(dir: &Path, at: Offset) -> PathBuf {
    dir.join(format!("{at:020}.{EXTENSION}"))
}

/// Writes what [`Producers::encode`] made for `at`. After a crash it may be
/// gone, or garbage, which costs a walk over headers.
pub(super) fn write(vfs: &dyn Vfs, dir: &Path, at: Offset, bytes: &[u8]) -> io::Result<()> {
    checkpoint::write_in_place(vfs, &snapshot_path(dir, at), bytes).map(|_| ())
}

/// As [`write`], and syncs it. The caller syncs the directory.
pub(super) fn write_durably(vfs: &dyn Vfs, dir: &Path, at: Offset, bytes: &[u8]) -> io::Result<()> {
    checkpoint::write_in_place(vfs, &snapshot_path(dir, at), bytes)?.sync_data()
}

/// Removes the snapshot at `at`, if there is one; returns whether there was. The
/// caller syncs the directory.
pub(super) fn remove(vfs: &dyn Vfs, dir: &Path, at: Offset) -> Result<bool, LogError> {
    let path = snapshot_path(dir, at);
    match vfs.remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(LogError::io("remove", &path, error)),
    }
}

/// Offsets of the snapshots in a directory, in order.
pub(super) fn offsets(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<Offset>, LogError> {
    let names = vfs.list(dir).map_err(|error| LogError::io("list", dir, error))?;
    let mut offsets: Vec<Offset> =
        names.iter().filter_map(|name| base_of(name, EXTENSION)).collect();
    offsets.sort_unstable();
    Ok(offsets)
}

/// The snapshot at `at`, or why it cannot be used.
pub(crate) fn read(vfs: &dyn Vfs, dir: &Path, at: Offset) -> Result<Producers, String> {
    match checkpoint::read(vfs, &snapshot_path(dir, at)) {
        Ok(Some(bytes)) => Producers::decode(&bytes, at).map_err(|error| error.to_string()),
        Ok(None) => Err("it is gone".to_owned()),
        Err(error) => Err(error.reason()),
    }
}

/// The state at `at`: the newest snapshot that can be read, and the headers
/// between. `slots` reach at least up to `at`. A bad batch is stepped over with
/// the rest of its segment: the state is no reason not to start.
pub(super) fn state_at(
    vfs: &dyn Vfs,
    dir: &Path,
    slots: &[Slot],
    at: Offset,
    interval: u32,
) -> Result<Restored, LogError> {
    let mut restored = Restored::default();
    let oldest = slots.first().map_or(at, |slot| slot.segment.base);
    let mut from = oldest;
    // One from below the first segment knows too little of what was between.
    let usable = oldest..=at;
    for offset in offsets(vfs, dir)?.into_iter().rev().filter(|offset| usable.contains(offset)) {
        match read(vfs, dir, offset) {
            Ok(producers) => {
                restored.producers = producers;
                restored.snapshot = Some(offset);
                from = offset;
                break;
            }
            Err(reason) => {
                let path = snapshot_path(dir, offset);
                tracing::warn!(path = %path.display(), reason, "snapshot cannot be used");
                restored.rebuilt = true;
            }
        }
    }
    let first = slots.partition_point(|slot| slot.segment.base <= from).saturating_sub(1);
    // Every segment but the first begins with one.
    let newest = slots.partition_point(|slot| slot.segment.base <= at).saturating_sub(1);
    restored.rebuilt |= newest > first;
    for slot in slots.iter().skip(first).take_while(|slot| slot.segment.base < at) {
        match replay(vfs, slot, from, at, interval, &mut restored.producers, &mut |_| {}) {
            Err(LogError::Corrupt { path, position, reason }) => {
                tracing::warn!(path = %path.display(), position, reason, "producers not all known");
                restored.rebuilt = true;
            }
            done => done?,
        }
    }
    Ok(restored)
}

/// Feeds the batches of `slot` that lie in `from..to` to `producers`, and what
/// they abort to `aborted`.
pub(super) fn replay(
    vfs: &dyn Vfs,
    slot: &Slot,
    from: Offset,
    to: Offset,
    interval: u32,
    producers: &mut Producers,
    aborted: &mut dyn FnMut(AbortedTxn),
) -> Result<(), LogError> {
    let segment = &slot.segment;
    let start = if from <= segment.base {
        0
    } else {
        match segment.locate(vfs, from, slot.size, interval)? {
            Some((_, position)) => position,
            None => return Ok(()),
        }
    };
    let mut walker = segment.walk(start, slot.size, HEADERS_CHUNK_BYTES);
    while let Some((header, position)) = walker.next_header()? {
        if header.base_offset >= to {
            break;
        }
        if header.producer().is_none() || header.base_offset < from {
            continue;
        }
        let mut batch = Vec::new();
        if header.is_control() {
            segment
                .file
                .read_at(position, header.total_len(), &mut batch)
                .map_err(|error| LogError::io("read", &segment.path, error))?;
        }
        let step = step_of(&header, || Bytes::from(batch))
            .map_err(|error| LogError::corrupt(&segment.path, position, error))?;
        if let Some(entry) = step.and_then(|step| producers.apply(&step)) {
            aborted(entry);
        }
    }
    Ok(())
}

/// What a batch means to the producers' state; `None` if nothing. Its `bytes`
/// are asked for if it is a control batch.
pub(super) fn step_of(
    header: &BatchHeader,
    bytes: impl FnOnce() -> Bytes,
) -> Result<Option<Step>, FormatError> {
    if header.producer().is_none() {
        return Ok(None);
    }
    let marker = if header.is_control() && !header.is_placeholder() {
        let marker = decode_marker(&bytes())?;
        let commit = marker.kind == crate::format::TxnOutcome::Commit;
        Some(Marker { commit, coordinator_epoch: marker.coordinator_epoch })
    } else {
        None
    };
    Ok(Step::of(header, marker))
}
