//! What the checker says.

use super::figures::{Lag, Tally, Unavailable};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Anomalies of one kind that are kept with their evidence: who has read a thousand
/// knows. All are counted.
pub const SHOWN: usize = 1_000;

/// What can be wrong. The names are Jepsen's, but for the last three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Two values at one offset.
    InconsistentOffsets,
    /// One value at several offsets.
    Duplicate,
    /// What was read was certainly not written.
    AbortedRead,
    /// An operation read what it was about to write itself.
    PrecommittedRead,
    /// Written, before something that was read, and not read.
    LostWrite,
    /// A poll leaves out a record between two.
    IntPollSkip,
    /// A poll goes back.
    IntNonmonotonicPoll,
    /// Somebody else wrote between two sends of one operation: allowed.
    IntSendSkip,
    /// The second send of an operation is before its first.
    IntNonmonotonicSend,
    /// A process left out a record between two polls.
    PollSkip,
    /// A process went back.
    NonmonotonicPoll,
    /// What a process wrote later is before what it wrote first.
    NonmonotonicSend,
    /// Acknowledged and never read, although everything was.
    Unseen,
    /// A cycle of writes after writes: allowed.
    #[serde(rename = "G0")]
    G0,
    /// The same, with the order within processes: allowed.
    #[serde(rename = "G0-process")]
    G0Process,
    /// The same, with time: allowed.
    #[serde(rename = "G0-realtime")]
    G0Realtime,
    /// A cycle of reads of writes.
    #[serde(rename = "G1c")]
    G1c,
    /// The same, with the order within processes.
    #[serde(rename = "G1c-process")]
    G1cProcess,
    /// The same, with time.
    #[serde(rename = "G1c-realtime")]
    G1cRealtime,
    /// Read, and never written by anybody.
    Invented,
    /// Acknowledged, and not read by a final reader that must see everything.
    Missing,
    /// Acknowledged, to be kept, and no final reader has looked.
    NotReadBack,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Something that must not be, or that need not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Anomaly {
    /// Which.
    pub kind: Kind,
    /// It follows from how such logs work, or from what this client asked for.
    pub allowed: bool,
    /// What happened, in a sentence.
    pub what: String,
    /// The lines of the history that show it.
    pub lines: Vec<u64>,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.lines.iter().map(u64::to_string).collect();
        let allowed = if self.allowed { " (allowed)" } else { "" };
        write!(f, "{}{allowed}: {} [lines {}]", self.kind, self.what, lines.join(", "))
    }
}

/// Gathers anomalies.
#[derive(Default)]
pub(super) struct Found {
    anomalies: Vec<Anomaly>,
    counts: BTreeMap<(bool, Kind), u64>,
}

impl Found {
    pub(super) fn add(&mut self, kind: Kind, lines: &[u64], what: impl FnOnce() -> String) {
        self.add_as(kind, false, lines, what);
    }

    pub(super) fn add_as(
        &mut self,
        kind: Kind,
        allowed: bool,
        lines: &[u64],
        what: impl FnOnce() -> String,
    ) {
        let count = self.counts.entry((allowed, kind)).or_default();
        *count += 1;
        if *count <= SHOWN as u64 {
            let mut lines = lines.to_vec();
            lines.dedup();
            self.anomalies.push(Anomaly { kind, allowed, what: what(), lines });
        }
    }

    fn counts(&self, allowed: bool) -> BTreeMap<Kind, u64> {
        let of = |((is, kind), count): (&(bool, Kind), &u64)| {
            (*is == allowed).then_some((*kind, *count))
        };
        self.counts.iter().filter_map(of).collect()
    }

    pub(super) fn into_verdict(mut self, rest: Verdict) -> Verdict {
        self.anomalies.sort_by_key(|anomaly| (anomaly.allowed, anomaly.kind));
        let (counts, allowed) = (self.counts(false), self.counts(true));
        Verdict { good: counts.is_empty(), counts, allowed, anomalies: self.anomalies, ..rest }
    }
}

/// The judgement of a history, and its figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// There is no anomaly that is not allowed.
    pub good: bool,
    /// How many of each kind must not be.
    pub counts: BTreeMap<Kind, u64>,
    /// How many of each kind are allowed.
    pub allowed: BTreeMap<Kind, u64>,
    /// The first [`SHOWN`] of each kind, those that must not be first.
    pub anomalies: Vec<Anomaly>,
    /// All operations.
    pub operations: u64,
    /// Sends and polls by what became of them.
    pub total: Tally,
    /// The same for each process.
    pub processes: BTreeMap<String, Tally>,
    /// The longest time for which a record was known to somebody and a poll that began
    /// then did not get as far.
    pub worst_lag: Option<Lag>,
    /// Times in which a key took no write, longest first.
    pub unavailable: Vec<Unavailable>,
    /// What was not judged, and why.
    pub not_judged: Vec<String>,
}

impl Verdict {
    /// Those that must not be.
    pub fn wrong(&self) -> impl Iterator<Item = &Anomaly> {
        self.anomalies.iter().filter(|anomaly| !anomaly.allowed)
    }
}

/// Anomalies that a text shows of each kind.
const IN_TEXT: usize = 10;

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.good { "no anomaly" } else { "ANOMALIES" };
        writeln!(f, "{verdict} in {} operations: {}", self.operations, self.total)?;
        for (kind, count) in &self.counts {
            writeln!(f, "{kind}: {count}")?;
            for anomaly in self.wrong().filter(|a| a.kind == *kind).take(IN_TEXT) {
                writeln!(f, "  {anomaly}")?;
            }
        }
        for (kind, count) in &self.allowed {
            writeln!(f, "allowed: {kind}: {count}")?;
        }
        if let Some(lag) = &self.worst_lag {
            writeln!(f, "worst lag: {lag}")?;
        }
        for window in self.unavailable.iter().take(IN_TEXT) {
            writeln!(f, "unavailable: {window}")?;
        }
        for what in &self.not_judged {
            writeln!(f, "not judged: {what}")?;
        }
        Ok(())
    }
}
