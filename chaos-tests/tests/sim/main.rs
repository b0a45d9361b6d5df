//! Simulated clusters under seeded faults: nothing acknowledged is lost, and everything
//! works again once nothing is wrong.

// What a run did, for whoever reads its output.
#![allow(clippy::print_stdout)]

use ottla_chaos::sim::{Options, Run, run};

/// Seeds of a test run, none of them chosen: the plans of all are different.
const SEEDS: std::ops::Range<u64> = 0..6;

#[test]
fn acknowledged_records_survive_whatever_happens() {
    let runs: Vec<Run> =
        SEEDS.map(|seed| run(seed, Options::default()).expect("it starts")).collect();
    let mut bad = Vec::new();
    for run in &runs {
        println!("{run}");
        if !run.is_good() {
            bad.push(run.seed);
        }
    }
    assert!(bad.is_empty(), "bad seeds: {bad:?}");
    assert!(runs.iter().all(|run| run.told.readings.len() == 9), "each partition near each node");
}
