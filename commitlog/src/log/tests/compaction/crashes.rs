//! Power lost, disks full and failing, in the midst of a compaction.

use super::*;
use crate::vfs::Vfs;

/// A log with something to remove, to merge, and to keep, all synced. A first
/// compaction has left small segments behind.
fn worn() -> (SimVfs, Log) {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, compacted(), OpenMode::Recover);
    for round in 0..4 {
        let value = format!("v{round}");
        put(&log, &[("a", Some(&value)), ("b", Some(&value))]);
        put(&log, &[("c", if round == 2 { None } else { Some(&value) })]);
    }
    finish(&log);
    clean(&log);
    for round in 4..8 {
        let value = format!("v{round}");
        put(&log, &[("a", Some(&value)), (&value, Some(&value))]);
        put(&log, &[("d", Some(&value))]);
    }
    finish(&log);
    put(&log, &[("b", Some("last"))]);
    log.sync().expect("syncs");
    (vfs, log)
}

/// Everything of `older` that nobody has written a later version of.
fn latest(all: &[Found], end: u64) -> Vec<Found> {
    let last = |key: &str| all.iter().rfind(|(at, it, _)| it == key && *at < end).map(|it| it.0);
    all.iter().filter(|(at, key, _)| *at >= end || last(key) == Some(*at)).cloned().collect()
}

/// Whatever was interrupted, what is there is a whole log, a part of what was,
/// with the latest of every key at its place.
fn assert_between(before: &[Found], after: &[Found], what: &str) {
    assert!(after.iter().all(|it| before.contains(it)), "{what}: something new");
    for it in latest(before, u64::MAX) {
        assert!(after.contains(&it), "{what}: {it:?} is gone");
    }
}

fn leftovers(vfs: &SimVfs) -> Vec<String> {
    let mut names = vfs.list(dir()).expect("lists");
    names.retain(|name| name.ends_with(".swap") || name.ends_with(".cleaned"));
    names
}

/// How many changes of the disk a compaction takes.
fn steps() -> u64 {
    let (vfs, log) = worn();
    let before = vfs.changes();
    assert_eq!(clean(&log).end, CompactionEnd::Done);
    vfs.changes() - before
}

#[test]
fn power_lost_at_every_step() {
    let steps = steps();
    assert!(steps > 20, "{steps} steps");
    let (mut old, mut new, mut finished) = (0, 0, 0);
    for step in 0..=steps {
        for seed in 0..4 {
            let (vfs, log) = worn();
            let before = found(&log);
            let bounds = log.bounds();
            vfs.power_fails_after(step);
            let mut cleaner = Cleaner::new(1 << 20);
            let go = &mut |_| ControlFlow::Continue(());
            let done = log.compact(NOW, bounds.end, &mut cleaner, go);
            assert_eq!(done.is_ok(), step == steps);
            vfs.crash(seed);
            drop(log);
            finished += usize::from(leftovers(&vfs).iter().any(|name| name.ends_with(".swap")));
            let what = format!("step {step}, seed {seed}");
            let (log, recovery) = open(&vfs, compacted(), OpenMode::Recover);
            assert_eq!((log.bounds(), recovery.cut_at), (bounds, None), "{what}");
            assert_between(&before, &found(&log), &what);
            assert_sound(&vfs);
            // And it goes on from there.
            let at_once = found(&log);
            old += usize::from(at_once == before);
            clean(&log);
            assert_between(&before, &found(&log), &what);
            assert_eq!(found(&log), latest(&before, 24), "{what}");
            new += usize::from(at_once == found(&log));
            assert_sound(&vfs);
        }
    }
    assert!(old > 0 && new > 0 && finished > 0, "{old} old, {new} new, {finished} finished");
}

/// The process dies between giving the name and syncing it; then power is lost
/// while a start finishes what it found.
#[test]
fn power_lost_while_a_start_finishes_a_swap() {
    let mut tried = 0;
    for step in 0..steps() {
        let (vfs, log) = worn();
        let before = found(&log);
        let bounds = log.bounds();
        vfs.power_fails_after(step);
        let go = &mut |_| ControlFlow::Continue(());
        log.compact(NOW, bounds.end, &mut Cleaner::new(1 << 20), go).expect_err("no power");
        drop(log);
        if !leftovers(&vfs).iter().any(|name| name.ends_with(".swap")) {
            continue;
        }
        for (again, seed) in (0..16).flat_map(|again| (0..3).map(move |seed| (again, seed))) {
            let (vfs, log) = worn();
            vfs.power_fails_after(step);
            let go = &mut |_| ControlFlow::Continue(());
            log.compact(NOW, bounds.end, &mut Cleaner::new(1 << 20), go).expect_err("no power");
            drop(log);
            // The page cache survives the process.
            vfs.power_fails_after(again);
            let shared = Shared::new(Arc::new(vfs.clone()));
            let opened = Log::open(&shared, dir(), compacted(), OpenMode::Recover).is_ok();
            vfs.crash(seed);
            let (log, _) = open(&vfs, compacted(), OpenMode::Recover);
            let what = format!("step {step}, then {again}, seed {seed}");
            assert_eq!(log.bounds(), bounds, "{what}");
            assert_between(&before, &found(&log), &what);
            assert_sound(&vfs);
            tried += usize::from(!opened);
        }
    }
    assert!(tried > 50, "{tried} starts were interrupted");
}

/// A disk that is full, or refuses a read, leaves the log as it was.
#[test]
fn a_full_disk_or_a_failed_read_changes_nothing() {
    let cases = [
        (Operation::Create, ".cleaned", Fault::Enospc),
        (Operation::Write, ".cleaned", Fault::Enospc),
        (Operation::Write, ".cleaned", Fault::ShortWrite(100)),
        (Operation::Read, ".log", Fault::Eio),
        (Operation::Rename, ".swap", Fault::Enospc),
    ];
    for (operation, path, fault) in cases {
        let (vfs, log) = worn();
        let before = found(&log);
        vfs.fail(rule(operation, path, fault));
        let go = &mut |_| ControlFlow::Continue(());
        let failed = log.compact(NOW, u64::MAX, &mut Cleaner::new(1 << 20), go);
        let error = failed.expect_err("a disk that fails");
        match fault {
            Fault::Eio => assert!(matches!(error, LogError::Io { operation: "read", .. })),
            _ => assert!(matches!(error, LogError::DiskFull { .. }), "{error}"),
        }
        assert_eq!((log.offline_reason(), leftovers(&vfs)), (None, Vec::new()));
        assert_eq!(found(&log), before);
        assert!(log.dirty(NOW, u64::MAX).expect("reads").due);
        put(&log, &[("z", Some("1"))]);
        assert_eq!(clean(&log).end, CompactionEnd::Done);
        assert_sound(&vfs);
    }
}

/// A write, sync or rename that fails for another reason takes the log offline,
/// as everywhere; what is on disk is good.
#[test]
fn a_failed_write_takes_the_log_offline() {
    let cases = [
        (Operation::Write, ".cleaned"),
        (Operation::Sync, ".cleaned"),
        (Operation::Rename, ".swap"),
        (Operation::SyncDir, ""),
        (Operation::Remove, ".index"),
        (Operation::Rename, ".log"),
        (Operation::Write, "cleaner-offset-checkpoint.tmp"),
    ];
    for (operation, path) in cases {
        let (vfs, log) = worn();
        let before = found(&log);
        vfs.fail(rule(operation, path, Fault::Eio));
        let go = &mut |_| ControlFlow::Continue(());
        let failed = log.compact(NOW, u64::MAX, &mut Cleaner::new(1 << 20), go);
        assert!(matches!(failed, Err(LogError::Io { .. })), "{operation:?} {path}: {failed:?}");
        assert!(log.offline_reason().is_some(), "{operation:?} {path}");
        assert_between(&before, &found(&log), path);
        drop(log);
        let (log, _) = open(&vfs, compacted(), OpenMode::Recover);
        assert_between(&before, &found(&log), path);
        assert_eq!(leftovers(&vfs), Vec::<String>::new());
        assert_sound(&vfs);
    }
}

/// What is damaged is neither copied nor given a good checksum.
#[test]
fn damage_stops_compaction_and_nothing_else() {
    let (vfs, log) = worn();
    let bases = open::segment_bases(&vfs, dir()).expect("lists");
    vfs.corrupt(&segment::log_path(dir(), bases[1]), 30, 1).expect("within the file");
    let go = &mut |_| ControlFlow::Continue(());
    let failed = log.compact(NOW, u64::MAX, &mut Cleaner::new(1 << 20), go);
    assert!(matches!(failed, Err(LogError::Corrupt { .. })), "{failed:?}");
    assert_eq!((log.offline_reason(), leftovers(&vfs)), (None, Vec::new()));
    // Asked again it would only fail again.
    assert!(!log.dirty(NOW, u64::MAX).expect("reads").due);
    put(&log, &[("z", Some("1"))]);
}

/// Without the checkpoint everything is dirty; one that says too much is not
/// believed.
#[test]
fn the_checkpoint_is_only_a_hint() {
    let (vfs, log) = worn();
    clean(&log);
    let path = dir().join(CLEANER_FILE);
    let clean_to = |vfs: &SimVfs| {
        let (log, _) = open(vfs, compacted(), OpenMode::Recover);
        log.state.read().clean_to
    };
    drop(log);
    assert_eq!(clean_to(&vfs), 24);
    write_atomically(&vfs, &path, b"99").expect("writes");
    assert_eq!((clean_to(&vfs), vfs.open(&path).is_err()), (0, true));
    write_atomically(&vfs, &path, b"12").expect("writes");
    vfs.corrupt(&path, 0, 1).expect("is there");
    assert_eq!(clean_to(&vfs), 0);
}
