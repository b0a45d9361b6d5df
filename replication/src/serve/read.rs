//! Reading what a follower is to be sent.

use super::session::Turn;
use bytes::Bytes;
use ottla_commitlog::format::batch_headers;
use ottla_commitlog::{Log, LogError};
use ottla_proto::Offset;

/// What a turn brought.
pub(super) enum Read {
    /// Records, perhaps none, as far as `next`.
    Records { batches: Bytes, next: Offset, watermark: Offset, log_start: Offset, more: bool },
    /// It is on the disk only.
    NotInMemory,
    /// The leadership has ended.
    Ended,
    /// What the follower needs next is gone: the log starts behind it.
    Gone { log_start: Offset },
    /// The disk failed.
    Failed,
}

/// Waits for no disk.
pub(super) fn from_memory(turn: &Turn) -> Read {
    read(turn, |log, up_to| log.read_hot(turn.next, up_to, turn.max_bytes))
}

/// May take as long as a disk takes.
pub(super) fn from_disk(turn: &Turn) -> Read {
    read(turn, |log, up_to| log.read(turn.next, up_to, turn.max_bytes).map(Some))
}

fn read(
    turn: &Turn,
    from_log: impl FnOnce(&Log, Offset) -> Result<Option<Bytes>, LogError>,
) -> Read {
    let (Some(status), Some(log)) = (turn.partition.leading(), turn.partition.log()) else {
        return Read::Ended;
    };
    if status.leader_epoch != turn.of.leader_epoch {
        return Read::Ended;
    }
    let (watermark, log_start) = (status.high_watermark, status.log_start);
    let records = |batches, next, more| Read::Records { batches, next, watermark, log_start, more };
    if turn.next >= status.log_end {
        return records(Bytes::new(), turn.next, false);
    }
    let batches = match from_log(log, status.log_end) {
        Ok(Some(batches)) => batches,
        Ok(None) => return Read::NotInMemory,
        // Retention overtook the follower; or the log was reset under the read,
        // and the leadership has ended.
        Err(LogError::OutOfRange { start, .. }) => {
            let leads = turn
                .partition
                .leading()
                .is_some_and(|now| now.leader_epoch == status.leader_epoch && turn.next < start);
            return if leads { Read::Gone { log_start: start } } else { Read::Ended };
        }
        Err(error) => {
            tracing::error!(partition = %turn.id, %error, "reading for a follower failed");
            if matches!(error, LogError::Corrupt { .. }) {
                turn.partition.is_damaged(&error);
            }
            return Read::Failed;
        }
    };
    // A leader never cuts its log. If it still leads, this is its log.
    let still = turn.partition.leading().is_some_and(|now| now.leader_epoch == status.leader_epoch);
    match end_of(&batches) {
        _ if !still => Read::Ended,
        Some(next) => records(batches, next, next < status.log_end),
        None => records(Bytes::new(), turn.next, false),
    }
}

fn end_of(batches: &Bytes) -> Option<Offset> {
    batch_headers(batches).filter_map(Result::ok).last().map(|(header, _)| header.next_offset())
}
