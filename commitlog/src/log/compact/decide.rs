//! What stays of a batch. Kafka's rules (`LogCleaner`, KIP-534, KAFKA-14055),
//! with two differences: a record without a key stays, and a removed batch
//! leaves a placeholder. Decisions only: no file is read or written here.

use super::keymap::Cleaner;
use crate::format::{BatchHeader, Record};
use crate::producers::AbortedTxn;
use ottla_proto::Offset;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What stays of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// All of it, as it is.
    Whole,
    /// These records; with the delete horizon given, else with what it had.
    Some(Vec<Record>, Option<i64>),
    /// Nothing but the offsets.
    Nothing,
}

/// What one compaction goes by.
pub(super) struct Rules<'a> {
    pub(super) now_ms: i64,
    pub(super) delete_retention_ms: u64,
    /// Log start offset: nothing below can be read.
    pub(super) start: Offset,
    /// The keys of everything from the first dirty offset up to here are in the
    /// map; what lies behind stays.
    pub(super) clean_to: Offset,
    pub(super) keys: &'a Cleaner,
    pub(super) producers: LastBatches,
    pub(super) transactions: Transactions,
}

/// Where each idempotent producer's last batch of records ends: that batch, and
/// the markers behind it, are what its state may have to be rebuilt from.
#[derive(Debug, Default)]
pub(super) struct LastBatches(pub(super) BTreeMap<i64, Option<Offset>>);

impl LastBatches {
    pub(super) fn contain(&self, header: &BatchHeader) -> bool {
        let Some(last) = header.producer().and_then(|it| self.0.get(&it.id)) else {
            return false;
        };
        match header.is_control() {
            true => last.is_none_or(|last| header.last_offset() > last),
            false => *last == Some(header.last_offset()),
        }
    }
}

/// The transactions met on the way from the log start on.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// Those that were aborted, by producer.
    aborted: HashMap<i64, Vec<AbortedTxn>>,
    /// Producers with data that stays, since their last marker.
    with_data: HashSet<i64>,
}

impl Transactions {
    pub(super) fn new(aborted: Vec<AbortedTxn>) -> Self {
        let mut this = Self::default();
        for txn in aborted {
            this.aborted.entry(txn.producer_id).or_default().push(txn);
        }
        this
    }

    /// The transaction that `header`, of a marker, aborts.
    pub(super) fn aborted_by(&self, header: &BatchHeader) -> Option<AbortedTxn> {
        let all = self.aborted.get(&header.producer_id).filter(|_| header.is_control())?;
        all.iter().find(|txn| txn.last_offset == header.last_offset()).copied()
    }

    /// Whether `header` is that of an aborted transaction's data.
    pub(super) fn aborts(&self, header: &BatchHeader) -> bool {
        header.is_transactional()
            && !header.is_control()
            && self.aborted.get(&header.producer_id).is_some_and(|all| {
                all.iter()
                    .any(|txn| (txn.first_offset..txn.last_offset).contains(&header.base_offset))
            })
    }
}

impl Rules<'_> {
    /// What stays of a batch that holds records. Batches must come in order,
    /// from the log start on. `records` is asked only where they matter.
    pub(super) fn judge<E>(
        &mut self,
        header: &BatchHeader,
        records: impl FnOnce() -> Result<Vec<Record>, E>,
    ) -> Result<Fate, E> {
        // A marker has no sequence that a placeholder could carry.
        let ends_producer = header.is_control() && self.producers.contain(header);
        let fate = if header.last_offset() < self.start && !ends_producer {
            Fate::Nothing
        } else if header.is_control() {
            self.judge_marker(header, records)?
        } else if header.base_offset >= self.clean_to {
            Fate::Whole
        } else if header.last_offset() < self.clean_to && self.transactions.aborts(header) {
            Fate::Nothing
        } else {
            self.judge_data(header, records()?)
        };
        if header.is_transactional() && !header.is_control() && fate != Fate::Nothing {
            self.transactions.with_data.insert(header.producer_id);
        }
        Ok(fate)
    }

    fn judge_data(&self, header: &BatchHeader, mut records: Vec<Record>) -> Fate {
        let before = records.len();
        let dead = self.passed(header);
        records.retain(|record| self.keeps(record, dead));
        let horizon =
            (self.may_stamp(header) && records.iter().any(is_tombstone)).then(|| self.horizon());
        match records.len() {
            0 => Fate::Nothing,
            left if left == before && horizon.is_none() => Fate::Whole,
            _ => Fate::Some(records, horizon),
        }
    }

    /// Whether a record of a data batch stays; `dead` if the batch's delete
    /// horizon has passed.
    fn keeps(&self, record: &Record, dead: bool) -> bool {
        if record.offset >= self.clean_to {
            return true;
        }
        let Some(key) = &record.key else {
            // None gets into a compacted log. One that was written before the
            // log was compacted is no older version of anything.
            return record.offset >= self.start;
        };
        let superseded = self.keys.latest(key).is_some_and(|latest| latest > record.offset);
        record.offset >= self.start && !superseded && !(dead && is_tombstone(record))
    }

    /// A marker goes when its transaction has no data any more, so that readers
    /// never meet data whose end is unknown, and has been without for the
    /// horizon; and not while it is its producer's last batch.
    fn judge_marker<E>(
        &mut self,
        header: &BatchHeader,
        records: impl FnOnce() -> Result<Vec<Record>, E>,
    ) -> Result<Fate, E> {
        let has_data = self.transactions.with_data.remove(&header.producer_id);
        if has_data || header.last_offset() >= self.clean_to || self.producers.contain(header) {
            return Ok(Fate::Whole);
        }
        if self.passed(header) {
            return Ok(Fate::Nothing);
        }
        Ok(match self.may_stamp(header) {
            true => Fate::Some(records()?, Some(self.horizon())),
            false => Fate::Whole,
        })
    }

    fn passed(&self, header: &BatchHeader) -> bool {
        header.delete_horizon_ms().is_some_and(|horizon| self.now_ms >= horizon)
    }

    /// Only a batch that is clean as a whole: until then, what a tombstone
    /// deletes may still be read.
    fn may_stamp(&self, header: &BatchHeader) -> bool {
        header.delete_horizon_ms().is_none() && header.last_offset() < self.clean_to
    }

    fn horizon(&self) -> i64 {
        self.now_ms.saturating_add_unsigned(self.delete_retention_ms)
    }
}

fn is_tombstone(record: &Record) -> bool {
    record.key.is_some() && record.value.is_none()
}
