//! Recovery after an unclean stop.
//!
//! A segment is synced before the next accepts data, so a crash can only have
//! touched the last one. It is read from its first byte; at the first batch that
//! is not whole, in order and true to its CRC, it is cut.
//!
//! A finished segment that is gone or does not reach up to the next is damage, and
//! no crash: nothing behind it is cut, for it can be read and may be the only copy.
//! What is damaged is named, here and to whoever reads it.

use super::Slot;
use super::epochs::Epochs;
use super::index::Index;
use super::open::{Opening, Tail};
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
    /// The finished segment before the last is gone or not whole: what is wrong.
    /// Nothing was cut for it; reads of what is missing fail.
    pub damage: Option<String>,
    /// The checkpoint of leader epochs was missing or wrong.
    pub epochs_rebuilt: bool,
    /// A snapshot of the producers' state was missing or damaged: the state was
    /// made from an older one, or none, and the batch headers.
    pub producers_rebuilt: bool,
}

impl Recovery {
    pub(super) fn report(&self, dir: &Path) {
        let Self { segments_scanned, bytes_scanned, cut_bytes, epochs_rebuilt, .. } = *self;
        let producers_rebuilt = self.producers_rebuilt;
        if let Some(damage) = &self.damage {
            tracing::error!(dir = %dir.display(), damage, "a finished segment is damaged");
        }
        if let (Some(cut_at), Some(reason)) = (self.cut_at, &self.reason) {
            tracing::warn!(
                dir = %dir.display(), segments_scanned, bytes_scanned, cut_at, cut_bytes, reason,
                "recovered a log and cut its tail"
            );
        } else if segments_scanned > 0 || epochs_rebuilt || producers_rebuilt {
            tracing::info!(
                dir = %dir.display(), segments_scanned, bytes_scanned, epochs_rebuilt,
                producers_rebuilt, "recovered a log"
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
    opening.drop_unfounded()?;
    let Some(mut slot) = opening.slots.last().cloned() else {
        return Ok(Tail { end: opening.start, seen: None, last_epoch: None });
    };
    opening.begin_producers(slot.segment.base)?;
    // Whatever a crash left in the page cache counts only once it is safe,
    // and what a failed sync left there does not count.
    sync(&slot)?;
    if let Err(error) = slot.segment.file.drop_clean_cache() {
        tracing::warn!(path = %slot.segment.path.display(), %error, "reading from the cache");
    }
    slot.size = slot.segment.file_len()?;
    opening.begin_segment(&slot.segment)?;
    let mut seen = Epochs::default();
    let scan = scan(opening, &slot, &mut seen)?;
    opening.end_segment(&slot.segment);
    opening.recovery.segments_scanned += 1;
    opening.recovery.bytes_scanned += slot.size;
    if let Some(reason) = scan.bad {
        cut(&mut opening.recovery, &mut slot, scan.good_bytes, scan.next, reason)?;
        sync(&slot)?;
    }
    opening.slots.pop();
    opening.slots.push(slot);
    let last_epoch = seen.last();
    Ok(Tail { end: scan.next, seen: Some(seen), last_epoch })
}

fn sync(slot: &Slot) -> Result<(), LogError> {
    let segment = &slot.segment;
    segment.file.sync_data().map_err(|error| LogError::io("fdatasync", &segment.path, error))
}

impl Opening<'_> {
    /// Looks whether the segment before the last reaches up to it. An empty one
    /// behind a gap is removed: it is what a reset had created when it stopped.
    fn drop_unfounded(&mut self) -> Result<(), LogError> {
        while let [.., before, last] = &self.slots[..] {
            let base = last.segment.base;
            let interval = self.config.index_interval_bytes;
            let tail = before.segment.tail(self.vfs, self.start, before.size, interval);
            // It is finished: its index belongs on disk.
            *before.segment.index.lock() = Index::on_disk(&before.segment.path);
            let damage = match tail {
                Ok(header) => {
                    let end = header.map_or(before.segment.base, |header| header.next_offset());
                    // Below the log start batches may be missing, see `check`.
                    if end <= base && end.max(self.start.min(base)) == base {
                        break;
                    }
                    if last.size == 0 && end < base {
                        self.remove(base)?;
                        self.slots.pop();
                        continue;
                    }
                    format!("{} ends at {end}, the next begins at {base}", name(before))
                }
                Err(LogError::Corrupt { position, reason, .. }) => {
                    format!("{} at byte {position}: {reason}", name(before))
                }
                Err(error) => return Err(error),
            };
            self.recovery.damage = Some(damage);
            break;
        }
        Ok(())
    }
}

fn name(slot: &Slot) -> String {
    slot.segment.path.display().to_string()
}

/// Reads a segment batch by batch up to the first bad one, noting epochs and
/// making its index anew.
fn scan(opening: &mut Opening<'_>, slot: &Slot, seen: &mut Epochs) -> Result<Scan, LogError> {
    let segment = &slot.segment;
    let mut index = Index::empty(&segment.path);
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
        opening.note_producer(segment, &header, bytes);
        // Epochs of what is deleted are forgotten, and bind nobody.
        if header.last_offset() >= opening.start {
            scan.epoch = Some(header.leader_epoch);
        }
        index.note(segment.base, &header, position, opening.config.index_interval_bytes);
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

/// Cuts the last segment to its good bytes.
fn cut(
    recovery: &mut Recovery,
    slot: &mut Slot,
    good_bytes: u64,
    end: Offset,
    reason: String,
) -> Result<(), LogError> {
    recovery.cut_at = Some(end);
    recovery.cut_bytes = slot.size - good_bytes;
    recovery.reason = Some(reason);
    let Slot { segment, size } = slot;
    segment
        .file
        .set_len(good_bytes)
        .map_err(|error| LogError::io("truncate", &segment.path, error))?;
    *size = good_bytes;
    Ok(())
}
