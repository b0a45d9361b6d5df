//! Idempotent producers and transactions on a real log: what it still knows of
//! them after whatever may happen to it.

mod files;
mod judged;
mod restarts;
mod transactions;

use super::*;
use crate::AbortedTxn;
use crate::ProducerRefusal::{self, InvalidProducerEpoch, OutOfOrderSequence};
use crate::format::{EndTxnMarker, ProducerSequence, TxnOutcome, encode_marker};

const PRODUCER: i64 = 7;

/// Some other one, which nothing is asked about.
const OTHER: i64 = 9;

/// What a batch says of who sent it.
#[derive(Clone, Copy)]
struct Sender {
    id: i64,
    epoch: i16,
    transactional: bool,
}

const IDEMPOTENT: Sender = Sender { id: PRODUCER, epoch: 0, transactional: false };
const TRANSACTIONAL: Sender = Sender { id: PRODUCER, epoch: 0, transactional: true };

impl Sender {
    fn batch(self, sequence: i32, records: usize) -> ValidBatch {
        let record = |index| NewRecord {
            value: Some(Bytes::from(format!("{}/{sequence}+{index}", self.id))),
            timestamp_ms: NOW,
            ..NewRecord::default()
        };
        let records: Vec<NewRecord> = (0..records).map(record).collect();
        let Self { id, epoch, transactional } = self;
        let producer = Some(ProducerSequence { id, epoch, base_sequence: sequence });
        let options = BatchOptions { producer, transactional, ..BatchOptions::default() };
        ValidBatch::new(encode_batch(&records, &options).expect("encodes"), 1 << 20).expect("valid")
    }

    fn marker(self, kind: TxnOutcome, coordinator_epoch: i32) -> ValidBatch {
        let marker = EndTxnMarker { kind, coordinator_epoch };
        ValidBatch::marker(encode_marker(&marker, self.id, self.epoch, NOW)).expect("a marker")
    }
}

fn append(log: &Log, batches: Vec<ValidBatch>) -> Appended {
    log.append_as_leader(batches, LeaderEpoch(1), NOW).expect("appends")
}

fn send(log: &Log, batch: ValidBatch) -> Placement {
    append(log, vec![batch]).placed[0]
}

/// A batch that must be appended; its offset.
fn put(log: &Log, batch: ValidBatch) -> Offset {
    match send(log, batch) {
        Placement::At(offset) => offset,
        other => panic!("not appended: {other:?}"),
    }
}

/// Records in each of [`six`]'s batches.
const PER_BATCH: usize = 2;

/// Six batches of the producer in two segments; where they are.
fn six(log: &Log) -> Vec<Offset> {
    let places = (0..6).map(|n| put(log, IDEMPOTENT.batch(n * 2, PER_BATCH))).collect();
    assert!(log.state.read().slots.len() >= 2);
    places
}

/// The producer's first `places.len()` batches are those it sent, and the last
/// five are recognised; only the next one would be appended.
fn assert_known(log: &Log, places: &[Offset]) {
    let end = log.bounds().end;
    for (number, place) in places.iter().enumerate().rev().take(5) {
        let sequence = (number * PER_BATCH) as i32;
        let sent = send(log, IDEMPOTENT.batch(sequence, PER_BATCH));
        assert_eq!(sent, Placement::Duplicate(*place), "sequence {sequence}");
    }
    let expected = (places.len() * PER_BATCH) as i32;
    let mut wrong = vec![expected + 1, expected + 8];
    if places.len() > 5 {
        wrong.push((places.len() as i32 - 6) * 2);
    }
    for got in wrong {
        let sent = send(log, IDEMPOTENT.batch(got, PER_BATCH));
        assert_eq!(sent, out_of_order(expected, got));
    }
    assert_eq!(log.bounds().end, end, "nothing was appended");
}

fn out_of_order(expected: i32, got: i32) -> Placement {
    Placement::Refused(OutOfOrderSequence { producer_id: PRODUCER, expected, got })
}

fn reopen_clean(vfs: &SimVfs, log: Log) -> (Log, Recovery) {
    log.close().expect("closes");
    drop(log);
    open(vfs, small(), OpenMode::Clean)
}

/// The power fails: the log has no chance to say anything any more.
fn reopen_after_crash(vfs: &SimVfs, log: Log, seed: u64) -> (Log, Recovery) {
    vfs.power_fails_after(0);
    drop(log);
    vfs.crash(seed);
    open(vfs, small(), OpenMode::Recover)
}

fn names(vfs: &SimVfs, extension: &str) -> Vec<Offset> {
    let names = vfs.list(dir()).expect("lists");
    let mut found: Vec<Offset> =
        names.iter().filter_map(|name| segment::base_of(name, extension)).collect();
    found.sort_unstable();
    found
}

fn assert_sound(vfs: &SimVfs) {
    let verified = Log::verify(vfs, dir()).expect("reads");
    assert_eq!(verified.damage().collect::<Vec<_>>(), Vec::<&crate::inspect::Problem>::new());
}
