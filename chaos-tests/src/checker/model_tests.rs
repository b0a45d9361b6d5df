//! Histories of a model log that behaves have no anomaly; with one thing made wrong, the
//! anomaly that it is.

use super::*;
use crate::history::{Call, Entry, Final, Operation, Outcome, Records, Run, Send};
use proptest::prelude::*;
use std::collections::BTreeMap;

const KEYS: usize = 2;
const CLIENTS: usize = 3;

/// What a client does next.
#[derive(Clone, Debug)]
enum Step {
    /// Sends a value; the log takes it now, later or never, and the client is told so,
    /// or is not.
    Send { client: usize, key: usize, fate: Fate },
    /// Reads so many records of a key.
    Poll { client: usize, key: usize, records: usize },
    /// Reads only these keys on.
    Assign { client: usize, keys: Vec<usize> },
    /// Begins a key anew.
    Seek { client: usize, key: usize },
    /// What was in doubt arrives.
    Arrive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    Refused,
    InDoubtWritten,
    InDoubtLate,
    InDoubtLost,
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        6 => Just(Fate::Acknowledged),
        1 => Just(Fate::Refused),
        1 => Just(Fate::InDoubtWritten),
        1 => Just(Fate::InDoubtLate),
        1 => Just(Fate::InDoubtLost),
    ];
    let (client, key) = (0..CLIENTS, 0..KEYS);
    let keys = prop::collection::btree_set(0..KEYS, 0..=KEYS);
    prop_oneof![
        8 => (client.clone(), key.clone(), fate)
            .prop_map(|(client, key, fate)| Step::Send { client, key, fate }),
        6 => (client.clone(), key.clone(), 0..5_usize)
            .prop_map(|(client, key, records)| Step::Poll { client, key, records }),
        1 => (client.clone(), keys).prop_map(|(client, keys)| {
            Step::Assign { client, keys: keys.into_iter().collect() }
        }),
        1 => (client, key).prop_map(|(client, key)| Step::Seek { client, key }),
        2 => Just(Step::Arrive),
    ]
}

/// Logs that do what they are for, and clients that tell what happened to them.
#[derive(Default)]
struct Model {
    entries: Vec<Entry>,
    logs: [Vec<String>; KEYS],
    /// Where each client reads next.
    next: BTreeMap<(usize, usize), usize>,
    late: Vec<(usize, String)>,
    now: u64,
}

fn key(key: usize) -> String {
    format!("t-{key}")
}

impl Model {
    fn operation(&mut self, process: &str, call: Call, outcome: Outcome) {
        self.now += 10;
        self.entries.push(Entry::Op(Operation {
            process: process.to_owned(),
            start: self.now,
            end: self.now + 5,
            outcome,
            error: None,
            call,
            rebalanced: Vec::new(),
        }));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send { client, key, fate } => self.send(client, key, fate),
            Step::Poll { client, key: of, records } => {
                let next = self.next.entry((client, of)).or_default();
                let read = read(&self.logs[of], *next, records);
                *next += read.len();
                let poll = Call::Poll([(key(of), read)].into());
                self.operation(&format!("reader {client}"), poll, Outcome::Ok);
            }
            Step::Assign { client, keys } => {
                self.next.retain(|(of, key), _| *of != client || keys.contains(key));
                let assign = Call::Assign(keys.into_iter().map(key).collect());
                self.operation(&format!("reader {client}"), assign, Outcome::Ok);
            }
            Step::Seek { client, key: of } => {
                self.next.insert((client, of), 0);
                let seek = Call::Seek { key: key(of), offset: 0 };
                self.operation(&format!("reader {client}"), seek, Outcome::Ok);
            }
            Step::Arrive => {
                for (key, value) in self.late.drain(..) {
                    self.logs[key].push(value);
                }
            }
        }
    }

    fn send(&mut self, client: usize, of: usize, fate: Fate) {
        let value = format!("v{}", self.now);
        let at = self.logs[of].len() as u64;
        match fate {
            Fate::Acknowledged | Fate::InDoubtWritten => self.logs[of].push(value.clone()),
            Fate::InDoubtLate => self.late.push((of, value.clone())),
            Fate::Refused | Fate::InDoubtLost => {}
        }
        let (outcome, offset) = match fate {
            Fate::Acknowledged => (Outcome::Ok, Some(at)),
            Fate::Refused => (Outcome::Fail, None),
            _ => (Outcome::Info, None),
        };
        let call = Call::Send(Send { key: key(of), value, offset });
        self.operation(&format!("writer {client}"), call, outcome);
    }

    /// Everything is read from the start, by two readers.
    fn finish(mut self) -> Vec<Entry> {
        self.entries.push(Entry::Final(Final { at: self.now }));
        for reader in ["final 1", "final 2"] {
            let keys = (0..KEYS).map(key).collect();
            self.operation(reader, Call::Assign(keys), Outcome::Ok);
            for of in 0..KEYS {
                let records = read(&self.logs[of], 0, usize::MAX);
                self.operation(reader, Call::Poll([(key(of), records)].into()), Outcome::Ok);
            }
        }
        self.entries
    }
}

fn read(log: &[String], from: usize, records: usize) -> Records {
    let records = (0..).zip(log).skip(from).take(records);
    records.map(|(offset, value)| (offset, value.clone())).collect()
}

fn history(steps: Vec<Step>) -> Vec<Entry> {
    let run = Run { no_gaps: true, all_kept: true, ..Run::default() };
    let mut model = Model { entries: vec![Entry::Run(run)], ..Model::default() };
    for step in steps {
        model.step(step);
    }
    // So that there is always something to make wrong.
    for _ in 0..4 {
        model.send(0, 0, Fate::Acknowledged);
    }
    model.finish()
}

/// One thing made wrong, and what it must be called.
const WRONGS: [(Wrong, Kind); 8] = [
    (|log, at| drop(log.remove(at)), Kind::Missing),
    (|log, at| drop(log.remove(at)), Kind::IntPollSkip),
    (|log, at| log[at].1.push('x'), Kind::Invented),
    (|log, at| log[at].1.push('x'), Kind::InconsistentOffsets),
    (|log, at| log.swap(at, at + 1), Kind::IntNonmonotonicPoll),
    (exchange, Kind::InconsistentOffsets),
    (exchange, Kind::Duplicate),
    (|log, at| log.truncate(at), Kind::Missing),
];

type Wrong = fn(&mut Records, usize);

/// Two values at each other's offsets.
fn exchange(log: &mut Records, at: usize) {
    let other = std::mem::take(&mut log[at + 1].1);
    log[at + 1].1 = std::mem::replace(&mut log[at].1, other);
}

/// What the last final reader saw of the first key.
fn last_reading(entries: &mut [Entry]) -> &mut Records {
    let first = key(0);
    let mut polls = entries.iter_mut().rev().filter_map(|entry| match entry {
        Entry::Op(Operation { call: Call::Poll(polled), .. }) => polled.get_mut(&first),
        _ => None,
    });
    polls.next().expect("a final reading")
}

proptest! {
    #[test]
    fn a_log_that_behaves_has_no_anomaly(steps in prop::collection::vec(step(), 0..60)) {
        let verdict = check(&history(steps)).expect("a history");
        prop_assert!(verdict.good && verdict.anomalies.is_empty(), "{}", verdict);
    }

    #[test]
    fn one_thing_made_wrong_is_found(
        steps in prop::collection::vec(step(), 0..60),
        (wrong, kind) in prop::sample::select(&WRONGS[..]),
        at in 0..2_usize,
    ) {
        let mut history = history(steps);
        let log = last_reading(&mut history);
        // Of the last four, which were acknowledged: one with neighbours.
        let at = log.len() - 3 + at;
        wrong(log, at);
        let verdict = check(&history).expect("a history");
        prop_assert!(verdict.counts.contains_key(&kind), "{kind}: {}", verdict);
    }

    /// A refusal that was none, whenever it was.
    #[test]
    fn a_lie_of_a_writer_is_found(
        steps in prop::collection::vec(step(), 0..60),
        lie in any::<prop::sample::Index>(),
    ) {
        let mut history = history(steps);
        let mut told: Vec<&mut Operation> = history
            .iter_mut()
            .filter_map(|entry| match entry {
                Entry::Op(op) if op.sends().count() > 0 && op.outcome == Outcome::Ok => Some(op),
                _ => None,
            })
            .collect();
        lie.get_mut(&mut told).outcome = Outcome::Fail;
        let verdict = check(&history).expect("a history");
        prop_assert!(verdict.counts.contains_key(&Kind::AbortedRead), "{}", verdict);
    }

    /// An order of operations that could not have been: a read before its write.
    #[test]
    fn time_that_goes_backwards_is_found(steps in prop::collection::vec(step(), 0..60)) {
        let mut history = history(steps);
        let Some(Entry::Op(writer)) = history.iter_mut().rev().find(
            |entry| matches!(entry, Entry::Op(op) if op.sends().count() > 0)
        ) else { unreachable!("four are sent") };
        writer.start += 1_000_000;
        writer.end += 1_000_000;
        let verdict = check(&history).expect("a history");
        prop_assert!(verdict.counts.contains_key(&Kind::G1cRealtime), "{}", verdict);
    }
}
