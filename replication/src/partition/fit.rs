//! Making a leader's records fit where the local log ends.
//!
//! They begin there, but for one case (a placeholder that reaches back is cut by
//! the log itself): the leader's log may start within a batch, and a follower that
//! begins at that start gets the whole batch.

use bytes::Bytes;
use ottla_commitlog::format::batch_headers;
use ottla_commitlog::{Log, LogError};

/// Makes an empty log begin where the first of `batches` does, if that reaches
/// back behind its end.
///
/// # Errors
/// Those of [`Log::reset_to`].
pub(super) fn fit(log: &Log, batches: &Bytes) -> Result<(), LogError> {
    let Some(Ok((first, _))) = batch_headers(batches).next() else { return Ok(()) };
    let bounds = log.bounds();
    if first.base_offset >= bounds.end || first.next_offset() <= bounds.end {
        return Ok(());
    }
    if bounds.start == bounds.end {
        // What lies below the leader's start goes again when that is heard.
        log.reset_to(first.base_offset)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_commitlog::format::{BatchOptions, NewRecord, ValidBatch, encode_batch};
    use ottla_commitlog::vfs::SimVfs;
    use ottla_commitlog::{LogConfig, OpenMode, Shared};
    use ottla_proto::{LeaderEpoch, MAX_BATCH_BYTES};
    use std::path::Path;
    use std::sync::Arc;

    const EPOCH: LeaderEpoch = LeaderEpoch(1);

    fn open() -> Log {
        let shared = Shared::new(Arc::new(SimVfs::new()));
        let config = LogConfig::default();
        Log::open(&shared, Path::new("/log"), config, OpenMode::Recover).expect("opens").0
    }

    fn batch(records: usize) -> ValidBatch {
        let record = NewRecord { key: None, value: None, headers: vec![], timestamp_ms: 0 };
        let bytes = encode_batch(&vec![record; records], &BatchOptions::default());
        ValidBatch::new(bytes.expect("records"), MAX_BATCH_BYTES).expect("valid")
    }

    #[test]
    fn an_empty_log_begins_at_the_first_batch() {
        let leader = open();
        leader.append_as_leader(vec![batch(4), batch(4)], EPOCH, 0).expect("appended");
        let sent = leader.read(5, 8, 1 << 20).expect("the batch that holds 5");
        let log = open();
        log.reset_to(5).expect("reset");
        fit(&log, &sent).expect("fits");
        log.append_as_follower(sent).expect("appended");
        assert_eq!((log.bounds().start, log.bounds().end), (4, 8));
    }

    #[test]
    fn records_that_are_here_are_not_dropped_for_others() {
        let log = open();
        log.append_as_leader(vec![batch(4)], EPOCH, 0).expect("appended");
        let other = open();
        other.append_as_leader(vec![batch(9)], EPOCH, 0).expect("appended");
        let sent = other.read(0, 9, 1 << 20).expect("a batch");
        fit(&log, &sent).expect("as it is");
        assert_eq!(log.bounds().end, 4);
    }
}
