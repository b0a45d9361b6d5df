//! What a history tells beside anomalies: counts, the worst lag, and when nothing could
//! be written.

use super::index::{Id, Index, What};
use super::log::Logs;
use super::verdict::{Found, Verdict};
use crate::history::Outcome;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

/// A key that takes no write for so long, although it is tried, is told of as
/// unavailable: longer than a write on a busy disk takes, shorter than any failover.
const UNAVAILABLE: Duration = Duration::from_millis(100);

/// Windows that are kept, the longest.
const WINDOWS: usize = 100;

/// Operations by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// By call.
    pub calls: BTreeMap<&'static str, BTreeMap<Outcome, u64>>,
    /// Records read, each time one was.
    pub records_read: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (call, outcomes) in &self.calls {
            let of = |outcome| outcomes.get(&outcome).copied().unwrap_or_default();
            let (ok, fail, info) = (of(Outcome::Ok), of(Outcome::Fail), of(Outcome::Info));
            write!(f, "{call} {ok} ok, {fail} refused, {info} in doubt; ")?;
        }
        write!(f, "{} records read", self.records_read)
    }
}

/// How far a reader was behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lag {
    /// Nanoseconds.
    pub nanos: u64,
    /// Of which reader.
    pub process: String,
    /// In which key.
    pub key: String,
    /// The poll.
    pub line: u64,
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lag = Duration::from_nanos(self.nanos);
        write!(f, "{lag:.1?}, {} in {}, line {}", self.process, self.key, self.line)
    }
}

/// A time in which a key took no write, although it was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unavailable {
    /// The key.
    pub key: String,
    /// The first that was tried, or the last success: whichever is later.
    pub from: u64,
    /// The next success, or the last that was tried.
    pub to: u64,
    /// It ended with a success.
    pub recovered: bool,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |nanos| Duration::from_nanos(nanos).as_secs_f64();
        let (from, to) = (seconds(self.from), seconds(self.to));
        let until = if self.recovered { "" } else { ", to the end" };
        write!(f, "{} from {from:.3} s for {:.3} s{until}", self.key, to - from)
    }
}

pub(super) fn verdict(index: &Index, logs: &Logs, found: Found) -> Verdict {
    let (mut total, mut processes) = (Tally::default(), BTreeMap::<String, Tally>::new());
    for op in &index.ops {
        let process = &index.processes[op.process as usize];
        for tally in [&mut total, processes.entry(process.clone()).or_default()] {
            let outcomes = tally.calls.entry(op.what.name()).or_default();
            *outcomes.entry(op.outcome).or_default() += 1;
            tally.records_read += index.polls(op).len() as u64;
        }
    }
    let mut not_judged = Vec::new();
    if !index.has_final {
        not_judged.push("what was never read: there is no final reading".to_owned());
    }
    found.into_verdict(Verdict {
        operations: index.ops.len() as u64,
        total,
        processes,
        worst_lag: worst_lag(index, logs),
        unavailable: unavailable(index),
        not_judged,
        ..Verdict::default()
    })
}

/// For each index of each key, when the first record after it was known to anybody.
fn known_after(index: &Index, logs: &Logs) -> Vec<Vec<u64>> {
    let mut known: Vec<Vec<u64>> =
        logs.all().map(|(_, log)| vec![u64::MAX; log.offsets.len()]).collect();
    for op in index.ops.iter().filter(|op| op.outcome == Outcome::Ok) {
        let values = index.sends(op).iter().map(|sent| sent.value);
        for value in values.chain(index.polls(op).iter().map(|polled| polled.value)) {
            if let Some((first, _)) = logs.indexes(value) {
                let known = &mut known[index.key_of(value) as usize][first];
                *known = op.end.min(*known);
            }
        }
    }
    for known in &mut known {
        let mut after = u64::MAX;
        for at in known.iter_mut().rev() {
            after = std::mem::replace(at, after).min(after);
        }
    }
    known
}

/// Of polls before the final reading, which begins behind on purpose.
fn worst_lag(index: &Index, logs: &Logs) -> Option<Lag> {
    let known_after = known_after(index, logs);
    let mut readers: HashMap<Id, HashMap<Id, usize>> = HashMap::new();
    let mut worst: Option<(u64, Id, Id, u64)> = None;
    for op in index.by_start() {
        let op = &index.ops[op];
        let at = readers.entry(op.process).or_default();
        match op.what {
            What::Crash => at.clear(),
            What::Assign | What::Subscribe => at.retain(|key, _| index.named(op).contains(key)),
            What::Seek => at.retain(|key, _| !index.named(op).contains(key)),
            What::Data("send") => continue,
            What::Data(_) if op.is_final || op.outcome != Outcome::Ok => continue,
            What::Data(_) => {
                for polled in index.polls(op) {
                    let key = index.key_of(polled.value);
                    let before = logs.of(key).offsets.partition_point(|o| *o < polled.offset);
                    at.insert(key, before);
                }
                for (key, at) in at {
                    let lag = op.start.saturating_sub(known_after[*key as usize][*at]);
                    if lag > worst.map_or(0, |worst| worst.0) {
                        worst = Some((lag, op.process, *key, op.line));
                    }
                }
            }
        }
    }
    worst.map(|(nanos, process, key, line)| Lag {
        nanos,
        process: index.processes[process as usize].clone(),
        key: index.keys[key as usize].clone(),
        line,
    })
}

/// The state of a key while its sends are looked at in the order of their ends.
#[derive(Clone, Copy, Default)]
struct Writing {
    /// The last success.
    success: u64,
    /// When the first that was tried since began.
    tried: Option<u64>,
    /// When the last that was tried ended.
    until: u64,
}

impl Writing {
    fn window(&self, key: &str, to: u64, recovered: bool) -> Option<Unavailable> {
        let from = self.success.max(self.tried?);
        let long = to.saturating_sub(from) >= UNAVAILABLE.as_nanos() as u64;
        long.then(|| Unavailable { key: key.to_owned(), from, to, recovered })
    }
}

fn unavailable(index: &Index) -> Vec<Unavailable> {
    let mut order: Vec<_> = index.ops.iter().filter(|op| !index.sends(op).is_empty()).collect();
    order.sort_by_key(|op| op.end);
    let mut keys = vec![Writing::default(); index.keys.len()];
    let mut found = Vec::new();
    for op in order {
        for sent in index.sends(op) {
            let key = index.key_of(sent.value) as usize;
            let writing = &mut keys[key];
            writing.tried = Some(writing.tried.map_or(op.start, |tried| tried.min(op.start)));
            writing.until = op.end;
            if op.outcome == Outcome::Ok {
                found.extend(writing.window(&index.keys[key], op.end, true));
                *writing = Writing { success: op.end, tried: None, until: op.end };
            }
        }
    }
    for (writing, key) in keys.iter().zip(&index.keys) {
        found.extend(writing.window(key, writing.until, false));
    }
    found.sort_by_key(|window| std::cmp::Reverse(window.to - window.from));
    found.truncate(WINDOWS);
    found
}
