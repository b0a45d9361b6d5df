//! Power lost while one segment ends and the next begins.

use super::*;
use crate::format::{EndTxnMarker, ProducerSequence, TxnOutcome, encode_marker};
use crate::log::segment::log_path;
use crate::vfs::Vfs;

fn at(timestamp_ms: i64, producer: Option<ProducerSequence>) -> ValidBatch {
    let record = NewRecord { value: Some("x".into()), timestamp_ms, ..NewRecord::default() };
    let transactional = producer.is_some();
    let options = BatchOptions { producer, transactional, ..BatchOptions::default() };
    ValidBatch::new(encode_batch(&[record], &options).expect("encodes"), 1 << 20).expect("valid")
}

/// A segment with entries in each of its indexes, some written and none synced.
fn full() -> (SimVfs, Log) {
    let vfs = SimVfs::new();
    let config = LogConfig { index_interval_bytes: 0, ..LogConfig::default() };
    let (log, _) = open(&vfs, config, OpenMode::Recover);
    let append = |batch| {
        log.append_as_leader(vec![batch], LeaderEpoch(1), NOW).expect("appends");
    };
    for time in 0..4 {
        append(at(NOW + time, None));
        let producer = ProducerSequence { id: 7, epoch: 0, base_sequence: time as i32 };
        append(at(NOW + time, Some(producer)));
        let abort = EndTxnMarker { kind: TxnOutcome::Abort, coordinator_epoch: 0 };
        let marker = encode_marker(&abort, 7, 0, NOW + time);
        append(ValidBatch::marker(marker).expect("a marker"));
    }
    log.sync().expect("syncs");
    (vfs, log)
}

fn contents(vfs: &SimVfs, extension: &str) -> Option<Vec<u8>> {
    let file = vfs.open(&log_path(dir(), 0).with_extension(extension)).ok()?;
    let mut bytes = Vec::new();
    file.read_at(0, 1 << 20, &mut bytes).expect("reads");
    Some(bytes)
}

/// As soon as the next segment has a name, the indexes of the one before are
/// whole or missing: nobody looks whether one ends early.
#[test]
fn an_index_of_a_finished_segment_is_whole_or_missing() {
    let indexes = ["index", "timeindex", "txnindex"];
    let (vfs, log) = full();
    let before = vfs.changes();
    log.finish_segment().expect("rolls");
    let steps = vfs.changes() - before;
    let whole = indexes.map(|it| contents(&vfs, it).expect("is there"));
    assert!(whole.iter().all(|bytes| bytes.len() > 12), "{whole:?}");
    let mut followed = 0;
    for (step, seed) in (0..=steps).flat_map(|step| (0..20).map(move |seed| (step, seed))) {
        let (vfs, log) = full();
        vfs.power_fails_after(step);
        let _ = log.finish_segment();
        drop(log);
        vfs.crash(seed);
        if vfs.open(&log_path(dir(), 12)).is_err() {
            continue;
        }
        followed += 1;
        for (extension, whole) in indexes.iter().zip(&whole) {
            let there = contents(&vfs, extension);
            let good = there.as_ref().is_none_or(|bytes| bytes == whole);
            assert!(good, "step {step}, seed {seed}: {extension} is {there:?}");
        }
    }
    assert!(followed > 20, "{followed}");
}
