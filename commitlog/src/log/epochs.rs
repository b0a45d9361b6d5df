//! Where each leader epoch starts: Kafka's `leader-epoch-checkpoint`.
//!
//! A text file: the version (0), the number of entries, then one
//! `epoch start-offset` per line. Epochs and offsets strictly increase, so
//! every entry but the last is backed by records. Rules: KIP-101, KIP-279,
//! KAFKA-10706, KAFKA-16541.

use ottla_proto::{LeaderEpoch, Offset};

/// The entries in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epochs(Vec<(LeaderEpoch, Offset)>);

impl Epochs {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn last(&self) -> Option<LeaderEpoch> {
        self.0.last().map(|(epoch, _)| *epoch)
    }

    /// Every epoch and where it starts, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (LeaderEpoch, Offset)> {
        self.0.iter().copied()
    }

    pub(crate) fn start_of(&self, epoch: LeaderEpoch) -> Option<Offset> {
        self.0.iter().find(|(known, _)| *known == epoch).map(|(_, start)| *start)
    }

    /// Notes that `epoch` starts at `start`, unless it is known. Entries that
    /// would not be older are false and removed. Returns whether anything
    /// changed. Callers have refused an epoch below the last.
    pub(crate) fn assign(&mut self, epoch: LeaderEpoch, start: Offset) -> bool {
        if self.last() == Some(epoch) {
            return false;
        }
        assert!(self.last() < Some(epoch), "epochs are assigned in order");
        self.0.retain(|(_, known)| *known < start);
        self.0.push((epoch, start));
        true
    }

    /// Removes what starts at `end` or behind it; returns whether that changed
    /// anything.
    pub(crate) fn truncate_from(&mut self, end: Offset) -> bool {
        let before = self.0.len();
        self.0.retain(|(_, start)| *start < end);
        self.0.len() != before
    }

    /// Removes what starts behind `end`: it is not backed by the log.
    pub(crate) fn truncate_beyond(&mut self, end: Offset) -> bool {
        self.truncate_from(end + 1)
    }

    /// Forgets what ended at or before `start`; the epoch that holds it starts
    /// there from now on.
    pub(crate) fn raise_start(&mut self, start: Offset) -> bool {
        let older = self.0.partition_point(|(_, known)| *known <= start);
        let Some(covering) = older.checked_sub(1) else {
            return false;
        };
        let changed = covering > 0 || self.0[covering].1 != start;
        self.0[covering].1 = start;
        self.0.drain(..covering);
        changed
    }

    /// The largest known epoch up to `epoch`, and where the one after it starts
    /// (`None` for the last).
    pub(crate) fn end_of(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Option<Offset>)> {
        let after = self.0.partition_point(|(known, _)| *known <= epoch);
        let (known, _) = self.0.get(after.checked_sub(1)?)?;
        Some((*known, self.0.get(after).map(|(_, start)| *start)))
    }

    /// Whether the epoch of a record at `offset` is known.
    pub(crate) fn covers(&self, offset: Offset) -> bool {
        self.0.first().is_some_and(|(_, start)| *start <= offset)
    }

    /// Whether the entries say what batches showed: that `seen` are the epochs
    /// from its first offset on to `end`.
    pub(crate) fn agree_with(&self, seen: &Self, end: Offset) -> bool {
        let Some((first, from)) = seen.0.first() else {
            return true;
        };
        let covering = self.0.iter().rfind(|(_, start)| start <= from);
        let changes = self.0.iter().filter(|(_, start)| start > from && *start < end);
        covering.map(|(epoch, _)| epoch) == Some(first) && changes.eq(seen.0.iter().skip(1))
    }

    pub(crate) fn encode(&self) -> String {
        let mut text = format!("0\n{}\n", self.0.len());
        for (epoch, start) in &self.0 {
            text.push_str(&format!("{epoch} {start}\n"));
        }
        text
    }

    /// `None` for anything but exactly what [`Epochs::encode`] makes.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.lines();
        if lines.next()? != "0" {
            return None;
        }
        let count: usize = lines.next()?.parse().ok()?;
        let mut entries: Vec<(LeaderEpoch, Offset)> = Vec::new();
        for line in lines {
            let (epoch, start) = line.split_once(' ')?;
            let next = (LeaderEpoch(epoch.parse().ok()?), start.parse().ok()?);
            if entries.last().is_some_and(|last| last.0 >= next.0 || last.1 >= next.1) {
                return None;
            }
            entries.push(next);
        }
        let epochs = Self(entries);
        (epochs.0.len() == count && epochs.encode().as_bytes() == bytes).then_some(epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(u32, u64)]) -> Epochs {
        Epochs(entries.iter().map(|(epoch, start)| (LeaderEpoch(*epoch), *start)).collect())
    }

    #[test]
    fn kafkas_text() {
        let text = "0\n2\n1 0\n7 42\n";
        assert_eq!(epochs(&[(1, 0), (7, 42)]).encode(), text);
        assert_eq!(Epochs::decode(text.as_bytes()), Some(epochs(&[(1, 0), (7, 42)])));
        for bad in [
            "",
            "0",
            "0\n",
            "1\n0\n",
            "0\n1\n",
            "0\n1\n1 0",
            "0\n2\n1 0\n",
            "0\n2\n2 0\n1 5\n",
            "0\n2\n1 5\n2 5\n",
            "0\n1\n-1 0\n",
            "0\n1\n1 0\n\n",
            "0\n1\n01 0\n",
            "\u{0}\u{0}",
        ] {
            assert_eq!(Epochs::decode(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_new_epoch_removes_what_is_not_older() {
        let mut known = epochs(&[(1, 0), (2, 10)]);
        assert!(!known.assign(LeaderEpoch(2), 15));
        assert!(known.assign(LeaderEpoch(5), 10));
        assert_eq!(known, epochs(&[(1, 0), (5, 10)]));
    }

    #[test]
    fn ends() {
        let known = epochs(&[(2, 5), (4, 10)]);
        assert_eq!(known.end_of(LeaderEpoch(1)), None);
        assert_eq!(known.end_of(LeaderEpoch(3)), Some((LeaderEpoch(2), Some(10))));
        assert_eq!(known.end_of(LeaderEpoch(9)), Some((LeaderEpoch(4), None)));
    }

    #[test]
    fn truncation_from_both_ends() {
        let mut known = epochs(&[(1, 0), (2, 10), (3, 20)]);
        assert!(!known.truncate_beyond(20));
        assert!(known.truncate_from(20));
        assert!(known.raise_start(12));
        assert_eq!(known, epochs(&[(2, 12)]));
        assert!(!known.raise_start(12));
    }

    #[test]
    fn agreement_is_exact() {
        let known = epochs(&[(1, 0), (2, 10), (3, 20)]);
        assert!(known.agree_with(&epochs(&[(1, 5), (2, 10)]), 20));
        assert!(!known.agree_with(&epochs(&[(1, 5)]), 20));
        assert!(!known.agree_with(&epochs(&[(2, 5), (3, 20)]), 25));
        assert!(known.agree_with(&Epochs::default(), 20));
    }
}
