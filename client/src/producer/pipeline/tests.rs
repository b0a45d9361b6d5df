//! Short stories of one partition's batches.

use super::*;

const RULES: Rules = Rules { idempotent: true, retry_in_doubt: true, lossy: false };
const IN_DOUBT: Answer = Answer::InDoubt { retriable: true };

fn pipeline(rules: Rules) -> Pipeline {
    let mut pipeline = Pipeline::new(rules);
    pipeline.identify(7);
    pipeline
}

/// Admits batches of ten records.
fn admit(pipeline: &mut Pipeline, ids: std::ops::Range<BatchId>) {
    ids.for_each(|id| assert_eq!(pipeline.admit(10), id));
}

/// Sends all that may be sent: which, in which epoch, from which sequence.
fn send(pipeline: &mut Pipeline) -> Vec<(BatchId, i16, i32)> {
    let sends = std::iter::from_fn(|| pipeline.next());
    let numbered = |send: Send| {
        let sequence = send.sequence.expect("numbered");
        (send.id, sequence.epoch, sequence.base_sequence)
    };
    sends.map(numbered).collect()
}

/// A pipeline that knows its leader: batch 0 was written.
fn under_way(rules: Rules) -> Pipeline {
    let mut pipeline = pipeline(rules);
    admit(&mut pipeline, 0..1);
    assert_eq!(send(&mut pipeline), [(0, 0, 0)]);
    assert_eq!(pipeline.answered(0, Answer::Written), Some(Fate::Written));
    pipeline
}

#[test]
fn one_batch_finds_out_then_five_are_under_way() {
    let mut pipeline = pipeline(RULES);
    admit(&mut pipeline, 0..5);
    assert!(!pipeline.has_room());
    assert_eq!(send(&mut pipeline), [(0, 0, 0)]);
    pipeline.answered(0, Answer::Written);
    admit(&mut pipeline, 5..6);
    assert_eq!(send(&mut pipeline), [(1, 0, 10), (2, 0, 20), (3, 0, 30), (4, 0, 40), (5, 0, 50)]);
    assert_eq!(send(&mut pipeline), []);
}

/// Batch 1 was written, and its answer is late. Were batch 6 sent, the leader would
/// not know batch 1 again.
#[test]
fn the_oldest_unanswered_batch_stays_within_what_a_leader_knows() {
    let mut pipeline = under_way(RULES);
    admit(&mut pipeline, 1..6);
    send(&mut pipeline);
    for id in 2..6 {
        pipeline.answered(id, Answer::Written);
    }
    assert!(!pipeline.has_room() && !pipeline.wants());
    pipeline.answered(1, Answer::Written);
    assert!(pipeline.has_room() && pipeline.wants());
}

#[test]
fn what_was_refused_goes_again_before_what_came_after() {
    let mut pipeline = under_way(RULES);
    admit(&mut pipeline, 1..4);
    send(&mut pipeline);
    // The answers of those behind it come first.
    let out_of_order = Answer::OutOfOrder { expected: Some(10) };
    assert_eq!(pipeline.answered(3, out_of_order), None);
    assert_eq!(pipeline.answered(2, out_of_order), None);
    assert_eq!(send(&mut pipeline), []);
    assert_eq!(pipeline.answered(1, Answer::NotNow), None);
    assert_eq!(pipeline.end_leg(), []);
    assert_eq!(send(&mut pipeline), [(1, 0, 10)]);
    pipeline.answered(1, Answer::Written);
    assert_eq!(send(&mut pipeline), [(2, 0, 20), (3, 0, 30)]);
}

/// What is in doubt keeps its sequences, so that the leader knows it.
#[test]
fn what_is_in_doubt_goes_again_as_it_was() {
    let mut pipeline = under_way(RULES);
    admit(&mut pipeline, 1..4);
    send(&mut pipeline);
    pipeline.answered(1, Answer::NotNow);
    assert_eq!(pipeline.lost(), []);
    assert_eq!(pipeline.end_leg(), []);
    assert_eq!(send(&mut pipeline), [(1, 0, 10)]);
    pipeline.answered(1, Answer::Written);
    assert_eq!(send(&mut pipeline), [(2, 0, 20), (3, 0, 30)]);
}

/// One that can never be written makes room for those behind it.
#[test]
fn a_refusal_for_good_leaves_no_gap() {
    let mut pipeline = under_way(RULES);
    admit(&mut pipeline, 1..3);
    send(&mut pipeline);
    assert_eq!(pipeline.answered(1, Answer::Never), Some(Fate::NotWritten));
    pipeline.answered(2, Answer::OutOfOrder { expected: Some(10) });
    assert_eq!(pipeline.end_leg(), []);
    assert_eq!(send(&mut pipeline), [(2, 0, 10)]);
}

/// Batch 1 is given up in doubt: batch 2, in doubt too, is asked for under its own
/// sequences, and batch 3 waits until it is known.
#[test]
fn a_gap_is_stepped_over_once_nothing_behind_it_is_in_doubt() {
    let mut pipeline = under_way(RULES);
    admit(&mut pipeline, 1..3);
    send(&mut pipeline);
    pipeline.lost();
    pipeline.end_leg();
    assert_eq!(pipeline.give_up(1), Some(Fate::InDoubt));
    admit(&mut pipeline, 3..4);
    assert_eq!(send(&mut pipeline), [(2, 0, 20)]);
    // It cannot be known whether its first attempt will still be carried out.
    assert_eq!(pipeline.answered(2, Answer::OutOfOrder { expected: Some(10) }), None);
    assert_eq!(pipeline.end_leg(), [(2, Fate::InDoubt)]);
    assert_eq!(send(&mut pipeline), [(3, 1, 0)]);
    pipeline.answered(3, Answer::Written);
    admit(&mut pipeline, 4..5);
    assert_eq!(send(&mut pipeline), [(4, 1, 10)]);
}

/// A leader without what was acknowledged: after an unclean election, or acks=1.
#[test]
fn a_leader_that_lost_records_gets_the_next_epoch() {
    let mut pipeline = under_way(RULES);
    admit(&mut pipeline, 1..2);
    send(&mut pipeline);
    assert_eq!(pipeline.answered(1, Answer::OutOfOrder { expected: Some(0) }), None);
    assert_eq!(pipeline.end_leg(), []);
    assert_eq!(send(&mut pipeline), [(1, 1, 0)]);
}

#[test]
fn with_acks_1_what_is_in_doubt_and_lost_with_others_is_sent_anew() {
    for (lossy, expected, fate) in
        [(true, 0, None), (true, 30, Some(Fate::InDoubt)), (false, 0, Some(Fate::InDoubt))]
    {
        let mut pipeline = under_way(Rules { lossy, ..RULES });
        admit(&mut pipeline, 1..2);
        send(&mut pipeline);
        pipeline.lost();
        pipeline.end_leg();
        send(&mut pipeline);
        pipeline.answered(1, Answer::OutOfOrder { expected: Some(expected) });
        assert_eq!(pipeline.end_leg().first().map(|(_, fate)| *fate), fate, "{lossy} {expected}");
        let again = pipeline.next();
        assert_eq!(again.map(|send| send.maybe_again), fate.is_none().then_some(true));
    }
}

#[test]
fn who_lost_its_id_to_another_takes_a_new_one() {
    let mut pipeline = under_way(RULES);
    admit(&mut pipeline, 1..3);
    send(&mut pipeline);
    pipeline.answered(1, Answer::Fenced);
    pipeline.answered(2, Answer::Fenced);
    assert_eq!(pipeline.end_leg(), []);
    assert_eq!(send(&mut pipeline), []);
    assert_eq!(pipeline.needs_identity(), Some(Some(7)));
    pipeline.identify(8);
    assert_eq!(
        pipeline.next().and_then(|send| send.sequence).map(|s| (s.id, s.epoch)),
        Some((8, 0))
    );
}

#[test]
fn the_last_epoch_is_followed_by_a_new_id() {
    let mut pipeline = under_way(RULES);
    pipeline.identity = Some((7, LAST_EPOCH));
    admit(&mut pipeline, 1..2);
    send(&mut pipeline);
    pipeline.answered(1, Answer::OutOfOrder { expected: Some(0) });
    pipeline.end_leg();
    assert_eq!(pipeline.next(), None);
    assert_eq!(pipeline.needs_identity(), Some(Some(7)));
}

/// Without sequences order can only be kept by sending one after the other.
#[test]
fn without_idempotence_one_batch_is_under_way_and_repeats_are_noticed() {
    let mut pipeline = Pipeline::new(Rules { idempotent: false, ..RULES });
    assert_eq!(pipeline.needs_identity(), None);
    admit(&mut pipeline, 0..2);
    let first = pipeline.next().expect("to send");
    assert_eq!((first.id, first.sequence, first.maybe_again), (0, None, false));
    assert_eq!(pipeline.next(), None);
    assert_eq!(pipeline.answered(0, IN_DOUBT), None);
    pipeline.end_leg();
    assert!(pipeline.next().expect("again").maybe_again);
    assert_eq!(pipeline.answered(0, Answer::Written), Some(Fate::Written));
    assert_eq!(pipeline.next().map(|send| (send.id, send.maybe_again)), Some((1, false)));
}

#[test]
fn sequences_go_round() {
    assert_eq!(sequence(SEQUENCES - 1), i32::MAX);
    assert_eq!(sequence(SEQUENCES), 0);
    assert!(precedes(i32::MAX, SEQUENCES) && precedes(5, 7));
    assert!(!precedes(7, 5) && !precedes(0, SEQUENCES - 1) && !precedes(3, 3));
}
