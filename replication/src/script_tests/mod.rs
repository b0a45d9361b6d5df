//! Golden scripts: stories about one replica, in `scripts/`. Each opens with
//! what it is about; every line of input is followed by what the replica does.
//!
//! `UPDATE_SCRIPTS=1 cargo test -p ottla-replication script` writes the answers
//! anew; read the difference before believing it.

mod show;
mod words;

use crate::core::{Effect, Event, Replica, ReplicaConfig, Stage, View};
use ottla_proto::NodeId;
use std::fmt::Write;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use words::Words;

/// Fewer would mean that the folder was not found.
const LEAST_SCRIPTS: usize = 10;

#[test]
fn every_script_tells_the_truth() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/script_tests/scripts");
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).expect("scripts").map(|entry| entry.expect("entry").path()).collect();
    files.sort();
    assert!(files.len() >= LEAST_SCRIPTS, "{} scripts in {}", files.len(), folder.display());
    let mut wrong = String::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a script");
        let wrongly = match catch_unwind(|| Story::default().tell(&text)) {
            Ok(told) if told == text => continue,
            Ok(told) if std::env::var_os("UPDATE_SCRIPTS").is_some() => {
                fs::write(&file, told).expect("written");
                continue;
            }
            Ok(told) => difference(&told, &text),
            Err(_) => "it panics".to_owned(),
        };
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        write!(wrong, "\n{name}: {wrongly}").expect("a string");
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The first line in which what happens is not what is written.
fn difference(told: &str, text: &str) -> String {
    let mut pairs = told.lines().zip(text.lines()).enumerate();
    let (line, (happens, written)) = pairs
        .find(|(_, (happens, written))| happens != written)
        .unwrap_or_else(|| (told.lines().count(), ("the end", "more")));
    format!("line {}\n  happens: {happens}\n  written: {written}", line + 1)
}

#[derive(Default)]
struct Story {
    replica: Option<Replica>,
    view: Option<View>,
    now: u64,
    last_status: String,
}

impl Story {
    /// The script with the answers of the replica in place of those in it.
    fn tell(mut self, script: &str) -> String {
        assert!(script.starts_with("# "), "a script opens with what it is about");
        let mut told = String::new();
        for line in script.lines() {
            if line.starts_with("  ") {
                continue;
            }
            writeln!(told, "{line}").expect("a string");
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            if line == "can it commit?" {
                let can = self.replica.as_ref().expect("open").status().can_commit;
                writeln!(told, "  {}", if can { "yes" } else { "no" }).expect("a string");
                continue;
            }
            for effect in self.line(line) {
                writeln!(told, "  -> {}", show::effect(&effect)).expect("a string");
            }
            let replica = self.replica.as_ref().expect("a story begins with `open`");
            let status = show::status(replica);
            if status != self.last_status {
                writeln!(told, "  = {status}").expect("a string");
                self.last_status = status;
            }
        }
        told
    }

    fn line(&mut self, line: &str) -> Vec<Effect> {
        let words = Words::read(line);
        if words.command == "open" {
            return self.open(&words);
        }
        if let Some(now) = words.optional("at") {
            self.now = now;
        }
        let replica = self.replica.as_mut().expect("a story begins with `open`");
        let view = self.view.as_mut().expect("a story begins with `open`");
        let stage = Stage(words.number("stage", replica.stage().0));
        let event = match words.command.as_str() {
            "metadata" => {
                words.change(view);
                Event::Metadata(view.clone())
            }
            _ => words.event(view, stage, self.now),
        };
        let is_tick = matches!(event, Event::Tick);
        let effects = replica.step(event, self.now);
        let due = replica.next_deadline().is_some_and(|at| at <= self.now);
        assert!(!(is_tick && due), "a tick leaves something due: its shell would tick for ever");
        effects
    }

    fn open(&mut self, words: &Words) -> Vec<Effect> {
        let mut view = Words::first_view();
        words.change(&mut view);
        let config = ReplicaConfig { me: NodeId(words.number("me", 1)), retry_backoff: 50 };
        let watermark = words.number("watermark", 0);
        let (replica, effects) =
            Replica::open(config, words.log(), watermark, view.clone(), self.now);
        self.replica = Some(replica);
        self.view = Some(view);
        effects
    }
}
