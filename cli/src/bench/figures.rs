//! Figures as reports show them: durations in seconds, or in milliseconds where the
//! name says so, and percentiles of few measurements.

use serde_json::{Value, json};
use std::time::Duration;

/// Percentiles in milliseconds.
pub(super) struct Spread {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Nearest rank: each is one of the measurements. Zeros if there is none.
    pub(super) fn of(times: &[Duration]) -> Self {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let ms = |time: Option<&Duration>| time.copied().map_or(0.0, millis);
        let rank = |percent: usize| (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        Self {
            p50: ms(sorted.get(rank(50))),
            p99: ms(sorted.get(rank(99))),
            max: ms(sorted.last()),
        }
    }
}

pub(super) fn spread(times: &[Duration]) -> Value {
    let Spread { p50, p99, max } = Spread::of(times);
    json!({ "count": times.len(), "p50": p50, "p99": p99, "max": max })
}

pub(super) fn seconds(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64())
}

pub(super) fn millis(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1000.0)
}

/// To three digits behind the point: nothing here is measured any better.
pub(super) fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measurements() {
        let times: Vec<Duration> = (1..=30).rev().map(Duration::from_millis).collect();
        let Spread { p50, p99, max } = Spread::of(&times);
        assert_eq!((p50, p99, max), (15.0, 30.0, 30.0));
        let Spread { p50, p99, max } = Spread::of(&[]);
        assert_eq!((p50, p99, max), (0.0, 0.0, 0.0));
    }
}
