//! Simulated clusters under seeded faults: nothing acknowledged is lost, and everything
//! works again once nothing is wrong. And a seed is one run, to the byte.

// What a run did, for whoever reads its output.
#![allow(clippy::print_stdout)]

mod scenarios;

use std::process::Command;

/// Seeds of a test run, none of them chosen: the plans of all are different.
const SEEDS: &str = "0..6";

fn sim(options: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla-chaos"));
    let output = command.arg("sim").args(options).output().expect("it runs");
    (output.status.success(), String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn acknowledged_records_survive_whatever_happens() {
    let (good, said) = sim(&["--seeds", SEEDS]);
    println!("{said}");
    assert!(good && said.contains("6 good, 0 bad"), "there are bad seeds");
}

#[test]
fn a_run_leaves_a_page_and_the_same_as_json() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let report = |name: &str| {
        let file = dir.path().join(name);
        let (good, said) = sim(&["--seed", "4", "--report", file.to_str().expect("UTF-8")]);
        assert!(good, "{said}");
        std::fs::read_to_string(file).expect("a report")
    };
    let page = report("page.html");
    assert!(page.contains("<svg") && page.contains("simulation of seed 4"), "{page}");
    let json: serde_json::Value = serde_json::from_str(&report("page.json")).expect("JSON");
    assert_eq!(json["verdict"]["good"], true);
    assert!(json["faults"].as_array().is_some_and(|faults| !faults.is_empty()), "{json}");
}

#[test]
fn one_seed_is_one_trace() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let trace = |name: &str| {
        let file = dir.path().join(name);
        let (good, said) = sim(&["--seed", "3", "--trace", file.to_str().expect("UTF-8")]);
        assert!(good, "{said}");
        // Logs name directories, which are others each time; they are in no fingerprint.
        let whole = std::fs::read_to_string(file).expect("a trace");
        let events = whole.lines().filter(|line| !line.contains(" log: "));
        events.map(|line| format!("{line}\n")).collect::<String>()
    };
    let (first, again) = (trace("first"), trace("again"));
    assert!(first.lines().count() > 1_000, "{first}");
    for (number, (one, other)) in first.lines().zip(again.lines()).enumerate() {
        assert_eq!(one, other, "line {}", number + 1);
    }
    assert_eq!(first.len(), again.len(), "one goes on");
}
