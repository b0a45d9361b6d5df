//! Figures to watch: appends, and how well group commit groups.
//!
//! Not its job: names and formats of a monitoring system.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of a histogram: bounds 1, 2, 4, … 2^31.
const BUCKETS: usize = 32;

/// What the logs of a node have done since it started.
#[derive(Debug, Default)]
pub struct Figures {
    /// Appends that were written.
    pub appends: Counter,
    /// Records in them.
    pub appended_records: Counter,
    /// Bytes in them.
    pub appended_bytes: Counter,
    /// How long each fdatasync of a segment took, in microseconds.
    pub sync_micros: Histogram,
    /// How long each caller waited in [`crate::Log::sync`], in microseconds:
    /// behind the one that was running, and for its own. Calls that found
    /// everything synced do not count.
    pub sync_wait_micros: Histogram,
    /// Appends made durable by one sync.
    pub sync_appends: Histogram,
    /// Records made durable by one sync.
    pub sync_records: Histogram,
    /// Bytes made durable by one sync.
    pub sync_bytes: Histogram,
}

/// Counts up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

/// Values counted in buckets whose bounds double. Cheap to add to from any
/// thread; readers may see a value in one figure and not yet in another.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Upper bound (inclusive) of each bucket and the values in it alone, in
    /// ascending order. The last takes what is larger as well.
    pub buckets: Vec<(u64, u64)>,
    /// Sum of all values.
    pub sum: u64,
    /// Number of values.
    pub count: u64,
}

impl Histogram {
    pub(crate) fn add(&self, value: u64) {
        let exponent = u64::BITS - value.saturating_sub(1).leading_zeros();
        let bucket = (exponent as usize).min(BUCKETS - 1);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub(crate) fn add_duration(&self, duration: Duration) {
        self.add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// What has been added so far.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<(u64, u64)> = (0..).map(|exponent| 1 << exponent).zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        HistogramSnapshot { buckets, sum: self.sum.load(Ordering::Relaxed), count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_at_or_below_their_bound() {
        let histogram = Histogram::default();
        for value in [0, 1, 2, 3, 4, 5, 1 << 20, (1 << 20) + 1, u64::from(u32::MAX) * 4] {
            histogram.add(value);
        }
        let snapshot = histogram.snapshot();
        let filled: Vec<_> = snapshot.buckets.iter().filter(|(_, count)| *count > 0).collect();
        let expected = [(1, 2), (2, 1), (4, 2), (8, 1), (1 << 20, 1), (1 << 21, 1), (1 << 31, 1)];
        assert_eq!(filled, expected.iter().collect::<Vec<_>>());
        assert_eq!(snapshot.count, 9);
        assert_eq!(snapshot.sum, 15 + (1 << 20) + (1 << 20) + 1 + u64::from(u32::MAX) * 4);
    }
}
