//! The last five batches are known after restarts and changes of the log.

use super::*;

#[test]
fn after_a_clean_restart() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    let places = six(&log);
    assert_known(&log, &places);
    let (log, recovery) = reopen_clean(&vfs, log);
    assert_eq!(recovery, Recovery::default());
    assert_known(&log, &places);
    // And after one more, which finds what the first one left.
    let (log, recovery) = reopen_clean(&vfs, log);
    assert_eq!(recovery, Recovery::default());
    assert_known(&log, &places);
    assert_eq!(put(&log, IDEMPOTENT.batch(12, 2)), 12);
    assert_sound(&vfs);
}

/// Whatever a crash leaves: what was synced is known, and nothing else.
#[test]
fn after_a_crash() {
    for seed in 0..30 {
        let vfs = SimVfs::new();
        let (log, _) = open(&vfs, small(), OpenMode::Recover);
        let mut places = six(&log);
        log.sync().expect("syncs");
        places.push(put(&log, IDEMPOTENT.batch(12, 2)));
        let (log, recovery) = reopen_after_crash(&vfs, log, seed);
        assert!(!recovery.producers_rebuilt, "the segment began with a snapshot");
        places.retain(|place| *place < log.bounds().end);
        assert!(places.len() >= 6);
        assert_known(&log, &places);
        assert_sound(&vfs);
    }
}

/// Cut anywhere: the batches that are left are known, those that went are not.
#[test]
fn after_a_truncation() {
    for kept in (0..=6).rev() {
        let vfs = SimVfs::new();
        let (log, _) = open(&vfs, small(), OpenMode::Recover);
        let places = six(&log);
        log.truncate_to(kept as u64 * 2).expect("truncates");
        let places = &places[..kept];
        if kept > 0 {
            assert_known(&log, places);
        }
        let (log, recovery) = reopen_clean(&vfs, log);
        assert_eq!(recovery, Recovery::default(), "{kept} kept");
        if kept > 0 {
            assert_known(&log, places);
        }
        // With what went it would not fit.
        assert_eq!(put(&log, IDEMPOTENT.batch(kept as i32 * 2, 2)), kept as u64 * 2);
        assert_sound(&vfs);
    }
}

/// What the last five were before the cut is only in a snapshot: the records of
/// the first segments are deleted.
#[test]
fn after_a_truncation_behind_what_was_deleted() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    let places: Vec<Offset> = (0..14).map(|n| put(&log, IDEMPOTENT.batch(n * 2, 2))).collect();
    log.sync().expect("syncs");
    let last = log.state.read().active().segment.base;
    log.delete_before(last).expect("deletes");
    assert_eq!(log.state.read().slots.len(), 1);
    let kept = places.iter().position(|place| *place > last).expect("two in the last segment");
    log.truncate_to(places[kept]).expect("truncates");
    assert_known(&log, &places[..kept]);
    let (log, recovery) = reopen_after_crash(&vfs, log, 1);
    assert!(!recovery.producers_rebuilt);
    assert_known(&log, &places[..kept]);
}

/// Truncated and written anew to the same end: a snapshot from before would be of
/// batches that are gone.
#[test]
fn after_a_truncation_and_other_batches() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    let places = six(&log);
    let (log, _) = reopen_clean(&vfs, log); // with a snapshot at its end
    log.truncate_to(8).expect("truncates");
    append(&log, vec![batch(&["a", "b"]), batch(&["c", "d"])]);
    assert_known(&log, &places[..4]);
    let (log, _) = reopen_clean(&vfs, log);
    assert_known(&log, &places[..4]);
    log.truncate_to(0).expect("truncates all");
    assert_eq!(put(&log, IDEMPOTENT.batch(77, 2)), 0);
}

/// A log that begins anew knows nobody: at once, and after a restart. Also where
/// a snapshot stood at the place where it begins.
#[test]
fn after_a_reset() {
    for (start, how) in [0, 3, 8, 12, 40].into_iter().flat_map(|s| (0..4).map(move |h| (s, h))) {
        let vfs = SimVfs::new();
        let (log, _) = open(&vfs, small(), OpenMode::Recover);
        six(&log);
        let (log, _) = reopen_clean(&vfs, log);
        if how == 3 {
            let last = log.state.read().active().segment.base;
            assert_eq!(last, 8, "the second of the places above");
            log.delete_before(last).expect("deletes");
        }
        log.reset_to(start).expect("resets");
        let log = match how {
            0 => log,
            1 => reopen_after_crash(&vfs, log, start).0,
            _ => reopen_clean(&vfs, log).0,
        };
        assert_eq!(put(&log, IDEMPOTENT.batch(50, 2)), start, "{start} {how}");
        assert_eq!(send(&log, IDEMPOTENT.batch(10, 2)), out_of_order(52, 10));
        let (log, _) = reopen_clean(&vfs, log);
        assert_eq!(send(&log, IDEMPOTENT.batch(50, 2)), Placement::Duplicate(start));
        assert_eq!(send(&log, IDEMPOTENT.batch(10, 2)), out_of_order(52, 10));
        assert_sound(&vfs);
    }
}

/// The power fails in the midst of a reset, of a log whose first segment has a
/// snapshot at its start: nobody is told of a batch that is not in the log.
#[test]
fn after_a_crash_during_a_reset() {
    for start in [3, 8, 10, 40] {
        for changes in 0.. {
            let vfs = SimVfs::new();
            let (log, _) = open(&vfs, small(), OpenMode::Recover);
            six(&log);
            let (log, _) = reopen_clean(&vfs, log);
            log.delete_before(8).expect("deletes");
            vfs.power_fails_after(changes);
            let done = log.reset_to(start).is_ok();
            let (log, _) = reopen_after_crash(&vfs, log, changes);
            let bounds = log.bounds();
            let sent = send(&log, IDEMPOTENT.batch(10, 2));
            if bounds.end == 12 {
                assert_eq!(sent, Placement::Duplicate(10), "{start} {changes}");
            } else {
                assert_eq!(sent, Placement::At(bounds.end), "{start} {changes}");
            }
            if done {
                assert_eq!((bounds.start, bounds.end), (start, start));
                break;
            }
        }
    }
}

/// A producer outlives its records (KAFKA-7190), and the log that holds none.
#[test]
fn after_every_record_of_it_was_deleted() {
    for crash in [false, true] {
        let vfs = SimVfs::new();
        let (log, _) = open(&vfs, small(), OpenMode::Recover);
        let places = six(&log);
        log.finish_segment().expect("rolls");
        let end = append(&log, vec![batch(&["of nobody"])]).end_offset;
        log.sync().expect("syncs");
        log.delete_before(end - 1).expect("deletes");
        assert_eq!(log.state.read().slots.len(), 1);
        assert_known(&log, &places);
        let (log, recovery) =
            if crash { reopen_after_crash(&vfs, log, 5) } else { reopen_clean(&vfs, log) };
        assert!(!recovery.producers_rebuilt);
        assert_eq!(values(&log), [(end - 1, "of nobody".to_owned())]);
        assert_known(&log, &places);
        assert_eq!(put(&log, IDEMPOTENT.batch(12, 2)), end);
        assert_sound(&vfs);
    }
}

/// Snapshots of segments that are gone are gone too.
#[test]
fn snapshots_live_as_long_as_their_segments() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    six(&log);
    fill(&log, 20, 1);
    log.sync().expect("syncs");
    let bases = names(&vfs, "log");
    assert_eq!(names(&vfs, "snapshot"), bases[1..]);
    let (log, _) = reopen_clean(&vfs, log);
    let end = log.bounds().end;
    let mut expected = bases[1..].to_vec();
    expected.push(end);
    assert_eq!(names(&vfs, "snapshot"), expected);
    log.truncate_to(bases[3] + 1).expect("truncates");
    assert_eq!(names(&vfs, "snapshot"), bases[1..=3]);
    log.delete_before(bases[2]).expect("deletes");
    assert_eq!(names(&vfs, "snapshot"), bases[2..=3]);
    log.reset_to(end).expect("resets");
    assert_eq!(names(&vfs, "snapshot"), [0; 0]);
}
