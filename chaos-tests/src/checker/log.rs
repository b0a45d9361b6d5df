//! The log that a history shows: which values were seen at which offset of each key, and
//! the order that follows.

use super::index::{Id, Index};

/// A value at an offset, and the first line that says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) value: Id,
    pub(super) line: u64,
}

/// What is known of one key.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// Each value at each offset once, sorted by offset.
    pub(super) places: Vec<Place>,
    /// The offsets where anything is.
    pub(super) offsets: Vec<u64>,
}

pub(super) struct Logs {
    by_key: Vec<Log>,
    /// By value: its first and its last index, if it is anywhere.
    indexes: Vec<Option<(usize, usize)>>,
    no_gaps: bool,
}

impl Logs {
    /// From all polls, and the sends of operations that were done.
    pub(super) fn new(index: &Index) -> Self {
        let mut by_key = vec![Log::default(); index.keys.len()];
        for op in &index.ops {
            let polled = index.polls(op).iter().map(|polled| (polled.offset, polled.value));
            let committed = index.is_committed(op);
            let sent = index.sends(op).iter().filter(|_| committed);
            let sent = sent.filter_map(|sent| Some((sent.offset?, sent.value)));
            for (offset, value) in polled.chain(sent) {
                let place = Place { offset, value, line: op.line };
                by_key[index.key_of(value) as usize].places.push(place);
            }
        }
        let mut indexes = vec![None; index.values().count()];
        for log in &mut by_key {
            log.settle();
            for (place, at) in log.places.iter().zip(log.indexes()) {
                let known: &mut Option<(usize, usize)> = &mut indexes[place.value as usize];
                *known = Some((known.map_or(at, |(first, _)| first), at));
            }
        }
        Self { by_key, indexes, no_gaps: index.run.no_gaps }
    }

    pub(super) fn of(&self, key: Id) -> &Log {
        &self.by_key[key as usize]
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (Id, &Log)> {
        (0..).zip(&self.by_key)
    }

    /// First and last index of a value among the offsets of its key.
    pub(super) fn indexes(&self, value: Id) -> Option<(usize, usize)> {
        self.indexes[value as usize]
    }

    /// Where a record stands, so that the next one stands one further: offsets that hold
    /// nothing for anybody do not count, unless there can be none.
    pub(super) fn position(&self, key: Id, offset: u64) -> i128 {
        match self.no_gaps {
            true => offset.into(),
            // Asked for offsets of the log only, which are found.
            false => self.of(key).offsets.partition_point(|known| *known < offset) as i128,
        }
    }

    /// The same of a value that was sent, if it is anywhere.
    pub(super) fn position_of(&self, key: Id, value: Id) -> Option<i128> {
        let (first, _) = self.indexes(value)?;
        Some(self.position(key, self.of(key).offsets[first]))
    }
}

impl Log {
    fn settle(&mut self) {
        self.places.sort_unstable_by_key(|place| (place.offset, place.value, place.line));
        self.places.dedup_by_key(|place| (place.offset, place.value));
        self.offsets = self.places.iter().map(|place| place.offset).collect();
        self.offsets.dedup();
    }

    /// The index of each place.
    fn indexes(&self) -> impl Iterator<Item = usize> {
        let mut at = 0;
        self.places.iter().map(move |place| {
            if self.offsets[at] != place.offset {
                at += 1;
            }
            at
        })
    }

    /// The places of each offset.
    pub(super) fn by_offset(&self) -> impl Iterator<Item = &[Place]> {
        self.places.chunk_by(|one, other| one.offset == other.offset)
    }
}
