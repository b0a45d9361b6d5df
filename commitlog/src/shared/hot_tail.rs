//! What was appended last, in memory: consumers and followers that keep up are
//! served without touching the disk, mostly without a copy.
//!
//! Each log has a tail of runs that follow each other; a queue over all logs
//! says which run is oldest, and that one goes when the node's budget is used
//! up. Locks: the queue, then a tail; readers take only the tail's. Neither is
//! held during I/O.
//!
//! Not its job: which offsets may be read. A tail may hold what was truncated a
//! moment ago; the log checks its generation behind every read.

use crate::format::batch_headers;
use bytes::{Bytes, BytesMut};
use ottla_proto::Offset;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// Memory that all logs of a node together spend on their hot tails, unless
/// configured otherwise: a quarter of a second of writes at full disk speed.
pub const DEFAULT_HOT_TAIL_BYTES: usize = 64 * 1024 * 1024;

/// Bookkeeping of a run, roughly, and of the allocation behind it.
const RUN_OVERHEAD_BYTES: usize = 160;

/// A read that finds this much in one run is a slice of it; one that finds less
/// is copied together from several, so that readers do not get many small pieces.
const COPY_BELOW_BYTES: usize = 64 * 1024;

/// Entries of the queue that may be void before they are swept out, beyond as
/// many as are not.
const VOID_ENTRIES: usize = 1024;

/// Batches that lie one after the other in memory.
#[derive(Clone)]
pub(crate) struct Run {
    /// Whole batches.
    pub(crate) bytes: Bytes,
    /// Offset of their first record.
    pub(crate) base: Offset,
    /// Offset behind their last.
    pub(crate) next: Offset,
    /// Memory that it keeps from being freed.
    pub(crate) cost: usize,
}

/// What hot tails take and how often they served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotTailUse {
    /// Bytes held, with their overhead.
    pub bytes: u64,
    /// Reads that were served from memory.
    pub hits: u64,
    /// Reads that went to the disk.
    pub misses: u64,
}

/// All hot tails of a node.
pub(crate) struct HotTail {
    /// Changed only under the queue's lock.
    budget: AtomicUsize,
    queue: Mutex<Queue>,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Default)]
struct Queue {
    /// Whose run, and which, oldest first. Void where the run is gone already.
    runs: VecDeque<(Weak<Mutex<Runs>>, u64)>,
    /// How many are not void.
    live: usize,
    used: usize,
    next_number: u64,
}

/// With ascending numbers; each begins where the one before ends.
type Runs = VecDeque<(u64, Run)>;

/// The hot tail of one log.
pub(crate) struct Tail {
    all: Arc<HotTail>,
    runs: Arc<Mutex<Runs>>,
}

impl HotTail {
    pub(super) fn new(budget: usize) -> Arc<Self> {
        let (queue, hits, misses) = (Mutex::default(), AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { budget: AtomicUsize::new(budget), queue, hits, misses })
    }

    pub(super) fn tail(this: &Arc<Self>) -> Tail {
        Tail { all: Arc::clone(this), runs: Arc::default() }
    }

    /// From now on at most so many bytes are held.
    pub(super) fn resize(&self, budget: usize) {
        // Freed behind the lock.
        let mut gone = Vec::new();
        let mut queue = self.queue.lock();
        self.budget.store(budget, Ordering::Relaxed);
        while queue.used > budget {
            gone.extend(queue.evict_oldest());
        }
    }

    pub(super) fn usage(&self) -> HotTailUse {
        HotTailUse {
            bytes: self.queue.lock().used as u64,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }
}

impl Queue {
    fn release(&mut self, run: &Run) {
        self.live -= 1;
        self.used -= run.cost;
    }

    /// Takes the oldest run of all logs; `None` for a void entry.
    fn evict_oldest(&mut self) -> Option<Run> {
        let (runs, number) = self.runs.pop_front()?;
        let runs = runs.upgrade()?;
        let mut runs = runs.lock();
        // A log's oldest is its first: if that is another one, this is gone.
        if runs.front()?.0 != number {
            return None;
        }
        let (_, run) = runs.pop_front()?;
        self.release(&run);
        Some(run)
    }

    fn sweep(&mut self) {
        if self.runs.len() > 2 * self.live + VOID_ENTRIES {
            self.runs.retain(|(runs, number)| {
                runs.upgrade().is_some_and(|runs| {
                    runs.lock().binary_search_by_key(number, |(known, _)| *known).is_ok()
                })
            });
        }
    }
}

impl Tail {
    /// Takes runs that follow what it holds; anything else is forgotten first.
    pub(crate) fn push(&self, added: impl IntoIterator<Item = Run>) {
        // Freed behind the locks.
        let mut gone = Vec::new();
        let mut queue = self.all.queue.lock();
        let budget = self.all.budget.load(Ordering::Relaxed);
        let mut runs = self.runs.lock();
        for mut run in added {
            run.cost += RUN_OVERHEAD_BYTES;
            let follows = runs.back().is_none_or(|(_, last)| last.next == run.base);
            if !follows || run.cost > budget {
                for (_, old) in runs.drain(..) {
                    queue.release(&old);
                    gone.push(old);
                }
            }
            if run.cost > budget {
                continue;
            }
            let number = queue.next_number;
            queue.next_number += 1;
            queue.live += 1;
            queue.used += run.cost;
            queue.runs.push_back((Arc::downgrade(&self.runs), number));
            runs.push_back((number, run));
        }
        drop(runs);
        while queue.used > budget {
            gone.extend(queue.evict_oldest());
        }
        queue.sweep();
    }

    /// Forgets every run that reaches beyond `end`.
    pub(crate) fn truncate(&self, end: Offset) {
        let mut queue = self.all.queue.lock();
        let mut runs = self.runs.lock();
        while let Some((_, run)) = runs.pop_back_if(|(_, run)| run.next > end) {
            queue.release(&run);
        }
    }

    /// Forgets every run that begins below `end`: the files hold something else
    /// there now.
    pub(crate) fn forget_below(&self, end: Offset) {
        let mut queue = self.all.queue.lock();
        let mut runs = self.runs.lock();
        while let Some((_, run)) = runs.pop_front_if(|(_, run)| run.base < end) {
            queue.release(&run);
        }
    }

    /// Whole batches from the one that holds `from` on, as a read of the file
    /// would find them; `None` if that is not held. Empty where the first of them
    /// reaches `limit`.
    pub(crate) fn read(&self, from: Offset, limit: Offset, max_bytes: usize) -> Option<Bytes> {
        let found = self.find(from, limit, max_bytes);
        let counter = if found.is_some() { &self.all.hits } else { &self.all.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// The same for who asks again, of the disk, if it is not: no miss yet.
    pub(crate) fn read_if_held(
        &self,
        from: Offset,
        limit: Offset,
        max_bytes: usize,
    ) -> Option<Bytes> {
        let found = self.find(from, limit, max_bytes)?;
        self.all.hits.fetch_add(1, Ordering::Relaxed);
        Some(found)
    }

    fn find(&self, from: Offset, limit: Offset, max_bytes: usize) -> Option<Bytes> {
        let runs = self.runs.lock();
        let index = runs.partition_point(|(_, run)| run.next <= from);
        let first = &runs.get(index).filter(|(_, run)| run.base <= from)?.1;
        let range = first.select(from, limit, max_bytes)?;
        let mut more = Vec::new();
        if range.end == first.bytes.len() && range.len() < COPY_BELOW_BYTES.min(max_bytes) {
            let mut left = max_bytes - range.len();
            for (_, run) in runs.iter().skip(index + 1) {
                let taken = run.select(run.base, limit, left).filter(|range| range.end <= left);
                let Some(range) = taken.filter(|range| !range.is_empty()) else { break };
                let whole = range.end == run.bytes.len();
                left -= range.end;
                more.push(run.bytes.slice(range));
                if !whole {
                    break;
                }
            }
        }
        let first = first.bytes.slice(range);
        drop(runs);
        if more.is_empty() {
            return Some(first);
        }
        let mut all = BytesMut::with_capacity(max_bytes);
        all.extend_from_slice(&first);
        more.iter().for_each(|piece| all.extend_from_slice(piece));
        Some(all.freeze())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let mut queue = self.all.queue.lock();
        self.runs.lock().drain(..).for_each(|(_, run)| queue.release(&run));
    }
}

impl Run {
    /// Where the batches lie from the one that holds `from` on, below `limit`, of
    /// about `max_bytes`, but at least one if it is below the limit.
    fn select(&self, from: Offset, limit: Offset, max_bytes: usize) -> Option<Range<usize>> {
        if from == self.base && self.next <= limit && self.bytes.len() <= max_bytes {
            return Some(0..self.bytes.len());
        }
        let mut start = None;
        let mut end = 0;
        for batch in batch_headers(&self.bytes) {
            let (header, range) = batch.ok()?;
            if header.last_offset() < from {
                continue;
            }
            let start = *start.get_or_insert(range.start);
            end = end.max(start);
            let too_much = range.end - start > max_bytes && end > start;
            if header.last_offset() >= limit || too_much {
                break;
            }
            end = range.end;
        }
        Some(start?..end)
    }
}

#[cfg(test)]
mod tests;
