//! The checker is tested first: for each anomaly there is a history in `histories/` that
//! must be caught, and a near miss that must not.

use super::*;
use crate::history::read;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

const ALL: [Kind; 22] = [
    Kind::InconsistentOffsets,
    Kind::Duplicate,
    Kind::AbortedRead,
    Kind::PrecommittedRead,
    Kind::LostWrite,
    Kind::IntPollSkip,
    Kind::IntNonmonotonicPoll,
    Kind::IntSendSkip,
    Kind::IntNonmonotonicSend,
    Kind::PollSkip,
    Kind::NonmonotonicPoll,
    Kind::NonmonotonicSend,
    Kind::Unseen,
    Kind::G0,
    Kind::G0Process,
    Kind::G0Realtime,
    Kind::G1c,
    Kind::G1cProcess,
    Kind::G1cRealtime,
    Kind::Invented,
    Kind::Missing,
    Kind::NotReadBack,
];

/// Whoever causes it, this is what such logs do.
const ALWAYS_ALLOWED: [Kind; 4] = [Kind::IntSendSkip, Kind::G0, Kind::G0Process, Kind::G0Realtime];

/// Verdicts of the hand-made histories, by their names.
fn verdicts() -> BTreeMap<String, Verdict> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("histories");
    let one = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        let file = BufReader::new(File::open(&path).expect("a history"));
        let verdict = check_lines(read(file));
        let verdict = verdict.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path.file_stem().expect("a name").to_string_lossy().into_owned(), verdict)
    };
    fs::read_dir(folder).expect("histories").map(one).collect()
}

fn of<'a>(verdicts: &'a BTreeMap<String, Verdict>, name: &str) -> &'a Verdict {
    verdicts.get(name).unwrap_or_else(|| panic!("there is no history {name}.jsonl"))
}

#[test]
fn each_anomaly_is_caught_alone_and_its_near_miss_is_not() {
    let verdicts = verdicts();
    for kind in ALL {
        let caught = of(&verdicts, &kind.to_string());
        let wrong: Vec<Kind> = caught.counts.keys().copied().collect();
        if ALWAYS_ALLOWED.contains(&kind) {
            assert!(caught.allowed.contains_key(&kind) && wrong.is_empty(), "{kind}: {caught}");
        } else {
            assert_eq!(wrong, [kind], "{caught}");
        }
        assert!(caught.anomalies.iter().all(|anomaly| !anomaly.lines.is_empty()), "{caught}");
        let near = of(&verdicts, &format!("{kind}.near-miss"));
        assert!(near.good && near.anomalies.is_empty(), "near {kind}: {near}");
    }
}

#[test]
fn what_a_history_promises_decides_what_is_wrong() {
    let verdicts = verdicts();
    for name in ["poll-skip.allowed", "nonmonotonic-poll.allowed", "G1c.ww-allowed"] {
        let verdict = of(&verdicts, name);
        assert!(verdict.good, "{name}: {verdict}");
        let kinds: Vec<_> = verdict.allowed.keys().map(Kind::to_string).collect();
        assert_eq!(kinds, [name.split_once('.').expect("a kind").0], "{verdict}");
    }
    for name in ["poll-skip.hole", "nonmonotonic-send.outstanding"] {
        let verdict = of(&verdicts, name);
        let kinds: Vec<_> = verdict.counts.keys().map(Kind::to_string).collect();
        assert_eq!(kinds, [name.split_once('.').expect("a kind").0], "{verdict}");
    }
    let allowed = ["poll-skip.allowed", "nonmonotonic-poll.allowed", "G1c.ww-allowed"];
    let wrong = ["poll-skip.hole", "nonmonotonic-send.outstanding"];
    let others = verdicts.len() - allowed.len() - wrong.len();
    assert_eq!(others, 2 * ALL.len(), "a history that no test looks at");
}

/// The lines that an anomaly names are those that show it.
#[test]
fn evidence_is_where_it_says() {
    let verdicts = verdicts();
    for (name, lines) in [
        ("aborted-read", &[2, 3][..]),
        ("lost-write", &[3]),
        ("poll-skip", &[6, 8]),
        ("G1c-realtime", &[3, 2]),
        ("duplicate", &[2, 3]),
        ("missing", &[3]),
    ] {
        let found: Vec<_> = of(&verdicts, name).wrong().map(|a| a.lines.clone()).collect();
        assert_eq!(found, [lines], "{name}");
    }
}

fn text(lines: &[&str]) -> Result<Verdict, HistoryError> {
    check_lines(read(lines.join("\n").as_bytes()))
}

const SENT: &str = r#"{"op":{"process":"w","start":100000000,"end":300000000,"outcome":"ok","call":{"send":{"key":"t-0","value":"a","offset":0}}}}"#;

#[test]
fn what_cannot_be_a_history_is_refused_with_its_line() {
    let backwards = SENT.replace("300000000", "5");
    let run = r#"{"run":{"format":1,"name":"late"}}"#;
    let last = r#"{"final":{"at":7}}"#;
    for (lines, what) in [
        ([SENT, SENT], r#""a" was sent to "t-0" in line 1"#),
        ([SENT, run], "only the first line"),
        ([last, last], "a second final reading"),
        ([last, &backwards], "ended before it began"),
    ] {
        let error = text(&lines).expect_err("it is none").to_string();
        assert!(error.starts_with("line 2: ") && error.contains(what), "{error}");
    }
}

/// An offset beyond anything, and no records at all, are no reason to fall over.
#[test]
fn the_ends_of_the_range_are_judged() {
    let far = SENT.replace(r#""offset":0"#, &format!(r#""offset":{}"#, u64::MAX));
    let run = r#"{"run":{"format":1,"name":"far","no_gaps":true,"all_kept":true}}"#;
    let verdict = text(&[run, &far]).expect("a history");
    assert!(verdict.good, "{verdict}");
    let verdict = text(&[]).expect("an empty history");
    assert!(verdict.good && verdict.operations == 0, "{verdict}");
}

#[test]
fn figures_are_told() {
    let refused = SENT
        .replace("100000000", "310000000")
        .replace("300000000", "320000000")
        .replace(r#""ok""#, r#""fail""#)
        .replace(r#""a","offset":0"#, r#""b""#);
    let later = SENT
        .replace("100000000", "900000000")
        .replace("300000000", "910000000")
        .replace(r#""a","offset":0"#, r#""c","offset":1"#);
    let poll = r#"{"op":{"process":"r","start":1000000000,"end":1100000000,"outcome":"ok","call":{"poll":{"t-0":[[0,"a"]]}}}}"#;
    let again = poll.replace(r#"[0,"a"]"#, "").replace("\":100", "\":105");
    let verdict = text(&[SENT, &refused, &later, poll, &again]).expect("a history");
    assert!(verdict.good, "{verdict}");
    let lag = verdict.worst_lag.as_ref().expect("c was not read");
    assert_eq!((lag.nanos, lag.line, &lag.process[..]), (140_000_000, 5, "r"));
    let windows: Vec<_> = verdict.unavailable.iter().map(|w| (w.from, w.to, w.recovered)).collect();
    let first = (100_000_000, 300_000_000, true);
    assert_eq!(windows, [(310_000_000, 910_000_000, true), first]);
    let sends = &verdict.processes["w"].calls["send"];
    assert_eq!(
        (sends[&crate::history::Outcome::Ok], sends[&crate::history::Outcome::Fail]),
        (2, 1)
    );
    assert_eq!((verdict.total.records_read, verdict.operations), (1, 5));
    assert_eq!(verdict.not_judged.len(), 1);
}
