//! Retention: the oldest segments go when they are too old, or when there is
//! too much behind them. Kafka's rules (`retention.ms`, `retention.bytes`).
//!
//! Not its job: which offset may go at all (the caller's high watermark), and
//! when to look.

use super::{Log, Slot};
use crate::{LogConfig, LogError};
use ottla_proto::Offset;

/// Segments deleted by one call. Removing the name of a large file can take
/// milliseconds, and appends wait meanwhile.
const MAX_SEGMENTS_PER_CALL: usize = 32;

/// What [`Log::retain`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Segments deleted.
    pub segments: u32,
    /// Bytes in them.
    pub bytes: u64,
    /// More can go at once: call again.
    pub more: bool,
    /// The oldest segment's largest timestamp (ms) where that lies in the
    /// future: age does not delete the segment before that time has come and
    /// `retention.ms` has passed, as in Kafka. Somebody should be told.
    pub future_timestamp_ms: Option<i64>,
}

/// How much of the log may go.
struct Plan {
    /// The first offset that stays.
    start: Offset,
    segments: usize,
    /// The segment being written is one of them.
    active: bool,
    bytes: u64,
    future_timestamp_ms: Option<i64>,
}

impl Log {
    /// Deletes the oldest segments that `retention.ms` and `retention.bytes` ask
    /// to delete, if `cleanup.policy` has `delete`. Whole segments, of which
    /// everything is synced and below `up_to` (the high watermark), at most 32
    /// in one call. The segment being written is finished first when it is to
    /// go as well. The log start offset is durable before a file is removed.
    ///
    /// # Errors
    /// `DiskFull` (what was not done is by the next call), `Io`, `Offline`,
    /// `Corrupt`.
    pub fn retain(&self, now_ms: i64, up_to: Offset) -> Result<Retained, LogError> {
        let config = self.config();
        if !config.cleanup.delete {
            return Ok(Retained::default());
        }
        let (slots, end, generation) = {
            let state = self.state.read();
            state.check_online()?;
            (state.slots.clone(), state.end, state.generation)
        };
        let plan = self.plan(&config, now_ms, &slots, (end, up_to))?;
        let mut done = Retained {
            future_timestamp_ms: plan.future_timestamp_ms,
            more: plan.segments == MAX_SEGMENTS_PER_CALL,
            ..Retained::default()
        };
        if plan.segments == 0 {
            return Ok(done);
        }
        let mut writer = self.writer.lock();
        let stale = {
            let state = self.state.read();
            // What was looked at may be gone, or be no longer all there is. Only of
            // the segment being written may all records be gone, and it still there.
            state.generation != generation
                || state.start > plan.start
                || (state.start == plan.start && !plan.active)
                || (plan.active && state.end != end)
        };
        if stale {
            done.more = true;
            return Ok(done);
        }
        if plan.active {
            self.roll()?;
        }
        self.raise_start(&mut writer, plan.start)?;
        (done.segments, done.bytes) = (plan.segments as u32, plan.bytes);
        tracing::info!(
            dir = %self.dir.display(), segments = plan.segments, bytes = plan.bytes,
            start = plan.start, "retention deleted segments"
        );
        Ok(done)
    }

    fn plan(
        &self,
        config: &LogConfig,
        now_ms: i64,
        slots: &[Slot],
        (end, up_to): (Offset, Offset),
    ) -> Result<Plan, LogError> {
        let mut plan =
            Plan { start: 0, segments: 0, active: false, bytes: 0, future_timestamp_ms: None };
        let total: u64 = slots.iter().map(|slot| slot.size).sum();
        let mut excess = config.retention_bytes.map(|keep| total.saturating_sub(keep));
        for (index, slot) in slots.iter().enumerate().take(MAX_SEGMENTS_PER_CALL) {
            let next = slots.get(index + 1).map(|next| next.segment.base);
            let ends_at = next.unwrap_or(end);
            if slot.size == 0 || ends_at > up_to {
                break;
            }
            let too_much = excess.is_some_and(|excess| slot.size <= excess);
            let newest = slot.segment.largest_timestamp(
                self.vfs(),
                slot.size,
                config.index_interval_bytes,
            )?;
            let too_old = config.retention_ms.is_some_and(|keep| expired(newest, now_ms, keep));
            if !too_much && !too_old {
                plan.future_timestamp_ms = newest.filter(|newest| *newest > now_ms);
                break;
            }
            excess = excess.map(|excess| excess.saturating_sub(slot.size));
            plan.start = ends_at;
            plan.segments += 1;
            plan.active = next.is_none();
            plan.bytes += slot.size;
        }
        Ok(plan)
    }
}

/// Whether a segment whose largest timestamp is `newest` has outlived `keep`
/// milliseconds. One without any holds nothing that could be read.
fn expired(newest: Option<i64>, now_ms: i64, keep: u64) -> bool {
    let age = newest.map(|newest| now_ms.saturating_sub(newest));
    age.is_none_or(|age| u64::try_from(age).is_ok_and(|age| age > keep))
}
