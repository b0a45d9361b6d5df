//! What became of the lines: counted as their deliveries come in, and told at
//! the end.

use ottla_client::{ClientError, Delivery, ProducerStats};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Partitions told one by one in text. JSON has them all.
const PARTITIONS_SHOWN: usize = 16;

/// Lowest and highest offset of what was written to a partition. Other
/// producers' records may lie between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
}

#[derive(Debug, Default)]
pub(super) struct Report {
    delivered: u64,
    failed: u64,
    partitions: BTreeMap<u32, Range>,
    /// The first line that failed, and why.
    pub(super) failure: Option<(u64, ClientError)>,
}

impl Report {
    /// Collects every delivery, in the order of the lines. Says `stop` when
    /// one failed, so that no more are sent.
    pub(super) async fn collect(
        mut deliveries: mpsc::Receiver<(u64, Delivery)>,
        stop: CancellationToken,
    ) -> Self {
        let mut report = Self::default();
        while let Some((line, delivery)) = deliveries.recv().await {
            let partition = delivery.partition();
            match delivery.await {
                Ok(delivered) => report.delivered(partition, delivered.offset),
                Err(error) => {
                    report.failed += 1;
                    report.failure.get_or_insert((line, error));
                    stop.cancel();
                }
            }
        }
        report
    }

    fn delivered(&mut self, partition: u32, offset: Option<u64>) {
        self.delivered += 1;
        let Some(offset) = offset else { return };
        let range =
            self.partitions.entry(partition).or_insert(Range { first: offset, last: offset });
        range.first = range.first.min(offset);
        range.last = range.last.max(offset);
    }

    pub(super) fn text(&self, stats: ProducerStats, took: Duration) -> String {
        let seconds = took.as_secs_f64();
        let rate = |amount: f64| amount / seconds.max(f64::MIN_POSITIVE);
        #[allow(clippy::cast_precision_loss)] // for people
        let (records, megabytes) = (self.delivered as f64, stats.bytes as f64 / 1e6);
        let mut text = format!(
            "{} records, {} bytes in {seconds:.3} s ({:.0} records/s, {:.1} MB/s)",
            self.delivered,
            stats.bytes,
            rate(records),
            rate(megabytes)
        );
        for (partition, range) in self.partitions.iter().take(PARTITIONS_SHOWN) {
            text.push_str(&format!(
                "\n  partition {partition}: offsets {} to {}",
                range.first, range.last
            ));
        }
        if let Some(more) = self.partitions.len().checked_sub(PARTITIONS_SHOWN + 1) {
            text.push_str(&format!("\n  and {} more partitions", more + 1));
        }
        if stats.possible_duplicates > 0 {
            text.push_str(&format!(
                "\n  possible duplicates: {} records were sent again after an attempt whose \
                 outcome is not known",
                stats.possible_duplicates
            ));
        }
        if self.failed > 0 {
            text.push_str(&format!("\n  failed: {} records", self.failed));
        }
        text
    }

    pub(super) fn json(&self, stats: ProducerStats, took: Duration) -> Value {
        let range = |(partition, range): (&u32, &Range)| json!({ "partition": partition, "first_offset": range.first, "last_offset": range.last });
        json!({
            "records": self.delivered,
            "bytes": stats.bytes,
            "seconds": took.as_secs_f64(),
            "failed": self.failed,
            "retries": stats.retries,
            "possible_duplicates": stats.possible_duplicates,
            "partitions": self.partitions.iter().map(range).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_a_user_must_know() {
        let mut report = Report::default();
        for (partition, offset) in [(1, 5), (0, 2), (1, 4), (1, 9)] {
            report.delivered(partition, Some(offset));
        }
        let stats =
            ProducerStats { bytes: 2_000_000, possible_duplicates: 3, ..Default::default() };
        let text = report.text(stats, Duration::from_secs(2));
        assert_eq!(
            text.lines().take(3).collect::<Vec<_>>(),
            [
                "4 records, 2000000 bytes in 2.000 s (2 records/s, 1.0 MB/s)",
                "  partition 0: offsets 2 to 2",
                "  partition 1: offsets 4 to 9",
            ]
        );
        assert!(text.contains("possible duplicates: 3"), "{text}");
        let json = report.json(stats, Duration::from_secs(2));
        assert_eq!(json["partitions"][1]["last_offset"], 9);
    }

    #[test]
    fn many_partitions_do_not_fill_the_screen() {
        let mut report = Report::default();
        (0..100).for_each(|partition| report.delivered(partition, Some(0)));
        let text = report.text(ProducerStats::default(), Duration::ZERO);
        assert!(text.ends_with("and 84 more partitions"), "{text}");
    }
}
