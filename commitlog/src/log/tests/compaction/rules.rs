//! Which records stay.

use super::*;

#[test]
fn the_latest_of_every_key_stays_at_its_offset() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, compacted(), OpenMode::Recover);
    for round in 0..10 {
        let value = format!("v{round}");
        put(&log, &[("a", Some(&value)), ("b", Some(&value))]);
        put(&log, &[(&format!("only{round}"), Some("x"))]);
    }
    finish(&log);
    put(&log, &[("a", Some("last"))]);
    let before = found(&log);
    let done = clean(&log);
    assert_eq!((done.end, done.clean_to), (CompactionEnd::Done, 30));
    let after = found(&log);
    // What is being written does not count yet: "a" is there twice.
    let expected: Vec<_> = before
        .iter()
        .filter(|(at, key, _)| key.starts_with("only") || *at >= 27)
        .cloned()
        .collect();
    assert_eq!(after, expected);
    assert_eq!(done.records_removed, 18);
    assert!(done.bytes_after < done.bytes_before);
    assert_sound(&vfs);
    assert_eq!(clean(&log).end, CompactionEnd::Nothing);
    for mode in [OpenMode::Clean, OpenMode::Recover] {
        log.sync().expect("syncs");
        let (again, _) = open(&vfs, compacted(), mode);
        assert_eq!(found(&again), after);
        assert_eq!(again.bounds(), log.bounds());
        assert_eq!(clean(&again).end, CompactionEnd::Nothing);
    }
}

#[test]
fn segments_that_have_become_small_are_brought_together() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, compacted(), OpenMode::Recover);
    for round in 0..40 {
        put(&log, &[("a", Some(&format!("value {round}")))]);
    }
    finish(&log);
    let bases = || open::segment_bases(&vfs, dir()).expect("lists");
    let before = bases().len();
    assert!(before > 10);
    clean(&log);
    // Each keeps its place until the next compaction, which sees how small it is.
    for _ in 0..2 {
        put(&log, &[("b", Some("x"))]);
        finish(&log);
        clean(&log);
    }
    assert_eq!(bases().len(), 3, "{:?}", bases());
    assert_eq!(pairs(&found(&log)), [(39, "a", Some("value 39")), (41, "b", Some("x"))]);
    // One placeholder for a run, not one for every batch.
    let headers = batch_headers(&log.read(0, u64::MAX, 1 << 20).expect("reads")).count();
    assert!(headers < 8, "{headers} batches");
    assert_sound(&vfs);
}

#[test]
fn a_placeholder_does_not_span_leader_epochs() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, compacted(), OpenMode::Recover);
    for epoch in [1, 1, 4, 4, 4] {
        log.append_as_leader(vec![keyed(&[("a", Some("x"))])], LeaderEpoch(epoch), NOW)
            .expect("appends");
    }
    finish(&log);
    for _ in 0..2 {
        clean(&log);
        put_epoch_five(&log);
    }
    let end = |epoch| log.end_of_epoch(LeaderEpoch(epoch)).map(|end| end.end_offset);
    assert_eq!((end(1), end(4)), (Some(2), Some(5)));
    let bytes = log.read(0, u64::MAX, 1 << 20).expect("reads");
    let first = crate::format::check_batch(&bytes).expect("a batch");
    assert!(first.is_placeholder());
    assert_eq!((first.base_offset, first.last_offset(), first.leader_epoch.0), (0, 1, 1));
    assert_sound(&vfs);
    // The epochs can be made again from what is left.
    vfs.remove_file(&dir().join(EPOCHS_FILE)).expect("is there");
    drop(log);
    let (log, recovery) = open(&vfs, compacted(), OpenMode::Recover);
    assert!(recovery.epochs_rebuilt);
    assert_eq!(log.epoch_start(LeaderEpoch(4)), Some(2));
}

fn put_epoch_five(log: &Log) {
    log.append_as_leader(vec![keyed(&[("a", Some("x"))])], LeaderEpoch(5), NOW).expect("appends");
    finish(log);
}

#[test]
fn a_tombstone_stays_for_its_time_and_then_goes() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, compacted(), OpenMode::Recover);
    put(&log, &[("a", Some("1")), ("b", Some("1"))]);
    put(&log, &[("a", None), ("c", Some("1"))]);
    finish(&log);
    clean(&log);
    let kept = [(1, "b", Some("1")), (2, "a", None), (3, "c", Some("1"))];
    assert_eq!(pairs(&found(&log)), kept);
    // Only something new makes compaction look again.
    let again = |now_ms| {
        put(&log, &[("d", Some("1"))]);
        finish(&log);
        clean_at(&log, now_ms);
        found(&log).iter().any(|(at, ..)| *at == 2)
    };
    assert!(again(NOW + DAY - 1));
    assert!(!again(NOW + DAY));
    assert_eq!(pairs(&found(&log))[..2], [kept[0], kept[2]]);
    assert_sound(&vfs);
    // Timestamps survive the horizon that stood in their place.
    let found = log.offset_for_timestamp(NOW, u64::MAX).expect("reads");
    assert_eq!(found, Some((1, NOW)));
}

/// Who looks for what is still to be read finds no record where none is left.
#[test]
fn what_was_taken_away_is_not_found() {
    let (log, _) = open(&SimVfs::new(), compacted(), OpenMode::Recover);
    put(&log, &[("a", Some("1")), ("b", Some("1")), ("a", None)]);
    put(&log, &[("c", Some("1")), ("c", None)]);
    finish(&log);
    let find = |from| log.timestamp_from(from, u64::MAX).expect("reads").map(|(at, _)| at);
    clean(&log);
    assert_eq!([0, 1, 2, 3, 4].map(find), [1, 1, 2, 4, 4].map(Some), "tombstones have their time");
    // Only something new makes compaction look again.
    put(&log, &[("d", Some("1"))]);
    finish(&log);
    clean_at(&log, NOW + DAY);
    assert_eq!(pairs(&found(&log)), [(1, "b", Some("1")), (5, "d", Some("1"))]);
    assert_eq!([0, 1, 2, 4, 5].map(find), [1, 1, 5, 5, 5].map(Some));
    assert_eq!(find(6), None);
    assert_eq!(log.timestamp_from(2, 5).expect("reads"), None, "nothing below the limit");
}

/// A tombstone in a batch that is not wholly clean gets no horizon yet: what it
/// deletes can still be read.
#[test]
fn a_tombstones_time_begins_when_it_is_clean() {
    let (log, _) = open(&SimVfs::new(), compacted(), OpenMode::Recover);
    put(&log, &[("z", Some("1"))]);
    let keys: Vec<String> = (0..20).map(|key| format!("k{key}")).collect();
    let mut all: Vec<Pair<'_>> = keys.iter().map(|key| (&**key, Some("x"))).collect();
    all.push(("z", None));
    put(&log, &all);
    finish(&log);
    let mut cleaner = Cleaner::new(0);
    let mut stamped = || {
        let go = &mut |_| ControlFlow::Continue(());
        let done = log.compact(NOW, u64::MAX, &mut cleaner, go).expect("compacts");
        let bytes = log.read(1, u64::MAX, 1).expect("reads");
        let header = crate::format::check_batch(&bytes).expect("a batch");
        (done.clean_to, header.delete_horizon_ms())
    };
    assert_eq!(stamped(), (14, None));
    assert_eq!(stamped(), (22, Some(NOW + DAY)));
}

/// A tombstone whose time has passed where it was first compacted, on a replica
/// that has not compacted so far: what it deletes is still there.
#[test]
fn a_tombstone_stays_as_long_as_what_it_deletes() {
    let (leader, _) = open(&SimVfs::new(), compacted(), OpenMode::Recover);
    put(&leader, &[("z", Some("1"))]);
    let early = leader.read(0, 1, 1 << 20).expect("reads");
    let keys: Vec<String> = (0..20).map(|key| format!("k{key}")).collect();
    let mut all: Vec<Pair<'_>> = keys.iter().map(|key| (&**key, Some("x"))).collect();
    all.push(("z", None));
    put(&leader, &all);
    finish(&leader);
    clean(&leader);
    let (follower, _) = open(&SimVfs::new(), compacted(), OpenMode::Recover);
    follower.append_as_follower(early).expect("follows");
    let late = leader.read(1, u64::MAX, 1 << 20).expect("reads");
    follower.append_as_follower(late).expect("follows");
    finish(&follower);
    let mut cleaner = Cleaner::new(0);
    let mut about_z = || {
        let go = &mut |_| ControlFlow::Continue(());
        let done = follower.compact(NOW + 2 * DAY, 22, &mut cleaner, go).expect("compacts");
        let offsets = found(&follower).into_iter().filter(|(_, key, _)| key == "z");
        (done.clean_to, offsets.map(|(offset, ..)| offset).collect::<Vec<_>>())
    };
    assert_eq!(about_z(), (14, vec![0, 21]));
    assert_eq!(about_z(), (22, vec![]));
}

#[test]
fn too_many_keys_take_several_goes() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, compacted(), OpenMode::Recover);
    for round in 0..6 {
        let keys: Vec<String> = (0..20).map(|key| format!("k{key}")).collect();
        let value = format!("v{round}");
        let all: Vec<Pair<'_>> = keys.iter().map(|key| (&**key, Some(&*value))).collect();
        put(&log, &all);
    }
    finish(&log);
    // Room for 14 keys at a time.
    let mut cleaner = Cleaner::new(0);
    let mut marks = Vec::new();
    loop {
        let up_to = log.bounds().end;
        let go = &mut |_| ControlFlow::Continue(());
        let done = log.compact(NOW, up_to, &mut cleaner, go).expect("compacts");
        if done.end == CompactionEnd::Nothing {
            break;
        }
        marks.push(done.clean_to);
        assert_sound(&vfs);
    }
    assert_eq!(marks.first(), Some(&14));
    assert!(marks.windows(2).all(|pair| pair[0] < pair[1]) && marks.last() == Some(&120));
    assert!(found(&log).iter().all(|(at, _, value)| *at >= 100 && value.as_deref() == Some("v5")));
    assert_eq!((found(&log).len(), cleaner.most_bytes()), (20, 384));
}

#[test]
fn compressed_batches_keep_their_codec_and_untouched_ones_their_bytes() {
    for compression in [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let vfs = SimVfs::new();
        let config = LogConfig { segment_bytes: 1 << 20, ..compacted() };
        let (log, _) = open(&vfs, config, OpenMode::Recover);
        let options = BatchOptions { compression, ..BatchOptions::default() };
        let long = "all the same ".repeat(40);
        let append = |pairs: &[Pair<'_>]| {
            let batch = keyed_as(pairs, NOW, &options);
            log.append_as_leader(vec![batch], LeaderEpoch(1), NOW).expect("appends");
        };
        append(&[("a", Some(&long)), ("b", Some(&long)), ("c", Some(&long))]);
        append(&[("d", Some(&long))]);
        append(&[("b", Some(&long))]);
        finish(&log);
        let before = log.read(0, u64::MAX, 1 << 20).expect("reads");
        clean(&log);
        let after = log.read(0, u64::MAX, 1 << 20).expect("reads");
        let parts = |bytes: &Bytes| -> Vec<Bytes> {
            batch_headers(bytes).map(|batch| bytes.slice(batch.expect("whole").1)).collect()
        };
        let (before, after) = (parts(&before), parts(&after));
        assert_eq!(before[1..], after[1..], "{compression:?}");
        let header = crate::format::check_batch(&after[0]).expect("a batch");
        let was = crate::format::check_batch(&before[0]).expect("a batch");
        assert_eq!(header.compression(), was.compression());
        assert_eq!((header.base_offset, header.last_offset(), header.record_count), (0, 2, 2));
        assert_eq!(found(&log).iter().map(|it| it.0).collect::<Vec<_>>(), [0, 2, 3, 4]);
    }
}

#[test]
fn lags_and_ratios_say_when() {
    let vfs = SimVfs::new();
    let config = LogConfig {
        min_compaction_lag_ms: DAY as u64,
        max_compaction_lag_ms: Some(3 * DAY as u64),
        ..compacted()
    };
    let (log, _) = open(&vfs, config, OpenMode::Recover);
    let dirty = |now| log.dirty(now, u64::MAX).expect("reads");
    assert_eq!(dirty(NOW), Dirtiness::default());
    for _ in 0..4 {
        put(&log, &[("a", Some("x"))]);
    }
    // Nothing is finished, nothing is old enough; then the oldest has waited too
    // long for what is being written to stay so.
    assert!(!dirty(NOW + 3 * DAY).due);
    assert!(dirty(NOW + 3 * DAY + 1).overdue && dirty(NOW + 3 * DAY + 1).due);
    finish(&log);
    assert_eq!(clean_at(&log, NOW + DAY - 1).end, CompactionEnd::Nothing);
    assert_eq!(dirty(NOW + DAY - 1).dirty_bytes, 0);
    let size = log.size_bytes();
    assert_eq!((dirty(NOW + DAY).dirty_bytes, dirty(NOW + DAY).ratio_permille), (size, 1000));
    assert!(dirty(NOW + DAY).due);
    assert_eq!(clean_at(&log, NOW + DAY).end, CompactionEnd::Done);
    assert_eq!(dirty(NOW + DAY).clean_bytes, log.size_bytes());
    assert!(!dirty(NOW + DAY).due);
    // Above the bound nothing is looked at.
    put(&log, &[("a", Some("y"))]);
    finish(&log);
    assert_eq!(log.dirty(NOW + DAY, 4).expect("reads").dirty_bytes, 0);
    assert!(dirty(NOW + DAY).dirty_bytes > 0);
    // The ratio decides, until the lag does.
    log.configure(LogConfig { min_dirty_permille: 999, ..config });
    assert!(!dirty(NOW + DAY).due && dirty(NOW + 3 * DAY + 1).due);
    // An overdue record in the segment being written is compacted.
    put(&log, &[("a", Some("z"))]);
    assert_eq!(clean_at(&log, NOW + 3 * DAY + 1).clean_to, 6);
    assert_eq!(pairs(&found(&log)), [(5, "a", Some("z"))]);
}

#[test]
fn not_without_the_policy() {
    let config = LogConfig { cleanup: Cleanup { delete: true, compact: false }, ..compacted() };
    let (log, _) = open(&SimVfs::new(), config, OpenMode::Recover);
    put(&log, &[("a", Some("1"))]);
    put(&log, &[("a", Some("2"))]);
    finish(&log);
    assert_eq!(clean(&log), Compacted::default());
    assert_eq!(log.dirty(NOW, u64::MAX).expect("reads"), Dirtiness::default());
    assert_eq!(found(&log).len(), 2);
}

/// A record without a key is no older version of anything. (Kafka drops it.)
#[test]
fn a_record_without_a_key_stays() {
    let (log, _) = open(&SimVfs::new(), compacted(), OpenMode::Recover);
    fill(&log, 3, 1);
    put(&log, &[("a", Some("1"))]);
    put(&log, &[("a", Some("2"))]);
    finish(&log);
    clean(&log);
    assert_eq!(found(&log).iter().map(|it| it.0).collect::<Vec<_>>(), [0, 1, 2, 4]);
}

/// A follower whose log ends within a placeholder of the leader's gets on.
#[test]
fn a_follower_takes_the_rest_of_a_placeholder() {
    let (leader, _) = open(&SimVfs::new(), compacted(), OpenMode::Recover);
    let (follower, _) = open(&SimVfs::new(), compacted(), OpenMode::Recover);
    for _ in 0..3 {
        put(&leader, &[("a", Some("x"))]);
    }
    let early = leader.read(0, 2, 1 << 20).expect("reads");
    for _ in 0..3 {
        put(&leader, &[("a", Some("x"))]);
    }
    finish(&leader);
    for _ in 0..2 {
        clean(&leader);
        put(&leader, &[("b", Some("x"))]);
        finish(&leader);
    }
    follower.append_as_follower(early).expect("follows");
    while follower.bounds().end < leader.bounds().end {
        let from = follower.bounds().end;
        let bytes = leader.read(from, u64::MAX, 1).expect("reads");
        follower.append_as_follower(bytes).expect("follows");
    }
    let seen = found(&follower);
    let all: Vec<Found> = seen.iter().filter(|(at, ..)| *at >= 2).cloned().collect();
    assert_eq!((all, seen.len()), (found(&leader), found(&leader).len() + 2));
    let stray = leader.read(1, u64::MAX, 1).expect("reads");
    let refused = follower.append_as_follower(stray).expect_err("all of it is there");
    assert!(matches!(refused, LogError::NotContiguous { .. }));
}
