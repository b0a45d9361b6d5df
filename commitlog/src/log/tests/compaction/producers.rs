//! Idempotent producers and transactions.

use super::*;
use crate::format::{EndTxnMarker, ProducerSequence, TxnOutcome, encode_marker};
use crate::vfs::Vfs;
use crate::{AbortedTxn, Placement};

pub(super) fn of(producer: i64, sequence: i32, transactional: bool) -> BatchOptions {
    let producer = Some(ProducerSequence { id: producer, epoch: 0, base_sequence: sequence });
    BatchOptions { producer, transactional, ..BatchOptions::default() }
}

fn send(log: &Log, pairs: &[Pair<'_>], options: &BatchOptions) -> Placement {
    let batch = keyed_as(pairs, NOW, options);
    log.append_as_leader(vec![batch], LeaderEpoch(1), NOW).expect("appends").placed[0]
}

pub(super) fn end(log: &Log, producer: i64, kind: TxnOutcome) {
    let marker = encode_marker(&EndTxnMarker { kind, coordinator_epoch: 0 }, producer, 0, NOW);
    let marker = ValidBatch::marker(marker).expect("a marker");
    log.append_as_leader(vec![marker], LeaderEpoch(1), NOW).expect("appends");
}

/// Ends the segment with a new key, so that there is something to look at.
fn go(log: &Log, now_ms: i64) {
    put(log, &[(&format!("at {}", log.bounds().end), Some("x"))]);
    finish(log);
    assert_eq!(clean_at(log, now_ms).end, CompactionEnd::Done);
}

/// Offsets of markers, and of records of data.
fn split(log: &Log) -> (Vec<u64>, Vec<u64>) {
    let bytes = log.read(0, u64::MAX, 1 << 20).expect("reads");
    let (mut markers, mut data) = (Vec::new(), Vec::new());
    for batch in batch_headers(&bytes) {
        let (header, range) = batch.expect("whole");
        let into = if header.is_control() { &mut markers } else { &mut data };
        into.extend(decode_records(&bytes.slice(range)).map(|it| it.expect("good").offset));
    }
    (markers, data)
}

fn roomy() -> LogConfig {
    LogConfig { segment_bytes: 1 << 20, ..compacted() }
}

#[test]
fn what_was_aborted_goes_and_is_no_version_of_a_key() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, roomy(), OpenMode::Recover);
    put(&log, &[("a", Some("committed"))]);
    send(&log, &[("a", Some("aborted")), ("b", Some("aborted"))], &of(7, 0, true));
    end(&log, 7, TxnOutcome::Abort);
    go(&log, NOW);
    assert_eq!(split(&log), (vec![3], vec![0, 4]));
    let aborted = |log: &Log| log.aborted_transactions(0, log.bounds().end).expect("reads");
    let known = |all: Vec<AbortedTxn>| all.iter().map(|it| it.last_offset).collect::<Vec<_>>();
    assert_eq!(known(aborted(&log)), [3]);
    assert_sound(&vfs);
    // A marker that its producer has left behind goes after its time; and only
    // then is the transaction forgotten.
    send(&log, &[("c", Some("1"))], &of(7, 2, true));
    end(&log, 7, TxnOutcome::Commit);
    go(&log, NOW);
    assert_eq!((split(&log).0, known(aborted(&log))), (vec![3, 6], vec![3]));
    go(&log, NOW + DAY);
    assert_eq!((split(&log).0, known(aborted(&log))), (vec![6], vec![]));
    assert_sound(&vfs);
    drop(log);
    let (log, _) = open(&vfs, roomy(), OpenMode::Recover);
    assert_eq!(known(aborted(&log)), Vec::<u64>::new());
}

#[test]
fn a_marker_outlives_its_data() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, roomy(), OpenMode::Recover);
    send(&log, &[("a", Some("1"))], &of(7, 0, true));
    end(&log, 7, TxnOutcome::Commit);
    send(&log, &[("b", Some("1"))], &of(7, 1, true));
    end(&log, 7, TxnOutcome::Commit);
    go(&log, NOW);
    go(&log, NOW + 9 * DAY);
    assert_eq!(split(&log).0, [1, 3]);
    // Without data it has its time from now on.
    put(&log, &[("a", Some("2"))]);
    go(&log, NOW + 9 * DAY);
    go(&log, NOW + 10 * DAY - 1);
    assert_eq!(split(&log).0, [1, 3]);
    go(&log, NOW + 10 * DAY);
    assert_eq!(split(&log).0, [3]);
    assert_sound(&vfs);
}

#[test]
fn an_open_transaction_is_left_alone() {
    let (log, _) = open(&SimVfs::new(), roomy(), OpenMode::Recover);
    put(&log, &[("a", Some("1"))]);
    send(&log, &[("a", Some("2"))], &of(7, 0, true));
    put(&log, &[("a", Some("3"))]);
    finish(&log);
    assert_eq!(log.dirty(NOW, u64::MAX).expect("reads").dirty_bytes, 0);
    assert_eq!(clean(&log).end, CompactionEnd::Nothing);
    end(&log, 7, TxnOutcome::Commit);
    assert_eq!(clean(&log).end, CompactionEnd::Done);
    assert_eq!(split(&log).1, [2]);
}

/// A producer's last batch leaves its sequence behind: its state can be made
/// again from the log alone.
#[test]
fn a_producer_is_still_known_when_its_records_are_gone() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, roomy(), OpenMode::Recover);
    for sequence in 0..3 {
        send(&log, &[("a", Some("x"))], &of(7, sequence, false));
    }
    put(&log, &[("a", Some("last"))]);
    go(&log, NOW);
    assert_eq!(split(&log).1, [3, 4]);
    log.sync().expect("syncs");
    drop(log);
    for name in vfs.list(dir()).expect("lists").iter().filter(|name| name.ends_with(".snapshot")) {
        vfs.remove_file(&dir().join(name)).expect("is there");
    }
    let (log, _) = open(&vfs, roomy(), OpenMode::Recover);
    let again = send(&log, &[("a", Some("x"))], &of(7, 2, false));
    assert_eq!(again, Placement::Duplicate(2));
    assert!(matches!(send(&log, &[("a", Some("x"))], &of(7, 9, false)), Placement::Refused(_)));
    assert!(matches!(send(&log, &[("a", Some("x"))], &of(7, 3, false)), Placement::At(_)));
    // It has gone on: what stood for it becomes part of a plain placeholder.
    finish(&log);
    go(&log, NOW);
    let bytes = log.read(0, u64::MAX, 1).expect("reads");
    let first = crate::format::check_batch(&bytes).expect("a batch");
    assert!(first.is_placeholder() && first.producer().is_none() && first.last_offset() >= 2);
}
