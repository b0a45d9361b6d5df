//! Trying again, ever more slowly.

use std::time::Duration;
use tokio::time::sleep;

/// How often something is tried, and how long is waited between.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Attempts in all; at least one is made.
    pub attempts: u32,
    /// The longest wait after the first attempt. It doubles with each.
    pub first: Duration,
    /// The longest wait of all.
    pub limit: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 3, first: Duration::from_millis(100), limit: Duration::from_secs(5) }
    }
}

impl RetryPolicy {
    /// Once only.
    #[must_use]
    pub fn never() -> Self {
        Self { attempts: 1, ..Self::default() }
    }

    /// The longest wait after so many attempts.
    fn ceiling(&self, attempts: u32) -> Duration {
        let factor = 2_u32.checked_pow(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.limit)
    }

    /// Tries until it succeeds, or was tried often enough: then with the last error. Waits
    /// for half to the whole of the longest wait, so that many do not come back in step.
    ///
    /// # Errors
    /// What the last attempt gave.
    pub async fn run<T, E, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let mut tried = 1;
        loop {
            match attempt().await {
                Err(_) if tried < self.attempts => {
                    sleep(self.ceiling(tried).mul_f64(rand::random_range(0.5..=1.0))).await;
                    tried += 1;
                }
                outcome => return outcome,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn it_is_tried_as_often_as_was_said() {
        let policy = RetryPolicy {
            attempts: 5,
            first: Duration::from_millis(100),
            limit: Duration::from_millis(300),
        };
        let (mut calls, begun) = (0, Instant::now());
        let outcome: Result<(), u32> = policy
            .run(|| {
                calls += 1;
                std::future::ready(Err(calls))
            })
            .await;
        assert_eq!((outcome, calls), (Err(5), 5));
        // 100, 200, 300, 300 at most, and half of that at least.
        let waited = begun.elapsed();
        assert!((Duration::from_millis(450)..=Duration::from_millis(904)).contains(&waited));
        let mut calls = 0;
        let third = || {
            calls += 1;
            std::future::ready(if calls == 3 { Ok(calls) } else { Err(()) })
        };
        assert_eq!(policy.run(third).await, Ok(3));
        assert_eq!(RetryPolicy::never().run(|| async { Err::<(), _>(1) }).await, Err(1));
    }
}
