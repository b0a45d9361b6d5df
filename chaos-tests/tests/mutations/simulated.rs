//! Bugs that the simulation must show. Each file of `bugs/` has one, as a change of the
//! sources that counts while the bug is switched on: the sources are copied, all bugs go
//! into the copy, and one build of it runs seeds with each of them.
//!
//! `cargo test -p ottla-chaos --test mutations simulated -- --ignored --nocapture`; with
//! `MUTATION=05` only those whose names begin so, with `SEEDS=100` so many seeds of each,
//! at most.

use super::copied::{Copied, read, root, said};
use super::{Mutation, mutations_in};
use std::collections::BTreeMap;
use std::process::Command;

/// Seeds for each bug, at most.
const SEEDS: u64 = 300;

/// Seeds that are run without any bug, and must be good.
const WITHOUT: u64 = 20;

/// By which a process knows the bug that it has.
const VARIABLE: &str = "OTTLA_BUG";

/// The crate that all others know.
const BOTTOM: &str = "proto/src/lib.rs";

/// What it gets in addition.
const SWITCH: &str = "
/// Whether a bug is switched on.
pub fn bug(name: &str) -> bool {
    static ON: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    ON.get_or_init(|| std::env::var(\"OTTLA_BUG\").ok()).as_deref() == Some(name)
}
";

fn bugs() -> Vec<Mutation> {
    mutations_in("chaos-tests/bugs")
}

/// The sources with all bugs in them, by file.
fn with_bugs(bugs: &[Mutation]) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for bug in bugs {
        let text = files.entry(bug.file.clone()).or_insert_with(|| read(&root().join(&bug.file)));
        *text = bug.applied_to(text);
    }
    files
}

#[test]
fn every_bug_applies_beside_the_others_and_has_its_switch() {
    let bugs = bugs();
    assert!(!with_bugs(&bugs).is_empty());
    for bug in &bugs {
        let switch = format!("ottla_proto::bug(\"{}\")", bug.name);
        assert!(bug.replace.contains(&switch), "{}: no {switch}", bug.name);
    }
}

#[test]
#[ignore = "builds a copy, and simulates up to hundreds of seeds for each bug: half an hour"]
fn simulated_bugs_are_seen() {
    let only = std::env::var("MUTATION").unwrap_or_default();
    let seeds = std::env::var("SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("a number"));
    let bugs = bugs();
    let mut changed = with_bugs(&bugs);
    changed.insert(BOTTOM.to_owned(), read(&root().join(BOTTOM)) + SWITCH);
    let copy = Copied::new("bugs", &changed);
    let mut build = copy.cargo();
    build.args(["build", "--locked", "--profile", "sim", "--package", "ottla-chaos"]);
    let built = said(build);
    let program = copy.dir.join("target/sim/ottla-chaos");
    assert!(built.contains("Finished"), "the copy does not build:\n{built}");
    assert_eq!(first_bad(&program, "", WITHOUT), None, "without any bug");
    let mut unseen = Vec::new();
    for bug in bugs.iter().filter(|bug| bug.name.starts_with(&only)) {
        match first_bad(&program, &bug.name, seeds) {
            Some(seed) => eprintln!("{}: seed {seed}", bug.name),
            None => unseen.push(&bug.name),
        }
    }
    assert!(unseen.is_empty(), "not seen in {seeds} seeds: {unseen:?}");
}

/// The first seed that is bad, of so many.
fn first_bad(program: &std::path::Path, bug: &str, seeds: u64) -> Option<u64> {
    (0..seeds).find(|seed| {
        let mut command = Command::new(program);
        command.args(["sim", "--seed", &seed.to_string()]).env(VARIABLE, bug);
        let outcome = command.output().expect("it runs");
        !outcome.status.success()
    })
}
