//! How far readers of committed transactions may read, and what they skip.

use super::*;
use TxnOutcome::{Abort, Commit};

/// Who and where, without how far it was stable.
fn aborted(log: &Log, from: Offset, upper: Offset) -> Vec<(i64, Offset, Offset)> {
    let found = log.aborted_transactions(from, upper).expect("reads");
    found.iter().map(|it| (it.producer_id, it.first_offset, it.last_offset)).collect()
}

const SECOND: Sender = Sender { id: OTHER, ..TRANSACTIONAL };

/// Three transactions over several segments: of the producer 0..=14, aborted; of
/// the other 16..=18, committed, and 20..=22, aborted.
fn three(log: &Log) {
    assert_eq!(put(log, TRANSACTIONAL.batch(0, 1)), 0);
    fill(log, 12, 1);
    assert_eq!(put(log, TRANSACTIONAL.batch(1, 1)), 13);
    assert_eq!(log.last_stable_offset(14), 0);
    assert_eq!(put(log, TRANSACTIONAL.marker(Abort, 0)), 14);
    fill(log, 1, 1);
    assert_eq!(put(log, SECOND.batch(0, 2)), 16);
    assert_eq!(log.last_stable_offset(18), 16);
    put(log, SECOND.marker(Commit, 0));
    fill(log, 1, 1);
    assert_eq!(put(log, SECOND.batch(2, 2)), 20);
    put(log, SECOND.marker(Abort, 0));
    fill(log, 7, 1);
    assert_eq!(log.bounds().end, 30);
    assert!(log.state.read().slots.len() > 4);
}

fn assert_three(log: &Log) {
    // Stable up to the first record of what has no marker below the high watermark.
    let stable = [(0, 0), (5, 0), (14, 0), (15, 15), (17, 16), (18, 16), (19, 19), (22, 20)];
    for (high_watermark, expected) in stable.into_iter().chain([(23, 23), (30, 30)]) {
        let stable = log.last_stable_offset(high_watermark);
        assert_eq!(stable, expected, "high watermark {high_watermark}");
    }
    let (first, second) = ((PRODUCER, 0, 14), (OTHER, 20, 22));
    assert_eq!(aborted(log, 0, 30), [first, second]);
    assert_eq!(aborted(log, 14, 20), [first]);
    assert_eq!(aborted(log, 15, 21), [second]);
    assert_eq!(aborted(log, 22, 23), [second]);
    assert_eq!(aborted(log, 15, 20), []);
    assert_eq!(aborted(log, 23, 30), []);
    assert!(matches!(log.aborted_transactions(31, 31), Err(LogError::OutOfRange { .. })));
}

#[test]
fn aborted_transactions_are_found_across_segments_and_restarts() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    three(&log);
    assert_three(&log);
    log.sync().expect("syncs");
    let (log, recovery) = reopen_after_crash(&vfs, log, 11);
    assert!(!recovery.producers_rebuilt);
    assert_three(&log);
    let (log, recovery) = reopen_clean(&vfs, log);
    assert_eq!(recovery, Recovery::default());
    assert_three(&log);
    assert_sound(&vfs);
}

/// A transaction whose marker is cut away is open again.
#[test]
fn a_truncation_opens_what_had_ended() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    three(&log);
    log.truncate_to(22).expect("truncates");
    assert_eq!((log.last_stable_offset(22), aborted(&log, 0, 22)), (20, vec![(7, 0, 14)]));
    assert_eq!(put(&log, SECOND.marker(Commit, 1)), 22);
    assert_eq!((log.last_stable_offset(23), aborted(&log, 0, 23)), (23, vec![(7, 0, 14)]));
    log.truncate_to(14).expect("truncates");
    assert_eq!((log.last_stable_offset(14), aborted(&log, 0, 14)), (0, vec![]));
    let (log, _) = reopen_clean(&vfs, log);
    assert_eq!((log.last_stable_offset(14), aborted(&log, 0, 14)), (0, vec![]));
    put(&log, TRANSACTIONAL.marker(Abort, 0));
    assert_eq!(aborted(&log, 0, 15), [(7, 0, 14)]);
    log.truncate_to(0).expect("truncates all");
    assert_eq!((log.last_stable_offset(0), aborted(&log, 0, 0)), (0, vec![]));
    fill(&log, 3, 1);
    assert_eq!((log.last_stable_offset(3), aborted(&log, 0, 3)), (3, vec![]));
    assert_sound(&vfs);
}

/// The first segment goes on being used: what it aborted is forgotten all the same.
#[test]
fn a_reset_forgets_what_was_aborted() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    put(&log, TRANSACTIONAL.batch(0, 1));
    put(&log, TRANSACTIONAL.marker(Abort, 0));
    put(&log, SECOND.batch(0, 1));
    log.reset_to(0).expect("resets");
    assert_eq!((log.last_stable_offset(0), aborted(&log, 0, 0)), (0, vec![]));
    fill(&log, 2, 1);
    put(&log, SECOND.batch(7, 1));
    put(&log, SECOND.marker(Abort, 0));
    assert_eq!((log.last_stable_offset(4), aborted(&log, 0, 4)), (4, vec![(OTHER, 2, 3)]));
    let (log, _) = reopen_clean(&vfs, log);
    assert_eq!((log.last_stable_offset(4), aborted(&log, 0, 4)), (4, vec![(OTHER, 2, 3)]));
}

/// Deleting the first records of an open transaction does not end it, and nobody
/// is sent below the log start.
#[test]
fn a_transaction_outlives_its_first_records() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    put(&log, TRANSACTIONAL.batch(0, 1));
    fill(&log, 12, 1);
    log.sync().expect("syncs");
    log.delete_before(9).expect("deletes");
    assert_eq!(log.last_stable_offset(13), 9);
    let (log, _) = reopen_clean(&vfs, log);
    assert_eq!(log.last_stable_offset(13), 9);
    put(&log, TRANSACTIONAL.marker(Abort, 0));
    assert_eq!((log.last_stable_offset(14), aborted(&log, 9, 14)), (14, vec![(7, 0, 13)]));
}

#[test]
fn markers_are_judged_by_epoch_and_coordinator() {
    let (log, _) = open(&SimVfs::new(), small(), OpenMode::Recover);
    let sender = Sender { epoch: 3, ..TRANSACTIONAL };
    put(&log, sender.batch(0, 1));
    let outside = send(&log, Sender { transactional: false, ..sender }.batch(1, 1));
    let refused = ProducerRefusal::InvalidTransactionState { producer_id: PRODUCER };
    assert_eq!(outside, Placement::Refused(refused));
    let old = send(&log, Sender { epoch: 2, ..sender }.marker(Abort, 5));
    let refused = InvalidProducerEpoch { producer_id: PRODUCER, current: 3, got: 2 };
    assert_eq!(old, Placement::Refused(refused));
    assert_eq!(log.last_stable_offset(1), 0);
    // Of a newer epoch it fences (KIP-890).
    put(&log, Sender { epoch: 4, ..sender }.marker(Abort, 5));
    assert_eq!((log.last_stable_offset(2), aborted(&log, 0, 2)), (2, vec![(7, 0, 1)]));
    let fenced = InvalidProducerEpoch { producer_id: PRODUCER, current: 4, got: 3 };
    assert_eq!(send(&log, sender.batch(1, 1)), Placement::Refused(fenced));
    put(&log, Sender { epoch: 4, ..sender }.batch(0, 1));
    let stale = send(&log, Sender { epoch: 4, ..sender }.marker(Commit, 4));
    let refused =
        ProducerRefusal::StaleCoordinatorEpoch { producer_id: PRODUCER, current: 5, got: 4 };
    assert_eq!(stale, Placement::Refused(refused));
    assert_eq!(log.last_stable_offset(3), 2);
}

/// The list of [`three`] as it is on disk, of all segments.
fn entries(vfs: &SimVfs) -> Vec<(Offset, u64)> {
    let len = |base: &Offset| {
        let path = segment::log_path(dir(), *base).with_extension("txnindex");
        vfs.open_read_only(&path).expect("opens").len().expect("a length") / 34
    };
    names(vfs, "txnindex").iter().map(|base| (*base, len(base))).collect()
}

/// An entry stands in the segment of its marker, in Kafka's form; segments
/// without one have an empty file, so that it is not looked for in vain.
#[test]
fn entries_stand_beside_their_markers() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    three(&log);
    let bases = names(&vfs, "log");
    let entries = entries(&vfs);
    for (base, count) in &entries {
        let next = bases.iter().find(|other| *other > base).copied().unwrap_or(30);
        let markers = [14, 22].iter().filter(|marker| (*base..next).contains(marker)).count();
        assert_eq!(*count, markers as u64, "segment {base}");
    }
    assert_eq!(entries.iter().map(|(_, count)| count).sum::<u64>(), 2);
    let found = log.aborted_transactions(0, 30).expect("reads");
    let stable = |it: &AbortedTxn| it.last_stable_offset;
    assert_eq!(found.iter().map(stable).collect::<Vec<_>>(), [15, 23]);
}

mod faults {
    //! The index of aborted transactions on a bad disk.

    use super::*;

    /// No reader gets past an aborted transaction without knowing of it
    /// (KAFKA-7866), whatever became of its entry.
    fn assert_not_passed(log: &Log) {
        let end = log.bounds().end;
        let stable = log.last_stable_offset(end);
        assert!(stable == 0 || aborted(log, 0, stable).contains(&(PRODUCER, 0, 2)), "{stable}");
    }

    fn open_transaction(vfs: &SimVfs) -> Log {
        let (log, _) = open(vfs, small(), OpenMode::Recover);
        put(&log, TRANSACTIONAL.batch(0, 2));
        log.sync().expect("syncs");
        log
    }

    #[test]
    fn a_failed_write_takes_the_log_offline() {
        for operation in [Operation::Write, Operation::Create] {
            let vfs = SimVfs::new();
            let log = open_transaction(&vfs);
            vfs.fail(rule(operation, ".txnindex", Fault::Eio));
            let marker = vec![TRANSACTIONAL.marker(Abort, 0)];
            let failed = log.append_as_leader(marker, LeaderEpoch(1), NOW);
            assert!(matches!(failed, Err(LogError::Io { .. })), "{failed:?}");
            assert!(log.offline_reason().is_some_and(|reason| reason.contains("txnindex")));
            assert_not_passed(&log);
            drop(log);
            let (log, _) = open(&vfs, small(), OpenMode::Recover);
            assert_not_passed(&log);
            assert_sound(&vfs);
        }
    }

    #[test]
    fn a_full_disk_lets_one_marker_pass_and_then_none_until_it_fits() {
        for crash in [false, true] {
            let vfs = SimVfs::new();
            let log = open_transaction(&vfs);
            let full = rule(Operation::Write, ".txnindex", Fault::ShortWrite(10));
            vfs.fail(FaultRule { times: 2, ..full });
            assert_eq!(put(&log, TRANSACTIONAL.marker(Abort, 0)), 2);
            assert_eq!(aborted(&log, 0, 3), [(PRODUCER, 0, 2)]);
            assert_eq!(put(&log, TRANSACTIONAL.batch(2, 1)), 3);
            let marker = || vec![TRANSACTIONAL.marker(Abort, 0)];
            let refused = log.append_as_leader(marker(), LeaderEpoch(1), NOW);
            assert!(matches!(refused, Err(LogError::DiskFull { .. })), "{refused:?}");
            assert_eq!((log.bounds().end, log.last_stable_offset(4)), (4, 3));
            assert_eq!(append(&log, marker()).placed, [Placement::At(4)]);
            let both = [(PRODUCER, 0, 2), (PRODUCER, 3, 4)];
            assert_eq!(aborted(&log, 0, 5), both);
            log.sync().expect("syncs");
            let (log, _) =
                if crash { reopen_after_crash(&vfs, log, 2) } else { reopen_clean(&vfs, log) };
            assert_eq!(aborted(&log, 0, 5), both);
            assert_sound(&vfs);
        }
    }

    /// Derived data: made again from the markers.
    #[test]
    fn missing_or_garbage_is_made_again() {
        for mode in [OpenMode::Clean, OpenMode::Recover] {
            for harm in ["missing", "odd", "garbage"] {
                let vfs = SimVfs::new();
                let (log, _) = open(&vfs, small(), OpenMode::Recover);
                three(&log);
                log.sync().expect("syncs");
                drop(log);
                for (base, _) in entries(&vfs) {
                    let path = segment::log_path(dir(), base).with_extension("txnindex");
                    match harm {
                        "missing" => vfs.remove_file(&path).expect("removes"),
                        "odd" => vfs.create(&path).expect("creates").set_len(33).expect("cuts"),
                        _ => {
                            let file = vfs.create(&path).expect("creates");
                            file.write_all_at(0, &[&[0xff; 68]]).expect("writes");
                        }
                    }
                }
                vfs.sync_dir(dir()).expect("syncs");
                let (log, _) = open(&vfs, small(), mode);
                assert_three(&log);
                let (log, _) = reopen_clean(&vfs, log);
                assert_three(&log);
            }
        }
    }
}

/// Where nothing but markers comes, nothing is left to be read.
#[test]
fn a_marker_is_no_record_to_be_read() {
    let (log, _) = open(&SimVfs::new(), small(), OpenMode::Recover);
    put(&log, TRANSACTIONAL.batch(0, 2));
    put(&log, TRANSACTIONAL.marker(Commit, 0));
    let find = |from| log.timestamp_from(from, u64::MAX).expect("reads").map(|(at, _)| at);
    assert_eq!([0, 1, 2, 3].map(find), [Some(0), Some(1), None, None]);
    fill(&log, 1, 1);
    assert_eq!(find(2), Some(3));
}
