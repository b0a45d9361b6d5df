//! How far a partition is whose records are processed out of order: everything below some
//! offset is done.

use std::collections::BTreeSet;

/// One partition.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Begun and not done.
    open: BTreeSet<u64>,
    /// Behind the last one begun.
    next: u64,
    /// Told last.
    told: Option<u64>,
}

impl Progress {
    pub(super) fn begin(&mut self, offset: u64) {
        self.open.insert(offset);
        self.next = offset + 1;
    }

    pub(super) fn done(&mut self, offset: u64) {
        self.open.remove(&offset);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// Where to go on after a restart, if that has changed.
    pub(super) fn take(&mut self) -> Option<u64> {
        let at = self.open.first().copied().unwrap_or(self.next);
        (self.told.replace(at) != Some(at) && at > 0).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_holds_back_what_is_behind_it() {
        let mut progress = Progress::default();
        for offset in [5, 6, 9] {
            progress.begin(offset);
        }
        assert_eq!(progress.take(), Some(5));
        progress.done(6);
        assert_eq!(progress.take(), None, "no news");
        progress.done(5);
        assert_eq!(progress.take(), Some(9));
        progress.done(9);
        assert_eq!((progress.take(), progress.is_idle()), (Some(10), true));
        assert_eq!(progress.take(), None);
    }
}
