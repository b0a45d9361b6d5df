//! Behaviour of the log, one story at a time.

use super::*;
use crate::format::{NewRecord, Record, ValidBatch, decode_records, encode_batch};
use crate::vfs::{Fault, FaultRule, Operation, RealVfs, SimVfs};
use bytes::Bytes;

const DIR: &str = "/data/log";

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
    ValidBatch::new(encode_batch(&records).expect("encodes"), 1 << 20).expect("valid")
}

fn open(vfs: &SimVfs, config: LogConfig, mode: OpenMode) -> (Log, Recovery) {
    Log::open(Arc::new(vfs.clone()), dir(), config, mode).expect("opens")
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
        log.append_as_leader(vec![batch(&[&value])], LeaderEpoch(epoch)).expect("appends");
    }
}

fn rule(operation: Operation, path: &str, fault: Fault) -> FaultRule {
    FaultRule { operation, path_ends_with: path.to_owned(), skip: 0, times: 1, fault }
}

#[test]
fn real_files_named_as_kafkas() {
    let temp = tempfile::tempdir().expect("a directory");
    let path = temp.path().join("orders-0");
    let open = |mode| Log::open(Arc::new(RealVfs), &path, small(), mode).expect("opens").0;
    let log = open(OpenMode::Recover);
    let appended =
        log.append_as_leader(vec![batch(&["a", "b"]), batch(&["c"])], LeaderEpoch(1)).expect("ok");
    assert_eq!((appended.first_offset, appended.end_offset), (0, 3));
    assert_eq!(appended.base_offsets, [0, 2]);
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
