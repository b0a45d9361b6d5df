//! When records are due: at a fixed rate whatever becomes of them, or whenever there is
//! room.
//!
//! One thread keeps the time for all writers: the runtime's timers are a millisecond
//! coarse, which at these latencies would be most of what is measured.

use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Shortest sleep of the thread: what the operating system keeps to by default. At high
/// rates it lets so much time's records be due at once.
const SHORTEST_SLEEP: Duration = Duration::from_micros(50);

/// Tells one writer when its records are due.
pub(super) enum Pace {
    /// As fast as it goes, until then.
    Unbounded { until: Instant },
    /// Records `index`, `index + writers`, … of all.
    Fixed { clock: Clock, index: u64, writers: u64, next: u64, due: Arc<Semaphore> },
}

/// When which record of all is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) start: Instant,
    pub(super) until: Instant,
    /// Records a second, of all writers together. Not 0.
    pub(super) rate: u64,
}

impl Clock {
    fn due(self, record: u64) -> Instant {
        let nanos = u128::from(record) * 1_000_000_000 / u128::from(self.rate);
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many are due by then.
    fn by(self, now: Instant) -> u64 {
        let passed = now.min(self.until).saturating_duration_since(self.start).as_nanos();
        u64::try_from(passed * u128::from(self.rate) / 1_000_000_000).unwrap_or(u64::MAX) + 1
    }

    /// Starts the thread that keeps the time of so many writers. It ends by itself.
    pub(super) fn paces(self, writers: u64) -> Vec<Pace> {
        let due: Vec<_> = (0..writers).map(|_| Arc::new(Semaphore::new(0))).collect();
        let pace = |(index, due): (u64, &Arc<Semaphore>)| {
            let due = Arc::clone(due);
            Pace::Fixed { clock: self, index, writers, next: 0, due }
        };
        let paces = (0..).zip(&due).map(pace).collect();
        thread::spawn(move || self.keep(&due));
        paces
    }

    fn keep(self, due: &[Arc<Semaphore>]) {
        let writers = due.len() as u64;
        let mut told = 0;
        loop {
            let now = Instant::now();
            let by = self.by(now);
            for (index, due) in (0..).zip(due) {
                due.add_permits(share(by, index, writers) - share(told, index, writers));
            }
            told = by;
            if now >= self.until {
                // What is left of what was due is not sent any more.
                due.iter().for_each(|due| due.close());
                return;
            }
            let wait = self.due(told).min(self.until).saturating_duration_since(now);
            thread::sleep(wait.max(SHORTEST_SLEEP));
        }
    }
}

/// How many of the first `records` one of so many writers has.
fn share(records: u64, index: u64, writers: u64) -> usize {
    usize::try_from((records + writers - 1 - index) / writers).unwrap_or(usize::MAX)
}

impl Pace {
    /// Waits until the next record may be sent; returns when it was due. `None`: the time
    /// is over.
    pub(super) async fn next(&mut self) -> Option<Instant> {
        match self {
            Self::Unbounded { until } => Some(Instant::now()).filter(|now| now < until),
            Self::Fixed { clock, index, writers, next, due } => {
                due.acquire().await.ok()?.forget();
                let record = *index + *next * *writers;
                *next += 1;
                Some(clock.due(record))
            }
        }
    }

    /// How many were due and not taken. To be asked at the end.
    pub(super) fn left(&self) -> u64 {
        match self {
            Self::Unbounded { .. } => 0,
            Self::Fixed { due, .. } => due.available_permits() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_somebodys() {
        for records in 0..20 {
            let shares: usize = (0..3).map(|index| share(records, index, 3)).sum();
            assert_eq!(shares as u64, records);
        }
        assert_eq!((share(4, 0, 3), share(4, 1, 3), share(4, 2, 3)), (2, 1, 1));
    }

    #[tokio::test]
    async fn every_record_is_due_in_its_turn_and_sent_or_left() {
        let start = Instant::now();
        let clock = Clock { start, until: start + Duration::from_millis(50), rate: 1_000 };
        let send = |mut pace: Pace| async move {
            let mut dues = Vec::new();
            while let Some(due) = pace.next().await {
                assert!(due <= Instant::now());
                dues.push(due);
            }
            (dues, pace.left())
        };
        let sent = futures::future::join_all(clock.paces(3).into_iter().map(send)).await;
        let total: u64 = sent.iter().map(|(dues, left)| dues.len() as u64 + left).sum();
        assert_eq!(total, clock.by(clock.until));
        for (index, (dues, _)) in (0..).zip(&sent) {
            assert!(!dues.is_empty());
            for (turn, due) in (0..).zip(dues) {
                assert_eq!(*due, start + Duration::from_millis(turn * 3 + index));
            }
        }
    }

    #[tokio::test]
    async fn without_a_rate_the_time_is_all() {
        let mut over = Pace::Unbounded { until: Instant::now() };
        assert_eq!(over.next().await, None);
        let later = Instant::now() + Duration::from_secs(60);
        assert!(Pace::Unbounded { until: later }.next().await.is_some());
    }
}
