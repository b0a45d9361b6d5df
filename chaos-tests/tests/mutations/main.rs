//! Checks that the protocol needs are taken away, one at a time, and the tests must
//! notice. Each file of `mutations/` names one: the text that goes, what comes in its
//! place, and who has to catch it.
//!
//! That every one still applies is tested always. Carrying them out builds and runs
//! the tests of the cores some thirty times:
//!
//! `cargo test -p ottla-chaos --test mutations -- --ignored --nocapture`, and with
//! `MUTATION=05` only those whose names begin so.

mod copied;
mod simulated;

use copied::{Copied, read, root, said};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The checks of the protocol that are numbered in docs/replication-protocol.md.
const NUMBERED: usize = 10;

/// Stories of the replica, and of the controller.
const SCRIPTS: &str = "replication/src/script_tests/scripts";
const STORIES: &str = "metadata/src/controller/scripts";

struct Mutation {
    name: String,
    file: String,
    find: String,
    replace: String,
    /// Stories, `c/` before those of the controller; `walk`; `model`.
    caught_by: BTreeSet<String>,
}

fn mutations() -> Vec<Mutation> {
    mutations_in("chaos-tests/mutations")
}

fn mutations_in(folder: &str) -> Vec<Mutation> {
    let mut paths: Vec<PathBuf> = fs::read_dir(root().join(folder))
        .expect("mutations")
        .map(|entry| entry.expect("entry").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| Mutation::read(path)).collect()
}

impl Mutation {
    /// A comment, `file PATH`, the two texts between `<<<<`, `====` and `>>>>`, and
    /// `caught by` lines.
    fn read(path: &Path) -> Self {
        let text = read(path);
        let parse = || {
            let (head, rest) = text.split_once("\n<<<<\n")?;
            let (find, rest) = rest.split_once("\n====\n")?;
            let (replace, tail) = rest.split_once("\n>>>>\n")?;
            let comment = head.starts_with("# ");
            let file = head.lines().last()?.strip_prefix("file ")?.to_owned();
            let caught_by: Option<BTreeSet<String>> = tail
                .lines()
                .map(|line| line.strip_prefix("caught by ").map(str::to_owned))
                .collect();
            let name = path.file_stem()?.to_string_lossy().into_owned();
            let (find, replace) = (find.to_owned(), replace.to_owned());
            comment.then_some(Self { name, file, find, replace, caught_by: caught_by? })
        };
        parse().unwrap_or_else(|| panic!("{} is not a mutation", path.display()))
    }

    fn applied_to(&self, text: &str) -> String {
        let (name, file) = (&self.name, &self.file);
        let times = text.matches(&self.find).count();
        assert_eq!(times, 1, "{name}: what it takes away is not once in {file}");
        text.replacen(&self.find, &self.replace, 1)
    }
}

/// A check that was rewritten needs its mutation rewritten too: else it would be
/// believed to be tested.
#[test]
fn every_mutation_applies_and_names_who_catches_it() {
    let mutations = mutations();
    for mutation in &mutations {
        let text = read(&root().join(&mutation.file));
        assert_ne!(mutation.applied_to(&text), text, "{} changes nothing", mutation.name);
        assert!(!mutation.caught_by.is_empty(), "{} is caught by nobody", mutation.name);
        for catcher in &mutation.caught_by {
            let story = match catcher.strip_prefix("c/") {
                Some(story) => root().join(STORIES).join(format!("{story}.txt")),
                None => root().join(SCRIPTS).join(format!("{catcher}.txt")),
            };
            let known = catcher == "walk" || catcher == "model" || story.is_file();
            assert!(known, "{}: there is no `{catcher}`", mutation.name);
        }
    }
    for number in 1..=NUMBERED {
        let of = |mutation: &&Mutation| mutation.name.starts_with(&format!("{number:02}-"));
        assert!(mutations.iter().any(|m| of(&m)), "nothing takes away check {number}");
    }
}

#[test]
#[ignore = "builds and tests the cores once for each mutation: about half an hour"]
fn every_removed_check_is_noticed() {
    let copy = Copied::new("mutations", &BTreeMap::new());
    let only = std::env::var("MUTATION").unwrap_or_default();
    let untouched = copy.test(true);
    assert!(untouched.catchers.is_empty(), "without any mutation: {:?}", untouched.catchers);
    let mut missed = String::new();
    for mutation in mutations().iter().filter(|m| m.name.starts_with(&only)) {
        let text = read(&root().join(&mutation.file));
        copy.write(&mutation.file, &mutation.applied_to(&text));
        let found = copy.test(mutation.file.starts_with("metadata"));
        copy.write(&mutation.file, &text);
        eprintln!("{}: {}", mutation.name, found.told());
        let silent: Vec<_> =
            mutation.caught_by.iter().filter(|c| !found.catchers.contains_key(*c)).collect();
        if !silent.is_empty() {
            writeln!(missed, "{} is not noticed by {silent:?}", mutation.name).expect("a string");
        }
    }
    assert!(missed.is_empty(), "\n{missed}");
}

impl Copied {
    /// Runs the tests of the cores.
    fn test(&self, of_controller: bool) -> Found {
        let mut found = Found::default();
        found.add(&self.tests_of("ottla-replication", &["script_tests", "model_tests"]));
        if of_controller {
            found.add(&self.tests_of("ottla-metadata", &["controller::tests"]));
        }
        found
    }

    fn tests_of(&self, package: &str, tests: &[&str]) -> String {
        let mut command = self.cargo();
        command
            .args(["test", "--locked", "--lib", "--package", package, "--"])
            .args(tests)
            // That it fails is enough: nobody reads the history.
            .env("PROPTEST_MAX_SHRINK_ITERS", "0");
        let text = said(command);
        assert!(text.contains("test result: "), "{package} does not build:\n{text}");
        text
    }
}

/// Who noticed, and what the model checker said.
#[derive(Default)]
struct Found {
    catchers: BTreeMap<String, String>,
}

impl Found {
    fn add(&mut self, text: &str) {
        for line in text.lines() {
            let failed = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED"));
            if let Some(test) = failed {
                self.add_test(test);
            } else if let Some((rule, events)) = line.split_once(" is broken after ") {
                let events = events.split(' ').next().unwrap_or_default();
                self.add_length(rule, events);
            } else if let Some((script, what)) = line.split_once(": ")
                && (what.starts_with("line ") || what == "it panics")
                && root().join(SCRIPTS).join(format!("{script}.txt")).is_file()
            {
                self.catchers.insert(script.to_owned(), String::new());
            }
        }
    }

    fn add_test(&mut self, test: &str) {
        let short = test.rsplit("::").next().unwrap_or(test);
        let who = match test {
            _ if test.starts_with("model_tests::exhaustive") => "model".to_owned(),
            _ if test.starts_with("model_tests") => "walk".to_owned(),
            _ if test.starts_with("script_tests") => return, // scripts are named one by one
            _ => format!("c/{short}"),
        };
        self.catchers.entry(who).or_default();
    }

    /// The shortest history is told.
    fn add_length(&mut self, rule: &str, events: &str) {
        let length = |text: &str| text.split(' ').next().and_then(|n| n.parse::<usize>().ok());
        let known = self.catchers.entry("model".to_owned()).or_default();
        if length(known).is_none_or(|known| length(events).is_some_and(|new| new < known)) {
            *known = format!("{events} events: {rule}");
        }
    }

    fn told(&self) -> String {
        let one = |(who, what): (&String, &String)| match what.as_str() {
            "" => who.clone(),
            what => format!("{who} ({what})"),
        };
        self.catchers.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}
