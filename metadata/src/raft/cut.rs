//! What it means that recovery cut the Raft log.
//!
//! An end that was never synced is cut after a power loss, and Raft promised nothing
//! about it. A disk that lost what it had synced leaves the same traces, so the cut
//! alone condemns nobody: this node goes on as a voter, and the quorum sends what is
//! missing. The danger is a second such disk at the same time, so it is said loudly.

use super::types::LogId;
use ottla_commitlog::Recovery;
use std::path::Path;

/// Which entries were cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// None that was known to be committed.
    Tail { end: u64 },
    /// Committed ones, up to this index: either the others had them on disk before
    /// this node, or its disk lost what it had synced.
    Committed { end: u64, up_to: u64 },
}

/// `known`: how far the log was known to be committed, if that can be read.
pub(super) fn judge(recovery: &Recovery, known: Option<&LogId>) -> Option<Cut> {
    let end = recovery.cut_at?;
    Some(match known {
        Some(known) if known.index >= end => Cut::Committed { end, up_to: known.index },
        _ => Cut::Tail { end },
    })
}

impl Cut {
    pub(super) fn report(self, dir: &Path, recovery: &Recovery) {
        let dir = dir.display();
        let Recovery { cut_bytes, reason, .. } = recovery;
        let reason = reason.as_deref().unwrap_or_default();
        match self {
            Self::Tail { end } => tracing::warn!(
                %dir, end, cut_bytes, reason,
                "RAFT_LOG_CUT: the end of the Raft log was not whole; expected only after a \
                 power loss"
            ),
            Self::Committed { end, up_to } => tracing::error!(
                %dir, end, up_to, cut_bytes, reason,
                "RAFT_LOG_CUT_BELOW_COMMITTED: the Raft log lost entries that were known to be \
                 committed; unless the power failed, this disk lost what it had synced: replace it"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::LeaderId;

    fn known(index: u64) -> LogId {
        LogId::new(LeaderId { term: 3, node_id: 1 }, index)
    }

    #[test]
    fn a_cut_below_what_was_committed_is_told_apart() {
        let whole = Recovery { segments_scanned: 1, ..Recovery::default() };
        assert_eq!(judge(&whole, Some(&known(9))), None);
        let cut = Recovery { cut_at: Some(5), ..whole };
        assert_eq!(judge(&cut, None), Some(Cut::Tail { end: 5 }));
        // The log ends where the first entry that is missing would be.
        assert_eq!(judge(&cut, Some(&known(4))), Some(Cut::Tail { end: 5 }));
        let lost = Cut::Committed { end: 5, up_to: 5 };
        assert_eq!(judge(&cut, Some(&known(5))), Some(lost));
    }
}
