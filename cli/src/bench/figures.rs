//! Figures as reports show them: durations in seconds, or in milliseconds where the
//! name says so, and percentiles of few measurements.

use hdrhistogram::Histogram;
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

/// Bytes a second.
pub(super) fn per_second(bytes: u64, time: Duration) -> u64 {
    if time.is_zero() { 0 } else { (bytes as f64 / time.as_secs_f64()) as u64 }
}

/// Processor seconds for a gigabyte (10^9 bytes); 0 of nothing.
pub(super) fn per_gigabyte(cpu: Duration, bytes: u64) -> f64 {
    if bytes == 0 { 0.0 } else { rounded(cpu.as_secs_f64() / (bytes as f64 / 1e9)) }
}

/// Percentiles in milliseconds of latencies in microseconds.
pub(super) fn percentiles(latencies: &Histogram<u64>) -> Value {
    let at = |quantile| quantile_ms(latencies, quantile);
    json!({
        "count": latencies.len(),
        "p50": at(0.5),
        "p90": at(0.9),
        "p99": at(0.99),
        "p999": at(0.999),
        "max": at(1.0),
    })
}

/// The same in a line.
pub(super) fn percentiles_text(latencies: &Histogram<u64>) -> String {
    let at = |quantile| quantile_ms(latencies, quantile);
    format!(
        "p50 {} ms, p90 {} ms, p99 {} ms, p99.9 {} ms, longest {} ms of {}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0),
        latencies.len()
    )
}

/// So many of the latencies are not above it, in milliseconds.
pub(super) fn quantile_ms(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    rounded(latencies.value_at_quantile(quantile) as f64 / 1000.0)
}

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_of_nothing_is_none() {
        assert_eq!(per_second(5, Duration::ZERO), 0);
        assert_eq!(per_second(5_000, Duration::from_millis(500)), 10_000);
        assert_eq!(
            (
                per_gigabyte(Duration::from_secs(1), 0),
                per_gigabyte(Duration::from_secs(3), 2_000_000_000)
            ),
            (0.0, 1.5)
        );
    }

    #[test]
    fn percentiles_are_measurements() {
        let times: Vec<Duration> = (1..=30).rev().map(Duration::from_millis).collect();
        let Spread { p50, p99, max } = Spread::of(&times);
        assert_eq!((p50, p99, max), (15.0, 30.0, 30.0));
        let Spread { p50, p99, max } = Spread::of(&[]);
        assert_eq!((p50, p99, max), (0.0, 0.0, 0.0));
    }
}
