//! Which offsets belong to transactions whose end is not known yet.

use ottla_proto::Offset;
use std::collections::BTreeSet;

/// Ended transactions that are remembered for readers whose high watermark has
/// not passed the marker. Beyond it two neighbours become one, which holds such
/// readers back a little longer: 16 bytes each.
const MAX_ENDED: usize = 1024;

/// A transaction whose marker is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) first: Offset,
    pub(super) marker: Offset,
}

/// The transactions of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Transactions {
    /// First offset and producer of each that is open.
    open: BTreeSet<(Offset, i64)>,
    /// Both first offset and marker strictly increase: an older one that began
    /// later is covered by the newer.
    ended: Vec<Ended>,
    seen: bool,
}

impl Transactions {
    pub(super) fn restored(
        open: impl Iterator<Item = (Offset, i64)>,
        ended: Vec<Ended>,
        seen: bool,
    ) -> Self {
        Self { open: open.collect(), ended, seen }
    }

    pub(super) fn seen(&self) -> bool {
        self.seen
    }

    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    pub(super) fn ended(&self) -> &[Ended] {
        &self.ended
    }

    pub(super) fn begin(&mut self, first: Offset, producer: i64) {
        self.seen = true;
        self.open.insert((first, producer));
    }

    /// Returns where the first transaction begins that is still open, else what
    /// follows the marker.
    pub(super) fn end(&mut self, first: Offset, producer: i64, marker: Offset) -> Offset {
        self.open.remove(&(first, producer));
        let covered = self.ended.partition_point(|ended| ended.first < first);
        self.ended.truncate(covered);
        self.ended.push(Ended { first, marker });
        if self.ended.len() > MAX_ENDED {
            // The oldest: the one that nobody waits for any more, most likely.
            let oldest = self.ended.remove(0);
            self.ended[0].first = oldest.first;
        }
        self.open.first().map_or(marker + 1, |(first, _)| *first)
    }

    /// The first offset of any transaction that is open or whose marker is not
    /// below the high watermark.
    pub(super) fn first_unstable(&self, high_watermark: Offset) -> Option<Offset> {
        let replicated = self.ended.partition_point(|ended| ended.marker < high_watermark);
        let ended = self.ended.get(replicated).map(|ended| ended.first);
        let open = self.open.first().map(|(first, _)| *first);
        match (open, ended) {
            (Some(open), Some(ended)) => Some(open.min(ended)),
            (open, ended) => open.or(ended),
        }
    }
}
