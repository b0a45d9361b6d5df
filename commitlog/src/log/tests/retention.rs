//! Retention by age and by size.

use super::*;
use crate::Cleanup;

const DAY: i64 = 24 * 60 * 60 * 1000;

fn timed(timestamp_ms: i64) -> ValidBatch {
    let record = NewRecord { value: Some("x".into()), timestamp_ms, ..NewRecord::default() };
    ValidBatch::new(encode_batch(&[record], &BatchOptions::default()).expect("encodes"), 1 << 20)
        .expect("valid")
}

/// Two batches a segment; ages and sizes as asked.
fn config(retention_ms: Option<i64>, retention_bytes: Option<u64>) -> LogConfig {
    LogConfig {
        segment_bytes: 2 * timed(0).len() as u64,
        segment_ms: u64::MAX,
        retention_ms: retention_ms.map(|ms| u64::try_from(ms).expect("positive")),
        retention_bytes,
        ..LogConfig::default()
    }
}

/// A log of one batch per timestamp, all synced.
fn log_of(config: LogConfig, timestamps: &[i64]) -> (SimVfs, Log) {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, config, OpenMode::Recover);
    for timestamp in timestamps {
        log.append_as_leader(vec![timed(*timestamp)], LeaderEpoch(1), *timestamp).expect("appends");
    }
    log.sync().expect("syncs");
    (vfs, log)
}

fn bases(vfs: &SimVfs) -> Vec<u64> {
    open::segment_bases(vfs, dir()).expect("lists")
}

#[test]
fn a_segment_goes_when_its_newest_record_is_too_old() {
    // Segments 0, 2, 4; the newest records are from days 2, 3 and 5.
    let (vfs, log) =
        log_of(config(Some(DAY), None), &[2 * DAY, DAY, DAY, 3 * DAY, 4 * DAY, 5 * DAY]);
    assert_eq!(log.retain(3 * DAY, 6).expect("runs"), Retained::default());
    let done = log.retain(3 * DAY + 1, 6).expect("runs");
    assert_eq!((done.segments, log.bounds().start, bases(&vfs)), (1, 2, vec![2, 4]));
    // Everything has expired: the segment being written is finished and goes too.
    let done = log.retain(60 * DAY, 6).expect("runs");
    assert_eq!((done.segments, bases(&vfs)), (2, vec![6]));
    assert_eq!(log.bounds(), Bounds { start: 6, end: 6, synced: 6 });
    assert_eq!(log.retain(90 * DAY, 6).expect("runs"), Retained::default());
}

/// All records were deleted on request, and what held them is too old: it goes, and
/// then there is nothing more to do. (It was looked at for ever, and never went.)
#[test]
fn a_segment_without_records_that_are_left_goes_too() {
    let (vfs, log) = log_of(config(Some(DAY), None), &[0]);
    log.delete_before(1).expect("deletes");
    assert_eq!((bases(&vfs), log.bounds().start), (vec![0], 1), "it is still written to");
    let done = log.retain(60 * DAY, 1).expect("runs");
    assert_eq!((done.segments, done.more, bases(&vfs)), (1, false, vec![1]));
    assert_eq!(log.bounds(), Bounds { start: 1, end: 1, synced: 1 });
    assert_eq!(log.retain(60 * DAY, 1).expect("runs"), Retained::default());
}

#[test]
fn nothing_above_the_bound_goes() {
    let (_, log) = log_of(config(Some(DAY), None), &[0; 6]);
    for (up_to, start) in [(0, 0), (1, 0), (2, 2), (3, 2), (5, 4), (6, 6)] {
        log.retain(60 * DAY, up_to).expect("runs");
        assert_eq!(log.bounds().start, start, "up to {up_to}");
    }
}

#[test]
fn the_oldest_go_while_the_rest_is_large_enough() {
    let batch = timed(0).len() as u64;
    let (vfs, log) = log_of(config(None, Some(5 * batch)), &[0; 10]);
    // 10 batches: two segments of two may go, a third would leave 4 of the 5.
    let done = log.retain(0, 10).expect("runs");
    assert_eq!((done.segments, done.bytes, bases(&vfs)), (2, 4 * batch, vec![4, 6, 8]));
    log.configure(config(None, Some(0)));
    log.retain(0, 10).expect("runs");
    assert_eq!((bases(&vfs), log.size_bytes()), (vec![10], 0));
}

#[test]
fn only_with_the_policy_delete() {
    let kept = Cleanup { delete: false, compact: true };
    let config = LogConfig { cleanup: kept, ..config(Some(0), Some(0)) };
    let (vfs, log) = log_of(config, &[0; 6]);
    assert_eq!(log.retain(60 * DAY, 6).expect("runs"), Retained::default());
    let both = Cleanup { delete: true, compact: true };
    log.configure(LogConfig { cleanup: both, ..config });
    assert_eq!(log.retain(60 * DAY, 6).expect("runs").segments, 3);
    assert_eq!(bases(&vfs), [6]);
}

/// A record from the future holds its segment and all behind it, and is named.
#[test]
fn a_timestamp_in_the_future_is_reported() {
    let (_, log) = log_of(config(Some(DAY), None), &[0, 0, 0, 50 * DAY, 0, 0]);
    let done = log.retain(10 * DAY, 6).expect("runs");
    assert_eq!((done.segments, done.future_timestamp_ms), (1, Some(50 * DAY)));
    assert_eq!(log.retain(50 * DAY, 6).expect("runs").future_timestamp_ms, None);
    assert_eq!(log.retain(51 * DAY + 1, 6).expect("runs").segments, 2);
}

#[test]
fn a_call_is_bounded() {
    let (_, log) = log_of(config(Some(DAY), None), &[0; 80]);
    let calls: Vec<(u32, bool)> = std::iter::repeat_with(|| log.retain(9 * DAY, 80).expect("runs"))
        .map(|done| (done.segments, done.more))
        .take(3)
        .collect();
    assert_eq!(calls, [(32, true), (8, false), (0, false)]);
}

/// Power lost at every step: no record that should stay is gone, and what is
/// left is a whole log that starts where it did, or where it was to.
#[test]
fn a_crash_while_segments_are_deleted() {
    for step in 0..30 {
        let (vfs, log) = log_of(config(Some(DAY), None), &[0, 0, 0, 0, 9 * DAY, 9 * DAY]);
        vfs.power_fails_after(step);
        let done = log.retain(9 * DAY, 6).is_ok();
        vfs.crash(step);
        drop(log);
        let (log, _) = open(&vfs, config(None, None), OpenMode::Recover);
        let start = log.bounds().start;
        assert!(start == 4 || (start == 0 && !done), "step {step}: starts at {start}");
        assert_eq!(values(&log).len() as u64, 6 - start);
        assert_eq!(Log::verify(&vfs, dir()).expect("reads").damage().count(), 0);
        if start == 4 {
            assert_eq!(bases(&vfs), [4]);
        }
    }
}
