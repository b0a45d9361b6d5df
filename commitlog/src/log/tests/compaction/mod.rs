//! Compaction: what stays, what goes, and what a crash makes of it.

mod crashes;
mod indexes;
mod producers;
mod property;
mod races;
mod rules;

use super::*;
use crate::Cleanup;
use crate::format::{BatchOptions, Compression, batch_headers};
use std::ops::ControlFlow;

const DAY: i64 = 24 * 60 * 60 * 1000;

/// A record on its way in: key, and value or tombstone.
type Pair<'a> = (&'a str, Option<&'a str>);

/// Where, key, value.
type Found = (u64, String, Option<String>);

fn keyed_as(pairs: &[Pair<'_>], timestamp_ms: i64, options: &BatchOptions) -> ValidBatch {
    let records: Vec<NewRecord> = pairs
        .iter()
        .map(|(key, value)| NewRecord {
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
            timestamp_ms,
            ..NewRecord::default()
        })
        .collect();
    ValidBatch::new(encode_batch(&records, options).expect("encodes"), 1 << 20).expect("valid")
}

fn keyed(pairs: &[Pair<'_>]) -> ValidBatch {
    keyed_as(pairs, NOW, &BatchOptions::default())
}

/// Compacted, with a few small batches a segment.
fn compacted() -> LogConfig {
    LogConfig {
        segment_bytes: 300,
        index_interval_bytes: 60,
        segment_ms: u64::MAX,
        cleanup: Cleanup { delete: false, compact: true },
        delete_retention_ms: DAY as u64,
        ..LogConfig::default()
    }
}

fn put(log: &Log, pairs: &[Pair<'_>]) {
    log.append_as_leader(vec![keyed(pairs)], LeaderEpoch(1), NOW).expect("appends");
}

/// Ends the segment, so that what is in it can be compacted.
fn finish(log: &Log) {
    log.finish_segment().expect("rolls");
}

fn clean_at(log: &Log, now_ms: i64) -> Compacted {
    let mut cleaner = Cleaner::new(1 << 20);
    let up_to = log.bounds().end;
    log.compact(now_ms, up_to, &mut cleaner, &mut |_| ControlFlow::Continue(())).expect("compacts")
}

fn clean(log: &Log) -> Compacted {
    clean_at(log, NOW)
}

/// Every record that can be read. Checks on the way that no offset is missing
/// or covered twice.
fn found(log: &Log) -> Vec<Found> {
    let bounds = log.bounds();
    let (mut next, mut all) = (bounds.start, Vec::new());
    while next < bounds.end {
        let bytes = log.read(next, u64::MAX, 1).expect("reads");
        for batch in batch_headers(&bytes) {
            let header = batch.expect("whole").0;
            assert!(header.base_offset <= next && next <= header.last_offset(), "{header:?}");
            next = header.next_offset();
        }
        all.extend(decode_records(&bytes).map(|record| {
            let record = record.expect("a good batch");
            let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
            (record.offset, record.key.map(text).unwrap_or_default(), record.value.map(text))
        }));
    }
    all.retain(|(offset, ..)| *offset >= bounds.start);
    all
}

fn pairs(found: &[Found]) -> Vec<(u64, &str, Option<&str>)> {
    found.iter().map(|(at, key, value)| (*at, &**key, value.as_deref())).collect()
}

fn assert_sound(vfs: &SimVfs) {
    let mut seen = Log::verify(vfs, dir()).expect("reads");
    // A temporary file of a checkpoint is overwritten by the next one.
    seen.problems.retain(|problem| problem.path.extension().is_none_or(|it| it != "tmp"));
    assert_eq!(seen.problems, []);
}
