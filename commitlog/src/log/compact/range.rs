//! How much of a log is to be compacted, how urgently, and in which portions.

use crate::log::{Log, MAX_SEGMENT_BYTES, Slot};
use crate::{LogConfig, LogError};
use ottla_proto::Offset;

/// How much of a log waits for compaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dirtiness {
    /// Bytes in segments that were compacted.
    pub clean_bytes: u64,
    /// Bytes in finished segments that can be compacted now and were not yet.
    pub dirty_bytes: u64,
    /// Thousandths that `dirty_bytes` is of both.
    pub ratio_permille: u16,
    /// `max.compaction.lag.ms` has passed for a record that was not compacted:
    /// the ratio does not matter.
    pub overdue: bool,
    /// It is time to call [`Log::compact`].
    pub due: bool,
}

/// The finished segments that one compaction looks at.
pub(super) struct Range {
    /// From the log start to behind the last one that is dirty and may be read.
    pub(super) slots: Vec<Slot>,
    /// Everything below was compacted before.
    pub(super) clean_to: Offset,
    /// Offset behind the last of the segments.
    pub(super) end: Offset,
    pub(super) start: Offset,
    pub(super) generation: u64,
}

impl Range {
    pub(super) fn ends_at(&self, index: usize) -> Offset {
        self.slots.get(index + 1).map_or(self.end, |next| next.segment.base)
    }
}

impl Log {
    /// How much there is to compact below `up_to` (the high watermark). Cheap:
    /// looks at what is known of the segments, not at their records.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    pub fn dirty(&self, now_ms: i64, up_to: Offset) -> Result<Dirtiness, LogError> {
        let config = self.config();
        if !config.cleanup.compact {
            return Ok(Dirtiness::default());
        }
        let range = self.cleanable(&config, now_ms, up_to)?;
        let mut found = Dirtiness::default();
        for (index, slot) in range.slots.iter().enumerate() {
            if range.ends_at(index) <= range.clean_to {
                found.clean_bytes += slot.size;
            } else {
                found.dirty_bytes += slot.size;
                found.overdue |= overdue(slot, &config, now_ms)?;
            }
        }
        let active = self.state.read().active().clone();
        let waits = overdue(&active, &config, now_ms)?;
        found.overdue |= waits;
        let all = found.clean_bytes + found.dirty_bytes;
        found.ratio_permille =
            (found.dirty_bytes * 1000).checked_div(all).map_or(0, |share| share as u16);
        let enough = found.dirty_bytes > 0
            && (found.overdue || found.ratio_permille >= config.min_dirty_permille);
        found.due = !self.state.read().uncleanable && (enough || waits);
        Ok(found)
    }

    /// The finished segments that may be looked at now: all of them lies below
    /// `up_to` and below every open transaction, and is old enough.
    pub(super) fn cleanable(
        &self,
        config: &LogConfig,
        now_ms: i64,
        up_to: Offset,
    ) -> Result<Range, LogError> {
        let up_to = self.last_stable_offset(up_to);
        let state = self.state.read();
        state.check_online()?;
        let clean_to = state.clean_to.max(state.start);
        let active = state.active().segment.base;
        let mut range = Range {
            slots: state.slots[..state.slots.len() - 1].to_vec(),
            clean_to,
            end: active,
            start: state.start,
            generation: state.generation,
        };
        drop(state);
        let mut keep = 0;
        while keep < range.slots.len() && range.ends_at(keep) <= up_to {
            if range.ends_at(keep) > clean_to
                && self.too_young(&range.slots[keep], config, now_ms)?
            {
                break;
            }
            keep += 1;
        }
        range.end = range.slots.get(keep).map_or(range.end, |next| next.segment.base);
        range.slots.truncate(keep);
        Ok(range)
    }

    /// Finishes the segment being written if it holds a record that has waited
    /// for too long: only finished ones are compacted.
    pub(super) fn roll_if_overdue(&self, config: &LogConfig, now_ms: i64) -> Result<(), LogError> {
        let _writer = self.writer.lock();
        let active = self.state.read().active().clone();
        if overdue(&active, config, now_ms)? {
            self.roll()?;
        }
        Ok(())
    }

    /// Kafka's rule: a segment waits until its newest record is old enough.
    fn too_young(&self, slot: &Slot, config: &LogConfig, now_ms: i64) -> Result<bool, LogError> {
        let lag = config.min_compaction_lag_ms;
        if lag == 0 {
            return Ok(false);
        }
        let (segment, interval) = (&slot.segment, config.index_interval_bytes);
        let newest = segment.largest_timestamp(self.vfs(), slot.size, interval)?;
        Ok(newest.is_some_and(|newest| newest > now_ms.saturating_sub_unsigned(lag)))
    }
}

fn overdue(slot: &Slot, config: &LogConfig, now_ms: i64) -> Result<bool, LogError> {
    let Some(lag) = config.max_compaction_lag_ms else {
        return Ok(false);
    };
    let first = slot.segment.first_timestamp(slot.size)?;
    Ok(first.is_some_and(|first| first >= 0 && first < now_ms.saturating_sub_unsigned(lag)))
}

/// Neighbours that together fit into one segment: what is left of small ones is
/// brought together, as in Kafka. Ranges of indexes.
pub(super) fn groups(
    range: &Range,
    clean_to: Offset,
    config: &LogConfig,
) -> Vec<std::ops::Range<usize>> {
    let most_bytes = config.segment_bytes.min(MAX_SEGMENT_BYTES);
    let per_entry = u64::from(config.index_interval_bytes) + 1;
    let most_indexed = per_entry.saturating_mul(u64::from(config.max_index_entries));
    let mut groups: Vec<std::ops::Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (index, slot) in range.slots.iter().enumerate() {
        // Behind the last offset in the map nothing is known to be old.
        if slot.segment.base >= clean_to {
            break;
        }
        bytes += slot.size;
        let fits = |first: usize| {
            let base = range.slots[first].segment.base;
            bytes <= most_bytes.min(most_indexed) && range.ends_at(index) - base <= i32::MAX as u64
        };
        match groups.last_mut().filter(|group| fits(group.start)) {
            Some(group) => group.end = index + 1,
            None => {
                groups.push(index..index + 1);
                bytes = slot.size;
            }
        }
    }
    groups
}
