//! Compaction: of every key only the latest record stays. Kafka's log cleaner
//! (`cleanup.policy` `compact`), with placeholders in the place of what goes
//! (docs/decisions/0006): offsets never move and the log never has a hole.
//!
//! Two passes over finished segments, outside all locks that appends and reads
//! need: one notes the latest offset of each key in what is dirty, as far as the
//! memory given reaches; one writes what stays into new files, group by group
//! from the log start on. The order matters: when a tombstone goes, what it
//! deletes is gone already.
//!
//! Not its job: when, how fast, and which log first.

mod checkpoint;
mod decide;
mod follow;
mod keymap;
mod map;
mod range;
mod rewrite;
mod swap;

pub(crate) use checkpoint::CLEANER_FILE;
pub(in crate::log) use checkpoint::read as read_clean;
pub(in crate::log) use follow::rest_of_placeholder;
pub use keymap::{Cleaner, DEFAULT_KEY_MAP_BYTES};
pub use range::Dirtiness;
pub(in crate::log) use swap::settle;

use crate::log::Log;
use crate::{LogConfig, LogError};
use decide::{LastBatches, Rules, Transactions};
use ottla_proto::Offset;
use range::{Range, groups};
use std::ops::ControlFlow;
use swap::{cleaned_path, remove_unfinished};

/// What [`Log::compact`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// How it ended.
    pub end: CompactionEnd,
    /// Everything below is compacted now.
    pub clean_to: Offset,
    /// Bytes of the segments that were rewritten.
    pub bytes_before: u64,
    /// Bytes of what they became.
    pub bytes_after: u64,
    /// Records removed.
    pub records_removed: u64,
}

/// How a compaction ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompactionEnd {
    /// There was nothing to do.
    #[default]
    Nothing,
    /// As far as the memory for keys reached: ask [`Log::dirty`] for the rest.
    Done,
    /// Told to stop. Segments that were replaced before are good as they are.
    Cancelled,
    /// The log was truncated, or its start raised, meanwhile. Try again.
    Overtaken,
}

/// Why a pass ended early.
enum Stop {
    Failed(LogError),
    Cancelled,
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Self {
        Self::Failed(error)
    }
}

/// Tells the caller how many bytes were read or written, and hears whether to
/// go on.
struct Pace<'a>(&'a mut dyn FnMut(u64) -> ControlFlow<()>);

impl Pace<'_> {
    fn did(&mut self, bytes: usize) -> Result<(), Stop> {
        match (self.0)(bytes as u64) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Stop::Cancelled),
        }
    }
}

impl Log {
    /// Compacts finished segments below `up_to` (the high watermark), if
    /// `cleanup.policy` has `compact`, as far as the memory of `cleaner` reaches.
    /// One at a time for a log. Appends and reads go on.
    ///
    /// `pace` hears after every batch how many bytes were read and written; it
    /// may sleep, and say that it is enough.
    ///
    /// # Errors
    /// `DiskFull`, and `Io` of a failed read: nothing has changed but the groups
    /// of segments that were done before. `Corrupt`: the same, and the log is
    /// not [due](Dirtiness) again until it is opened anew. `Io` of a write or a
    /// sync: the log is offline now. `Offline`.
    pub fn compact(
        &self,
        now_ms: i64,
        up_to: Offset,
        cleaner: &mut Cleaner,
        pace: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Compacted, LogError> {
        let _one_at_a_time = self.cleaning.lock();
        let config = self.config();
        if !config.cleanup.compact {
            return Ok(Compacted::default());
        }
        self.roll_if_overdue(&config, now_ms)?;
        let range = self.cleanable(&config, now_ms, up_to)?;
        let mut done = Compacted { clean_to: range.clean_to, ..Compacted::default() };
        if range.end <= range.clean_to {
            return Ok(done);
        }
        let result = self.run(&config, now_ms, &range, cleaner, &mut Pace(pace), &mut done);
        cleaner.end();
        done.end = match result {
            Ok(end) => end,
            Err(Stop::Cancelled) => CompactionEnd::Cancelled,
            // What was read may have been cut away under us.
            Err(Stop::Failed(_)) if self.state.read().generation != range.generation => {
                CompactionEnd::Overtaken
            }
            Err(Stop::Failed(LogError::OutOfRange { .. })) => CompactionEnd::Overtaken,
            Err(Stop::Failed(error)) => {
                self.state.write().uncleanable |= matches!(error, LogError::Corrupt { .. });
                return Err(error);
            }
        };
        tracing::info!(dir = %self.dir.display(), ?done, "compacted");
        Ok(done)
    }

    fn run(
        &self,
        config: &LogConfig,
        now_ms: i64,
        range: &Range,
        cleaner: &mut Cleaner,
        pace: &mut Pace<'_>,
        done: &mut Compacted,
    ) -> Result<CompactionEnd, Stop> {
        let transactions = Transactions::new(self.aborted_transactions(range.start, range.end)?);
        let clean_to = map::fill(range, cleaner, &transactions, pace)?;
        let mut rules = Rules {
            now_ms,
            delete_retention_ms: config.delete_retention_ms,
            start: range.start,
            clean_to,
            keys: cleaner,
            producers: LastBatches(self.state.read().producers.last_offsets()),
            transactions,
        };
        for group in groups(range, clean_to, config) {
            let old = &range.slots[group.clone()];
            let end = range.ends_at(group.end - 1);
            let before: u64 = old.iter().map(|slot| slot.size).sum();
            let new = rewrite::rewrite(self, old, &mut rules, pace);
            let cleaned = cleaned_path(&self.dir, old[0].segment.base);
            let outcome = match new {
                Ok(new) if !new.changed => {
                    remove_unfinished(self.vfs(), &cleaned)?;
                    continue;
                }
                Ok(new) => {
                    let (after, removed) = (new.slot.size, new.removed);
                    self.swap(range.generation, old, end, new)
                        .map(|swapped| (swapped, after, removed))
                        .map_err(Stop::Failed)
                }
                Err(stop) => Err(self.stopped(stop)),
            };
            match outcome {
                Ok((true, after, removed)) => {
                    done.bytes_before += before;
                    done.bytes_after += after;
                    done.records_removed += removed;
                }
                Ok((false, ..)) => {
                    remove_unfinished(self.vfs(), &cleaned)?;
                    return Ok(CompactionEnd::Overtaken);
                }
                Err(stop) => {
                    // Best effort: the next start removes it, and so does the
                    // next attempt.
                    let _ = self.vfs().remove_file(&cleaned);
                    return Err(stop);
                }
            }
        }
        if !self.record_clean(range.generation, clean_to)? {
            return Ok(CompactionEnd::Overtaken);
        }
        done.clean_to = clean_to;
        Ok(CompactionEnd::Done)
    }

    /// A failed write or sync takes the log offline, as anywhere; the disk that
    /// refused a temporary file is the log's.
    fn stopped(&self, stop: Stop) -> Stop {
        match stop {
            Stop::Failed(error @ LogError::Io { operation, .. }) if operation != "read" => {
                Stop::Failed(self.offline_unless_full(error))
            }
            stop => stop,
        }
    }
}
