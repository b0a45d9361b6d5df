//! What an inspection says of good, damaged and busy logs.

mod busy;
mod damage;
mod places;

use super::*;
use crate::format::{BatchOptions, NewRecord, ValidBatch, encode_batch};
use crate::vfs::{SimVfs, Vfs};
use crate::{Log, LogConfig, OpenMode, Shared};
use bytes::Bytes;
use ottla_proto::LeaderEpoch;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Timestamp of the first record, ms.
const BEGIN_MS: i64 = 1_700_000_000_000;

fn dir() -> &'static Path {
    Path::new("/data/log")
}

fn file(name: &str) -> PathBuf {
    dir().join(name)
}

fn segment(base: u64) -> PathBuf {
    file(&format!("{base:020}.log"))
}

/// One batch of two records, the first `after` milliseconds after the beginning.
fn batch(value: &str, after: i64) -> ValidBatch {
    let record = |timestamp_ms| NewRecord {
        key: Some(Bytes::from_static(b"key")),
        value: Some(Bytes::from(value.to_owned())),
        timestamp_ms,
        ..NewRecord::default()
    };
    let records = [record(BEGIN_MS + after), record(BEGIN_MS + after + 1)];
    ValidBatch::new(encode_batch(&records, &BatchOptions::default()).expect("encodes"), 1 << 20)
        .expect("valid")
}

fn open(vfs: &SimVfs) -> Log {
    let config = LogConfig { segment_bytes: 400, index_interval_bytes: 60, ..LogConfig::default() };
    Log::open(&Shared::new(Arc::new(vfs.clone())), dir(), config, OpenMode::Recover)
        .expect("opens")
        .0
}

fn append(log: &Log, count: usize, epoch: u32) {
    for index in 0..count {
        let after = log.bounds().end as i64;
        let batch = batch(&format!("e{epoch}-{index}"), after);
        log.append_as_leader(vec![batch], LeaderEpoch(epoch), BEGIN_MS).expect("appends");
    }
}

/// Twenty batches of two epochs in segments of a few, closed.
fn written() -> SimVfs {
    let vfs = SimVfs::new();
    let log = open(&vfs);
    append(&log, 10, 1);
    append(&log, 10, 2);
    log.sync().expect("syncs");
    vfs
}

fn bases(vfs: &SimVfs) -> Vec<u64> {
    let kinds = vfs.list(dir()).expect("lists").into_iter().map(|name| FileKind::of(&name));
    let mut bases: Vec<u64> = kinds
        .filter_map(|kind| match kind {
            FileKind::Segment(base) => Some(base),
            _ => None,
        })
        .collect();
    bases.sort_unstable();
    bases
}

fn len(vfs: &SimVfs, path: &Path) -> u64 {
    vfs.open(path).expect("is there").len().expect("simulated")
}

fn look(vfs: &dyn Vfs, owner: Owner) -> Verification {
    verify(vfs, dir(), owner).expect("can be listed")
}

#[test]
fn a_good_log_is_clean_for_everybody() {
    let vfs = written();
    for owner in [Owner::Unknown, Owner::Clean, Owner::Running] {
        let found = look(&vfs, owner);
        assert_eq!(found.problems, []);
        assert_eq!((found.start, found.end, found.batches, found.records), (0, 40, 20, 40));
        assert_eq!(found.segments as usize, bases(&vfs).len());
        assert_eq!((found.bytes, found.being_written), (open(&vfs).size_bytes(), None));
    }
    let second = bases(&vfs)[1];
    let found = verify_segment(&vfs, dir(), second, Owner::Unknown).expect("is there");
    assert_eq!((found.segments, found.start, &found.problems[..]), (1, second, &[][..]));
}

#[test]
fn a_log_without_records_is_clean() {
    let vfs = SimVfs::new();
    drop(open(&vfs));
    assert_eq!(look(&vfs, Owner::Unknown).problems, []);
    let log = open(&vfs);
    append(&log, 3, 1);
    log.reset_to(1000).expect("resets");
    drop(log);
    let found = look(&vfs, Owner::Unknown);
    assert_eq!((found.start, found.end, &found.problems[..]), (1000, 1000, &[][..]));
}
