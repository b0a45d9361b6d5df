//! Snapshots that are missing, damaged or of another log.

use super::*;
use crate::log::snapshots::snapshot_path;

/// Twelve batches in several segments, closed clean; where they are.
fn twelve(vfs: &SimVfs) -> Vec<Offset> {
    let (log, _) = open(vfs, small(), OpenMode::Recover);
    let places = (0..12).map(|n| put(&log, IDEMPOTENT.batch(n * 2, 2))).collect();
    log.sync().expect("syncs");
    places
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Missing,
    Empty,
    Half,
    Bit,
}

fn harm(vfs: &SimVfs, at: Offset, harm: Harm) {
    let path = snapshot_path(dir(), at);
    let file = vfs.open(&path).expect("opens");
    let len = file.len().expect("a length");
    match harm {
        Harm::Missing => vfs.remove_file(&path).expect("removes"),
        Harm::Empty => file.set_len(0).expect("cuts"),
        Harm::Half => file.set_len(len / 2).expect("cuts"),
        Harm::Bit => vfs.corrupt(&path, len / 2, 4).expect("flips"),
    }
    file.sync_data().expect("syncs");
    vfs.sync_dir(dir()).expect("syncs");
}

const HARMS: [Harm; 4] = [Harm::Missing, Harm::Empty, Harm::Half, Harm::Bit];

/// The newest, or several, or all: what is left and the headers make up for it,
/// `Recovery` says so, and the start after that has nothing to make up for.
#[test]
fn what_is_missing_or_damaged_is_made_again() {
    for mode in [OpenMode::Clean, OpenMode::Recover] {
        for what in HARMS {
            for count in 1.. {
                let vfs = SimVfs::new();
                let places = twelve(&vfs);
                let mut snapshots = names(&vfs, "snapshot");
                if mode == OpenMode::Recover {
                    snapshots.pop(); // that of the clean stop: nobody looks
                }
                if count > snapshots.len() {
                    break;
                }
                for at in snapshots.iter().rev().take(count) {
                    harm(&vfs, *at, what);
                }
                let (log, recovery) = open(&vfs, small(), mode);
                // The one at the end may be missing: the headers behind the last
                // segment's are few.
                let noticed = what != Harm::Missing || mode == OpenMode::Recover || count > 1;
                assert_eq!(recovery.producers_rebuilt, noticed, "{mode:?} {what:?} {count}");
                assert_known(&log, &places);
                drop(log);
                let (log, recovery) = open(&vfs, small(), mode);
                assert!(!recovery.producers_rebuilt, "{mode:?} {what:?} {count}");
                assert_known(&log, &places);
            }
        }
    }
}

/// Another log's snapshot of the same offset, with a good CRC. After a clean stop
/// the one at the end is what the log left there itself. After any other it may
/// be of before: it is not looked at, and removed.
#[test]
fn a_snapshot_at_the_end_counts_only_after_a_clean_stop() {
    let other = SimVfs::new();
    let (log, _) = open(&other, small(), OpenMode::Recover);
    for n in 0..12 {
        put(&log, Sender { id: OTHER, ..IDEMPOTENT }.batch(n * 2, 2));
    }
    log.sync().expect("syncs");
    drop(log);
    let path = snapshot_path(dir(), 24);
    let mut bytes = Vec::new();
    let file = other.open_read_only(&path).expect("opens");
    file.read_at(0, file.len().expect("a length") as usize, &mut bytes).expect("reads");

    for mode in [OpenMode::Clean, OpenMode::Recover] {
        let vfs = SimVfs::new();
        let places = twelve(&vfs);
        vfs.create(&path).expect("creates").write_all_at(0, &[&bytes]).expect("writes");
        let (log, _) = open(&vfs, small(), mode);
        let of_other = send(&log, Sender { id: OTHER, ..IDEMPOTENT }.batch(22, 2));
        if mode == OpenMode::Clean {
            assert_eq!(of_other, Placement::Duplicate(22));
        } else {
            assert_eq!(of_other, Placement::At(24));
            assert_eq!(names(&vfs, "snapshot").last(), names(&vfs, "log").last());
            log.truncate_to(24).expect("truncates");
            assert_known(&log, &places);
        }
    }
}

/// A snapshot of below the first segment knows nothing of what was between.
#[test]
fn an_older_snapshot_than_the_log_is_not_used() {
    let vfs = SimVfs::new();
    let places = twelve(&vfs);
    let (log, _) = open(&vfs, small(), OpenMode::Clean);
    let snapshots = names(&vfs, "snapshot");
    let (old, last) = (snapshots[0], log.state.read().active().segment.base);
    let path = snapshot_path(dir(), old);
    let mut bytes = Vec::new();
    let file = vfs.open_read_only(&path).expect("opens");
    file.read_at(0, file.len().expect("a length") as usize, &mut bytes).expect("reads");
    log.delete_before(last).expect("deletes");
    drop(log);
    // As a crash may leave it: removed names come back. And all others are bad.
    vfs.create(&path).expect("creates").write_all_at(0, &[&bytes]).expect("writes");
    for at in names(&vfs, "snapshot").into_iter().filter(|at| *at != old) {
        harm(&vfs, at, Harm::Bit);
    }
    let (log, recovery) = open(&vfs, small(), OpenMode::Recover);
    assert!(recovery.producers_rebuilt);
    assert!(!names(&vfs, "snapshot").contains(&old));
    // What the records that are left say, and no more.
    let mut left = places.iter().filter(|place| **place >= last);
    let first = *left.next().expect("a batch is left");
    assert_eq!(send(&log, IDEMPOTENT.batch(first as i32, 2)), Placement::Duplicate(first));
    for gone in [first - 2, old - 2] {
        let gone = gone as i32;
        assert_eq!(send(&log, IDEMPOTENT.batch(gone, 2)), out_of_order(24, gone));
    }
}

/// A disk that takes no snapshot costs a walk at the next start, nothing else.
#[test]
fn a_snapshot_that_cannot_be_written_stops_nothing() {
    for fault in [Fault::Eio, Fault::Enospc, Fault::ShortWrite(9)] {
        let vfs = SimVfs::new();
        let (log, _) = open(&vfs, small(), OpenMode::Recover);
        vfs.fail(FaultRule { times: 100, ..rule(Operation::Write, ".snapshot", fault) });
        let places = six(&log);
        assert_eq!(log.offline_reason(), None);
        log.sync().expect("syncs");
        drop(log);
        vfs.heal();
        let (log, recovery) = open(&vfs, small(), OpenMode::Clean);
        assert!(recovery.producers_rebuilt);
        assert_known(&log, &places);
    }
}

/// A log without producers pays nothing for them: a clean start reads no segment
/// but the last, and one that was never written to leaves no file.
#[test]
fn a_plain_log_is_not_walked() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    let (log, _) = reopen_clean(&vfs, log);
    assert_eq!(names(&vfs, "snapshot"), [0; 0]);
    fill(&log, 30, 1);
    log.sync().expect("syncs");
    drop(log);
    let bases = names(&vfs, "log");
    for base in &bases[..bases.len() - 1] {
        let path = format!("{base:020}.log");
        vfs.fail(FaultRule { times: 100, ..rule(Operation::Read, &path, Fault::Eio) });
    }
    let (_, recovery) = open(&vfs, small(), OpenMode::Clean);
    assert_eq!(recovery, Recovery::default());
    assert_eq!(names(&vfs, "txnindex"), [0; 0]);
}

/// Whoever vouches for a clean stop cannot know who else still holds the log: all
/// files are whole once it is closed, nothing changes them afterwards, and readers
/// are served to the end.
#[test]
fn a_closed_log_is_whole_before_it_is_dropped() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    let places = six(&log);
    log.close().expect("closes");
    assert_eq!(names(&vfs, "snapshot").last(), Some(&log.bounds().end));
    let found = crate::inspect::verify(&vfs, dir(), crate::inspect::Owner::Clean).expect("reads");
    assert_eq!(found.problems, []);
    let changes = vfs.changes();
    let refused = log.append_as_leader(vec![batch(&["late"])], LeaderEpoch(9), NOW);
    assert!(matches!(refused, Err(LogError::Offline { reason }) if reason == "it is closed"));
    assert!(!log.read(0, u64::MAX, 1).expect("reads").is_empty());
    drop(log);
    assert_eq!(vfs.changes(), changes);
    let (log, recovery) = open(&vfs, small(), OpenMode::Clean);
    assert_eq!(recovery, Recovery::default());
    assert_known(&log, &places);
}
