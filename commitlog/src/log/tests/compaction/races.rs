//! What happens to the log while a compaction is at work.

use super::*;

fn worn() -> (SimVfs, Log) {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, compacted(), OpenMode::Recover);
    for round in 0..20 {
        put(&log, &[("a", Some(&format!("v{round}"))), (&format!("k{round}"), Some("x"))]);
    }
    finish(&log);
    log.sync().expect("syncs");
    (vfs, log)
}

/// Does `meanwhile` after `batches` batches were looked at.
fn clean_while(log: &Log, batches: usize, meanwhile: impl Fn()) -> CompactionEnd {
    let mut seen = 0;
    let pace = &mut |_| {
        seen += 1;
        if seen == batches {
            meanwhile();
        }
        ControlFlow::Continue(())
    };
    log.compact(NOW, log.bounds().end, &mut Cleaner::new(1 << 20), pace).expect("compacts").end
}

#[test]
fn appends_and_reads_go_on() {
    for at in 1..40 {
        let (vfs, log) = worn();
        let before = found(&log);
        let end = clean_while(&log, at, || {
            put(&log, &[("new", Some("x"))]);
            finish(&log);
            log.sync().expect("syncs");
            assert!(found(&log).len() <= before.len() + 1);
        });
        assert_eq!(end, CompactionEnd::Done);
        let after = found(&log);
        assert_eq!((after.len(), after.last().expect("some").0), (22, 40));
        assert_sound(&vfs);
    }
}

/// A truncation below what is being compacted, and new records in the place of
/// the old: nothing of the old comes back, nothing new is lost.
#[test]
fn a_truncation_overtakes_it() {
    for at in 1..40 {
        let (vfs, log) = worn();
        let end = clean_while(&log, at, || {
            log.truncate_to(11).expect("truncates");
            for _ in 0..15 {
                log.append_as_leader(
                    vec![keyed(&[("n", Some("x")), ("m", Some("y"))])],
                    LeaderEpoch(2),
                    NOW,
                )
                .expect("appends");
            }
        });
        assert_eq!(end, CompactionEnd::Overtaken, "at {at}");
        assert_eq!((log.bounds().end, log.state.read().clean_to), (40, 0));
        let seen = found(&log);
        assert_eq!(seen.iter().filter(|(_, key, _)| key == "n" || key == "m").count(), 30);
        assert!(seen.iter().all(|(offset, key, _)| (*offset < 10) != (key == "n" || key == "m")));
        assert_eq!(seen.iter().filter(|(_, key, _)| key.starts_with('k')).count(), 5);
        assert_sound(&vfs);
        log.sync().expect("syncs");
        finish(&log);
        assert_eq!(clean(&log).end, CompactionEnd::Done);
        let seen = found(&log);
        assert!(pairs(&seen).ends_with(&[(38, "n", Some("x")), (39, "m", Some("y"))]));
        assert!(seen.iter().filter(|(_, key, _)| key == "n" || key == "m").count() == 2);
        assert_sound(&vfs);
    }
}

/// Cut at a batch and grown again to the very size it had: only that it was cut
/// tells that it is another log.
#[test]
fn a_log_that_was_cut_and_has_grown_again_is_another() {
    let same = std::cell::Cell::new(0);
    for at in 1..40 {
        let (vfs, log) = worn();
        let size = log.size_bytes();
        let end = clean_while(&log, at, || {
            log.truncate_to(10).expect("truncates");
            for round in 5..20 {
                put(&log, &[("a", Some(&format!("w{round}"))), (&format!("k{round}"), Some("x"))]);
            }
            finish(&log);
            same.set(same.get() + usize::from(log.size_bytes() == size));
        });
        assert_eq!((end, log.state.read().clean_to), (CompactionEnd::Overtaken, 0), "at {at}");
        let seen = found(&log);
        let values = seen.iter().filter(|(_, key, _)| key == "a").map(|(.., value)| value.clone());
        let new: Vec<_> = (5..20).map(|round| Some(format!("w{round}"))).collect();
        assert!(values.collect::<Vec<_>>().ends_with(&new), "at {at}: {seen:?}");
        assert_sound(&vfs);
    }
    assert!(same.get() > 20, "{} of the same size", same.get());
}

/// Where there was nothing to remove, nothing is replaced: the checkpoint must not
/// say that what was written meanwhile is clean.
#[test]
fn a_log_that_was_cut_is_not_recorded_as_clean() {
    for at in 1..40 {
        let (log, _) = open(&SimVfs::new(), compacted(), OpenMode::Recover);
        for key in 0..20 {
            put(&log, &[(&format!("k{key:02}"), Some("x"))]);
        }
        finish(&log);
        let end = clean_while(&log, at, || {
            log.truncate_to(10).expect("truncates");
            (0..15).for_each(|_| put(&log, &[("new", Some("x"))]));
        });
        assert_eq!((end, log.state.read().clean_to), (CompactionEnd::Overtaken, 0), "at {at}");
    }
}

#[test]
fn a_deletion_and_a_reset_overtake_it() {
    for at in 1..40 {
        let (vfs, log) = worn();
        clean_while(&log, at, || log.delete_before(21).expect("deletes"));
        assert_eq!(log.bounds().start, 21);
        clean(&log);
        assert_eq!(found(&log).iter().filter(|(_, key, _)| key.starts_with('k')).count(), 10);
        assert_sound(&vfs);
        let (vfs, log) = worn();
        let end = clean_while(&log, at, || log.reset_to(100).expect("resets"));
        assert_eq!((end, log.bounds().end), (CompactionEnd::Overtaken, 100));
        assert_sound(&vfs);
    }
}

#[test]
fn it_stops_when_it_is_told_to() {
    for at in 1..40 {
        let (vfs, log) = worn();
        let before = found(&log);
        let mut left = at;
        let pace = &mut |_| {
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let done = log.compact(NOW, 40, &mut Cleaner::new(1 << 20), pace).expect("no error");
        assert_eq!((done.end, done.clean_to), (CompactionEnd::Cancelled, 0));
        assert!(found(&log).iter().all(|it| before.contains(it)));
        clean(&log);
        assert_eq!(found(&log).len(), 21);
        assert_sound(&vfs);
    }
}

/// Records truncated away below the checkpoint must not count as compacted,
/// whatever a crash makes of it.
#[test]
fn a_truncation_below_what_is_clean_makes_it_dirty() {
    for step in 0..12 {
        for seed in 0..6 {
            let (vfs, log) = worn();
            clean(&log);
            vfs.power_fails_after(step);
            let done = log.truncate_to(15).is_ok();
            vfs.crash(seed);
            drop(log);
            let (log, _) = open(&vfs, compacted(), OpenMode::Recover);
            let state = (log.bounds().end, log.state.read().clean_to);
            assert!(state.1 == 0 || (state == (40, 40) && !done), "{state:?}");
        }
    }
}

/// The same without a crash: what is written behind the cut is not clean.
#[test]
fn what_follows_a_truncation_is_dirty() {
    let (vfs, log) = worn();
    clean(&log);
    log.truncate_to(15).expect("truncates");
    for _ in 0..20 {
        put(&log, &[("n", Some("x")), ("m", Some("y"))]);
    }
    finish(&log);
    log.sync().expect("syncs");
    let clean_to = |log: &Log| log.state.read().clean_to;
    assert_eq!(clean_to(&log), 0);
    let (again, _) = open(&vfs, compacted(), OpenMode::Recover);
    assert_eq!((clean_to(&again), again.bounds().end > 40), (0, true));
}

/// A reader that holds a segment of before the swap goes on in it.
#[test]
fn readers_keep_what_they_began_with() {
    let (_, log) = worn();
    let slots = log.state.read().slots.clone();
    let before: Vec<Bytes> = slots.iter().map(whole).collect();
    clean(&log);
    for (slot, before) in slots.iter().zip(before) {
        assert_eq!(whole(slot), before);
        let base = slot.segment.base;
        for offset in base..base + 6 {
            let at = slot.segment.locate(log.vfs(), offset, slot.size, 60).expect("reads");
            if let Some((header, _)) = at {
                assert!(header.base_offset <= offset && header.record_count == 2);
            }
        }
    }
    // Nor did that spoil the indexes of the new ones.
    for offset in 0..40 {
        let bytes = log.read(offset, u64::MAX, 1).expect("reads");
        let header = crate::format::check_batch(&bytes).expect("a batch");
        assert!((header.base_offset..=header.last_offset()).contains(&offset));
    }
}

fn whole(slot: &Slot) -> Bytes {
    let mut bytes = Vec::new();
    slot.segment.file.read_at(0, slot.size as usize, &mut bytes).expect("reads");
    bytes.into()
}
