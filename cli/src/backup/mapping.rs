//! From offsets of a partition as it was to offsets of the partition restored.
//!
//! Restored records keep their order and are numbered from 0, without the gaps that
//! compaction and deleted records left. So an offset becomes the number of records that
//! were before it: who goes on there reads the same record next.

use bytes::Bytes;
use ottla_node::inspect::{BatchHeader, decode_records};
use std::collections::BTreeMap;

/// Where the offsets that are asked for go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mapping {
    /// Records below it do not count.
    from: u64,
    /// By offset as it was: records before it so far.
    wanted: BTreeMap<u64, u64>,
}

impl Mapping {
    pub(super) fn new(from: u64, wanted: impl IntoIterator<Item = u64>) -> Self {
        Self { from, wanted: wanted.into_iter().map(|offset| (offset, 0)).collect() }
    }

    /// The next batch of the partition. Returns how many of its records count.
    pub(super) fn pass(&mut self, header: &BatchHeader, batch: &Bytes) -> Result<u64, String> {
        for (offset, before) in &mut self.wanted {
            *before += records_within(header, batch, self.from, *offset)?;
        }
        records_from(header, batch, self.from)
    }

    /// Where an offset goes that was asked for.
    pub(super) fn get(&self, offset: u64) -> Option<u64> {
        self.wanted.get(&offset).copied()
    }
}

/// How many records of a batch have offsets of at least `from`.
pub(super) fn records_from(header: &BatchHeader, batch: &Bytes, from: u64) -> Result<u64, String> {
    records_within(header, batch, from, u64::MAX)
}

/// How many records of a batch have offsets in `from..until`. Looks into it only where it
/// has gaps and one of the bounds is in its middle.
fn records_within(
    header: &BatchHeader,
    batch: &Bytes,
    from: u64,
    until: u64,
) -> Result<u64, String> {
    let (first, end) = (header.base_offset.max(from), header.next_offset().min(until));
    if !has_records(header) || first >= end {
        return Ok(0);
    }
    let records = u64::from(header.record_count);
    if (first, end) == (header.base_offset, header.next_offset()) {
        return Ok(records);
    }
    let is_without_gaps = records == header.next_offset() - header.base_offset;
    if is_without_gaps {
        return Ok(end - first);
    }
    let mut count = 0;
    for record in decode_records(batch) {
        let offset = record.map_err(|error| error.to_string())?.offset;
        count += u64::from((first..end).contains(&offset));
    }
    Ok(count)
}

/// Whether there is something in it that a producer wrote.
pub(super) fn has_records(header: &BatchHeader) -> bool {
    !header.is_placeholder() && !header.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::batches::tests::{batch, placeholder};

    fn map(from: u64, batches: &[Bytes], wanted: &[u64]) -> Vec<u64> {
        let mut mapping = Mapping::new(from, wanted.iter().copied());
        for batch in batches {
            let header = BatchHeader::parse(batch).expect("a header");
            mapping.pass(&header, batch).expect("a batch");
        }
        wanted.iter().map(|offset| mapping.get(*offset).expect("asked for")).collect()
    }

    #[test]
    fn without_gaps_the_start_is_taken_away() {
        let batches = [batch(10, &[0, 1, 2]), batch(13, &[0]), batch(14, &[0, 1])];
        assert_eq!(map(10, &batches, &[3, 10, 12, 13, 14, 16, 99]), [0, 0, 2, 3, 4, 6, 6]);
    }

    /// Compaction took 11, 13 to 19, and 21 away.
    #[test]
    fn gaps_within_and_between_batches_do_not_count() {
        let batches = [batch(10, &[0, 2]), placeholder(13, 19), batch(20, &[0, 2, 3])];
        let wanted = [10, 11, 12, 13, 16, 20, 21, 22, 23, 24];
        assert_eq!(map(10, &batches, &wanted), [0, 1, 1, 2, 2, 2, 3, 3, 4, 5]);
    }

    /// Records that were deleted in the middle of a batch are not restored.
    #[test]
    fn what_is_below_the_start_does_not_count() {
        let full = [batch(10, &[0, 1, 2, 3]), batch(14, &[0])];
        assert_eq!(map(12, &full, &[10, 12, 13, 14, 15]), [0, 0, 1, 2, 3]);
        let with_gaps = [batch(10, &[0, 2, 4]), batch(15, &[0])];
        assert_eq!(map(12, &with_gaps, &[12, 13, 14, 15, 16]), [0, 1, 1, 2, 3]);
    }
}
