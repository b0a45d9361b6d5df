//! What became of each value: where it is, who read it, and who should have.

use super::index::{Id, Index, Op};
use super::log::{Log, Logs};
use super::verdict::{Found, Kind};
use crate::history::Outcome;
use std::collections::{BTreeMap, BTreeSet, HashSet};

pub(super) fn check(index: &Index, logs: &Logs, found: &mut Found) {
    for (key, log) in logs.all() {
        let key = &index.keys[key as usize];
        inconsistent(index, key, log, found);
        duplicates(index, logs, key, log, found);
    }
    reads(index, found);
    lost(index, logs, found);
    if index.has_final {
        unseen(index, found);
    }
    if index.has_final && index.run.all_kept {
        missing(index, found);
    }
}

fn inconsistent(index: &Index, key: &str, log: &Log, found: &mut Found) {
    for places in log.by_offset().filter(|places| places.len() > 1) {
        let lines: Vec<u64> = places.iter().map(|place| place.line).collect();
        found.add(Kind::InconsistentOffsets, &lines, || {
            let values: Vec<_> = places.iter().map(|place| index.text(place.value)).collect();
            format!("{key} has {values:?} at offset {}", places[0].offset)
        });
    }
}

fn duplicates(index: &Index, logs: &Logs, key: &str, log: &Log, found: &mut Found) {
    let several = |value: Id| logs.indexes(value).is_some_and(|(first, last)| first != last);
    let mut by_value: BTreeMap<Id, (Vec<u64>, Vec<u64>)> = BTreeMap::new();
    for place in log.places.iter().filter(|place| several(place.value)) {
        let (offsets, lines) = by_value.entry(place.value).or_default();
        offsets.push(place.offset);
        lines.push(place.line);
    }
    for (value, (offsets, lines)) in by_value {
        found.add(Kind::Duplicate, &lines, || {
            format!("{key} has {:?} at the offsets {offsets:?}", index.text(value))
        });
    }
}

/// Looks at every value that was read.
fn reads(index: &Index, found: &mut Found) {
    let mut invented = HashSet::new();
    for (number, op) in index.ops.iter().enumerate() {
        let mut told = HashSet::new();
        for polled in index.polls(op) {
            let what = || name(index, polled.value);
            match index.written(polled.value).by {
                None if invented.insert(polled.value) => {
                    let at = polled.offset;
                    let what = || format!("{} at offset {at} was written by nobody", what());
                    found.add(Kind::Invented, &[op.line], what);
                }
                Some(by) if by == number => {
                    let what = || format!("{} was read by who was about to write it", what());
                    found.add(Kind::PrecommittedRead, &[op.line], what);
                }
                Some(by) if is_aborted(op, &index.ops[by]) && told.insert(polled.value) => {
                    let lines = [index.ops[by].line, op.line];
                    let what = || format!("{} was refused, and read", what());
                    found.add(Kind::AbortedRead, &lines, what);
                }
                None | Some(_) => {}
            }
        }
    }
}

fn is_aborted(reader: &Op, writer: &Op) -> bool {
    reader.outcome == Outcome::Ok && writer.outcome == Outcome::Fail
}

fn name(index: &Index, value: Id) -> String {
    format!("{} {:?}", index.keys[index.key_of(value) as usize], index.text(value))
}

/// What is before something that was read must have been read.
fn lost(index: &Index, logs: &Logs, found: &mut Found) {
    let mut bounds = vec![None; index.keys.len()];
    for (value, _) in index.values().filter(|(_, written)| written.ok_read) {
        let bound = &mut bounds[index.key_of(value) as usize];
        *bound = (*bound).max(logs.indexes(value).map(|(first, _)| first));
    }
    for (value, written) in index.values().filter(|(_, written)| !written.ok_read) {
        let key = index.key_of(value);
        let (Some((_, last)), Some(writer)) = (logs.indexes(value), index.writer(value)) else {
            continue;
        };
        if Some(last) <= bounds[key as usize] && index.is_committed(writer) {
            found.add(Kind::LostWrite, &[writer.line], || {
                let at = written.offset.map_or("it".to_owned(), |at| format!("offset {at}"));
                let what = name(index, value);
                format!("{what} was written, {at} and more was read, but nobody read it")
            });
        }
    }
}

/// Values that were acknowledged, with their writers.
fn acknowledged(index: &Index) -> impl Iterator<Item = (Id, &Op)> {
    let ok = |(value, _)| Some((value, index.writer(value)?));
    index.values().filter_map(ok).filter(|(_, writer)| writer.outcome == Outcome::Ok)
}

fn unseen(index: &Index, found: &mut Found) {
    for (value, writer) in acknowledged(index) {
        if !index.written(value).ok_read {
            let what = || format!("{} was acknowledged and never read", name(index, value));
            found.add(Kind::Unseen, &[writer.line], what);
        }
    }
}

/// Every final reader of a key sees everything that was acknowledged for it. That it sees
/// it at its offset is the matter of duplicates.
fn missing(index: &Index, found: &mut Found) {
    let mut readers: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
    let mut seen: HashSet<(Id, Id)> = HashSet::new();
    for op in index.ops.iter().filter(|op| op.is_final && op.outcome == Outcome::Ok) {
        if op.what == super::index::What::Assign {
            for key in index.named(op) {
                readers.entry(*key).or_default().insert(op.process);
            }
        }
        seen.extend(index.polls(op).iter().map(|polled| (op.process, polled.value)));
    }
    let mut alone = BTreeSet::new();
    for (value, writer) in acknowledged(index) {
        let Some(readers) = readers.get(&index.key_of(value)) else {
            if alone.insert(index.key_of(value)) {
                let what = || format!("{} has no final reader", name(index, value));
                found.add(Kind::NotReadBack, &[writer.line], what);
            }
            continue;
        };
        for reader in readers.iter().filter(|reader| !seen.contains(&(**reader, value))) {
            found.add(Kind::Missing, &[writer.line], || {
                let reader = &index.processes[*reader as usize];
                format!("{} was acknowledged, and {reader} does not see it", name(index, value))
            });
        }
    }
}
