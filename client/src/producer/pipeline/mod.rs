//! The batches of one partition on their way to its leader: in which order they are
//! sent, under which sequences, which of them again, and when their fate is known.
//!
//! Batches are sent in *legs*: a leg is a stream of requests to one leader, which
//! handles them in their order. The first failure of any kind ends a leg; once
//! nothing of it is unanswered another begins with the oldest batch that is left.
//! Until a leader has acknowledged a batch only one is sent: to a leader that knows
//! nothing of this producer any sequence is right, so that one which was refused
//! could be overtaken by the next.
//!
//! A batch is *in doubt* once an attempt may have been carried out and nobody said
//! so. It keeps its sequences for ever, so that the leader knows it again; all others
//! behind it are numbered when they are sent. What was given up in doubt leaves a gap
//! in the sequences: then those in doubt behind it are asked for one by one, and what
//! comes after goes under the next epoch. See docs/decisions/0034.
//!
//! Not its job: time, connections, finding the leader, errors in words. A function of
//! what it is told.

use ottla_commitlog::format::ProducerSequence;
use std::collections::VecDeque;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

/// Batches of a partition that are unanswered at most, those counted that came after
/// the oldest of them and were answered before it. Its leader knows the last five of
/// every producer (`commitlog/src/producers/window.rs`); one more, and the oldest could
/// not be sent again.
pub(super) const MAX_UNANSWERED: usize = 5;

/// Sequences that there are: from 0 to the greatest `i32`, and then again.
const SEQUENCES: u64 = 1 << 31;

/// The last epoch that a producer gives itself. Kafka leaves the one above to
/// coordinators, for fencing.
const LAST_EPOCH: i16 = i16::MAX - 1;

/// Counts batches in the order in which they came.
pub(super) type BatchId = u64;

/// What the batches' producer promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// Batches carry sequences, so that a leader knows those it has.
    pub(super) idempotent: bool,
    /// A batch in doubt is sent again.
    pub(super) retry_in_doubt: bool,
    /// A leader may lose what it acknowledged (acks=1), and batches in doubt with it.
    pub(super) lossy: bool,
}

/// What became of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Written,
    /// It was not written. The same may be, later or elsewhere.
    NotNow,
    /// It was not written, and the same never will be.
    Never,
    /// It may have been written.
    InDoubt {
        retriable: bool,
    },
    /// It was not written: this sequence follows, as far as the leader said.
    OutOfOrder {
        expected: Option<i32>,
    },
    /// It was not written: its producer id has a newer epoch, which somebody else
    /// must have given it.
    Fenced,
}

/// What is known of a batch in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Written,
    NotWritten,
    /// It may have been written, once.
    InDoubt,
}

/// A batch to send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Send {
    pub(super) id: BatchId,
    pub(super) sequence: Option<ProducerSequence>,
    /// It may have been written before.
    pub(super) in_doubt: bool,
    /// And its leader would not know.
    pub(super) maybe_again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Sent,
    /// Refused for its sequence; why shows when the leg is over.
    OutOfOrder {
        expected: Option<i32>,
    },
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    id: BatchId,
    records: u32,
    /// The first sequence it was given, counted on without going round.
    base: Option<u64>,
    in_doubt: bool,
    state: State,
}

impl Slot {
    fn end(&self) -> Option<u64> {
        Some(self.base? + u64::from(self.records))
    }

    /// Its sequences must stay what they are.
    fn is_kept(&self) -> bool {
        self.in_doubt && self.base.is_some()
    }

    fn fate(&self) -> Fate {
        if self.in_doubt { Fate::InDoubt } else { Fate::NotWritten }
    }
}

/// How to go on behind sequences that will never be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    NextEpoch,
    NewId,
}

/// One partition's batches on their way.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    rules: Rules,
    identity: Option<(i64, i16)>,
    /// The id before, which must not be taken again.
    former: Option<i64>,
    /// Behind the last sequence that was acknowledged under this identity.
    acknowledged: u64,
    gap: Option<Gap>,
    admitted: BatchId,
    /// In the order in which they came.
    slots: VecDeque<Slot>,
    /// Requests that this leg may have unanswered.
    window: usize,
    /// The oldest batch that failed in this leg.
    failed_at: Option<BatchId>,
}

impl Pipeline {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            identity: None,
            former: None,
            acknowledged: 0,
            gap: None,
            admitted: 0,
            slots: VecDeque::new(),
            window: 1,
            failed_at: None,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.slots.front().is_none_or(|oldest| self.admitted - oldest.id < MAX_UNANSWERED as u64)
    }

    /// Takes in a batch behind all others. There must be room.
    pub(super) fn admit(&mut self, records: u32) -> BatchId {
        assert!(self.has_room(), "a leader knows no more than {MAX_UNANSWERED} batches");
        let (id, state) = (self.admitted, State::Waiting);
        self.admitted += 1;
        self.slots.push_back(Slot { id, records, base: None, in_doubt: false, state });
        id
    }

    /// Whether nothing can be sent before [`identify`](Self::identify): and which id it
    /// must not be.
    pub(super) fn needs_identity(&self) -> Option<Option<i64>> {
        (self.rules.idempotent && self.identity.is_none()).then_some(self.former)
    }

    pub(super) fn identify(&mut self, id: i64) {
        self.identity = Some((id, 0));
    }

    /// The next batch to send in this leg, if one is to be sent now.
    pub(super) fn next(&mut self) -> Option<Send> {
        if self.has_failed() || self.unanswered() >= self.window() {
            return None;
        }
        if self.gap.is_some() && self.unanswered() == 0 && !self.slots.iter().any(Slot::is_kept) {
            self.step_over_gap();
        }
        let in_order = self.gap.is_none();
        let to_send =
            |slot: &Slot| slot.state == State::Waiting && (in_order || slot.base.is_some());
        let index = self.slots.iter().position(to_send)?;
        let maybe_again = self.slots[index].in_doubt && self.slots[index].base.is_none();
        let sequence = if self.rules.idempotent { Some(self.number(index)?) } else { None };
        let slot = &mut self.slots[index];
        slot.state = State::Sent;
        Some(Send { id: slot.id, sequence, in_doubt: slot.in_doubt, maybe_again })
    }

    /// Takes in the answer to one that was sent: its fate, if that is now known.
    pub(super) fn answered(&mut self, id: BatchId, answer: Answer) -> Option<Fate> {
        let index = self.slots.iter().position(|slot| slot.id == id)?;
        let numbered = self.slots[index].base.is_some();
        if answer == Answer::Written {
            let slot = self.slots.remove(index)?;
            self.acknowledged = self.acknowledged.max(slot.end().unwrap_or(0));
            self.window = MAX_UNANSWERED;
            return Some(Fate::Written);
        }
        self.failed_at = Some(self.failed_at.map_or(id, |first| first.min(id)));
        let slot = &mut self.slots[index];
        slot.state = State::Waiting;
        match answer {
            Answer::Written => unreachable!("handled above"),
            Answer::NotNow => None,
            Answer::InDoubt { retriable } => {
                slot.in_doubt = true;
                let again = retriable && self.rules.retry_in_doubt;
                if again { None } else { self.remove(index) }
            }
            Answer::OutOfOrder { expected } if numbered => {
                slot.state = State::OutOfOrder { expected };
                None
            }
            Answer::Fenced if numbered => {
                self.gap = Some(Gap::NewId);
                if slot.in_doubt {
                    return self.remove(index);
                }
                slot.base = None;
                None
            }
            Answer::Never | Answer::OutOfOrder { .. } | Answer::Fenced => self.remove(index),
        }
    }

    /// The stream is gone, and with it every answer that is still missing.
    pub(super) fn lost(&mut self) -> Vec<(BatchId, Fate)> {
        let sent: Vec<BatchId> = self.sent().map(|slot| slot.id).collect();
        let in_doubt = Answer::InDoubt { retriable: true };
        sent.into_iter().filter_map(|id| Some((id, self.answered(id, in_doubt)?))).collect()
    }

    /// Whether this leg has failed, so that nothing more is sent in it.
    pub(super) fn has_failed(&self) -> bool {
        self.failed_at.is_some()
    }

    /// Whether another batch could be sent at once: until then its records gather.
    pub(super) fn wants(&self) -> bool {
        let idle = self.slots.iter().all(|slot| slot.state == State::Sent);
        idle && self.has_room() && !self.has_failed() && self.slots.len() < self.window()
    }

    pub(super) fn unanswered(&self) -> usize {
        self.sent().count()
    }

    /// Nothing is unanswered, and another leg is to begin. Returns batches whose fate is
    /// now known.
    pub(super) fn end_leg(&mut self) -> Vec<(BatchId, Fate)> {
        assert_eq!(self.unanswered(), 0, "a leg ends when nothing is unanswered");
        let mut done = Vec::new();
        for id in self.slots.iter().map(|slot| slot.id).collect::<Vec<_>>() {
            done.extend(self.judge_sequence(id).map(|fate| (id, fate)));
        }
        self.renumber();
        (self.window, self.failed_at) = (1, None);
        done
    }

    /// A batch is given up, between two legs.
    pub(super) fn give_up(&mut self, id: BatchId) -> Option<Fate> {
        assert_eq!(self.unanswered(), 0, "what is unanswered is waited for");
        let index = self.slots.iter().position(|slot| slot.id == id)?;
        let fate = self.remove(index);
        self.renumber();
        fate
    }

    fn window(&self) -> usize {
        if self.rules.idempotent { self.window } else { 1 }
    }

    fn sent(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| slot.state == State::Sent)
    }

    /// The batch's sequences, new ones if it has none. `None` without an identity.
    fn number(&mut self, index: usize) -> Option<ProducerSequence> {
        let (id, epoch) = self.identity?;
        let before = self.slots.iter().take(index).filter_map(Slot::end);
        let follows = before.fold(self.acknowledged, u64::max);
        let base = *self.slots[index].base.get_or_insert(follows);
        Some(ProducerSequence { id, epoch, base_sequence: sequence(base) })
    }

    /// A batch was refused for its sequence. Behind one that failed in the same leg that
    /// was to be expected. Otherwise the leader lacks something that was acknowledged
    /// or given up, or somebody else uses the id.
    fn judge_sequence(&mut self, id: BatchId) -> Option<Fate> {
        let index = self.slots.iter().position(|slot| slot.id == id)?;
        let slot = &mut self.slots[index];
        let State::OutOfOrder { expected } = slot.state else { return None };
        slot.state = State::Waiting;
        if self.failed_at != Some(id) {
            return None;
        }
        self.gap.get_or_insert(Gap::NextEpoch);
        let behind = slot.base.zip(expected).is_some_and(|(base, next)| precedes(next, base));
        if slot.in_doubt && !(self.rules.lossy && behind) {
            return self.remove(index);
        }
        slot.base = None;
        None
    }

    fn remove(&mut self, index: usize) -> Option<Fate> {
        let slot = self.slots.remove(index)?;
        if slot.is_kept() {
            self.gap.get_or_insert(Gap::NextEpoch);
        }
        Some(slot.fate())
    }

    /// Takes their sequences from all batches behind the last one in doubt, and looks
    /// whether those that keep theirs still follow what was acknowledged.
    fn renumber(&mut self) {
        let kept = self.slots.iter().rposition(Slot::is_kept).map_or(0, |last| last + 1);
        for slot in self.slots.range_mut(kept..) {
            slot.base = None;
        }
        let mut follows = self.acknowledged;
        for slot in self.slots.range(..kept) {
            if let Some(base) = slot.base {
                if base != follows {
                    self.gap.get_or_insert(Gap::NextEpoch);
                }
                follows = base + u64::from(slot.records);
            }
        }
    }

    fn step_over_gap(&mut self) {
        let gap = self.gap.take();
        self.identity = match self.identity {
            Some((id, epoch)) if gap == Some(Gap::NextEpoch) && epoch < LAST_EPOCH => {
                Some((id, epoch + 1))
            }
            Some((id, _)) => {
                self.former = Some(id);
                None
            }
            None => None,
        };
        for slot in &mut self.slots {
            slot.base = None;
        }
        (self.acknowledged, self.window) = (0, 1);
    }
}

fn sequence(counted: u64) -> i32 {
    (counted % SEQUENCES) as i32 // below 2^31
}

/// Whether a sequence comes before that of this base, by less than half the round.
fn precedes(sequence: i32, base: u64) -> bool {
    let distance = (base % SEQUENCES + SEQUENCES - u64::from(sequence.unsigned_abs())) % SEQUENCES;
    (1..SEQUENCES / 2).contains(&distance)
}
