//! One partition on its way into files: where to go on, what counts, and when it is enough.
//!
//! Not its job: whom to ask for it.

use super::batches::BatchWriter;
use super::manifest::PartitionEntry;
use super::mapping::{has_records, records_from};
use super::source::{Fetched, Log};
use crate::progress::Progress;
use ottla_node::inspect::BatchHeader;

/// How often a compacted partition is read on, each time to where it ends by then. Each
/// stretch is what was written during the last one, so this many say that it never ends.
const MAX_STRETCHES: u32 = 100;

/// A partition, as far as it was copied.
pub(super) struct Copied {
    from: u64,
    /// Where to go on.
    position: u64,
    /// Behind the last batch that was written.
    end: u64,
    records: u64,
    newest_timestamp_ms: Option<i64>,
    writer: BatchWriter,
}

impl Copied {
    pub(super) fn new(from: u64, writer: BatchWriter) -> Self {
        Self { from, position: from, end: 0, records: 0, newest_timestamp_ms: None, writer }
    }

    /// Reads all that is committed now. Returns whether that is enough.
    ///
    /// Where the log is compacted it may not be: a record that was there now may be gone
    /// before it is read, because of a later one of the same key. So the log is read on,
    /// each time to where it ends by then, until a stretch lacks nothing. Whatever was
    /// taken away had a successor below that stretch's end.
    pub(super) async fn read(
        &mut self,
        log: &mut impl Log,
        is_compacted: bool,
        progress: &Progress,
    ) -> anyhow::Result<bool> {
        for _ in 0..MAX_STRETCHES {
            let until = log.end().await?;
            let (begun, before) = (self.position, self.records);
            while self.position < until {
                let fetched = log.fetch(self.position).await?;
                progress.add(self.take(fetched)?);
            }
            let lacks_nothing = self.records - before == self.position - begun;
            if lacks_nothing || !is_compacted {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes what is new, and returns how many bytes that were.
    fn take(&mut self, fetched: Fetched) -> anyhow::Result<u64> {
        let (mut batches, next_offset) = match fetched {
            Fetched::Batches { batches, next_offset } => (batches, next_offset),
            // Retention was quicker.
            Fetched::StartsAt(start) => {
                self.position = start;
                return Ok(0);
            }
        };
        let mut written = 0;
        while !batches.is_empty() {
            let header = BatchHeader::parse(&batches)?;
            anyhow::ensure!(header.total_len() <= batches.len(), "a node sent half a batch");
            let batch = batches.split_to(header.total_len());
            if header.base_offset < self.end {
                // A placeholder that compaction has made larger since.
                let is_new = has_records(&header) && header.next_offset() > self.end;
                anyhow::ensure!(!is_new, "a node sent offset {} twice", header.base_offset);
                continue;
            }
            // Into the page cache: there is no waiting for the disk but at a file's end.
            self.writer.append(&header, &batch)?;
            written += batch.len() as u64;
            self.end = header.next_offset();
            if has_records(&header) {
                let newest = self.newest_timestamp_ms.max(Some(header.max_timestamp));
                self.newest_timestamp_ms = newest;
                self.records +=
                    records_from(&header, &batch, self.from).map_err(anyhow::Error::msg)?;
            }
        }
        self.position = next_offset.max(self.end);
        Ok(written)
    }

    pub(super) fn finish(self, partition: u32) -> anyhow::Result<PartitionEntry> {
        let Self { from, position, records, newest_timestamp_ms, writer, .. } = self;
        let files = writer.finish()?;
        let until = position;
        Ok(PartitionEntry { partition, from, until, records, newest_timestamp_ms, files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::batches::tests::{batch, placeholder};
    use crate::progress::Unit;
    use bytes::Bytes;

    #[test]
    fn batches_are_taken_once_and_counted_from_the_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let writer = BatchWriter::create(dir.path().join("p")).expect("a directory");
        let mut copied = Copied::new(5, writer);
        let fetched = |batches: &[Bytes], next_offset| Fetched::Batches {
            batches: batches.concat().into(),
            next_offset,
        };
        let first = [batch(4, &[0, 1, 2]), placeholder(7, 9)];
        let bytes = first.iter().map(|batch| batch.len() as u64).sum::<u64>();
        assert_eq!(copied.take(fetched(&first, 10)).expect("taken"), bytes);
        assert_eq!((copied.records, copied.position), (2, 10), "4 was deleted");
        // Compaction has merged two placeholders meanwhile.
        let second = [placeholder(7, 12), batch(13, &[0, 3])];
        assert_eq!(copied.take(fetched(&second, 17)).expect("taken"), second[1].len() as u64);
        assert_eq!((copied.records, copied.position), (4, 17));
        copied.take(fetched(&[batch(16, &[0, 1])], 18)).expect_err("16 was there already");
        assert_eq!(copied.take(Fetched::StartsAt(30)).expect("taken"), 0);
        assert_eq!(copied.position, 30);
        let entry = copied.finish(3).expect("finished");
        assert_eq!((entry.partition, entry.from, entry.until, entry.records), (3, 5, 30, 4));
        assert_eq!(entry.files.len(), 1);
    }

    /// A log with one record in each batch, by offset: what is there at each question.
    struct Script {
        ends: Vec<u64>,
        fetches: Vec<(u64, Vec<u64>, u64)>,
    }

    impl Log for Script {
        async fn end(&mut self) -> anyhow::Result<u64> {
            Ok(self.ends.remove(0))
        }

        async fn fetch(&mut self, offset: u64) -> anyhow::Result<Fetched> {
            let (asked, there, next_offset) = self.fetches.remove(0);
            assert_eq!(offset, asked);
            let batches: Vec<Bytes> = there.iter().map(|offset| batch(*offset, &[0])).collect();
            Ok(Fetched::Batches { batches: batches.concat().into(), next_offset })
        }
    }

    async fn read(script: &mut Script, is_compacted: bool) -> (bool, u64, u64) {
        let dir = tempfile::tempdir().expect("a directory");
        let writer = BatchWriter::create(dir.path().join("p")).expect("a directory");
        let mut copied = Copied::new(0, writer);
        let progress = Progress::new(Unit::Bytes, None, false);
        let enough = copied.read(script, is_compacted, &progress).await.expect("read");
        (enough, copied.records, copied.position)
    }

    /// The record at 3 was there when the copy began, and gave way to the one at 4 before it
    /// was read; that one to 6. The last stretch, 6 to 8, lacks nothing.
    #[tokio::test]
    async fn a_compacted_log_is_read_on_until_nothing_is_missing() {
        let stretches = || Script {
            ends: vec![4, 6, 8],
            fetches: vec![(0, vec![0, 2], 3), (3, vec![], 4), (4, vec![5], 6), (6, vec![6, 7], 8)],
        };
        let mut compacted = stretches();
        assert_eq!(read(&mut compacted, true).await, (true, 5, 8));
        assert!(compacted.fetches.is_empty());
        // Where nothing is compacted the end at the start is the end, whatever is missing.
        assert_eq!(read(&mut stretches(), false).await, (true, 2, 4));
        let mut at_rest = Script { ends: vec![3, 3], fetches: vec![(0, vec![0, 2], 3)] };
        assert_eq!(read(&mut at_rest, true).await, (true, 2, 3));
        let ends = (1..=100).map(|n| 2 * n).collect();
        let fetches = (0..100).map(|n| (2 * n, vec![2 * n], 2 * n + 2)).collect();
        let mut hopeless = Script { ends, fetches };
        assert_eq!(read(&mut hopeless, true).await, (false, 100, 200));
    }
}
