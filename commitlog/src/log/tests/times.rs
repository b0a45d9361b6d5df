//! Timestamps: the time index, look-ups through it, rolling by age.

use super::*;
use crate::log::segment::log_path;
use crate::vfs::Vfs;
use proptest::prelude::*;

/// A batch of records with these timestamps.
fn at(timestamps: &[i64]) -> ValidBatch {
    let records: Vec<NewRecord> = timestamps
        .iter()
        .map(|timestamp_ms| NewRecord {
            value: Some(Bytes::from_static(b"v")),
            timestamp_ms: *timestamp_ms,
            ..NewRecord::default()
        })
        .collect();
    ValidBatch::new(encode_batch(&records, &BatchOptions::default()).expect("encodes"), 1 << 20)
        .expect("valid")
}

fn append(log: &Log, timestamps: &[i64]) {
    log.append_as_leader(vec![at(timestamps)], LeaderEpoch(1), NOW).expect("appends");
}

fn time_index(vfs: &SimVfs, base: u64) -> Vec<(i64, u32)> {
    let file = vfs.open(&log_path(dir(), base).with_extension("timeindex")).expect("is there");
    let mut bytes = Vec::new();
    file.read_at(0, 1 << 20, &mut bytes).expect("reads");
    let field = |entry: &[u8], from, to| {
        entry[from..to].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    bytes.chunks(12).map(|e| (field(e, 0, 8) as i64, field(e, 8, 12) as u32)).collect()
}

/// Kafka's file to the byte: the largest timestamp so far wherever the offset
/// index has an entry, if it has grown, and a last one when the segment ends.
#[test]
fn the_time_index_is_kafkas() {
    let vfs = SimVfs::new();
    let config = LogConfig { index_interval_bytes: 100, ..LogConfig::default() };
    let (log, _) = open(&vfs, config, OpenMode::Recover);
    for timestamps in [[10, 90], [20, 20], [30, 30], [40, 95], [50, 50], [60, 60], [200, 70]] {
        append(&log, &timestamps);
    }
    assert!(log.finish_segment().expect("rolls"));
    assert!(!log.finish_segment().expect("nothing in it"));
    // Batches of 77 bytes: offset entries at the third, fifth and seventh.
    assert_eq!(time_index(&vfs, 0), [(90, 1), (95, 7), (200, 13)]);
    append(&log, &[5, 5]);
    append(&log, &[7, 300]);
    drop(log);
    let (log, _) = open(&vfs, config, OpenMode::Clean);
    append(&log, &[6, 6]);
    log.finish_segment().expect("rolls");
    assert_eq!(time_index(&vfs, 14), [(300, 3)]);
}

/// Records by timestamp as a list knows them, whatever the order of timestamps,
/// the segments, the removals and the restarts.
fn compare(log: &Log, all: &[(u64, i64)]) {
    let bounds = log.bounds();
    for timestamp in (0..130).step_by(7) {
        for up_to in [bounds.end, bounds.start + (bounds.end - bounds.start) / 2] {
            let expected = all.iter().copied().find(|(offset, time)| {
                *time >= timestamp && (bounds.start..up_to).contains(offset)
            });
            let found = log.offset_for_timestamp(timestamp, up_to).expect("reads");
            assert_eq!(found, expected, "timestamp {timestamp} below {up_to} in {all:?}");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<i64>),
    Truncate(u16),
    DeleteBefore(u16),
    Finish,
    /// Clean or not; which side files are damaged meanwhile, and how.
    Restart(bool, u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(0..120i64, 1..4).prop_map(Step::Append),
        1 => any::<u16>().prop_map(Step::Truncate),
        1 => any::<u16>().prop_map(Step::DeleteBefore),
        1 => Just(Step::Finish),
        1 => (any::<bool>(), 0..8u8, any::<u8>()).prop_map(|(c, w, h)| Step::Restart(c, w, h)),
    ]
}

/// Removes, empties or falsifies time indexes.
fn damage(vfs: &SimVfs, which: u8, how: u8) {
    for (number, base) in open::segment_bases(vfs, dir()).expect("lists").iter().enumerate() {
        let path = log_path(dir(), *base).with_extension("timeindex");
        let Ok(file) = vfs.open(&path) else { continue };
        let len = file.len().expect("simulated");
        if which >> (number % 3) & 1 == 0 || len == 0 {
            continue;
        }
        match how % 4 {
            0 => vfs.remove_file(&path).expect("was there"),
            1 => file.set_len(0).expect("empties"),
            2 => file.set_len(len - 1).expect("cuts"),
            // A bit of the last entry.
            _ => vfs.corrupt(&path, len - 1 - u64::from(how / 4) % 12, 4).expect("within"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn look_ups_find_what_a_list_would(
        segment_bytes in 150..900u64,
        index_interval_bytes in 0..300u32,
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let vfs = SimVfs::new();
        let config = LogConfig { segment_bytes, index_interval_bytes, ..LogConfig::default() };
        let mut log = open(&vfs, config, OpenMode::Clean).0;
        let mut all: Vec<(u64, i64)> = Vec::new();
        for step in steps {
            let bounds = log.bounds();
            let within = |at: u16| bounds.start + u64::from(at) % (bounds.end - bounds.start + 1);
            match step {
                Step::Append(timestamps) => {
                    append(&log, &timestamps);
                    all.extend((bounds.end..).zip(timestamps));
                }
                Step::Truncate(at) => log.truncate_to(within(at)).expect("truncates"),
                Step::DeleteBefore(at) => log.delete_before(within(at)).expect("deletes"),
                Step::Finish => drop(log.finish_segment().expect("rolls")),
                Step::Restart(clean, which, how) => {
                    log.sync().expect("syncs");
                    drop(log);
                    damage(&vfs, which, how);
                    let mode = if clean { OpenMode::Clean } else { OpenMode::Recover };
                    log = open(&vfs, config, mode).0;
                }
            }
            let end = log.bounds().end;
            all.retain(|(offset, _)| *offset < end);
            compare(&log, &all);
        }
    }
}

#[test]
fn segments_are_finished_by_age() {
    let bases = |config: LogConfig| {
        let vfs = SimVfs::new();
        let (log, _) = open(&vfs, config, OpenMode::Recover);
        for timestamp in [1000, 1500, 2001, 1900, 2900, 3001, 3002] {
            append(&log, &[timestamp]);
        }
        // Known again after a restart.
        drop(log);
        let (log, _) = open(&vfs, config, OpenMode::Clean);
        append(&log, &[4001]);
        append(&log, &[4003]);
        open::segment_bases(&vfs, dir()).expect("lists")
    };
    let old = LogConfig { segment_ms: 1000, ..LogConfig::default() };
    assert_eq!(bases(old), [0, 2, 6, 8]);
    assert_eq!(bases(LogConfig { segment_ms: 1_000_000, ..old }), [0]);
    // What must be compacted by some age does not wait longer in a segment.
    let lag = LogConfig {
        max_compaction_lag_ms: Some(1000),
        segment_ms: 1_000_000,
        cleanup: crate::Cleanup { delete: false, compact: true },
        ..old
    };
    assert_eq!(bases(lag), [0, 2, 6, 8]);
    let delete = crate::Cleanup { delete: true, compact: false };
    assert_eq!(bases(LogConfig { cleanup: delete, ..lag }), [0]);
}

#[test]
fn segments_are_finished_when_an_index_is_full() {
    let vfs = SimVfs::new();
    let config =
        LogConfig { index_interval_bytes: 0, max_index_entries: 3, ..LogConfig::default() };
    let (log, _) = open(&vfs, config, OpenMode::Recover);
    fill(&log, 10, 1);
    // The first batch of a segment has no entry.
    assert_eq!(open::segment_bases(&vfs, dir()).expect("lists"), [0, 4, 8]);
}

/// Without a name for the next segment the finished one goes on: its index, with
/// the entry that was to be its last, as well.
#[test]
fn a_segment_that_cannot_be_followed_goes_on() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    append(&log, &[10]);
    append(&log, &[20]);
    vfs.fail(rule(Operation::Create, "2.log", Fault::Enospc));
    assert!(matches!(log.finish_segment(), Err(LogError::DiskFull { .. })));
    append(&log, &[30]);
    log.finish_segment().expect("rolls");
    assert_eq!(time_index(&vfs, 0).last(), Some(&(30, 2)));
    assert_eq!(log.offset_for_timestamp(25, 9).expect("reads"), Some((2, 30)));
}

/// An index file that could not be written is missing afterwards, not a part of
/// one: that would hide newer timestamps.
#[test]
fn an_index_that_could_not_be_written_is_removed() {
    let vfs = SimVfs::new();
    let config = LogConfig { index_interval_bytes: 0, ..LogConfig::default() };
    let (log, _) = open(&vfs, config, OpenMode::Recover);
    (1..600).for_each(|time| append(&log, &[time]));
    log.sync().expect("syncs, and writes the first entries");
    append(&log, &[1000]);
    vfs.fail(rule(Operation::Sync, ".timeindex", Fault::Eio));
    log.finish_segment().expect("the log is none the worse");
    let path = log_path(dir(), 0).with_extension("timeindex");
    assert!(vfs.open(&path).is_err());
    drop(log);
    let (log, _) = open(&vfs, config, OpenMode::Clean);
    assert_eq!(log.offset_for_timestamp(800, 9999).expect("reads"), Some((599, 1000)));
    assert_eq!(time_index(&vfs, 0).last(), Some(&(1000, 599)), "and it is there again");
}

/// Twelve batches of ascending timestamps in a finished segment, and another.
fn ascending() -> SimVfs {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, sparse(), OpenMode::Recover);
    (1..=12).for_each(|time| append(&log, &[10 * time, 10 * time + 5]));
    log.finish_segment().expect("rolls");
    append(&log, &[7]);
    log.sync().expect("syncs");
    vfs
}

fn sparse() -> LogConfig {
    LogConfig { index_interval_bytes: 100, ..LogConfig::default() }
}

fn assert_all_found(vfs: &SimVfs, mode: OpenMode, what: &str) {
    let (log, _) = open(vfs, sparse(), mode);
    for record in 0..24 {
        let time = 10 * (1 + record / 2) + 5 * (record % 2);
        let found = log.offset_for_timestamp(time, u64::MAX).expect("reads");
        assert_eq!(found, Some((record as u64, time)), "{what}");
    }
}

/// A time index that lost its last entries is not believed: newer records would be
/// hidden.
#[test]
fn a_time_index_that_ends_early_hides_nothing() {
    let whole = time_index(&ascending(), 0);
    assert!(whole.len() > 5, "{whole:?}");
    for (kept, mode) in
        (0..whole.len()).flat_map(|it| [(it, OpenMode::Clean), (it, OpenMode::Recover)])
    {
        let vfs = ascending();
        let file = vfs.open(&log_path(dir(), 0).with_extension("timeindex")).expect("is there");
        file.set_len(12 * kept as u64).expect("cuts");
        assert_all_found(&vfs, mode, &format!("{kept} entries kept"));
        assert_eq!(time_index(&vfs, 0), whole, "it was made again");
    }
}

#[test]
fn a_false_time_entry_is_not_believed() {
    let len = 12 * time_index(&ascending(), 0).len() as u64;
    for (byte, bit) in (0..len).flat_map(|byte| [1, 2, 4, 16].map(|bit| (byte, bit))) {
        let vfs = ascending();
        let path = log_path(dir(), 0).with_extension("timeindex");
        vfs.corrupt(&path, byte, bit).expect("within the file");
        assert_all_found(&vfs, OpenMode::Clean, &format!("byte {byte}, bit {bit}"));
    }
}
