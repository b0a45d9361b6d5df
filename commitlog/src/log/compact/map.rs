//! The first pass: the latest offset of every key in what is dirty.

use super::decide::Transactions;
use super::keymap::Cleaner;
use super::range::Range;
use super::{Pace, Stop};
use crate::LogError;
use crate::format::{check_batch, decode_records};
use crate::log::walk::{SCAN_CHUNK_BYTES, WalkedBatch};
use bytes::Bytes;
use ottla_proto::Offset;

/// Notes the keys of all that is dirty in `range`; returns the offset up to
/// which there was room for them, above the first dirty one.
///
/// What was aborted is no version of a key, and what is in a marker is no key
/// (KAFKA-14055).
pub(super) fn fill(
    range: &Range,
    cleaner: &mut Cleaner,
    transactions: &Transactions,
    pace: &mut Pace<'_>,
) -> Result<Offset, Stop> {
    cleaner.begin(range.end - range.clean_to);
    for (index, slot) in range.slots.iter().enumerate() {
        if range.ends_at(index) <= range.clean_to {
            continue;
        }
        let mut walker = slot.segment.walk(0, slot.size, SCAN_CHUNK_BYTES);
        while let Some(WalkedBatch { header, position, bytes }) = walker.next_batch()? {
            let corrupt = |error| LogError::corrupt(&slot.segment.path, position, error);
            pace.did(bytes.len())?;
            let known = header.last_offset() < range.clean_to || header.is_placeholder();
            if known || header.is_control() || transactions.aborts(&header) {
                check_batch(bytes).map_err(corrupt)?;
                continue;
            }
            for record in decode_records(&Bytes::copy_from_slice(bytes)) {
                let record = record.map_err(corrupt)?;
                if record.offset < range.clean_to {
                    continue;
                }
                if let Some(key) = &record.key
                    && !cleaner.note(key, record.offset)
                {
                    return Ok(record.offset);
                }
            }
        }
    }
    Ok(range.end)
}
