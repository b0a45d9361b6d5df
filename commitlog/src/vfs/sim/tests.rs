//! The simulated disk keeps the promises of [`Vfs`], and no others.

use super::*;
use crate::vfs::create_dir_durably;

fn path() -> &'static Path {
    Path::new("/d/f")
}

/// A disk with a durable file that holds "old".
fn disk() -> (SimVfs, Arc<dyn VfsFile>) {
    let vfs = SimVfs::new();
    create_dir_durably(&vfs, Path::new("/d")).expect("simulated");
    let file = vfs.create(path()).expect("creates");
    file.write_all_at(0, &[b"old"]).expect("writes");
    file.sync_data().expect("syncs");
    vfs.sync_dir(Path::new("/d")).expect("syncs");
    (vfs, file)
}

fn contents(vfs: &SimVfs) -> Vec<u8> {
    let mut bytes = Vec::new();
    vfs.open(path()).expect("is there").read_at(0, 100, &mut bytes).expect("reads");
    bytes
}

/// What seeds 0 to 99 make of the same disk.
fn outcomes(make: impl Fn() -> SimVfs) -> std::collections::BTreeSet<Vec<u8>> {
    (0..100)
        .map(|seed| {
            let vfs = make();
            vfs.crash(seed);
            contents(&vfs)
        })
        .collect()
}

#[test]
fn synced_bytes_survive_and_unsynced_may_not() {
    let found = outcomes(|| {
        let (vfs, file) = disk();
        file.write_all_at(3, &[b"er", b"!"]).expect("writes");
        file.write_all_at(6, &[b"?"]).expect("writes");
        assert_eq!(contents(&vfs), b"older!?");
        vfs
    });
    assert!(found.iter().all(|bytes| bytes.starts_with(b"old")));
    // Nothing, all, torn, and out of order with a hole.
    for possible in [&b"old"[..], b"older!?", b"olde", b"old\0\0\0?"] {
        assert!(found.contains(possible), "{possible:?} not in {found:?}");
    }
}

#[test]
fn a_name_needs_a_directory_sync() {
    let there = |synced: bool| {
        (0..100).map(move |seed| {
            let (vfs, _) = disk();
            let file = vfs.create(Path::new("/d/new")).expect("creates");
            file.sync_data().expect("syncs");
            if synced {
                vfs.sync_dir(Path::new("/d")).expect("syncs");
            }
            vfs.crash(seed);
            vfs.open(Path::new("/d/new")).is_ok()
        })
    };
    assert!(there(true).all(|found| found));
    assert!(there(false).any(|found| found) && there(false).any(|found| !found));
}

#[test]
fn a_failed_sync_loses_and_then_lies() {
    let (vfs, file) = disk();
    file.write_all_at(0, &[b"new"]).expect("writes");
    let rule = FaultRule {
        operation: Operation::Sync,
        path_ends_with: String::new(),
        skip: 0,
        times: 1,
        fault: Fault::Eio,
    };
    vfs.fail(rule);
    file.sync_data().expect_err("a media error");
    file.sync_data().expect("says that all is well");
    assert_eq!(contents(&vfs), b"new");
    file.drop_clean_cache().expect("simulated");
    assert_eq!(contents(&vfs), b"old");
}

#[test]
fn handles_do_not_survive_a_crash() {
    let (vfs, file) = disk();
    vfs.crash(1);
    file.write_all_at(0, &[b"new"]).expect_err("from before");
    assert_eq!(contents(&vfs), b"old");
}

#[test]
fn a_short_write_leaves_its_part() {
    let (vfs, file) = disk();
    let rule = FaultRule {
        operation: Operation::Write,
        path_ends_with: "/f".to_owned(),
        skip: 1,
        times: 1,
        fault: Fault::ShortWrite(2),
    };
    vfs.fail(rule);
    file.write_all_at(0, &[b"one"]).expect("the first is let through");
    let error = file.write_all_at(0, &[b"two"]).expect_err("full");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(contents(&vfs), b"twe");
    file.write_all_at(0, &[b"two"]).expect("once only");
}

#[test]
fn a_full_disk_takes_no_bytes_until_it_has_space_again() {
    let (vfs, file) = disk();
    vfs.fill();
    let error = file.write_all_at(3, &[b"er"]).expect_err("full");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    vfs.create(Path::new("/d/new")).map(drop).expect_err("full");
    file.set_len(2).expect("less is no more");
    assert_eq!(contents(&vfs), b"ol");
    vfs.heal();
    file.write_all_at(2, &[b"der"]).expect("there is space");
    assert_eq!(contents(&vfs), b"older");
}

#[test]
fn some_calls_fail_as_the_seed_draws() {
    let failed = |seed| {
        let (vfs, file) = disk();
        vfs.fail_one_in(10, seed);
        let fails = |_| file.read_at(0, 3, &mut Vec::new()).is_err();
        let failed: Vec<bool> = (0..1_000).map(fails).collect();
        vfs.heal();
        file.read_at(0, 3, &mut Vec::new()).expect("healed");
        failed
    };
    assert_eq!(failed(7), failed(7));
    assert_ne!(failed(7), failed(8));
    let count = failed(7).into_iter().filter(|failed| *failed).count();
    assert!((50..200).contains(&count), "{count} of a thousand");
}

#[test]
fn a_process_that_is_gone_writes_no_more_and_loses_nothing() {
    let (vfs, file) = disk();
    file.write_all_at(3, &[b"er"]).expect("writes");
    vfs.close_all();
    file.write_all_at(0, &[b"new"]).expect_err("from before");
    assert_eq!(contents(&vfs), b"older");
}
