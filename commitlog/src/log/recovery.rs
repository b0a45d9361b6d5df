//! Recovery after an unclean stop.
//!
//! A segment is synced before the next accepts data, so only the last one can
//! hold anything bad. It is read from its first byte; at the first batch that
//! is not whole, in order and true to its CRC, it is cut. Should an earlier
//! segment not reach up to the next (a disk that lied), recovery begins there.

use super::Slot;
use super::epochs::Epochs;
use super::index::Index;
use super::open::{Opening, Tail};
use super::segment::index_path;
use super::walk::{SCAN_CHUNK_BYTES, WalkedBatch};
use crate::LogError;
use crate::format::check_batch;
use ottla_proto::{LeaderEpoch, Offset};
use std::path::Path;

/// What opening a log found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segments read from first to last byte; none after a clean stop.
    pub segments_scanned: u32,
    /// Bytes that were read for it.
    pub bytes_scanned: u64,
    /// Where the log was cut, if it was: its end now.
    pub cut_at: Option<Offset>,
    /// Bytes that were cut away.
    pub cut_bytes: u64,
    /// Why it was cut.
    pub reason: Option<String>,
    /// The checkpoint of leader epochs was missing or wrong.
    pub epochs_rebuilt: bool,
}

impl Recovery {
    pub(super) fn report(&self, dir: &Path) {
        let Self { segments_scanned, bytes_scanned, cut_bytes, epochs_rebuilt, .. } = *self;
        if let (Some(cut_at), Some(reason)) = (self.cut_at, &self.reason) {
            tracing::warn!(
                dir = %dir.display(), segments_scanned, bytes_scanned, cut_at, cut_bytes, reason,
                "recovered a log and cut its tail"
            );
        } else if segments_scanned > 0 || epochs_rebuilt {
            tracing::info!(
                dir = %dir.display(), segments_scanned, bytes_scanned, epochs_rebuilt,
                "recovered a log"
            );
        }
    }
}

struct Scan {
    next: Offset,
    epoch: Option<LeaderEpoch>,
    good_bytes: u64,
    bad: Option<String>,
}

/// Finds the good end of the log, cuts what is behind it, and syncs the rest.
pub(super) fn recover(opening: &mut Opening<'_>) -> Result<Tail, LogError> {
    // A name that can be seen may not be durable yet: one whose directory sync
    // failed, or was never reached.
    opening.sync_dir()?;
    let from = first_to_scan(opening)?;
    let Some(first) = opening.slots.get(from) else {
        return Ok(Tail { end: opening.start, seen: None, last_epoch: None });
    };
    let mut end = first.segment.base;
    let mut seen = Epochs::default();
    for index in from..opening.slots.len() {
        let mut slot = opening.slots[index].clone();
        let base = slot.segment.base;
        if base != end.max(opening.start.min(base)) {
            let reason = format!("the segment at {base} does not follow");
            cut(opening, index, 0, end, reason)?;
            break;
        }
        // Whatever a crash left in the page cache counts only once it is safe,
        // and what a failed sync left there does not count.
        sync(&slot)?;
        if let Err(error) = slot.segment.file.drop_clean_cache() {
            tracing::warn!(path = %slot.segment.path.display(), %error, "reading from the cache");
        }
        slot.size = slot.segment.file_len()?;
        opening.slots[index].size = slot.size;
        let scan = scan(opening, &slot, &mut seen)?;
        opening.recovery.segments_scanned += 1;
        opening.recovery.bytes_scanned += slot.size;
        end = scan.next;
        if let Some(reason) = scan.bad {
            cut(opening, index, scan.good_bytes, end, reason)?;
            sync(&slot)?;
        }
        if opening.slots.len() <= index + 1 {
            break;
        }
    }
    let finished = opening.slots.len().saturating_sub(1);
    for slot in opening.slots.get(from..finished).unwrap_or_default() {
        if let Err(error) = slot.segment.index.lock().seal(opening.vfs) {
            tracing::warn!(path = %slot.segment.path.display(), %error, "index not written");
        }
    }
    let last_epoch = seen.last();
    Ok(Tail { end, seen: Some(seen), last_epoch })
}

fn sync(slot: &Slot) -> Result<(), LogError> {
    let segment = &slot.segment;
    segment.file.sync_data().map_err(|error| LogError::io("fdatasync", &segment.path, error))
}

/// The last segment, or an earlier one whose end the next does not meet.
fn first_to_scan(opening: &Opening<'_>) -> Result<usize, LogError> {
    let mut from = opening.slots.len().saturating_sub(1);
    while from > 0 {
        let (before, next) = (&opening.slots[from - 1], &opening.slots[from]);
        let interval = opening.config.index_interval_bytes;
        let end = match before.segment.tail(opening.vfs, before.size, interval) {
            Ok(header) => header.map(|header| header.next_offset()),
            Err(LogError::Corrupt { .. }) => None,
            Err(error) => return Err(error),
        };
        // It is finished: its index belongs on disk.
        *before.segment.index.lock() = Index::on_disk(index_path(opening.dir, before.segment.base));
        if end == Some(next.segment.base) {
            break;
        }
        from -= 1;
    }
    Ok(from)
}

/// Reads a segment batch by batch up to the first bad one, noting epochs and
/// making its index anew.
fn scan(opening: &Opening<'_>, slot: &Slot, seen: &mut Epochs) -> Result<Scan, LogError> {
    let segment = &slot.segment;
    let mut index = Index::empty(index_path(opening.dir, segment.base));
    let mut scan = Scan { next: segment.base, epoch: None, good_bytes: 0, bad: None };
    let mut walker = segment.walk(0, slot.size, SCAN_CHUNK_BYTES);
    loop {
        let WalkedBatch { header, position, bytes } = match walker.next_batch() {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(LogError::Corrupt { reason, .. }) => {
                scan.bad = Some(reason);
                break;
            }
            Err(error) => return Err(error),
        };
        scan.bad = check(opening.start, &scan, bytes);
        if scan.bad.is_some() {
            break;
        }
        opening.note_epoch(seen, &header);
        // Epochs of what is deleted are forgotten, and bind nobody.
        if header.last_offset() >= opening.start {
            scan.epoch = Some(header.leader_epoch);
        }
        segment.note(&mut index, &header, position, opening.config.index_interval_bytes);
        scan.next = header.next_offset();
        scan.good_bytes = walker.position();
    }
    *segment.index.lock() = index;
    Ok(scan)
}

/// What is wrong with the batch that should continue the scan, if anything.
fn check(start: Offset, scan: &Scan, bytes: &[u8]) -> Option<String> {
    let header = match check_batch(bytes) {
        Ok(header) => header,
        Err(error) => return Some(error.to_string()),
    };
    // Below the log start batches may be missing: the log was truncated within
    // one that the log start had cut in two, and went on at the log start.
    let skips_deleted = (scan.next..=start).contains(&header.base_offset);
    if header.base_offset != scan.next && !skips_deleted {
        return Some(format!("offset {} where {} follows", header.base_offset, scan.next));
    }
    (scan.epoch > Some(header.leader_epoch))
        .then(|| format!("leader epoch {} goes back", header.leader_epoch))
}

/// Removes the segments behind `index`, last first so that a crash leaves no
/// hole, and cuts that one to its good bytes (all of it: removes it too).
fn cut(
    opening: &mut Opening<'_>,
    index: usize,
    good_bytes: u64,
    end: Offset,
    reason: String,
) -> Result<(), LogError> {
    let removed: u64 = opening.slots[index..].iter().map(|slot| slot.size).sum();
    opening.recovery.cut_at = Some(end);
    opening.recovery.cut_bytes = removed - good_bytes;
    opening.recovery.reason = Some(reason);
    let whole = opening.slots[index].segment.base != end && good_bytes == 0;
    let keep = if whole { index } else { index + 1 };
    while opening.slots.len() > keep {
        if let Some(slot) = opening.slots.pop() {
            opening.remove(slot.segment.base)?;
        }
    }
    if !whole && let Some(slot) = opening.slots.last_mut() {
        let segment = &slot.segment;
        segment
            .file
            .set_len(good_bytes)
            .map_err(|error| LogError::io("truncate", &segment.path, error))?;
        slot.size = good_bytes;
    }
    Ok(())
}
