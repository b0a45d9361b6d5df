//! The index files of segments that were written anew.

use super::producers::{end, of};
use super::*;
use crate::format::TxnOutcome;
use crate::vfs::Vfs;
use std::collections::BTreeMap;

/// Several entries in every index of a segment.
fn config() -> LogConfig {
    LogConfig { segment_bytes: 1400, index_interval_bytes: 0, ..compacted() }
}

/// Segments with something to remove, ascending timestamps and aborted
/// transactions, all synced.
fn worn() -> (SimVfs, Log) {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, config(), OpenMode::Recover);
    for round in 0..8 {
        let time = NOW + i64::from(round);
        let append = |batch| {
            log.append_as_leader(vec![batch], LeaderEpoch(1), NOW).expect("appends");
        };
        let key = format!("k{round}");
        append(keyed_as(&[("a", Some("x")), (&key, Some("x"))], time, &BatchOptions::default()));
        append(keyed_as(&[("a", Some("y"))], time, &of(7, round, true)));
        end(&log, 7, TxnOutcome::Abort);
    }
    finish(&log);
    log.sync().expect("syncs");
    (vfs, log)
}

type Files = BTreeMap<String, Vec<u8>>;

fn files(vfs: &SimVfs) -> Files {
    let contents = |name: &String| {
        let file = vfs.open(&dir().join(name)).expect("is there");
        let mut bytes = Vec::new();
        file.read_at(0, 1 << 20, &mut bytes).expect("reads");
        bytes
    };
    let names = vfs.list(dir()).expect("lists");
    names.into_iter().map(|name| (name.clone(), contents(&name))).collect()
}

/// For every finished segment: its batches, and what its indexes are for those.
fn indexes(files: &Files) -> BTreeMap<&[u8], [Option<&Vec<u8>>; 3]> {
    let bases: Vec<&str> = files.keys().filter_map(|name| name.strip_suffix(".log")).collect();
    let of = |base: &str| {
        let beside = |extension| files.get(&format!("{base}.{extension}"));
        let batches = &files[&format!("{base}.log")][..];
        (batches, ["index", "timeindex", "txnindex"].map(beside))
    };
    bases[..bases.len() - 1].iter().map(|base| of(base)).collect()
}

/// As soon as a segment has its name again, it has its indexes: nobody looks
/// whether one ends early.
#[test]
fn power_lost_at_every_step_leaves_them_whole() {
    let (vfs, log) = worn();
    let old = files(&vfs);
    let before = vfs.changes();
    assert_eq!(clean(&log).end, CompactionEnd::Done);
    let steps = vfs.changes() - before;
    let new = files(&vfs);
    let mut known = indexes(&old);
    known.extend(indexes(&new));
    assert!(known.len() == 4 && known.values().flatten().all(Option::is_some));
    let mut looked_at = 0;
    for (step, seed) in (0..=steps).flat_map(|step| (0..6).map(move |seed| (step, seed))) {
        let (vfs, log) = worn();
        vfs.power_fails_after(step);
        let go = &mut |_| ControlFlow::Continue(());
        let _ = log.compact(NOW, log.bounds().end, &mut Cleaner::new(1 << 20), go);
        drop(log);
        vfs.crash(seed);
        let there = files(&vfs);
        if there.keys().any(|name| name.ends_with(".swap")) {
            continue; // a start removes them
        }
        looked_at += 1;
        for (batches, found) in indexes(&there) {
            assert_eq!(Some(&found), known.get(batches), "step {step}, seed {seed}");
        }
    }
    assert!(looked_at > 50, "{looked_at}");
}

/// Whoever still reads segments of before finds what was in them, and leaves the
/// files alone: their names are others' now.
#[test]
fn readers_of_old_segments_do_not_write() {
    for looked_before in [true, false] {
        let (vfs, log) = worn();
        drop(log);
        let (log, _) = open(&vfs, config(), OpenMode::Clean);
        let bounds = log.bounds();
        let slots = log.state.read().slots.clone();
        let aborted = || log.find_aborted(&slots, 0, 0, bounds.end).expect("reads");
        let known: Vec<_> = (0..8).map(|round| 4 * round + 3).collect();
        let markers = || aborted().iter().map(|it| it.last_offset).collect::<Vec<_>>();
        if looked_before {
            assert_eq!(markers(), known);
        }
        // Later small segments are brought together, and most markers go.
        for now_ms in [NOW, NOW + DAY] {
            clean_at(&log, now_ms);
            put(&log, &[("b", Some("x"))]);
            finish(&log);
        }
        let after = files(&vfs);
        assert_eq!(markers(), known);
        for slot in &slots[..slots.len() - 1] {
            let (segment, interval) = (&slot.segment, config().index_interval_bytes);
            for offset in segment.base..segment.base + 16 {
                segment.locate(log.vfs(), offset, slot.size, interval).expect("reads");
            }
            let newest = segment.largest_timestamp(log.vfs(), slot.size, interval);
            assert!(newest.expect("reads") >= Some(NOW));
        }
        assert_eq!(files(&vfs), after);
        assert_sound(&vfs);
    }
}
