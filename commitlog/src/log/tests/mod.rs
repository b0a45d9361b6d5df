//! Behaviour of the log, one story at a time.

mod compaction;
mod concurrency;
mod damage;
mod every_fault;
mod faults;
mod figures;
mod hot;
mod producers;
mod recovery;
mod retention;
mod rolls;
mod times;

use super::*;
use crate::format::{
    BatchOptions, FormatError, NewRecord, Record, ValidBatch, decode_records, encode_batch,
};
use crate::vfs::{Fault, FaultRule, Operation, RealVfs, SimVfs, Vfs, create_dir_durably};
use bytes::{Bytes, BytesMut};

const DIR: &str = "/data/log";

/// When everything here happens, as far as the log is told.
const NOW: i64 = 1_000_000;

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn batch(values: &[&str]) -> ValidBatch {
    let records: Vec<NewRecord> = values
        .iter()
        .zip(1..)
        .map(|(value, timestamp_ms)| NewRecord {
            value: Some(Bytes::from(value.to_string())),
            timestamp_ms: timestamp_ms * 10,
            ..NewRecord::default()
        })
        .collect();
    ValidBatch::new(encode_batch(&records, &BatchOptions::default()).expect("encodes"), 1 << 20)
        .expect("valid")
}

fn open(vfs: &SimVfs, config: LogConfig, mode: OpenMode) -> (Log, Recovery) {
    Log::open(&Shared::new(Arc::new(vfs.clone())), dir(), config, mode).expect("opens")
}

/// Small segments and an entry for nearly every batch.
fn small() -> LogConfig {
    LogConfig { segment_bytes: 400, index_interval_bytes: 60, ..LogConfig::default() }
}

fn values(log: &Log) -> Vec<(u64, String)> {
    let bounds = log.bounds();
    let mut next = bounds.start;
    let mut all = Vec::new();
    while next < bounds.end {
        let bytes = log.read(next, u64::MAX, 1).expect("reads");
        let records: Vec<Record> =
            decode_records(&bytes).collect::<Result<_, _>>().expect("good batches");
        let last = records.last().expect("at least one batch").offset;
        assert!(last >= next);
        all.extend(records.into_iter().filter(|record| record.offset >= next).map(|record| {
            let value = record.value.expect("has a value");
            (record.offset, String::from_utf8(value.to_vec()).expect("text"))
        }));
        next = last + 1;
    }
    all
}

fn fill(log: &Log, count: usize, epoch: u32) {
    for index in 0..count {
        let value = format!("e{epoch}-{index}");
        log.append_as_leader(vec![batch(&[&value])], LeaderEpoch(epoch), NOW).expect("appends");
    }
}

fn rule(operation: Operation, path: &str, fault: Fault) -> FaultRule {
    FaultRule { operation, path_ends_with: path.to_owned(), skip: 0, times: 1, fault }
}

#[test]
fn real_files_named_as_kafkas() {
    let temp = tempfile::tempdir().expect("a directory");
    let path = temp.path().join("orders-0");
    let open =
        |mode| Log::open(&Shared::new(Arc::new(RealVfs)), &path, small(), mode).expect("opens").0;
    let log = open(OpenMode::Recover);
    let appended = log
        .append_as_leader(vec![batch(&["a", "b"]), batch(&["c"])], LeaderEpoch(1), NOW)
        .expect("ok");
    assert_eq!((appended.first_offset, appended.end_offset), (0, 3));
    assert_eq!(appended.placed, [Placement::At(0), Placement::At(2)]);
    fill(&log, 10, 2);
    assert_eq!(log.sync().expect("syncs"), 13);
    let before = values(&log);
    drop(log);
    let mut names = RealVfs.list(&path).expect("lists");
    names.sort();
    assert_eq!(&names[..2], ["00000000000000000000.index", "00000000000000000000.log"]);
    assert!(names.iter().any(|name| name == EPOCHS_FILE));
    for mode in [OpenMode::Clean, OpenMode::Recover] {
        let log = open(mode);
        assert_eq!(values(&log), before);
        assert_eq!(log.bounds(), Bounds { start: 0, end: 13, synced: 13 });
        assert_eq!(log.last_epoch(), Some(LeaderEpoch(2)));
    }
    assert_eq!(Log::verify(&RealVfs, &path).expect("reads").problems, []);
}

#[test]
fn appends_that_do_not_fit_change_nothing() {
    let (log, _) = open(&SimVfs::new(), small(), OpenMode::Recover);
    fill(&log, 3, 5);
    let before = (log.bounds(), values(&log));
    let stamped = |base: u64, epoch: u32| {
        let mut batch = batch(&["x"]);
        batch.stamp(base, LeaderEpoch(epoch));
        BytesMut::from(batch.as_bytes())
    };
    let follow = |bytes: BytesMut| log.append_as_follower(bytes.freeze()).expect_err("refused");
    assert!(matches!(follow(stamped(4, 5)), LogError::NotContiguous { expected: 3, got: 4 }));
    assert!(matches!(follow(stamped(2, 5)), LogError::NotContiguous { expected: 3, got: 2 }));
    let back = follow(stamped(3, 4));
    let (last, got) = (LeaderEpoch(5), LeaderEpoch(4));
    assert!(matches!(back, LogError::EpochWentBack { last: l, got: g } if l == last && g == got));
    let mut two = stamped(3, 5);
    two.extend_from_slice(&stamped(5, 5));
    assert!(matches!(follow(two), LogError::NotContiguous { expected: 4, got: 5 }));
    let mut rotten = stamped(3, 5);
    rotten[68] ^= 4;
    assert!(matches!(follow(rotten), LogError::Invalid(FormatError::Crc { .. })));
    let torn = stamped(3, 5).split_to(65);
    assert!(matches!(follow(torn), LogError::Invalid(FormatError::Truncated { .. })));
    assert!(matches!(follow(BytesMut::new()), LogError::Invalid(FormatError::NoRecords)));
    let old = log.append_as_leader(vec![batch(&["x"])], LeaderEpoch(4), NOW).expect_err("refused");
    assert!(matches!(old, LogError::EpochWentBack { .. }));
    assert!(matches!(log.start_epoch(LeaderEpoch(4)), Err(LogError::EpochWentBack { .. })));
    assert!(matches!(log.start_epoch(LeaderEpoch(1 << 31)), Err(LogError::Invalid(_))));
    assert_eq!((log.bounds(), values(&log)), before);
    log.append_as_follower(stamped(3, 6).freeze()).expect("this one fits");
    assert_eq!(log.epoch_start(LeaderEpoch(6)), Some(3));
}

#[test]
fn a_new_leader_notes_its_epoch_before_it_appends() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    assert_eq!((log.last_epoch(), log.end_of_epoch(LeaderEpoch(9))), (None, None));
    fill(&log, 3, 1);
    log.sync().expect("syncs");
    log.start_epoch(LeaderEpoch(4)).expect("begins");
    assert_eq!(
        (log.last_epoch(), log.epoch_start(LeaderEpoch(4))),
        (Some(LeaderEpoch(4)), Some(3))
    );
    fill(&log, 2, 4);
    let end = |epoch| log.end_of_epoch(LeaderEpoch(epoch)).map(|end| (end.epoch.0, end.end_offset));
    assert_eq!(
        (end(0), end(1), end(3), end(4), end(7)),
        (None, Some((1, 3)), Some((1, 3)), Some((4, 5)), Some((4, 5)),)
    );
    // Truncation to where the epoch starts forgets it; so does one of nothing.
    log.truncate_to(3).expect("truncates");
    assert_eq!(log.last_epoch(), Some(LeaderEpoch(1)));
    log.start_epoch(LeaderEpoch(5)).expect("begins");
    log.truncate_to(3).expect("truncates nothing");
    assert_eq!(log.last_epoch(), Some(LeaderEpoch(1)));
}

/// An epoch is on record before a record of it can be read, and costs nothing
/// before.
#[test]
fn an_epoch_is_durable_before_its_first_record() {
    for seed in 0..20 {
        for records in [0, 1] {
            let vfs = SimVfs::new();
            let (log, _) = open(&vfs, small(), OpenMode::Recover);
            fill(&log, 3, 1);
            log.sync().expect("syncs");
            let changes = vfs.changes();
            log.start_epoch(LeaderEpoch(4)).expect("begins");
            assert_eq!(vfs.changes(), changes);
            fill(&log, records, 4);
            vfs.crash(seed);
            drop(log);
            let (log, recovery) = open(&vfs, small(), OpenMode::Recover);
            assert!(!recovery.epochs_rebuilt);
            let last = if records == 0 { 1 } else { 4 };
            assert_eq!(log.last_epoch(), Some(LeaderEpoch(last)), "seed {seed}, {records}");
        }
    }
}

/// A node with thousands of partitions that were never written to opens them without
/// a single sync. Once one holds something it lasts, with its directory.
#[test]
fn a_log_that_never_held_anything_asks_nothing_of_the_disk() {
    for seed in 0..20 {
        let vfs = SimVfs::new();
        // The directory of all logs.
        create_dir_durably(&vfs, dir().parent().expect("has one")).expect("simulated");
        let before = vfs.changes();
        for mode in [OpenMode::Recover, OpenMode::Recover, OpenMode::Clean] {
            let (log, recovery) = open(&vfs, small(), mode);
            assert_eq!((log.bounds().end, recovery), (0, Recovery::default()));
            log.start_epoch(LeaderEpoch(1)).expect("begins");
            log.truncate_to(0).expect("there is nothing to cut");
            log.close().expect("there is nothing to sync");
            // The file was created, the first time.
            assert_eq!(vfs.changes(), before + 1);
        }
        vfs.crash(seed);
        let (log, _) = open(&vfs, small(), OpenMode::Recover);
        fill(&log, 1, 1);
        log.sync().expect("syncs");
        vfs.crash(seed);
        drop(log);
        let (log, recovery) = open(&vfs, small(), OpenMode::Recover);
        assert_eq!((log.bounds().end, recovery.epochs_rebuilt), (1, false), "seed {seed}");
    }
}

#[test]
fn reads_keep_their_bounds() {
    let (log, _) = open(&SimVfs::new(), small(), OpenMode::Recover);
    assert_eq!(log.read(0, u64::MAX, 100).expect("at the end"), Bytes::new());
    log.append_as_leader(vec![batch(&["a", "b", "c"]), batch(&["d"])], LeaderEpoch(1), NOW)
        .expect("ok");
    let count = |from, up_to, max| {
        let bytes = log.read(from, up_to, max).expect("reads");
        decode_records(&bytes).filter(Result::is_ok).count()
    };
    assert_eq!((count(0, 4, 1000), count(0, 4, 1), count(1, 4, 1)), (4, 3, 3));
    // No part of a batch, and none that reaches the bound.
    assert_eq!(
        (count(0, 3, 1000), count(0, 2, 1000), count(3, 4, 0), count(3, 3, 9)),
        (3, 0, 1, 0)
    );
    let refused = log.read(5, 9, 1).expect_err("beyond the end");
    assert!(matches!(refused, LogError::OutOfRange { requested: 5, start: 0, end: 4 }));
    log.sync().expect("syncs");
    log.delete_before(2).expect("deletes");
    assert!(matches!(log.read(1, 9, 1), Err(LogError::OutOfRange { start: 2, .. })));
    assert_eq!(count(2, 4, 1), 3); // the batch holds 2, though it begins below
    assert!(matches!(log.delete_before(5), Err(LogError::OutOfRange { .. })));
    assert!(matches!(log.truncate_to(1), Err(LogError::OutOfRange { .. })));
    assert!(matches!(log.reset_to(u64::MAX), Err(LogError::OutOfRange { .. })));
}

#[test]
fn offsets_by_timestamp() {
    let (log, _) = open(&SimVfs::new(), small(), OpenMode::Recover);
    for _ in 0..6 {
        // Timestamps 10, 20, 30 in every batch.
        log.append_as_leader(vec![batch(&["a", "b", "c"])], LeaderEpoch(1), NOW).expect("appends");
    }
    let find = |timestamp, up_to| log.offset_for_timestamp(timestamp, up_to).expect("reads");
    assert_eq!(find(0, u64::MAX), Some((0, 10)));
    assert_eq!(find(11, u64::MAX), Some((1, 20)));
    assert_eq!(find(30, u64::MAX), Some((2, 30)));
    assert_eq!((find(31, u64::MAX), find(30, 2)), (None, None));
    log.delete_before(4).expect("deletes");
    assert_eq!((find(0, u64::MAX), find(25, u64::MAX)), (Some((4, 20)), Some((5, 30))));
}

/// How old what comes next is: by batch headers, across segments, below the limit only.
#[test]
fn timestamps_by_offset() {
    let (log, _) = open(&SimVfs::new(), small(), OpenMode::Recover);
    for _ in 0..6 {
        // Timestamps 10, 20, 30 in every batch.
        log.append_as_leader(vec![batch(&["a", "b", "c"])], LeaderEpoch(1), NOW).expect("appends");
    }
    let find = |from, up_to| log.timestamp_from(from, up_to).expect("reads");
    for offset in 0..18 {
        assert_eq!(find(offset, u64::MAX), Some((offset, 10)));
    }
    assert_eq!((find(18, u64::MAX), find(4, 4), find(4, 3)), (None, None, None));
    assert!(matches!(log.timestamp_from(19, 99), Err(LogError::OutOfRange { end: 18, .. })));
    log.sync().expect("syncs");
    log.delete_before(4).expect("deletes");
    assert!(matches!(log.timestamp_from(3, 99), Err(LogError::OutOfRange { start: 4, .. })));
    assert_eq!(find(4, u64::MAX), Some((4, 10)));
}

#[test]
fn segments_roll_and_are_deleted_whole() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    fill(&log, 40, 1);
    let bases = || open::segment_bases(&vfs, dir()).expect("lists");
    assert!(bases().len() > 5);
    log.sync().expect("syncs");
    log.delete_before(17).expect("deletes");
    assert!(bases()[0] <= 17 && bases()[1] > 17);
    let all = values(&log);
    assert_eq!((all.len(), &all[0]), (23, &(17, "e1-17".to_owned())));
    log.reset_to(100).expect("resets");
    assert_eq!((bases(), log.bounds()), (vec![100], Bounds { start: 100, end: 100, synced: 100 }));
    assert_eq!(log.last_epoch(), None);
    let appended = log.append_as_leader(vec![batch(&["a"])], LeaderEpoch(3), NOW).expect("appends");
    assert_eq!(appended.first_offset, 100);
}

/// Two batches of 1 MiB and one of some bytes: what is read is bounded, but a
/// batch comes whole.
#[test]
fn a_large_batch_comes_whole() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, LogConfig::default(), OpenMode::Recover);
    let large = "x".repeat(1 << 20);
    let records = [NewRecord { value: Some(Bytes::from(large)), ..NewRecord::default() }];
    for _ in 0..2 {
        let encoded = encode_batch(&records, &BatchOptions::default()).expect("encodes");
        let batch = ValidBatch::new(encoded, 2 << 20).expect("valid");
        log.append_as_leader(vec![batch], LeaderEpoch(1), NOW).expect("appends");
    }
    fill(&log, 1, 1);
    // From memory: no copy is made to add a little to a lot.
    let hot = log.read(1, u64::MAX, usize::MAX).expect("reads").len();
    drop(log);
    let (log, _) = open(&vfs, LogConfig::default(), OpenMode::Recover);
    let one = log.read(0, u64::MAX, 1).expect("reads").len();
    assert!(one > 1 << 20 && one < (1 << 20) + 200);
    assert_eq!(log.read(1, u64::MAX, usize::MAX).expect("reads").len(), one + 72);
    assert_eq!(log.read(1, u64::MAX, one + 71).expect("reads").len(), one);
    assert_eq!(hot, one);
}
