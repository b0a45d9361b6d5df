//! When what was written to each partition was acknowledged, and when it was read.
//!
//! How long nothing came says as much about the writer, and the disks that acknowledge what
//! it writes, as about the readers; how long what was acknowledged waited to be read, about
//! the readers alone.

use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// What happened in one partition. Some bytes a record: a run of minutes.
#[derive(Default)]
struct Partition {
    /// Of each record, by offset.
    acknowledged: BTreeMap<u64, Instant>,
    /// The next offset of its reader, each time that something came.
    came: Vec<(Instant, u64)>,
}

/// What happened in all of them, and who reads which.
#[derive(Default)]
pub(super) struct Ledger {
    partitions: Vec<Partition>,
    owners: BTreeMap<u32, String>,
    /// Partitions that a reader that goes on gave back, or lost.
    pub(super) given_back: u64,
    pub(super) records: u64,
    pub(super) failure: Option<String>,
}

impl Ledger {
    pub(super) fn new(partitions: u32) -> Self {
        let partitions = (0..partitions).map(|_| Partition::default()).collect();
        Self { partitions, ..Self::default() }
    }

    /// That nobody has failed so far.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        match &self.failure {
            Some(failure) => anyhow::bail!("{failure}"),
            None => Ok(()),
        }
    }

    pub(super) fn owns(&mut self, partition: u32, reader: &str) {
        self.owners.insert(partition, reader.to_owned());
    }

    pub(super) fn owned_by(&self, reader: &str) -> Vec<u32> {
        let owned = self.owners.iter().filter(|(_, owner)| *owner == reader);
        owned.map(|(partition, _)| *partition).collect()
    }

    pub(super) fn acknowledged(&mut self, partition: u32, offset: u64, at: Instant) {
        self.partitions[partition as usize].acknowledged.insert(offset, at);
    }

    pub(super) fn came(&mut self, partition: u32, next_offset: u64, at: Instant) {
        self.partitions[partition as usize].came.push((at, next_offset));
    }

    /// When something came of it first after a moment.
    pub(super) fn first_after(&self, partition: u32, moment: Instant) -> Option<Instant> {
        let came = &self.partitions[partition as usize].came;
        came.get(came.partition_point(|(at, _)| *at <= moment)).map(|(at, _)| *at)
    }

    /// What was seen between two moments of all partitions but these.
    pub(super) fn seen(&self, from: Instant, to: Instant, but: &[u32]) -> Seen {
        let mut seen = Seen::default();
        for (_, partition) in self.all_but(but) {
            seen.silences.push(partition.silence(from, to));
            let wait = partition.wait(from, to);
            seen.waits.push(wait.map_or(Duration::ZERO, |(waited, _)| waited));
        }
        seen
    }

    /// The longest waits among them, the longest first, at most so many.
    pub(super) fn slowest(
        &self,
        from: Instant,
        to: Instant,
        but: &[u32],
        most: usize,
    ) -> Vec<Slow> {
        let slow = |(partition, seen): (u32, &Partition)| {
            let (waited, acknowledged) = seen.wait(from, to)?;
            let reader = self.owners.get(&partition).cloned().unwrap_or_default();
            Some(Slow { partition, reader, waited, acknowledged })
        };
        let mut all: Vec<Slow> = self.all_but(but).filter_map(slow).collect();
        all.sort_by_key(|slow| std::cmp::Reverse(slow.waited));
        all.truncate(most);
        all
    }

    fn all_but(&self, but: &[u32]) -> impl Iterator<Item = (u32, &Partition)> {
        (0..).zip(&self.partitions).filter(|(partition, _)| !but.contains(partition))
    }

    pub(super) fn reader(&self, partition: u32) -> Option<&String> {
        self.owners.get(&partition)
    }
}

/// A record that waited for its reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slow {
    pub(super) partition: u32,
    pub(super) reader: String,
    pub(super) waited: Duration,
    pub(super) acknowledged: Instant,
}

/// Of each partition the longest between two moments.
#[derive(Default)]
pub(super) struct Seen {
    /// Without a record.
    pub(super) silences: Vec<Duration>,
    /// From the acknowledgement of a record until its reader had it.
    pub(super) waits: Vec<Duration>,
}

impl Seen {
    pub(super) fn extend(&mut self, other: Self) {
        self.silences.extend(other.silences);
        self.waits.extend(other.waits);
    }
}

impl Partition {
    fn silence(&self, from: Instant, to: Instant) -> Duration {
        let within = self.came.iter().map(|(at, _)| *at).filter(|at| (from..=to).contains(at));
        let moments: Vec<Instant> =
            std::iter::once(from).chain(within).chain(std::iter::once(to)).collect();
        moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// The longest of the records that were acknowledged then, and when that one was.
    fn wait(&self, from: Instant, to: Instant) -> Option<(Duration, Instant)> {
        let then = self.acknowledged.iter().filter(|(_, at)| (from..=to).contains(*at));
        let wait = |(offset, at): (&u64, &Instant)| {
            let behind = self.came.partition_point(|(_, next)| next <= offset);
            let read = self.came.get(behind).map_or(to, |(at, _)| *at);
            // It may be read before its writer is told.
            (read.saturating_duration_since(*at), *at)
        };
        then.map(wait).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of one partition.
    fn ledger(acknowledged: &[u64], came: &[(u64, u64)]) -> (Ledger, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        let at = move |ms| start + Duration::from_millis(ms);
        let mut ledger = Ledger::new(1);
        for (offset, ms) in (0..).zip(acknowledged) {
            ledger.acknowledged(0, offset, at(*ms));
        }
        for (ms, next_offset) in came {
            ledger.came(0, *next_offset, at(*ms));
        }
        (ledger, at)
    }

    /// Longest silence, longest wait.
    fn seen(ledger: &Ledger, from: Instant, to: Instant) -> (u128, u128) {
        let Seen { silences, waits } = ledger.seen(from, to, &[]);
        (silences[0].as_millis(), waits[0].as_millis())
    }

    /// A writer that pauses is no pause of the reader's.
    #[test]
    fn who_is_slow_can_be_told() {
        let (ledger, at) = ledger(&[10, 510, 600], &[(12, 1), (511, 2), (610, 3)]);
        assert_eq!(seen(&ledger, at(0), at(620)), (499, 10));
        let (ledger, at) = ledger_of_a_slow_reader();
        assert_eq!(seen(&ledger, at(0), at(620)), (500, 400));
    }

    #[test]
    fn the_slowest_are_named() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut ledger = Ledger::new(3);
        for (partition, waits) in [(0, 5), (1, 30), (2, 20)] {
            ledger.acknowledged(partition, 0, at(100));
            ledger.came(partition, 1, at(100 + waits));
            ledger.owns(partition, "a");
        }
        let slowest = ledger.slowest(at(0), at(500), &[0], 1);
        let waited = Duration::from_millis(30);
        let acknowledged = at(100);
        assert_eq!(slowest, [Slow { partition: 1, reader: "a".to_owned(), waited, acknowledged }]);
    }

    fn ledger_of_a_slow_reader() -> (Ledger, impl Fn(u64) -> Instant) {
        ledger(&[10, 110, 210, 310], &[(10, 1), (510, 4)])
    }

    #[test]
    fn what_is_not_read_yet_waits_and_what_was_read_before_it_was_told_does_not() {
        let (ledger, at) = ledger(&[10, 50], &[(9, 1)]);
        assert_eq!(seen(&ledger, at(0), at(90)), (81, 40));
        assert_eq!(seen(&ledger, at(0), at(20)), (11, 0));
    }

    #[test]
    fn what_somebody_had_is_left_out() {
        let (mut ledger, at) = ledger(&[10], &[(10, 1)]);
        ledger.owns(0, "a");
        assert_eq!((ledger.owned_by("a"), ledger.owned_by("b")), (vec![0], vec![]));
        assert_eq!(ledger.seen(at(0), at(20), &[0]).waits.len(), 0);
        assert_eq!(ledger.slowest(at(0), at(20), &[0], 9), []);
        assert_eq!(ledger.first_after(0, at(9)), Some(at(10)));
        assert_eq!(ledger.first_after(0, at(10)), None);
    }
}
