//! Whether a leader may append a batch.

use super::producer::Producer;
use super::{MAX_PRODUCERS, Producers, Step};
use ottla_proto::Offset;
use std::collections::BTreeMap;
use thiserror::Error;

/// Why a leader did not append a producer's batch. Definite: it is not in the
/// log, and sending the same again cannot help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProducerRefusal {
    /// A batch before this one is missing, or this one is an old one whose
    /// offset is forgotten.
    #[error("sequence {got} of producer {producer_id} where {expected} follows")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// The sequence that follows.
        expected: i32,
        /// That of the batch; -1 for none.
        got: i32,
    },
    /// The producer was replaced by a newer one of the same id.
    #[error("epoch {got} of producer {producer_id} is behind its epoch {current}")]
    InvalidProducerEpoch {
        /// The producer.
        producer_id: i64,
        /// Its epoch in this log.
        current: i16,
        /// That of the batch.
        got: i16,
    },
    /// The marker comes from a coordinator that was replaced.
    #[error("coordinator epoch {got} is behind {current}, the last for producer {producer_id}")]
    StaleCoordinatorEpoch {
        /// The producer.
        producer_id: i64,
        /// Epoch of the coordinator that wrote its last marker.
        current: i32,
        /// That of the marker.
        got: i32,
    },
    /// A batch outside of a transaction while the producer has one open.
    #[error("producer {producer_id} has a transaction open, and the batch is not of it")]
    InvalidTransactionState {
        /// The producer.
        producer_id: i64,
    },
    /// [`MAX_PRODUCERS`] transactions are open: none can be forgotten.
    #[error("{MAX_PRODUCERS} producers of this log have transactions open")]
    TooManyTransactions {
        /// The producer.
        producer_id: i64,
    },
}

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// At the offset it was stamped with.
    Append(Offset),
    /// It is in the log already, at this base offset.
    Duplicate(Offset),
    Refused(ProducerRefusal),
}

/// Judges the batches of one append, each after those before it, without
/// touching what is known: the append may still fail.
pub(crate) struct Judge<'a> {
    known: &'a Producers,
    changed: BTreeMap<i64, Producer>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(known: &'a Producers) -> Self {
        Self { known, changed: BTreeMap::new() }
    }

    /// `step` as it would be appended, at the offset it would get.
    pub(crate) fn judge(&mut self, step: &Step) -> Verdict {
        let before = self.changed.get(&step.producer);
        let before = before.or_else(|| self.known.known.get(&step.producer)).copied();
        let verdict = match before {
            Some(producer) => judge(&producer, step),
            None => self.judge_unknown(step),
        };
        if matches!(verdict, Verdict::Append(_)) {
            let mut after = before.unwrap_or_else(|| Producer::new(step.epoch));
            after.apply(step);
            self.changed.insert(step.producer, after);
        }
        verdict
    }

    /// Nothing is known: any sequence is accepted (KIP-360).
    fn judge_unknown(&self, step: &Step) -> Verdict {
        let producer_id = step.producer;
        if step.marker.is_none() && step.sequences.is_none() {
            return refused(ProducerRefusal::OutOfOrderSequence {
                producer_id,
                expected: 0,
                got: -1,
            });
        }
        let opening = self.changed.values().filter(|producer| !producer.is_idle()).count();
        if step.transactional && self.known.transactions.open() + opening >= MAX_PRODUCERS {
            return refused(ProducerRefusal::TooManyTransactions { producer_id });
        }
        Verdict::Append(step.first)
    }
}

fn refused(refusal: ProducerRefusal) -> Verdict {
    Verdict::Refused(refusal)
}

fn judge(known: &Producer, step: &Step) -> Verdict {
    let producer_id = step.producer;
    if step.epoch == known.epoch
        && let Some(sequences) = step.sequences
        && let Some(batch) = known.window.find(sequences)
    {
        return Verdict::Duplicate(batch.first_offset);
    }
    if step.epoch < known.epoch {
        let (current, got) = (known.epoch, step.epoch);
        return refused(ProducerRefusal::InvalidProducerEpoch { producer_id, current, got });
    }
    match step.marker {
        Some(marker) if marker.coordinator_epoch < known.coordinator_epoch => {
            let (current, got) = (known.coordinator_epoch, marker.coordinator_epoch);
            refused(ProducerRefusal::StaleCoordinatorEpoch { producer_id, current, got })
        }
        // Of a newer epoch too: it fences what is on its way (KIP-890).
        Some(_) => Verdict::Append(step.first),
        None => judge_data(known, step),
    }
}

fn judge_data(known: &Producer, step: &Step) -> Verdict {
    let producer_id = step.producer;
    let expected = if step.epoch == known.epoch { known.next_sequence() } else { 0 };
    let got = step.sequences.map_or(-1, |(first, _)| first);
    if got != expected {
        return refused(ProducerRefusal::OutOfOrderSequence { producer_id, expected, got });
    }
    if known.open_since.is_some() && !step.transactional {
        return refused(ProducerRefusal::InvalidTransactionState { producer_id });
    }
    Verdict::Append(step.first)
}
