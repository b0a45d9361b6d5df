//! Disks that fail or fill up while the log is in use.

use super::*;

#[test]
fn a_full_disk_refuses_appends_and_then_takes_them_again() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    fill(&log, 2, 1);
    let before = (log.bounds().end, values(&log));
    for written in [0, 10, 100, 170] {
        vfs.fail(rule(Operation::Write, ".log", Fault::ShortWrite(written)));
        // Two batches, of which the first may have reached the disk whole.
        let batches = vec![batch(&["no"]), batch(&["space"])];
        let error = log.append_as_leader(batches, LeaderEpoch(1), NOW).expect_err("full");
        assert!(matches!(error, LogError::DiskFull { .. }), "{error}");
        assert_eq!((log.bounds().end, values(&log)), before);
        assert_eq!(log.offline_reason(), None);
    }
    // "Nothing was appended" outlives a crash.
    vfs.crash(3);
    drop(log);
    let (log, recovery) = open(&vfs, small(), OpenMode::Recover);
    assert_eq!((log.bounds().end, values(&log), recovery.cut_at), (before.0, before.1, None));
    fill(&log, 5, 1);
    assert_eq!(log.sync().expect("syncs"), 7);
}

#[test]
fn a_full_disk_at_a_new_segment_or_epoch() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    fill(&log, 5, 1);
    let before = values(&log);
    let append = |epoch| log.append_as_leader(vec![batch(&["x"])], LeaderEpoch(epoch), NOW);
    vfs.fail(rule(Operation::Create, ".log", Fault::Enospc));
    assert!(matches!(append(1), Err(LogError::DiskFull { .. })));
    vfs.fail(rule(Operation::Write, "checkpoint.tmp", Fault::Enospc));
    assert!(matches!(append(2), Err(LogError::DiskFull { .. })));
    assert_eq!((values(&log), log.last_epoch()), (before, Some(LeaderEpoch(1))));
    append(2).expect("space again");
    assert_eq!(log.epoch_start(LeaderEpoch(2)), Some(5));
}

#[test]
fn a_failed_write_takes_the_log_offline() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    fill(&log, 3, 1);
    let before = values(&log);
    vfs.fail(rule(Operation::Write, ".log", Fault::Eio));
    let error = log.append_as_leader(vec![batch(&["x"])], LeaderEpoch(1), NOW).expect_err("fails");
    assert!(matches!(error, LogError::Io { operation: "write", .. }), "{error}");
    assert_refuses_all(&log);
    assert_eq!(values(&log), before);
}

/// After a failed fdatasync the next would say `Ok` (the disk forgot its dirty
/// pages): the log must not ask it.
#[test]
fn a_failed_sync_is_final() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    fill(&log, 2, 1);
    log.sync().expect("syncs");
    fill(&log, 2, 1);
    let before = values(&log);
    vfs.fail(rule(Operation::Sync, ".log", Fault::Eio));
    assert!(matches!(log.sync(), Err(LogError::Io { operation: "fdatasync", .. })));
    assert_refuses_all(&log);
    assert_eq!((log.bounds().synced, values(&log)), (2, before.clone()));
    // A new process, the page cache as it was: what was lost is not believed.
    drop(log);
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    assert_eq!(values(&log), before[..2]);
}

fn assert_refuses_all(log: &Log) {
    let changes = [
        log.append_as_leader(vec![batch(&["x"])], LeaderEpoch(9), NOW).map(|_| ()),
        log.sync().map(|_| ()),
        log.start_epoch(LeaderEpoch(9)),
        log.truncate_to(1),
        log.reset_to(1),
        log.delete_before(1),
    ];
    for change in changes {
        assert!(matches!(change, Err(LogError::Offline { .. })), "{change:?}");
    }
}

#[test]
fn a_failed_read_is_only_that() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    fill(&log, 3, 1);
    drop(log); // and what it had in memory
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    vfs.fail(rule(Operation::Read, ".log", Fault::Eio));
    assert!(matches!(log.read(0, 3, 1000), Err(LogError::Io { operation: "read", .. })));
    assert_eq!((log.offline_reason(), values(&log).len()), (None, 3));
}

/// A disk that cannot be read is no reason to cut a log.
#[test]
fn recovery_does_not_cut_what_it_cannot_read() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    fill(&log, 3, 1);
    let before = values(&log);
    drop(log);
    vfs.fail(rule(Operation::Read, ".log", Fault::Eio));
    let error =
        Log::open(&Shared::new(Arc::new(vfs.clone())), dir(), small(), OpenMode::Recover).err();
    assert!(matches!(error, Some(LogError::Io { .. })));
    assert_eq!(values(&open(&vfs, small(), OpenMode::Recover).0), before);
}

/// A log that is being deleted leaves nothing behind: it takes no change, and what it
/// had in memory is not written to files that are gone, or back again.
#[test]
fn a_discarded_log_writes_nothing() {
    let vfs = SimVfs::new();
    for discard in [false, true] {
        let (log, _) = open(&vfs, small(), OpenMode::Recover);
        fill(&log, 3, 1);
        for name in vfs.list(dir()).expect("lists") {
            vfs.remove_file(&dir().join(name)).expect("removes");
        }
        if discard {
            log.discard();
            let change = log.append_as_leader(vec![batch(&["x"])], LeaderEpoch(1), NOW);
            assert!(matches!(change, Err(LogError::Offline { .. })), "{change:?}");
        }
        drop(log);
        let left = vfs.list(dir()).expect("lists");
        assert_eq!(left.is_empty(), discard, "{left:?}");
        for name in left {
            vfs.remove_file(&dir().join(name)).expect("removes");
        }
    }
}
