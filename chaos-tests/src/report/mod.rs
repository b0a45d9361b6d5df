//! What a run looked like, for people and as JSON: faults, operations, times without
//! writes, anomalies.
//!
//! However long the run was, a report has so many points in time and so many rows. Not
//! its job: judging (`checker`), whose verdict it shows.

mod page;
mod svg;

use crate::checker::Verdict;
use crate::history::{Entry, Outcome, write};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::Path;

/// Points in time of a report: as many as can be told apart across a page.
const POINTS: u64 = 200;

/// A run, ready to be shown.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of the run.
    pub name: String,
    /// Its length, in nanoseconds.
    pub length: u64,
    /// When the final reading began.
    pub final_at: Option<u64>,
    /// What was done to the nodes.
    pub faults: Vec<Shown>,
    /// The length of a point, in nanoseconds.
    pub point: u64,
    /// What ended in each point.
    pub points: Vec<Point>,
    /// What the checker says.
    pub verdict: Verdict,
}

/// A fault with its end, or the run's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The kind.
    pub name: String,
    /// To whom, and how.
    pub detail: String,
    /// Nanoseconds since the start.
    pub from: u64,
    /// Nanoseconds since the start.
    pub to: u64,
}

/// What ended within a point in time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Point {
    /// Sends and transactions that are `ok`.
    pub ok: u64,
    /// Those that are `fail`.
    pub fail: u64,
    /// Those that are `info`.
    pub info: u64,
    /// Records read.
    pub read: u64,
    /// Latency of those that are `ok`, in nanoseconds: half took no longer.
    pub p50: Option<u64>,
    /// 99 of 100 took no longer.
    pub p99: Option<u64>,
}

/// Takes in the entries of a run.
#[derive(Debug, Default)]
pub struct Gathered {
    name: String,
    length: u64,
    final_at: Option<u64>,
    faults: BTreeMap<u64, Shown>,
    over: Vec<Shown>,
    /// Starts and ends of sends.
    sends: Vec<(u64, u64, Outcome)>,
    /// Ends of polls and the records they read.
    reads: Vec<(u64, u64)>,
}

impl Gathered {
    /// Takes in one entry.
    pub fn add(&mut self, entry: &Entry) {
        let at = match entry {
            Entry::Run(run) => {
                self.name.clone_from(&run.name);
                0
            }
            Entry::Op(op) => {
                if op.sends().next().is_some() {
                    self.sends.push((op.start, op.end, op.outcome));
                }
                let read: usize = op.polls().map(|(_, records)| records.len()).sum();
                if read > 0 {
                    self.reads.push((op.end, read as u64));
                }
                op.end
            }
            Entry::Fault(fault) => {
                let (name, detail) = (fault.name.clone(), fault.detail.clone());
                let shown = Shown { name, detail, from: fault.at, to: u64::MAX };
                self.over.extend(self.faults.insert(fault.id, shown));
                fault.at
            }
            Entry::FaultEnd(end) => {
                if let Some(mut fault) = self.faults.remove(&end.id) {
                    fault.to = end.at;
                    self.over.push(fault);
                }
                end.at
            }
            Entry::Final(last) => {
                self.final_at = Some(last.at);
                last.at
            }
        };
        self.length = self.length.max(at);
    }

    /// What was taken in, with the verdict on it.
    #[must_use]
    pub fn report(self, verdict: Verdict) -> Report {
        let mut faults: Vec<_> = self.over.into_iter().chain(self.faults.into_values()).collect();
        for fault in &mut faults {
            fault.to = fault.to.min(self.length);
        }
        faults.sort_by_key(|fault| fault.from);
        let point = (self.length / POINTS + 1).max(1);
        let mut points = vec![Point::default(); (self.length / point + 1) as usize];
        let mut latencies = vec![Vec::new(); points.len()];
        for (start, end, outcome) in self.sends {
            let (at, took) = ((end / point) as usize, end.saturating_sub(start));
            match outcome {
                Outcome::Ok => {
                    points[at].ok += 1;
                    latencies[at].push(took);
                }
                Outcome::Fail => points[at].fail += 1,
                Outcome::Info => points[at].info += 1,
            }
        }
        for (end, read) in self.reads {
            points[(end / point) as usize].read += read;
        }
        for (point, latencies) in points.iter_mut().zip(&mut latencies) {
            latencies.sort_unstable();
            point.p50 = percentile(latencies, 50);
            point.p99 = percentile(latencies, 99);
        }
        let (name, length, final_at) = (self.name, self.length, self.final_at);
        Report { name, length, final_at, faults, point, points, verdict }
    }
}

/// The smallest that so many of a hundred are not above.
fn percentile(sorted: &[u64], of_hundred: usize) -> Option<u64> {
    sorted.get((sorted.len() * of_hundred).div_ceil(100).checked_sub(1)?).copied()
}

impl Report {
    /// Of a history in memory.
    #[must_use]
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>, verdict: Verdict) -> Self {
        let mut gathered = Gathered::default();
        entries.into_iter().for_each(|entry| gathered.add(entry));
        gathered.report(verdict)
    }

    /// A page that needs nothing beside itself.
    #[must_use]
    pub fn page(&self) -> String {
        page::page(self)
    }

    /// Writes the page, or JSON where the name of the file ends so.
    ///
    /// # Errors
    /// Those of the file.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        match path.extension().is_some_and(|extension| extension == "json") {
            true => fs::write(path, serde_json::to_vec(self)?),
            false => fs::write(path, self.page()),
        }
    }
}

/// Keeps a run in a folder: `history.jsonl`, `report.html`, `report.json`.
///
/// # Errors
/// Those of the files.
pub fn keep(folder: &Path, entries: &[Entry], verdict: &Verdict) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    write(entries, BufWriter::new(File::create(folder.join("history.jsonl"))?))?;
    let report = Report::of(entries, verdict.clone());
    report.save(&folder.join("report.html"))?;
    report.save(&folder.join("report.json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::check;
    use crate::history::{Call, Recorder, Run, Send};
    use std::time::Duration;

    fn entries() -> Vec<Entry> {
        let name = "a <run> & more".to_owned();
        let recorder = Recorder::new(Run { name, all_kept: true, ..Run::default() });
        let ms = Duration::from_millis;
        let send = |start, end, value: &str, outcome| {
            let call = Call::Send(Send { key: "t-0".into(), value: value.into(), offset: None });
            recorder.operation("w", (ms(start), ms(end)), call, outcome, None);
        };
        send(0, 10, "a", Outcome::Ok);
        let kill = recorder.fault(ms(20), "kill", "node <2>");
        send(20, 30, "b", Outcome::Info);
        recorder.fault(ms(40), "slow", "all");
        recorder.fault_end(ms(60), kill);
        send(40, 990, "c", Outcome::Ok);
        recorder.begin_final(ms(1_000));
        recorder.entries()
    }

    #[test]
    fn a_report_tells_what_happened_when() {
        let entries = entries();
        let report = Report::of(&entries, check(&entries).expect("a history"));
        let faults: Vec<_> = report.faults.iter().map(|f| (&f.name[..], f.from, f.to)).collect();
        let ms = |ms: u64| ms * 1_000_000;
        assert_eq!(faults, [("kill", ms(20), ms(60)), ("slow", ms(40), ms(1_000))]);
        let sum = |of: fn(&Point) -> u64| report.points.iter().map(of).sum::<u64>();
        assert_eq!((sum(|p| p.ok), sum(|p| p.info), sum(|p| p.fail)), (2, 1, 0));
        let slowest = report.points.iter().filter_map(|point| point.p99).max();
        assert_eq!(slowest, Some(ms(950)));
        assert!(report.points.len() as u64 <= POINTS + 1);
    }

    #[test]
    fn a_page_shows_it_and_runs_nothing() {
        let entries = entries();
        let verdict = check(&entries).expect("a history");
        assert!(!verdict.good, "nobody read: {verdict}");
        let page = Report::of(&entries, verdict).page();
        for shown in ["a &lt;run&gt; &amp; more", "node &lt;2&gt;", "not-read-back", "unseen"] {
            assert!(page.contains(shown), "{shown} in {page}");
        }
        for never in ["<run>", "<script", "http://", "https://", "NaN", "\"inf\""] {
            assert!(!page.contains(never), "{never} in {page}");
        }
    }

    #[test]
    fn a_run_as_long_as_can_be_has_a_page() {
        let mut entries = entries();
        let last = entries.iter_mut().rev().find_map(|entry| match entry {
            Entry::Op(op) => Some(op),
            _ => None,
        });
        last.expect("an operation").end = u64::MAX;
        let report = Report::of(&entries, check(&entries).expect("a history"));
        assert_eq!(report.points.last().map(|point| point.ok), Some(1));
        assert!(report.page().contains("18446744073.71 s"));
    }

    #[test]
    fn a_run_without_anything_has_a_page() {
        let page = Report::of([], Verdict::default()).page();
        assert!(page.contains("0 operations") && !page.contains("NaN"), "{page}");
    }

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let all: Vec<u64> = (1..=200).collect();
        assert_eq!((percentile(&all, 50), percentile(&all, 99)), (Some(100), Some(198)));
        assert_eq!((percentile(&[7], 50), percentile(&[7], 99)), (Some(7), Some(7)));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn a_kept_run_can_be_judged_again() {
        let (entries, folder) = (entries(), tempfile::tempdir().expect("a folder"));
        let verdict = check(&entries).expect("a history");
        keep(folder.path(), &entries, &verdict).expect("files");
        let file = File::open(folder.path().join("history.jsonl")).expect("a history");
        let lines = crate::history::read(io::BufReader::new(file));
        let again = crate::checker::check_lines(lines).expect("a history");
        assert_eq!(again.counts, verdict.counts);
        let report = fs::read(folder.path().join("report.json")).expect("a report");
        let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
        assert_eq!(report["verdict"]["good"], false);
    }
}
