//! How a follower's log stands to its leader's (KIP-101, KIP-279).

use super::types::{EpochEnd, LogState};
use ottla_proto::{LeaderEpoch, Offset};

/// What a leader finds of a log that asks to be continued.
pub(super) enum Standing {
    /// The follower's log is the beginning of the leader's.
    Prefix,
    Diverging {
        epoch: Option<LeaderEpoch>,
        end: Offset,
    },
    OutOfRange,
}

/// Judges a follower's `log` against a leader's, which has records from `start` to `end`;
/// `known` is the leader's newest epoch that is not above the last of the follower, and where
/// it ends. An offset out of range comes before a divergence (KAFKA-12996).
pub(super) fn judge(
    log: LogState,
    start: Offset,
    end: Offset,
    known: Option<EpochEnd>,
) -> Standing {
    if log.end < start {
        return Standing::OutOfRange;
    }
    match (log.last_epoch, known) {
        (Some(last), Some(known)) if known.epoch < last || known.end < log.end => {
            Standing::Diverging { epoch: Some(known.epoch), end: known.end }
        }
        // The leader has nothing so old: nothing above its start can be shared.
        (Some(_), None) if log.end > start => Standing::Diverging { epoch: None, end: start },
        _ if log.end > end => Standing::OutOfRange,
        _ => Standing::Prefix,
    }
}
