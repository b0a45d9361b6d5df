//! What opening makes of what it finds.

use super::*;
use crate::log::segment::log_path;

/// Ten batches in segments of a few, synced and closed.
fn written() -> (SimVfs, Vec<(u64, String)>) {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    fill(&log, 10, 1);
    fill(&log, 10, 2);
    log.sync().expect("syncs");
    let all = values(&log);
    (vfs, all)
}

fn last_base(vfs: &SimVfs) -> u64 {
    *open::segment_bases(vfs, dir()).expect("lists").last().expect("some")
}

fn file_len(vfs: &SimVfs, path: &Path) -> u64 {
    vfs.open(path).expect("is there").len().expect("simulated")
}

#[test]
fn a_torn_tail_is_cut_and_reported() {
    let (vfs, all) = written();
    let path = log_path(dir(), last_base(&vfs));
    let len = file_len(&vfs, &path);
    let file = vfs.open(&path).expect("opens");
    let mut torn = Vec::new();
    file.read_at(0, 50, &mut torn).expect("reads");
    file.write_all_at(len, &[&torn]).expect("writes");
    let (log, recovery) = open(&vfs, small(), OpenMode::Recover);
    assert_eq!(values(&log), all);
    assert_eq!((recovery.segments_scanned, recovery.bytes_scanned), (1, len + 50));
    assert_eq!((recovery.cut_at, recovery.cut_bytes), (Some(20), 50));
    assert!(recovery.reason.expect("says why").contains("truncated"));
    assert_eq!(file_len(&vfs, &path), len);
    // The next start has nothing left to cut.
    drop(log);
    assert_eq!(open(&vfs, small(), OpenMode::Recover).1.cut_at, None);
}

#[test]
fn a_flipped_bit_in_the_tail_is_cut_there() {
    let (vfs, all) = written();
    let base = last_base(&vfs);
    vfs.corrupt(&log_path(dir(), base), 65, 1).expect("within the file");
    let (log, recovery) = open(&vfs, small(), OpenMode::Recover);
    assert_eq!(log.bounds(), Bounds { start: 0, end: base, synced: base });
    assert_eq!(recovery.cut_at, Some(base));
    assert!(recovery.reason.expect("says why").contains("CRC-32C"));
    assert_eq!(values(&log), all[..base as usize]);
}

#[test]
fn a_clean_start_scans_nothing_and_finds_a_dirty_end() {
    let (vfs, all) = written();
    let (log, recovery) = open(&vfs, small(), OpenMode::Clean);
    assert_eq!((values(&log), recovery), (all.clone(), Recovery::default()));
    drop(log);
    // The marker was a lie: half a batch follows. It falls back to recovery.
    let path = log_path(dir(), last_base(&vfs));
    let len = file_len(&vfs, &path);
    vfs.open(&path).expect("opens").write_all_at(len, &[&[0; 30]]).expect("writes");
    let (log, recovery) = open(&vfs, small(), OpenMode::Clean);
    assert_eq!((values(&log), recovery.cut_bytes), (all, 30));
}

type Damage<'a> = &'a dyn Fn(&SimVfs, &Path);

/// However an index is damaged, nothing that is read changes.
#[test]
fn indexes_are_only_believed_if_true() {
    let damages: [Damage<'_>; 5] = [
        &|vfs, path| vfs.remove_file(path).expect("was there"),
        &|vfs, path| drop(vfs.create(path).expect("empties")),
        &|vfs, path| {
            let file = vfs.open(path).expect("was there");
            let len = file.len().expect("simulated");
            file.write_all_at(0, &[&vec![0xff; len as usize]]).expect("writes");
        },
        &|vfs, path| {
            // Positions right, offsets off by one.
            let file = vfs.open(path).expect("was there");
            for entry in 0..file.len().expect("simulated") / 8 {
                vfs.corrupt(path, entry * 8 + 3, 1).expect("within the file");
            }
        },
        &|vfs, path| {
            // Offsets right, positions moved by one.
            let file = vfs.open(path).expect("was there");
            for entry in 0..file.len().expect("simulated") / 8 {
                vfs.corrupt(path, entry * 8 + 7, 1).expect("within the file");
            }
        },
    ];
    for (number, damage) in damages.iter().enumerate() {
        for mode in [OpenMode::Clean, OpenMode::Recover] {
            let (vfs, all) = written();
            for base in open::segment_bases(&vfs, dir()).expect("lists") {
                damage(&vfs, &log_path(dir(), base).with_extension("index"));
            }
            let (log, recovery) = open(&vfs, small(), mode);
            assert_eq!(recovery.cut_at, None);
            for (offset, value) in &all {
                let bytes = log.read(*offset, u64::MAX, 1).expect("reads");
                let record = decode_records(&bytes).next().expect("one").expect("good");
                assert_eq!(record.offset, *offset, "damage {number}");
                assert_eq!(record.value.expect("has one"), value.as_bytes());
            }
        }
    }
}

#[test]
fn epochs_are_found_again() {
    let path = dir().join(EPOCHS_FILE);
    let damages: [&dyn Fn(&SimVfs); 4] = [
        &|vfs| vfs.remove_file(&path).expect("was there"),
        &|vfs| vfs.corrupt(&path, 4, 0x40).expect("within the file"),
        &|vfs| drop(vfs.create(&path).expect("empties")),
        // Well-formed, but lacking the last epoch.
        &|vfs| write_plain_atomically(vfs, &path, b"0\n1\n1 0\n").expect("writes"),
    ];
    for damage in damages {
        for mode in [OpenMode::Clean, OpenMode::Recover] {
            let (vfs, _) = written();
            damage(&vfs);
            let (log, recovery) = open(&vfs, small(), mode);
            assert!(recovery.epochs_rebuilt);
            let start = |epoch| log.epoch_start(LeaderEpoch(epoch));
            assert_eq!((start(1), start(2)), (Some(0), Some(10)));
            drop(log);
            assert!(!open(&vfs, small(), mode).1.epochs_rebuilt, "written again");
        }
    }
}

#[test]
fn a_lost_start_means_the_first_segment() {
    let (vfs, _) = written();
    let (log, _) = open(&vfs, small(), OpenMode::Clean);
    log.delete_before(12).expect("deletes");
    let first = open::segment_bases(&vfs, dir()).expect("lists")[0];
    drop(log);
    vfs.corrupt(&dir().join(START_FILE), 0, 1).expect("within the file");
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    assert_eq!(log.bounds(), Bounds { start: first, end: 20, synced: 20 });
}

/// A disk that lost a synced end of an earlier segment, or all of it: what lies
/// behind may be the only copy. Nothing is cut, and what is missing is named.
#[test]
fn a_hole_between_segments_costs_only_itself() {
    for lost in [Some(10), None] {
        let (vfs, all) = written();
        let bases = open::segment_bases(&vfs, dir()).expect("lists");
        let (hole, last) = (bases[bases.len() - 2], bases[bases.len() - 1]);
        let path = log_path(dir(), hole);
        match lost {
            Some(bytes) => {
                let file = vfs.open(&path).expect("opens");
                file.set_len(file.len().expect("simulated") - bytes).expect("cuts");
            }
            None => vfs.remove_file(&path).expect("removes"),
        }
        // Not even where the epochs must be looked for in what is left.
        vfs.remove_file(&dir().join(EPOCHS_FILE)).expect("removes");
        let (log, recovery) = open(&vfs, small(), OpenMode::Recover);
        assert_eq!((recovery.cut_at, log.bounds().end), (None, 20));
        let damage = recovery.damage.expect("is named");
        assert!(damage.contains(".log"), "{damage}");
        assert!(matches!(log.read(last - 1, 20, 1), Err(LogError::Corrupt { .. })));
        let (first, behind) = (log.read(0, hole, 1), log.read(last, 20, 1));
        for (read, offset) in [(first, 0), (behind, last as usize)] {
            let record = decode_records(&read.expect("reads")).next().expect("one").expect("good");
            assert_eq!(record.value.expect("has one"), all[offset].1.as_bytes());
        }
        fill(&log, 3, 3);
        assert_eq!(log.bounds().end, 23);
        let found = Log::verify(&vfs, dir()).expect("reads");
        assert!(found.damage().count() > 0);
    }
}

/// A segment whose name was never made durable can be seen after a restart of
/// the process; what is then written and synced there must outlive the power.
#[test]
fn names_are_durable_after_recovery() {
    for seed in 0..20 {
        let vfs = SimVfs::new();
        let (log, _) = open(&vfs, small(), OpenMode::Recover);
        fill(&log, 5, 1);
        vfs.fail(rule(Operation::SyncDir, "", Fault::Eio));
        let batches = vec![batch(&["x"])];
        let failed = log.append_as_leader(batches, LeaderEpoch(1), NOW).expect_err("no name");
        assert!(matches!(failed, LogError::Io { .. }));
        drop(log);
        let (log, _) = open(&vfs, small(), OpenMode::Recover);
        assert_eq!(last_base(&vfs), 5);
        fill(&log, 2, 1);
        assert_eq!(log.sync().expect("syncs"), 7);
        drop(log);
        vfs.crash(seed);
        assert_eq!(open(&vfs, small(), OpenMode::Recover).0.bounds().end, 7);
    }
}

/// What was cut stays cut: were it not so, a batch appended in its place, of the
/// same length, would bring back what followed.
#[test]
fn a_cut_is_durable() {
    for seed in 0..40 {
        let vfs = SimVfs::new();
        let config = LogConfig::default();
        let (log, _) = open(&vfs, config, OpenMode::Recover);
        fill(&log, 3, 1);
        log.sync().expect("syncs");
        drop(log);
        let len = file_len(&vfs, &log_path(dir(), 0)) / 3;
        vfs.corrupt(&log_path(dir(), 0), len + 65, 1).expect("within the file");
        let (log, recovery) = open(&vfs, config, OpenMode::Recover);
        assert_eq!(recovery.cut_at, Some(1));
        fill(&log, 1, 1);
        assert_eq!(log.size_bytes(), 2 * len);
        vfs.crash(seed);
        drop(log);
        let (log, _) = open(&vfs, config, OpenMode::Recover);
        assert!(log.bounds().end <= 2, "seed {seed}");
    }
}

#[test]
fn verify_names_what_is_wrong() {
    let (vfs, _) = written();
    let good = Log::verify(&vfs, dir()).expect("reads");
    assert_eq!((good.start, good.end, good.batches, good.records), (0, 20, 20, 20));
    assert_eq!(good.problems, []);
    // In a finished segment, which recovery does not look at.
    vfs.corrupt(&log_path(dir(), 0), 70, 0x80).expect("within the file");
    let bad = Log::verify(&vfs, dir()).expect("reads");
    let first = bad.problems.first().expect("found");
    assert_eq!((&first.path, first.position), (&log_path(dir(), 0), 0));
    assert!(first.reason.contains("CRC-32C"));
    assert!(bad.records < good.records && bad.end == good.end);
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    assert_eq!(log.bounds().end, 20);
}

/// Power lost while a reset begins a new segment: what was torn in the one before
/// was never synced, and is no damage.
#[test]
fn an_interrupted_reset_is_no_damage() {
    for (start, step, seed) in [3, 20]
        .into_iter()
        .flat_map(|start| (0..24).map(move |step| (start, step)))
        .flat_map(|(start, step)| (0..12).map(move |seed| (start, step, seed)))
    {
        let vfs = SimVfs::new();
        let (log, _) = open(&vfs, small(), OpenMode::Recover);
        log.append_as_leader(vec![batch(&["a", "b", "c"])], LeaderEpoch(1), NOW).expect("appends");
        vfs.power_fails_after(step);
        let done = log.reset_to(start).is_ok();
        vfs.crash(seed);
        drop(log);
        let (log, recovery) = open(&vfs, small(), OpenMode::Recover);
        let bounds = (log.bounds().start, log.bounds().end);
        let before = !done && [(0, 0), (0, 3)].contains(&bounds);
        assert!(before || bounds == (start, start), "step {step}, seed {seed}: {bounds:?}");
        assert_eq!(recovery.damage, None, "step {step}, seed {seed}");
        assert_eq!(values(&log).len() as u64, bounds.1 - bounds.0);
    }
}
