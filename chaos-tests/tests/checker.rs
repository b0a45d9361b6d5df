//! The checker on histories of many operations, and its command.

// What was measured, for whoever reads the output.
#![allow(clippy::print_stdout)]

use ottla_chaos::checker::{Kind, check_lines};
use ottla_chaos::history::{Call, Entry, Final, Operation, Outcome, Run, Send, read, write};
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const KEYS: u64 = 12;
const READERS: u64 = 3;

/// So many sends to a key, then one poll of it.
const BATCH: u64 = 8;

/// Clients of logs that behave, one after the other. One send in a hundred is refused,
/// one in doubt and there.
fn history(operations: u64) -> impl Iterator<Item = Entry> {
    let run = Run { no_gaps: true, all_kept: true, ..Run::default() };
    let mut logs = vec![Vec::new(); KEYS as usize];
    let mut next = [0; (READERS * KEYS) as usize];
    let mut written = (0..operations).map(move |number| {
        let key = number / (BATCH + 1) % KEYS;
        let log: &mut Vec<String> = &mut logs[key as usize];
        let (process, call, outcome) = if number % (BATCH + 1) == BATCH {
            let reader = number / (BATCH + 1) / KEYS % READERS;
            let next = &mut next[(reader * KEYS + key) as usize];
            let records = (*next as u64..).zip(log[*next..].iter().cloned()).collect();
            *next = log.len();
            (format!("reader {reader}"), poll(key, records), Outcome::Ok)
        } else {
            let outcome = match number % 100 {
                17 => Outcome::Fail,
                42 => Outcome::Info,
                _ => Outcome::Ok,
            };
            let value = format!("v{number}");
            let offset = (outcome == Outcome::Ok).then_some(log.len() as u64);
            if outcome != Outcome::Fail {
                log.push(value.clone());
            }
            let key = format!("t-{key}");
            (format!("writer {}", number % 7), Call::Send(Send { key, value, offset }), outcome)
        };
        let last = (number + 1 == operations).then(|| std::mem::take(&mut logs));
        (operation(number, &process, call, outcome), last)
    });
    let mut rest: Vec<Entry> = Vec::new();
    let mut first = Some(Entry::Run(run));
    std::iter::from_fn(move || {
        if let Some(run) = first.take() {
            return Some(run);
        }
        let Some((entry, last)) = written.next() else { return rest.pop() };
        if let Some(logs) = last {
            rest = final_reading(operations, logs);
        }
        Some(entry)
    })
}

fn poll(key: u64, records: Vec<(u64, String)>) -> Call {
    Call::Poll([(format!("t-{key}"), records)].into())
}

fn operation(number: u64, process: &str, call: Call, outcome: Outcome) -> Entry {
    let (start, end) = (number * 1_000, number * 1_000 + 900);
    let (process, error, rebalanced) = (process.to_owned(), None, Vec::new());
    Entry::Op(Operation { process, start, end, outcome, error, call, rebalanced })
}

/// Two readers, in reverse: it is taken from its end.
fn final_reading(now: u64, logs: Vec<Vec<String>>) -> Vec<Entry> {
    let mut entries = vec![Entry::Final(Final { at: now * 1_000 })];
    for reader in ["final 1", "final 2"] {
        let keys = (0..KEYS).map(|key| format!("t-{key}")).collect();
        entries.push(operation(now, reader, Call::Assign(keys), Outcome::Ok));
        for (log, key) in logs.iter().zip(0..) {
            let records = (0..).zip(log.iter().cloned()).collect();
            entries.push(operation(now + 1, reader, poll(key, records), Outcome::Ok));
        }
    }
    entries.reverse();
    entries
}

/// Writes a history, with one acknowledged value that is nowhere, and judges it. Returns
/// how long that took, reading included.
fn judged(dir: &Path, operations: u64) -> Duration {
    let path = dir.join("history.jsonl");
    let entries: Vec<Entry> = history(operations)
        .map(|mut entry| {
            if let Entry::Op(Operation { call: Call::Poll(polled), .. }) = &mut entry {
                for records in polled.values_mut() {
                    records.retain(|(_, value)| value != "v300");
                }
            }
            entry
        })
        .collect();
    write(&entries, BufWriter::new(File::create(&path).expect("a file"))).expect("written");
    let started = Instant::now();
    let lines = read(BufReader::new(File::open(&path).expect("a file")));
    let verdict = check_lines(lines).expect("a history");
    let took = started.elapsed();
    let counts: Vec<_> = verdict.counts.iter().map(|(kind, count)| (*kind, *count)).collect();
    let wrong = [
        (Kind::LostWrite, 1),
        (Kind::IntPollSkip, verdict.counts[&Kind::IntPollSkip]),
        (Kind::Unseen, 1),
        (Kind::Missing, 2),
    ];
    assert_eq!(counts, wrong, "{verdict}");
    assert!(verdict.counts[&Kind::IntPollSkip] >= 2, "at least the final readers: {verdict}");
    assert_eq!(verdict.allowed.len(), 0, "{verdict}");
    took
}

#[test]
fn one_lost_write_among_many_operations_is_found() {
    let dir = tempfile::tempdir().expect("a folder");
    judged(dir.path(), 30_000);
}

/// `cargo test --release -p ottla-chaos --test checker -- --ignored --nocapture`
#[test]
#[ignore = "a figure, of a release build: a million operations in at most 30 s"]
fn a_million_operations_are_judged_in_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let some = judged(dir.path(), 100_000);
    let million = judged(dir.path(), 1_000_000);
    println!("100,000 operations: {some:.2?}; 1,000,000: {million:.2?}");
    assert!(million <= Duration::from_secs(30), "{million:?}");
}

/// The exit code, and what it prints in JSON.
fn command(file: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ottla-chaos"))
        .args(["check", file, "--format", "json"])
        .args(more)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("histories"))
        .output()
        .expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_command_says_how_it_went() {
    let (code, out, _) = command("lost-write.near-miss.jsonl", &[]);
    let verdict: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &verdict["good"]), (Some(0), &true.into()), "{verdict}");

    let (code, out, _) = command("lost-write.jsonl", &[]);
    let verdict: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &verdict["counts"]["lost-write"]), (Some(1), &1.into()), "{verdict}");
    assert_eq!(verdict["anomalies"][0]["lines"], serde_json::json!([3]), "{verdict}");

    for (file, says) in [("no such file", "cannot be opened"), ("../Cargo.toml", "line 1: ")] {
        let (code, out, error) = command(file, &[]);
        assert_eq!((code, &out[..]), (Some(2), ""), "{error}");
        assert!(error.starts_with(file) && error.contains(says), "{error}");
    }
}

#[test]
fn the_command_writes_a_page_and_its_json() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["page.html", "page.json"] {
        let path = folder.path().join(name);
        let (code, _, error) = command("lost-write.jsonl", &["--report", &path.to_string_lossy()]);
        assert_eq!((code, &error[..]), (Some(1), ""));
        assert!(std::fs::read_to_string(path).expect("a report").contains("lost-write"));
    }
    let (code, _, error) = command("lost-write.jsonl", &["--report", "/no/such/folder/page.html"]);
    assert!(code == Some(2) && error.contains("writing /no/such/folder"), "{error}");
}
