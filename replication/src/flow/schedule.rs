//! Whose turn it is on one connection.
//!
//! Each kind of traffic has a line of its own, served by deficit round robin
//! (Shreedhar and Varghese), with what a turn took known only afterwards: a partition
//! whose batch was larger than its share sits out until it has made up for it.

use super::Traffic;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Bytes that a partition may be sent in one turn: large enough for cheap frames,
/// small enough that others are not kept waiting.
pub(super) const QUANTUM_BYTES: i64 = 512 * 1024;

/// Bytes that followers outside of the ISR may have on their way on one connection:
/// what a record in sync finds in front of it, in buffers, on the wire and at the
/// follower. It bounds how fast they catch up where the network is slow to answer, at
/// 256 MB/s for each millisecond there and back.
pub(super) const CATCH_UP_IN_FLIGHT_BYTES: i64 = 256 * 1024;

/// Of a smaller credit, one part in this many is left to those in sync.
const LIVE_PART: i64 = 2;

/// Bytes in one turn of theirs, all partitions together: half of what may be on its
/// way, so that one turn is read while the follower writes the other.
pub(crate) const CATCH_UP_TURN_BYTES: usize = 128 * 1024;

/// Bytes in sync after which one turn goes to who is not, whatever else is ready: a
/// leader under full load still gets its followers back. At this a turn of catching
/// up is a sixteenth at most.
pub(super) const LIVE_BYTES_PER_CATCH_UP: i64 = 16 * CATCH_UP_TURN_BYTES as i64;

/// What may be read and sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant<K> {
    pub(crate) key: K,
    /// About; one batch goes, however large.
    pub(crate) max_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Waiting(i64),
    /// Granted, and not yet [`Schedule::done`].
    Busy {
        granted: i64,
        again: bool,
    },
}

#[derive(Clone, Copy, Debug)]
struct Place {
    traffic: Traffic,
    state: State,
    /// Left of its turn, or below zero what it took beyond it.
    balance: i64,
    /// Balances of an earlier round of its line mean nothing.
    round: u64,
}

#[derive(Debug)]
struct Line<K> {
    /// By ticket. Whoever has something left of its turn is in front.
    waiting: BTreeMap<i64, K>,
    busy: usize,
    front: i64,
    back: i64,
    /// Counts how often nobody was left in it.
    round: u64,
}

/// The lines of one connection, and its credit.
#[derive(Debug)]
pub(crate) struct Schedule<K> {
    places: HashMap<K, Place>,
    lines: [Line<K>; Traffic::ALL.len()],
    /// Bytes that may still be sent. Below zero after a batch larger than that.
    credit: i64,
    /// Credit that is left to those in sync.
    reserve: i64,
    /// Bytes sent in sync since others had a turn.
    since_catch_up: i64,
}

impl<K> Default for Line<K> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), busy: 0, front: 0, back: 0, round: 0 }
    }
}

impl<K: Copy + Eq + Hash> Schedule<K> {
    /// With so many bytes of credit, which come back by [`add_credit`](Self::add_credit).
    pub(crate) fn new(credit: u64) -> Self {
        let credit = clamp(credit);
        Self {
            places: HashMap::new(),
            lines: Default::default(),
            credit,
            reserve: (credit / LIVE_PART).max(credit - CATCH_UP_IN_FLIGHT_BYTES),
            since_catch_up: 0,
        }
    }

    pub(crate) fn add_credit(&mut self, bytes: u64) {
        self.credit = self.credit.saturating_add(clamp(bytes));
    }

    /// It has something, or news. Who lags goes on where it waits until it has come
    /// to the end.
    pub(crate) fn ready(&mut self, key: K, traffic: Traffic) {
        let new = Place { traffic, state: State::Idle, balance: 0, round: 0 };
        let place = self.places.entry(key).or_insert(new);
        match place.state {
            State::Busy { ref mut again, .. } => *again = true,
            State::Waiting(_) if place.traffic.in_sync() && traffic == Traffic::Live => {}
            State::Waiting(_) if place.traffic == traffic => {}
            State::Waiting(ticket) => {
                self.lines[place.traffic.index()].leave(ticket);
                self.enter(key, traffic);
            }
            State::Idle => self.enter(key, traffic),
        }
    }

    /// It is not served any more.
    pub(crate) fn remove(&mut self, key: K) {
        let Some(place) = self.places.get_mut(&key) else { return };
        match &mut place.state {
            // What was granted is still on its way.
            State::Busy { again, .. } => return *again = false,
            State::Waiting(ticket) => self.lines[place.traffic.index()].leave(*ticket),
            State::Idle => {}
        }
        self.places.remove(&key);
    }

    /// Whether [`next`](Self::next) would grant something.
    pub(crate) fn has(&self, traffic: Traffic) -> bool {
        !self.lines[traffic.index()].waiting.is_empty() && self.room(traffic) > 0
    }

    /// Who is next of this kind; `None` if nobody waits or there is no credit.
    pub(crate) fn next(&mut self, traffic: Traffic) -> Option<Grant<K>> {
        let room = self.room(traffic);
        if room <= 0 {
            return None;
        }
        loop {
            let line = &mut self.lines[traffic.index()];
            let (_, key) = line.waiting.pop_first()?;
            let place = self.places.get_mut(&key).expect("who waits has a place");
            if place.balance <= 0 {
                place.balance += QUANTUM_BYTES;
            }
            if place.balance <= 0 {
                place.state = State::Waiting(line.queue_last(key));
                continue;
            }
            let granted = place.balance.min(room);
            place.state = State::Busy { granted, again: false };
            line.busy += 1;
            self.credit -= granted;
            if !traffic.in_sync() {
                self.since_catch_up = 0;
            }
            let max_bytes = usize::try_from(granted).unwrap_or(usize::MAX);
            return Some(Grant { key, max_bytes });
        }
    }

    /// So many bytes were read for it, and there is more or not.
    pub(crate) fn pushed(&mut self, key: K, bytes: usize, more: bool) {
        let Some(place) = self.places.get_mut(&key) else { return };
        let State::Busy { granted, again } = &mut place.state else { return };
        let bytes = clamp(bytes as u64);
        self.credit = self.credit.saturating_add(std::mem::take(granted) - bytes);
        *again |= more;
        place.balance -= bytes;
        if place.traffic.in_sync() {
            self.since_catch_up = self.since_catch_up.saturating_add(bytes);
        }
    }

    /// What was granted is on its way, or came to nothing: it may be granted again,
    /// as `traffic`, if it has anything left or became ready meanwhile.
    pub(crate) fn done(&mut self, key: K, traffic: Traffic) {
        self.pushed(key, 0, false);
        let Some(place) = self.places.get_mut(&key) else { return };
        let State::Busy { again, .. } = place.state else { return };
        let before = place.traffic;
        place.state = State::Idle;
        if again {
            self.enter(key, traffic);
        }
        let line = &mut self.lines[before.index()];
        line.busy -= 1;
        line.end_round();
    }

    /// The same for what is not served any more.
    pub(crate) fn forget(&mut self, key: K) {
        self.remove(key);
        self.done(key, Traffic::Live);
        self.remove(key);
    }

    /// Those in sync have had so much since that others are to be let through.
    pub(crate) fn owes_catch_up(&self) -> bool {
        let waits = |traffic: &Traffic| !self.lines[traffic.index()].is_empty();
        self.since_catch_up >= LIVE_BYTES_PER_CATCH_UP
            && [Traffic::CatchUp, Traffic::Moving].iter().any(waits)
    }

    fn enter(&mut self, key: K, traffic: Traffic) {
        let place = self.places.get_mut(&key).expect("who enters has a place");
        let line = &mut self.lines[traffic.index()];
        if place.traffic != traffic || place.round != line.round {
            (place.traffic, place.round, place.balance) = (traffic, line.round, 0);
        }
        let ticket = if place.balance > 0 { line.queue_first(key) } else { line.queue_last(key) };
        place.state = State::Waiting(ticket);
    }

    /// Credit that may be used for it.
    fn room(&self, traffic: Traffic) -> i64 {
        if traffic.in_sync() || self.since_catch_up >= LIVE_BYTES_PER_CATCH_UP {
            self.credit
        } else {
            self.credit - self.reserve
        }
    }
}

impl<K> Line<K> {
    fn queue_last(&mut self, key: K) -> i64 {
        self.back += 1;
        self.waiting.insert(self.back, key);
        self.back
    }

    fn queue_first(&mut self, key: K) -> i64 {
        self.waiting.insert(self.front, key);
        self.front -= 1;
        self.front + 1
    }

    fn leave(&mut self, ticket: i64) {
        self.waiting.remove(&ticket);
        self.end_round();
    }

    /// While nobody waited, nobody was kept waiting: all begin anew.
    fn end_round(&mut self) {
        if self.is_empty() {
            self.round += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.busy == 0 && self.waiting.is_empty()
    }
}

fn clamp(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
