//! What was read and not handed out yet, and how far each partition is: read, handed out,
//! processed, committed.
//!
//! Not its job: reading, committing, and saying which partitions are read.

use super::ConsumerError;
use super::batch::{Credit, ReadBatch};
use super::slot::{Credits, Phase, Shelved, Slot};
use super::types::{ConsumedBatch, ConsumerEvent, TopicPartition};
use ottla_commitlog::format::Record;
use ottla_proto::{PartitionId, TopicId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::task::AbortHandle;

/// Events that wait for the application; of more the oldest are dropped. Whoever asks for
/// events at all takes them as they come.
const EVENTS_KEPT: usize = 1024;

/// One time that a partition was assigned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Held {
    pub(super) partition: TopicPartition,
    pub(super) generation: u64,
}

/// An offset to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) held: Held,
    pub(super) offset: u64,
}

/// What the application was given last.
struct Handed {
    held: Held,
    feed: u64,
    next_offset: u64,
}

/// How the application asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// Records, and to know what else happens.
    Events,
    /// Records.
    Records,
}

/// What it is given.
pub(super) enum Given {
    Error(ConsumerError),
    Event(ConsumerEvent),
    Batch(ConsumedBatch),
}

/// The partitions of a consumer.
#[derive(Default)]
pub(super) struct Shelf {
    slots: BTreeMap<TopicPartition, Slot>,
    turn: VecDeque<TopicPartition>,
    events: VecDeque<ConsumerEvent>,
    errors: VecDeque<ConsumerError>,
    generations: u64,
    handed: Option<Handed>,
    /// To be given back when the application asks again.
    shown: Vec<Held>,
}

impl Shelf {
    /// The partition is assigned. Reading begins with [`Self::begin`].
    pub(super) fn add(&mut self, partition: TopicPartition, id: Option<PartitionId>) -> Held {
        self.generations += 1;
        let generation = self.generations;
        let slot = Slot::new(id, generation);
        // One of a topic of the same name that is gone, if any.
        if let Some(mut former) = self.slots.insert(partition.clone(), slot) {
            former.clear();
            self.turn.retain(|other| *other != partition);
        }
        Held { partition, generation }
    }

    /// A reader is about to begin at an offset, or, if that is not known yet, will say
    /// where. `None`: the partition is not held any more.
    pub(super) fn begin(
        &mut self,
        held: &Held,
        position: Option<u64>,
        committed: Option<u64>,
    ) -> Option<(u64, Option<TopicId>, Arc<Credits>)> {
        let slot = self.slot(held).filter(|slot| slot.phase == Phase::Reading)?;
        slot.clear();
        slot.feed += 1;
        slot.credits = Arc::default();
        (slot.position, slot.processed) = (position, position);
        if committed.is_some() {
            slot.committed = committed;
        }
        Some((slot.feed, slot.id.map(|id| id.topic), Arc::clone(&slot.credits)))
    }

    pub(super) fn reads(&mut self, held: &Held, feed: u64, reader: AbortHandle) {
        match self.slot(held).filter(|slot| slot.feed == feed) {
            Some(slot) => slot.reader = Some(reader),
            None => reader.abort(),
        }
    }

    /// A reader knows where it begins. False: it is not wanted any more.
    pub(super) fn begins_at(&mut self, held: &Held, feed: u64, position: u64) -> bool {
        let Some(slot) = self.slot(held).filter(|slot| slot.feed == feed) else { return false };
        (slot.position, slot.processed) = (Some(position), Some(position));
        true
    }

    /// A reader knows which topic it reads: another may have its name later.
    pub(super) fn is_of(&mut self, held: &Held, feed: u64, topic: TopicId) {
        let index = held.partition.partition;
        if let Some(slot) = self.slot(held).filter(|slot| slot.feed == feed) {
            slot.id = Some(PartitionId { topic, index });
        }
    }

    /// A reader has read something. False: it is not wanted any more.
    pub(super) fn put(&mut self, held: &Held, feed: u64, batch: ReadBatch, credit: Credit) -> bool {
        let Some(slot) = self.slot(held).filter(|slot| slot.feed == feed) else { return false };
        let (next_offset, high_watermark) = (batch.next_offset, batch.high_watermark);
        let records = batch.records.into_iter();
        slot.shelved.push_back(Shelved { records, next_offset, high_watermark, credit });
        self.queue(&held.partition);
        true
    }

    fn slot(&mut self, held: &Held) -> Option<&mut Slot> {
        self.slots.get_mut(&held.partition).filter(|slot| slot.generation == held.generation)
    }

    fn queue(&mut self, partition: &TopicPartition) {
        let Some(slot) = self.slots.get_mut(partition) else { return };
        if slot.may_be_taken() && !std::mem::replace(&mut slot.queued, true) {
            self.turn.push_back(partition.clone());
        }
    }

    pub(super) fn event(&mut self, event: ConsumerEvent) {
        if self.events.len() >= EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    pub(super) fn error(&mut self, error: ConsumerError) {
        self.errors.push_back(error);
    }

    /// The application asks: what it was given before is processed. What it knows to be
    /// given back is given back now.
    pub(super) fn asked(&mut self) -> Vec<Held> {
        if let Some(handed) = self.handed.take()
            && let Some(slot) = self.slot(&handed.held).filter(|slot| slot.feed == handed.feed)
        {
            slot.processed = Some(handed.next_offset);
        }
        std::mem::take(&mut self.shown)
    }

    /// What there is for it: errors, events, then at most `most` records of the partition
    /// whose turn it is, if records may be handed out. Beside it what is to be given back.
    pub(super) fn give(
        &mut self,
        wants: Wants,
        most: usize,
        records: bool,
    ) -> (Option<Given>, Vec<Held>) {
        let mut back = Vec::new();
        if let Some(error) = self.errors.pop_front() {
            return (Some(Given::Error(error)), back);
        }
        while let Some(event) = self.events.pop_front() {
            let stops = match &event {
                ConsumerEvent::Revoking(partitions) => self.stopping(partitions),
                _ => Vec::new(),
            };
            if wants == Wants::Events {
                self.shown = stops;
                return (Some(Given::Event(event)), back);
            }
            back.extend(stops);
        }
        let batch = if records { self.take(most) } else { None };
        (batch.map(Given::Batch), back)
    }

    fn stopping(&self, partitions: &[TopicPartition]) -> Vec<Held> {
        let held = |partition: &TopicPartition| {
            let slot = self.slots.get(partition).filter(|slot| slot.phase == Phase::Stopping)?;
            Some(Held { partition: partition.clone(), generation: slot.generation })
        };
        partitions.iter().filter_map(held).collect()
    }

    fn take(&mut self, most: usize) -> Option<ConsumedBatch> {
        loop {
            let partition = self.turn.pop_front()?;
            let Some(slot) = self.slots.get_mut(&partition) else { continue };
            slot.queued = false;
            if !slot.may_be_taken() {
                continue;
            }
            let shelved = slot.shelved.front_mut().expect("there is something");
            let records: Vec<Record> = shelved.records.by_ref().take(most.max(1)).collect();
            let high_watermark = shelved.high_watermark;
            let is_done = shelved.records.len() == 0;
            let next_offset = match records.last() {
                Some(last) if !is_done => last.offset + 1,
                _ => shelved.next_offset,
            };
            slot.position = Some(next_offset);
            let held = Held { partition: partition.clone(), generation: slot.generation };
            self.handed = Some(Handed { held, feed: slot.feed, next_offset });
            if is_done {
                slot.credits.give(shelved.credit);
                slot.shelved.pop_front();
            }
            if slot.may_be_taken() {
                slot.queued = true;
                // A batch is handed out to its end before it is another's turn.
                if is_done {
                    self.turn.push_back(partition.clone());
                } else {
                    self.turn.push_front(partition.clone());
                }
            }
            return Some(ConsumedBatch { partition, records, next_offset, high_watermark });
        }
    }

    /// These are to be given back, which the application learns first, unless it has
    /// `gone`. Returns those that can be released at once, and what is to be released.
    pub(super) fn stop(
        &mut self,
        ids: &[PartitionId],
        gone: bool,
    ) -> (Vec<PartitionId>, Vec<Held>) {
        let (mut shown, mut held, mut unknown) = (Vec::new(), Vec::new(), ids.to_vec());
        for (partition, slot) in &mut self.slots {
            let Some(id) = slot.id.filter(|id| ids.contains(id)) else { continue };
            unknown.retain(|other| *other != id);
            slot.clear();
            slot.phase = Phase::Stopping;
            shown.push(partition.clone());
            held.push(Held { partition: partition.clone(), generation: slot.generation });
        }
        if gone {
            return (unknown, held);
        }
        if !shown.is_empty() {
            self.event(ConsumerEvent::Revoking(shown));
        }
        (unknown, Vec::new())
    }

    /// These are given back now: how far they are processed, if that is to be committed.
    pub(super) fn release(&mut self, held: &[Held]) -> Vec<Progress> {
        let mut all = Vec::new();
        for held in held {
            let Some(slot) = self.slot(held) else { continue };
            slot.phase = Phase::Releasing;
            if let Some(offset) = slot.processed.filter(|at| slot.committed != Some(*at)) {
                all.push(Progress { held: held.clone(), offset });
            }
        }
        all
    }

    /// These are not held any more. Returns their ids.
    pub(super) fn remove(&mut self, held: &[Held]) -> Vec<PartitionId> {
        let mut ids = Vec::new();
        for held in held {
            if self.slot(held).is_none() {
                continue;
            }
            if let Some(mut slot) = self.slots.remove(&held.partition) {
                slot.clear();
                ids.extend(slot.id);
            }
            self.turn.retain(|other| *other != held.partition);
        }
        ids
    }

    /// These are another's perhaps.
    pub(super) fn lose(&mut self, ids: &[PartitionId]) {
        let is_it = |slot: &Slot| slot.id.is_some_and(|id| ids.contains(&id));
        let lost: Vec<Held> = self.all().filter(|(_, slot)| is_it(slot)).map(|(h, _)| h).collect();
        self.remove(&lost);
        if !lost.is_empty() {
            let partitions = lost.into_iter().map(|held| held.partition).collect();
            self.event(ConsumerEvent::Lost(partitions));
        }
    }

    fn all(&self) -> impl Iterator<Item = (Held, &Slot)> {
        self.slots.iter().map(|(partition, slot)| {
            (Held { partition: partition.clone(), generation: slot.generation }, slot)
        })
    }

    /// Everything that is held.
    pub(super) fn held(&self) -> Vec<Held> {
        self.all().map(|(held, _)| held).collect()
    }

    /// Those among them that are read.
    pub(super) fn assignment(&self) -> Vec<TopicPartition> {
        let read = self.slots.iter().filter(|(_, slot)| slot.phase == Phase::Reading);
        read.map(|(partition, _)| partition.clone()).collect()
    }

    /// If that is known.
    pub(super) fn id(&self, held: &Held) -> Option<PartitionId> {
        self.slots.get(&held.partition).filter(|slot| slot.generation == held.generation)?.id
    }

    pub(super) fn find(&self, partition: &TopicPartition) -> Option<Held> {
        let slot = self.slots.get(partition)?;
        Some(Held { partition: partition.clone(), generation: slot.generation })
    }

    pub(super) fn is_held(&self, held: &Held) -> bool {
        let slot = self.slots.get(&held.partition);
        slot.is_some_and(|slot| slot.generation == held.generation)
    }

    pub(super) fn position(&self, partition: &TopicPartition) -> Option<u64> {
        self.slots.get(partition)?.position
    }

    /// What is processed and not committed.
    pub(super) fn processed(&self) -> Vec<Progress> {
        self.progress(|slot| slot.processed)
    }

    /// What was handed out and is not committed.
    pub(super) fn handed_out(&self) -> Vec<Progress> {
        self.progress(|slot| slot.position)
    }

    fn progress(&self, at: impl Fn(&Slot) -> Option<u64>) -> Vec<Progress> {
        let news = |(held, slot): (Held, &Slot)| {
            let offset = at(slot).filter(|at| slot.committed != Some(*at))?;
            (slot.phase != Phase::Releasing).then_some(Progress { held, offset })
        };
        self.all().filter_map(news).collect()
    }

    /// The application says how far it is.
    pub(super) fn process(&mut self, progress: &[Progress]) {
        for Progress { held, offset } in progress {
            if let Some(slot) = self.slot(held) {
                slot.processed = Some(*offset);
            }
        }
    }

    pub(super) fn committed(&mut self, progress: &[Progress]) {
        for Progress { held, offset } in progress {
            if let Some(slot) = self.slot(held) {
                slot.committed = Some(*offset);
            }
        }
    }

    /// False: it is not assigned.
    pub(super) fn pause(&mut self, partition: &TopicPartition, paused: bool) -> bool {
        let Some(slot) = self.slots.get_mut(partition) else { return false };
        slot.paused = paused;
        self.queue(partition);
        true
    }
}
