//! What a log knows of its idempotent producers and their transactions.
//!
//! A function of the batches in the log: [`Producers`] is fed every batch that
//! carries a producer id ([`Step`]), in order, and says of a new one whether it
//! may be appended ([`Verdict`]). Rules: KIP-98, KIP-360, KIP-890.
//!
//! Not its job: files (`log/snapshots.rs`, `log/txn_index.rs`), and who leads.

mod aborted;
mod judge;
mod producer;
mod snapshot;
mod transactions;
mod window;

#[cfg(test)]
mod tests;

pub(crate) use aborted::ABORTED_TXN_LEN;
pub use aborted::AbortedTxn;
pub use judge::ProducerRefusal;
pub(crate) use judge::{Judge, Verdict};

use crate::format::BatchHeader;
use ottla_proto::Offset;
use producer::Producer;
use std::collections::BTreeMap;
use transactions::Transactions;

/// Most producers that one log remembers: about 4 MiB of memory and 3 MiB of
/// snapshot. Beyond it those without an open transaction go whose last batch is
/// the oldest: to the log they are new when they come back, so that any sequence
/// is accepted of them (KIP-360).
pub const MAX_PRODUCERS: usize = 16 * 1024;

/// How many go at once when there are too many, so that looking for the oldest
/// is worth it.
const EVICTED_AT_ONCE: usize = MAX_PRODUCERS / 16;

/// How long a producer that is silent is remembered, in milliseconds: Kafka's
/// `producer.id.expiration.ms`, a day.
pub const PRODUCER_EXPIRATION_MS: i64 = 24 * 60 * 60 * 1000;

/// The end of a transaction, as a control batch states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// Whether the transaction's records count.
    pub(crate) commit: bool,
    /// Epoch of the coordinator that wrote the marker.
    pub(crate) coordinator_epoch: i32,
}

/// A batch with a producer id, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    producer: i64,
    epoch: i16,
    /// First and last sequence; `None` for what has none, such as a marker.
    sequences: Option<(i32, i32)>,
    first: Offset,
    last: Offset,
    timestamp: i64,
    transactional: bool,
    marker: Option<Marker>,
}

impl Step {
    pub(crate) fn is_marker(&self) -> bool {
        self.marker.is_some()
    }

    /// `None` for a batch without a producer id. `marker` is what a control
    /// batch holds.
    pub(crate) fn of(header: &BatchHeader, marker: Option<Marker>) -> Option<Self> {
        let producer = header.producer()?;
        let last = window::advance(producer.base_sequence, header.last_offset_delta);
        let has_sequence = !header.is_control() && producer.base_sequence >= 0;
        Some(Self {
            producer: producer.id,
            epoch: producer.epoch,
            sequences: has_sequence.then_some((producer.base_sequence, last)),
            first: header.base_offset,
            last: header.last_offset(),
            timestamp: header.max_timestamp,
            // A batch that compaction emptied keeps its sequence in the log, but
            // its transaction ended long ago.
            transactional: header.is_transactional() && header.record_count > 0,
            marker: marker.filter(|_| header.is_control()),
        })
    }
}

/// Every producer that a log remembers, and its transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    known: BTreeMap<i64, Producer>,
    transactions: Transactions,
}

impl Producers {
    /// Whether no batch with a producer id has ever been seen.
    pub(crate) fn is_untouched(&self) -> bool {
        self.known.is_empty() && !self.has_seen_transactions()
    }

    /// Whether a transaction has ever been seen: if not, none was aborted.
    pub(crate) fn has_seen_transactions(&self) -> bool {
        self.transactions.seen()
    }

    /// Takes note of a batch that is in the log, whatever it says (KAFKA-6003).
    /// Returns the transaction that it aborted.
    pub(crate) fn apply(&mut self, step: &Step) -> Option<AbortedTxn> {
        let new = !self.known.contains_key(&step.producer);
        if new && self.known.len() >= MAX_PRODUCERS {
            self.evict();
        }
        let producer = self.known.entry(step.producer).or_insert_with(|| Producer::new(step.epoch));
        let was_open = producer.open_since();
        producer.apply(step);
        match (was_open, producer.open_since()) {
            (None, Some(first)) => self.transactions.begin(first, step.producer),
            (Some(first), None) => {
                let marker = step.marker?;
                let stable = self.transactions.end(first, step.producer, step.last);
                return (!marker.commit).then_some(AbortedTxn {
                    producer_id: step.producer,
                    first_offset: first,
                    last_offset: step.last,
                    last_stable_offset: stable,
                });
            }
            _ => {}
        }
        None
    }

    /// Of every producer: where its last batch of records ends, if one is known.
    pub(crate) fn last_offsets(&self) -> BTreeMap<i64, Option<Offset>> {
        let last = |producer: &Producer| producer.window.last().map(|batch| batch.last_offset);
        self.known.iter().map(|(id, producer)| (*id, last(producer))).collect()
    }

    /// The first offset, if any, that a reader of committed transactions must
    /// not reach while records below `high_watermark` are committed.
    pub(crate) fn first_unstable(&self, high_watermark: Offset) -> Option<Offset> {
        self.transactions.first_unstable(high_watermark)
    }

    /// Forgets producers without an open transaction whose last batch is older
    /// than [`PRODUCER_EXPIRATION_MS`]. Returns how many.
    pub(crate) fn expire(&mut self, now_ms: i64) -> usize {
        let before = self.known.len();
        let oldest = now_ms.saturating_sub(PRODUCER_EXPIRATION_MS);
        self.known.retain(|_, producer| !producer.is_idle() || producer.last_timestamp() > oldest);
        before - self.known.len()
    }

    /// Whether [`Producers::expire`] would forget any.
    pub(crate) fn any_expired(&self, now_ms: i64) -> bool {
        let oldest = now_ms.saturating_sub(PRODUCER_EXPIRATION_MS);
        self.known.values().any(|known| known.is_idle() && known.last_timestamp() <= oldest)
    }

    fn evict(&mut self) {
        let idle = self.known.iter().filter(|(_, producer)| producer.is_idle());
        let mut oldest: Vec<(i64, i64)> =
            idle.map(|(id, producer)| (producer.last_timestamp(), *id)).collect();
        oldest.sort_unstable();
        for (_, id) in oldest.into_iter().take(EVICTED_AT_ONCE) {
            self.known.remove(&id);
        }
    }
}
