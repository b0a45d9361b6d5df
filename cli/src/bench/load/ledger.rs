//! What became of records: counted, with latencies from when each was due.
//!
//! Two views of the same: what was due or came within the measured time, without the
//! warm-up, and what came within each second of the run.

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Digits of a latency that a histogram keeps.
const DIGITS: u8 = 3;

/// The length of a point on the time axis.
const POINT: Duration = Duration::from_secs(1);

/// Latencies in microseconds.
pub(in crate::bench) type Latencies = Histogram<u64>;

pub(in crate::bench) fn latencies() -> Latencies {
    Histogram::new(DIGITS).expect("a number of digits that there is")
}

/// The measured time.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Window {
    pub(in crate::bench) from: Instant,
    pub(in crate::bench) to: Instant,
}

impl Window {
    pub(in crate::bench) fn contains(&self, at: Instant) -> bool {
        (self.from..self.to).contains(&at)
    }

    pub(in crate::bench) fn duration(&self) -> Duration {
        self.to - self.from
    }
}

/// What one writer, or one reader, has done.
pub(in crate::bench) struct Ledger {
    window: Window,
    pages: Mutex<Pages>,
}

struct Pages {
    counts: Counts,
    second: Second,
}

/// Counts of a run.
#[derive(Clone, Debug)]
pub(in crate::bench) struct Counts {
    /// All that came, the warm-up's among them.
    pub(in crate::bench) records: u64,
    /// What came within the window.
    pub(in crate::bench) measured: u64,
    /// What failed, by reason.
    pub(in crate::bench) failed: BTreeMap<&'static str, u64>,
    /// Of those due within the window.
    pub(in crate::bench) latencies: Latencies,
    /// How late they were handed to the client.
    pub(in crate::bench) lateness: Latencies,
}

/// What came within one second.
#[derive(Clone, Debug)]
struct Second {
    records: u64,
    failed: u64,
    latencies: Latencies,
}

/// One second of a run, of all ledgers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::bench) struct Point {
    /// Seconds from the start of the run to its end.
    pub(in crate::bench) at: f64,
    /// A second.
    pub(in crate::bench) records: f64,
    pub(in crate::bench) failed: u64,
    /// In milliseconds.
    pub(in crate::bench) p50: f64,
    pub(in crate::bench) p99: f64,
    pub(in crate::bench) max: f64,
}

impl Counts {
    fn new() -> Self {
        Self {
            records: 0,
            measured: 0,
            failed: BTreeMap::new(),
            latencies: latencies(),
            lateness: latencies(),
        }
    }

    pub(in crate::bench) fn failed(&self) -> u64 {
        self.failed.values().sum()
    }

    fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.measured += other.measured;
        for (reason, count) in &other.failed {
            *self.failed.entry(reason).or_default() += count;
        }
        add(&mut self.latencies, &other.latencies);
        add(&mut self.lateness, &other.lateness);
    }
}

fn add(to: &mut Latencies, more: &Latencies) {
    to.add(more).expect("a histogram that grows");
}

fn note(latencies: &mut Latencies, took: Duration) {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    // Not `saturating_record`: that would take the histogram's first size for its last.
    latencies.record(micros).expect("a histogram that grows");
}

impl Ledger {
    pub(in crate::bench) fn new(window: Window) -> Self {
        let second = Second { records: 0, failed: 0, latencies: latencies() };
        Self { window, pages: Mutex::new(Pages { counts: Counts::new(), second }) }
    }

    /// A record was handed to the client, so late.
    pub(in crate::bench) fn sent(&self, due: Instant, now: Instant) {
        if self.window.contains(due) {
            let late = now.saturating_duration_since(due);
            note(&mut self.pages.lock().counts.lateness, late);
        }
    }

    /// Records came, or failed, at one moment: each with when it was due.
    pub(in crate::bench) fn came(
        &self,
        now: Instant,
        outcomes: impl IntoIterator<Item = (Instant, Result<(), &'static str>)>,
    ) {
        let mut pages = self.pages.lock();
        let Pages { counts, second } = &mut *pages;
        for (due, outcome) in outcomes {
            match outcome {
                Ok(()) => {
                    counts.records += 1;
                    counts.measured += u64::from(self.window.contains(now));
                    second.records += 1;
                    let took = now.saturating_duration_since(due);
                    note(&mut second.latencies, took);
                    if self.window.contains(due) {
                        note(&mut counts.latencies, took);
                    }
                }
                Err(reason) => {
                    *counts.failed.entry(reason).or_default() += 1;
                    second.failed += 1;
                }
            }
        }
    }

    fn turn_page(&self) -> Second {
        let empty = Second { records: 0, failed: 0, latencies: latencies() };
        std::mem::replace(&mut self.pages.lock().second, empty)
    }
}

/// The ledgers of all writers, or of all readers.
#[derive(Clone, Default)]
pub(in crate::bench) struct Ledgers(Arc<Vec<Ledger>>);

impl Ledgers {
    pub(in crate::bench) fn new(window: Window, number: u32) -> Self {
        Self(Arc::new((0..number).map(|_| Ledger::new(window)).collect()))
    }

    pub(in crate::bench) fn get(&self, index: u32) -> &Ledger {
        &self.0[index as usize]
    }

    pub(in crate::bench) fn counts(&self) -> Counts {
        let mut all = Counts::new();
        self.0.iter().for_each(|ledger| all.add(&ledger.pages.lock().counts));
        all
    }

    /// A point for each second from the start on, for as long as this is asked.
    pub(in crate::bench) async fn watch(&self, start: Instant, points: &Mutex<Vec<Point>>) {
        let mut turns = interval_at(start + POINT, POINT);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = start;
        loop {
            turns.tick().await;
            let now = Instant::now();
            let mut all = Second { records: 0, failed: 0, latencies: latencies() };
            for second in self.0.iter().map(Ledger::turn_page) {
                all.records += second.records;
                all.failed += second.failed;
                add(&mut all.latencies, &second.latencies);
            }
            points.lock().push(all.point(now - start, now - last));
            last = now;
        }
    }
}

impl Second {
    fn point(&self, at: Duration, length: Duration) -> Point {
        use crate::bench::figures::{quantile_ms, rounded};
        Point {
            at: rounded(at.as_secs_f64()),
            records: rounded(self.records as f64 / length.as_secs_f64()),
            failed: self.failed,
            p50: quantile_ms(&self.latencies, 0.5),
            p99: quantile_ms(&self.latencies, 0.99),
            max: quantile_ms(&self.latencies, 1.0),
        }
    }
}

impl Point {
    pub(in crate::bench) fn json(&self) -> Value {
        json!({
            "at_seconds": self.at,
            "records_per_second": self.records,
            "failed": self.failed,
            "p50_ms": self.p50,
            "p99_ms": self.p99,
            "max_ms": self.max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The warm-up is excluded from rate and latencies, each by its own moment.
    #[test]
    fn only_the_measured_time_is_measured() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let window = Window { from: at(100), to: at(200) };
        let ledgers = Ledgers::new(window, 2);
        ledgers.get(0).came(at(50), [(at(40), Ok(()))]);
        // Due before, come within.
        ledgers.get(0).came(at(120), [(at(90), Ok(())), (at(110), Ok(()))]);
        // Due within, come after.
        ledgers.get(1).came(at(230), [(at(190), Ok(())), (at(195), Err("OVERLOADED"))]);
        ledgers.get(1).sent(at(190), at(193));
        ledgers.get(1).sent(at(90), at(193));
        let counts = ledgers.counts();
        assert_eq!((counts.records, counts.measured, counts.failed()), (4, 2, 1));
        assert_eq!(counts.failed["OVERLOADED"], 1);
        assert_eq!((counts.latencies.len(), counts.latencies.max() / 1000), (2, 40));
        assert_eq!((counts.lateness.len(), counts.lateness.max() / 1000), (1, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_is_turned_each_second() {
        let start = Instant::now();
        let ledgers = Ledgers::new(Window { from: start, to: start + POINT }, 1);
        ledgers.get(0).came(start, [(start, Ok(())), (start, Err("OVERLOADED"))]);
        let points = Mutex::new(Vec::new());
        let watching = ledgers.watch(start, &points);
        tokio::time::timeout(POINT * 3, watching).await.expect_err("it goes on");
        let points = points.into_inner();
        assert_eq!((points.len() >= 2, points[0].failed, points[1].failed), (true, 1, 0));
        assert!(points[0].records > 0.0 && points[1].records == 0.0);
    }
}
