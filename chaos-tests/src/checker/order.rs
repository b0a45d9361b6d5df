//! The order in which values were read and written, inside operations and from one to
//! the next of a process.

use super::index::{Id, Index, Op, What};
use super::log::Logs;
use super::verdict::{Found, Kind};
use crate::history::Outcome;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

pub(super) fn check(index: &Index, logs: &Logs, found: &mut Found) {
    let mut readers: HashMap<Id, Reader> = HashMap::new();
    let mut sends: BTreeMap<(Id, u32, Id), Vec<Span>> = BTreeMap::new();
    for op in index.by_start() {
        let op = &index.ops[op];
        let polled = polled(index, logs, op);
        let sent = sent(index, logs, op);
        inside(index, op, &polled, POLLS, found);
        inside(index, op, &sent, SENDS, found);
        let reader = readers.entry(op.process).or_default();
        reader.sees(index, op, &polled, found);
        if op.outcome != Outcome::Fail {
            for (key, span) in spans(op, &sent) {
                sends.entry((op.process, reader.life, key)).or_default().push(span);
            }
        }
    }
    for ((process, _, key), spans) in &sends {
        let process = &index.processes[*process as usize];
        let key = &index.keys[*key as usize];
        for (before, after) in follow(spans, index.run.ordered_sends) {
            if after.first.0 <= before.last.0 {
                found.add(Kind::NonmonotonicSend, &[before.line, after.line], || {
                    let (one, other) = (index.text(before.last.1), index.text(after.first.1));
                    format!("{process} wrote {key} {other:?} after {one:?}, which is not before it")
                });
            }
        }
    }
}

/// A key, where its value stands in it, and the value.
type At = (Id, i128, Id);

fn polled(index: &Index, logs: &Logs, op: &Op) -> Vec<At> {
    let at = |polled: &super::index::Polled| {
        let key = index.key_of(polled.value);
        (key, logs.position(key, polled.offset), polled.value)
    };
    index.polls(op).iter().map(at).collect()
}

fn sent(index: &Index, logs: &Logs, op: &Op) -> Vec<At> {
    let at = |sent: &super::index::Sent| {
        let key = index.key_of(sent.value);
        Some((key, logs.position_of(key, sent.value)?, sent.value))
    };
    index.sends(op).iter().filter_map(at).collect()
}

/// Skipped and gone back, and whether the first is allowed.
const POLLS: (Kind, Kind, bool) = (Kind::IntPollSkip, Kind::IntNonmonotonicPoll, false);
const SENDS: (Kind, Kind, bool) = (Kind::IntSendSkip, Kind::IntNonmonotonicSend, true);

/// Consecutive values of a key in one operation.
fn inside(
    index: &Index,
    op: &Op,
    all: &[At],
    (skip, back, allowed): (Kind, Kind, bool),
    found: &mut Found,
) {
    let mut last: HashMap<Id, (i128, Id)> = HashMap::new();
    for (key, at, value) in all {
        let Some((before, previous)) = last.insert(*key, (*at, *value)) else { continue };
        let (kind, allowed) = match at - before {
            1 => continue,
            step if step > 1 => (skip, allowed),
            _ => (back, false),
        };
        if index.named(op).contains(key) {
            continue; // it came or went meanwhile
        }
        found.add_as(kind, allowed, &[op.line], || {
            let (one, other) = (index.text(previous), index.text(*value));
            let (key, step) = (&index.keys[*key as usize], at - before);
            format!("{key} {one:?} is followed by {other:?}, {step} further")
        });
    }
}

/// First and last of a key in one operation.
#[derive(Clone, Copy, Debug)]
struct Span {
    line: u64,
    start: u64,
    /// Of what is in doubt, never: it may still be on its way.
    end: u64,
    first: (i128, Id),
    last: (i128, Id),
}

fn spans(op: &Op, all: &[At]) -> BTreeMap<Id, Span> {
    let mut spans: BTreeMap<Id, Span> = BTreeMap::new();
    let (line, start) = (op.line, op.start);
    let end = if op.outcome == Outcome::Info { u64::MAX } else { op.end };
    for &(key, at, value) in all {
        let new = Span { line, start, end, first: (at, value), last: (at, value) };
        spans.entry(key).or_insert(new).last = (at, value);
    }
    spans
}

/// Where a process is in the keys that it reads.
#[derive(Default)]
struct Reader {
    /// Lives before this one.
    life: u32,
    subscribed: bool,
    keys: HashMap<Id, Position>,
}

struct Position {
    /// By operations that are ok.
    known: (i128, Id),
    line: u64,
    /// What others have read since. Consumers need not go back when a transaction is
    /// aborted, and may.
    doubtful: Option<i128>,
}

impl Reader {
    fn sees(&mut self, index: &Index, op: &Op, polled: &[At], found: &mut Found) {
        let named = index.named(op);
        match op.what {
            What::Crash => *self = Self { life: self.life + 1, ..Self::default() },
            What::Assign | What::Subscribe if op.outcome != Outcome::Fail => {
                self.subscribed = op.what == What::Subscribe;
                self.keys.retain(|key, _| named.contains(key));
            }
            What::Seek => self.keys.retain(|key, _| !named.contains(key)),
            What::Assign | What::Subscribe | What::Data(_) => {}
        }
        for (key, span) in spans(op, polled) {
            if op.outcome == Outcome::Ok {
                self.goes_on(index, op, key, &span, found);
                let position = Position { known: span.last, line: op.line, doubtful: None };
                self.keys.insert(key, position);
            } else if let Some(position) = self.keys.get_mut(&key) {
                position.doubtful = position.doubtful.max(Some(span.last.0));
            }
        }
    }

    fn goes_on(&self, index: &Index, op: &Op, key: Id, span: &Span, found: &mut Found) {
        let Some(before) = self.keys.get(&key) else { return };
        let (at, furthest) = (before.known.0, before.doubtful.max(Some(before.known.0)));
        let kind = match span.first.0 {
            first if first <= at => Kind::NonmonotonicPoll,
            first if Some(first) > furthest.map(|at| at + 1) => Kind::PollSkip,
            _ => return,
        };
        found.add_as(kind, self.subscribed, &[before.line, op.line], || {
            let process = &index.processes[op.process as usize];
            let (one, other) = (index.text(before.known.1), index.text(span.first.1));
            let (key, step) = (&index.keys[key as usize], span.first.0 - at);
            format!("{process} read {key} {other:?} after {one:?}, {step} further")
        });
    }
}

/// Each send, in the order of their starts, with the last one before it: the last that
/// had ended, or, where the order of starts counts, the last that had started.
fn follow(spans: &[Span], by_start: bool) -> Vec<(&Span, &Span)> {
    let mut pairs = Vec::new();
    let mut running = BinaryHeap::new();
    let mut before: Option<usize> = None;
    for (number, span) in spans.iter().enumerate() {
        while let Some(Reverse((end, ended))) = running.peek().copied()
            && (by_start || end <= span.start)
        {
            running.pop();
            before = before.max(Some(ended));
        }
        pairs.extend(before.map(|before| (&spans[before], span)));
        running.push(Reverse((span.end, number)));
    }
    pairs
}
