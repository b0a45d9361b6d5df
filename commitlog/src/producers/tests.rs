//! The rules, one by one; then random histories against a naive model.

mod model;

use super::judge::Judge;
use super::*;
use crate::format::BatchHeader;
use ottla_proto::LeaderEpoch;

/// A batch of `count` records of producer 7 at `base`.
pub(super) fn header(epoch: i16, sequence: i32, count: u32, base: Offset) -> BatchHeader {
    BatchHeader {
        base_offset: base,
        batch_length: 100,
        leader_epoch: LeaderEpoch(1),
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: 1000,
        max_timestamp: 1000,
        producer_id: 7,
        producer_epoch: epoch,
        base_sequence: sequence,
        record_count: count,
    }
}

const TRANSACTIONAL: u16 = 1 << 4;
const CONTROL: u16 = 1 << 5;

pub(super) fn data(epoch: i16, sequence: i32, count: u32, base: Offset) -> Step {
    Step::of(&header(epoch, sequence, count, base), None).expect("has a producer")
}

pub(super) fn transactional(producer: i64, epoch: i16, sequence: i32, base: Offset) -> Step {
    let header = BatchHeader {
        attributes: TRANSACTIONAL,
        producer_id: producer,
        ..header(epoch, sequence, 1, base)
    };
    Step::of(&header, None).expect("has a producer")
}

pub(super) fn marker(
    producer: i64,
    epoch: i16,
    commit: bool,
    coordinator_epoch: i32,
    base: Offset,
) -> Step {
    let attributes = TRANSACTIONAL | CONTROL;
    let header = BatchHeader { attributes, producer_id: producer, ..header(epoch, -1, 1, base) };
    Step::of(&header, Some(Marker { commit, coordinator_epoch })).expect("has a producer")
}

fn known(steps: &[Step]) -> Producers {
    let mut producers = Producers::default();
    for step in steps {
        producers.apply(step);
    }
    producers
}

fn judged(producers: &Producers, step: Step) -> Verdict {
    Judge::new(producers).judge(&step)
}

fn out_of_order(expected: i32, got: i32) -> Verdict {
    Verdict::Refused(ProducerRefusal::OutOfOrderSequence { producer_id: 7, expected, got })
}

/// Rule 1: the last five, exactly, and of the same epoch.
#[test]
fn duplicates_are_told_their_offset() {
    let batches: Vec<Step> = (0..7).map(|i| data(0, i * 2, 2, 100 + i as u64 * 2)).collect();
    let producers = known(&batches);
    for (index, batch) in batches.iter().enumerate() {
        let verdict = judged(&producers, Step { first: 900, last: 901, ..*batch });
        if index < 2 {
            assert_eq!(verdict, out_of_order(14, index as i32 * 2), "forgotten");
        } else {
            assert_eq!(verdict, Verdict::Duplicate(100 + index as u64 * 2));
        }
    }
    // Not exactly a batch that was sent: its end, or its beginning, is another.
    assert_eq!(judged(&producers, data(0, 12, 1, 900)), out_of_order(14, 12));
    assert_eq!(judged(&producers, data(0, 11, 3, 900)), out_of_order(14, 11));
    // The same sequences of a newer epoch are no duplicate.
    assert_eq!(judged(&producers, data(1, 12, 2, 900)), out_of_order(0, 12));
}

/// Rules 3 and 4.
#[test]
fn sequences_and_epochs_go_on() {
    let producers = known(&[data(3, 5, 5, 0)]);
    let epoch = ProducerRefusal::InvalidProducerEpoch { producer_id: 7, current: 3, got: 2 };
    for (step, verdict) in [
        (data(3, 10, 1, 5), Verdict::Append(5)),
        (data(3, 11, 1, 5), out_of_order(10, 11)),
        (data(3, 9, 1, 5), out_of_order(10, 9)),
        (data(3, 0, 1, 5), out_of_order(10, 0)),
        (data(2, 10, 1, 5), Verdict::Refused(epoch)),
        (data(2, 0, 1, 5), Verdict::Refused(epoch)),
        (data(4, 0, 1, 5), Verdict::Append(5)),
        (data(4, 10, 1, 5), out_of_order(0, 10)),
    ] {
        assert_eq!(judged(&producers, step), verdict, "{step:?}");
    }
}

/// Rule 4: after 2^31 - 1 comes 0, also within a batch.
#[test]
fn sequences_wrap() {
    let producers = known(&[data(0, i32::MAX - 1, 2, 0)]);
    assert_eq!(judged(&producers, data(0, 0, 1, 2)), Verdict::Append(2));
    let producers = known(&[data(0, i32::MAX - 1, 4, 0)]);
    assert_eq!(judged(&producers, data(0, 2, 1, 4)), Verdict::Append(4));
    assert_eq!(judged(&producers, data(0, i32::MAX - 1, 4, 9)), Verdict::Duplicate(0));
    assert_eq!(judged(&producers, data(0, 0, 1, 4)), out_of_order(2, 0));
}

/// Rule 5.
#[test]
fn of_a_stranger_any_sequence_is_accepted() {
    assert_eq!(judged(&Producers::default(), data(4, 17, 3, 2)), Verdict::Append(2));
    let nothing = judged(&Producers::default(), data(4, -1, 3, 2));
    assert_eq!(nothing, out_of_order(0, -1));
}

/// Rule 6: what a leader appended is noted whatever it says.
#[test]
fn followers_accept_all() {
    let producers = known(&[data(3, 5, 5, 0), data(3, 50, 1, 5), data(3, 50, 1, 6)]);
    assert_eq!(judged(&producers, data(3, 51, 1, 7)), Verdict::Append(7));
    let producers = known(&[data(3, 5, 5, 0), data(2, 9, 1, 5)]);
    assert_eq!(judged(&producers, data(2, 10, 1, 6)), Verdict::Append(6));
}

/// Batches of one append are judged one after the other.
#[test]
fn one_append_holds_several() {
    let producers = known(&[data(0, 0, 1, 0)]);
    let mut judge = Judge::new(&producers);
    assert_eq!(judge.judge(&data(0, 1, 1, 1)), Verdict::Append(1));
    assert_eq!(judge.judge(&data(0, 1, 1, 2)), Verdict::Duplicate(1));
    assert_eq!(judge.judge(&data(0, 3, 1, 2)), out_of_order(2, 3));
    assert_eq!(judge.judge(&data(0, 2, 1, 2)), Verdict::Append(2));
    assert_eq!(judge.judge(&data(1, 0, 1, 3)), Verdict::Append(3));
    let refusal = ProducerRefusal::InvalidProducerEpoch { producer_id: 7, current: 1, got: 0 };
    assert_eq!(judge.judge(&data(0, 3, 1, 4)), Verdict::Refused(refusal));
    // Nothing of it is known before it is written.
    assert_eq!(judged(&producers, data(0, 1, 1, 1)), Verdict::Append(1));
}

/// Rule 7.
#[test]
fn markers_are_fenced() {
    let open = [transactional(7, 3, 0, 10)];
    let producers = known(&[open[0], marker(7, 3, true, 5, 11), transactional(7, 3, 1, 12)]);
    let coordinator = ProducerRefusal::StaleCoordinatorEpoch { producer_id: 7, current: 5, got: 4 };
    let epoch = ProducerRefusal::InvalidProducerEpoch { producer_id: 7, current: 3, got: 2 };
    for (step, verdict) in [
        (marker(7, 3, true, 5, 13), Verdict::Append(13)),
        (marker(7, 3, true, 6, 13), Verdict::Append(13)),
        (marker(7, 3, true, 4, 13), Verdict::Refused(coordinator)),
        (marker(7, 2, true, 6, 13), Verdict::Refused(epoch)),
        // Of an epoch that was bumped (KIP-890), and of a producer nobody knows.
        (marker(7, 4, false, 5, 13), Verdict::Append(13)),
        (marker(8, 0, false, 0, 13), Verdict::Append(13)),
    ] {
        assert_eq!(judged(&producers, step), verdict, "{step:?}");
    }
    // The bumped epoch fences what was on its way, and begins at sequence 0.
    let mut producers = producers;
    producers.apply(&marker(7, 4, false, 5, 13));
    let refusal = ProducerRefusal::InvalidProducerEpoch { producer_id: 7, current: 4, got: 3 };
    assert_eq!(judged(&producers, transactional(7, 3, 2, 14)), Verdict::Refused(refusal));
    assert_eq!(judged(&producers, transactional(7, 4, 2, 14)), out_of_order(0, 2));
    assert_eq!(judged(&producers, transactional(7, 4, 0, 14)), Verdict::Append(14));
}

#[test]
fn a_batch_outside_of_an_open_transaction_is_refused() {
    let mut producers = known(&[transactional(7, 0, 0, 10)]);
    let refusal = ProducerRefusal::InvalidTransactionState { producer_id: 7 };
    assert_eq!(judged(&producers, data(0, 1, 1, 11)), Verdict::Refused(refusal));
    producers.apply(&marker(7, 0, true, 0, 11));
    assert_eq!(judged(&producers, data(0, 1, 1, 12)), Verdict::Append(12));
}

/// The last stable offset's rule, through interleaved transactions.
#[test]
fn the_first_unstable_offset() {
    let mut producers = Producers::default();
    assert_eq!(producers.first_unstable(100), None);
    assert_eq!(producers.apply(&transactional(1, 0, 0, 10)), None);
    producers.apply(&transactional(2, 0, 0, 11));
    producers.apply(&transactional(1, 0, 1, 12));
    assert_eq!(producers.first_unstable(13), Some(10));
    // 2 ends first, at 13: until that is committed 11 matters too, but 10 is lower.
    let aborted = producers.apply(&marker(2, 0, false, 0, 13)).expect("aborted");
    let expected =
        AbortedTxn { producer_id: 2, first_offset: 11, last_offset: 13, last_stable_offset: 10 };
    assert_eq!(aborted, expected);
    assert_eq!(producers.first_unstable(14), Some(10));
    assert_eq!(producers.apply(&marker(1, 0, true, 0, 14)), None);
    // Both have ended: it depends on what is committed.
    let unstable: Vec<_> = [11, 13, 14, 15].map(|hw| producers.first_unstable(hw)).into();
    assert_eq!(unstable, [Some(10), Some(10), Some(10), None]);
    producers.apply(&transactional(2, 0, 1, 15));
    assert_eq!((producers.first_unstable(14), producers.first_unstable(16)), (Some(10), Some(15)));
    let aborted = producers.apply(&marker(2, 0, false, 0, 16)).expect("aborted");
    assert_eq!(aborted.last_stable_offset, 17);
    assert_eq!((producers.first_unstable(16), producers.first_unstable(17)), (Some(15), None));
    // A marker without a transaction ends nothing.
    assert_eq!(producers.apply(&marker(2, 0, false, 0, 17)), None);
}

/// An emptied batch keeps its sequence and opens no transaction: its marker may
/// be gone.
#[test]
fn placeholders_keep_the_sequence_only() {
    let emptied = BatchHeader { attributes: TRANSACTIONAL, record_count: 0, ..header(2, 4, 3, 20) };
    let producers = known(&[Step::of(&emptied, None).expect("has a producer")]);
    assert_eq!(producers.first_unstable(100), None);
    assert_eq!(judged(&producers, data(2, 7, 1, 23)), Verdict::Append(23));
    assert_eq!(judged(&producers, data(2, 4, 3, 23)), Verdict::Duplicate(20));
}

/// Markers count as a sign of life (KAFKA-9144); an open transaction keeps.
#[test]
fn silence_is_forgotten() {
    let at = |step: Step, timestamp| Step { timestamp, ..step };
    let day = PRODUCER_EXPIRATION_MS;
    let mut producers = known(&[
        at(data(0, 0, 1, 0), 1000),
        at(transactional(8, 0, 0, 1), 1000),
        at(transactional(9, 0, 0, 2), 1000),
        at(marker(9, 0, true, 0, 3), 2000),
    ]);
    assert!(!producers.any_expired(999 + day));
    assert_eq!(producers.expire(999 + day), 0);
    assert!(producers.any_expired(1000 + day));
    assert_eq!(producers.expire(1000 + day), 1);
    assert_eq!(judged(&producers, data(0, 9, 1, 4)), Verdict::Append(4), "a stranger again");
    assert_eq!(producers.expire(2000 + day), 1);
    assert!(!producers.any_expired(i64::MAX));
    assert_eq!(producers.first_unstable(9), Some(1));
}

/// Beyond the bound the oldest go, none with an open transaction.
#[test]
fn the_number_is_bounded() {
    let mut producers = Producers::default();
    let of = |id: i64, step: Step| Step { producer: id, timestamp: id, ..step };
    producers.apply(&Step { timestamp: 0, ..transactional(0, 0, 0, 0) });
    for id in 1..=MAX_PRODUCERS as i64 {
        producers.apply(&of(id, data(0, 5, 1, id as u64)));
    }
    assert_eq!(producers.known.len(), MAX_PRODUCERS - EVICTED_AT_ONCE + 1);
    let knows =
        |id: i64| judged(&producers, of(id, data(0, 5, 1, 0))) == Verdict::Duplicate(id as u64);
    assert!(!knows(1) && !knows(EVICTED_AT_ONCE as i64));
    assert!(knows(EVICTED_AT_ONCE as i64 + 1) && knows(MAX_PRODUCERS as i64));
    assert_eq!(producers.first_unstable(1), Some(0));
    let bytes = producers.encode(1 << 20);
    assert!(bytes.len() < crate::checkpoint::MAX_CHECKPOINT_BYTES as usize);
    assert_eq!(Producers::decode(&bytes, 1 << 20), Ok(producers));
}

/// Where every one has a transaction open, no stranger may begin another.
#[test]
fn open_transactions_are_bounded() {
    let mut producers = Producers::default();
    for id in 0..MAX_PRODUCERS as i64 - 1 {
        producers.apply(&transactional(id, 0, 0, id as u64));
    }
    let at = MAX_PRODUCERS as u64;
    let mut judge = Judge::new(&producers);
    let stranger = MAX_PRODUCERS as i64;
    assert_eq!(judge.judge(&transactional(stranger, 0, 0, at)), Verdict::Append(at));
    let refusal = ProducerRefusal::TooManyTransactions { producer_id: stranger + 1 };
    let verdict = judge.judge(&transactional(stranger + 1, 0, 0, at + 1));
    assert_eq!(verdict, Verdict::Refused(refusal));
    assert_eq!(judge.judge(&transactional(3, 0, 1, at + 1)), Verdict::Append(at + 1));
}

/// Kafka's bytes.
#[test]
fn an_aborted_transaction_is_34_bytes() {
    let entry =
        AbortedTxn { producer_id: 513, first_offset: 3, last_offset: 9, last_stable_offset: 10 };
    let bytes = entry.encode();
    let mut expected = [0u8; 34];
    (expected[8], expected[9], expected[17], expected[25], expected[33]) = (2, 1, 3, 9, 10);
    assert_eq!(bytes, expected);
    assert_eq!(AbortedTxn::decode(&bytes), Some(entry));
    for (at, value) in [(1, 1), (2, 0x80), (10, 0x80), (17, 9), (33, 11)] {
        let mut bad = bytes;
        bad[at] = value;
        assert_eq!(AbortedTxn::decode(&bad), None, "byte {at}");
    }
    assert!(entry.touches(9, 4) && !entry.touches(10, 40) && !entry.touches(0, 3));
}
