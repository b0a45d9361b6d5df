//! How long to wait between attempts, and how long in all.

use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Longest wait before the first retry. A failover takes some hundred
/// milliseconds; the first retries must not add to it noticeably.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(20);

/// Longest wait between two attempts: a cluster that is back should be noticed
/// soon, and one that is not can bear four calls a second per waiting task.
pub(crate) const BACKOFF_LIMIT: Duration = Duration::from_millis(250);

/// Exponential backoff with jitter.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next wait: between half and the whole of this attempt's longest, so
    /// that many clients do not come back in step.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = Self::ceiling(self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        ceiling.mul_f64(rand::random_range(0.5..=1.0))
    }

    fn ceiling(attempts: u32) -> Duration {
        let factor = 2u32.checked_pow(attempts).unwrap_or(u32::MAX);
        BACKOFF_FIRST.saturating_mul(factor).min(BACKOFF_LIMIT)
    }
}

/// The moment by which a call must be over, and how long that was from its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    within: Duration,
}

impl Deadline {
    pub(crate) fn after(within: Duration) -> Self {
        Self::at(Instant::now(), within)
    }

    pub(crate) fn at(start: Instant, within: Duration) -> Self {
        Self { at: start + within, within }
    }

    /// The time given from start to end.
    pub(crate) fn within(&self) -> Duration {
        self.within
    }

    pub(crate) fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.remaining().is_zero()
    }

    /// Sleeps, but not beyond the deadline.
    pub(crate) async fn sleep(&self, wait: Duration) {
        sleep_until(self.at.min(Instant::now() + wait)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_stay_there() {
        let mut backoff = Backoff::default();
        let mut ceiling = BACKOFF_FIRST;
        for _ in 0..100 {
            let wait = backoff.next();
            assert!(wait >= ceiling / 2 && wait <= ceiling, "{wait:?} of {ceiling:?}");
            ceiling = (ceiling * 2).min(BACKOFF_LIMIT);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_ends_with_the_deadline() {
        let start = Instant::now();
        let deadline = Deadline::after(Duration::from_millis(30));
        deadline.sleep(Duration::from_secs(60)).await;
        assert!(deadline.is_over());
        assert_eq!(start.elapsed(), Duration::from_millis(30));
    }
}
