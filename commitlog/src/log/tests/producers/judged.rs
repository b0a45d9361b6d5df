//! What becomes of a batch, and of those beside it.

use super::*;

/// One's refusal is not another's: each has its own answer, and what is appended
/// has no gaps.
#[test]
fn batches_of_one_append_are_judged_one_after_the_other() {
    let (log, _) = open(&SimVfs::new(), small(), OpenMode::Recover);
    put(&log, IDEMPOTENT.batch(0, 2));
    let other = Sender { id: OTHER, ..IDEMPOTENT };
    let batches = vec![
        IDEMPOTENT.batch(0, 2), // sent before
        IDEMPOTENT.batch(2, 1),
        IDEMPOTENT.batch(2, 1), // the one before it, again
        other.batch(40, 1),     // of whom nothing is known: any sequence
        IDEMPOTENT.batch(9, 1), // a gap
        batch(&["plain"]),
        IDEMPOTENT.batch(3, 1),
    ];
    let appended = append(&log, batches);
    let placed = [
        Placement::Duplicate(0),
        Placement::At(2),
        Placement::Duplicate(2),
        Placement::At(3),
        out_of_order(3, 9),
        Placement::At(4),
        Placement::At(5),
    ];
    assert_eq!((appended.first_offset, appended.end_offset), (2, 6));
    assert_eq!(appended.placed, placed);
    let offsets: Vec<Option<Offset>> = placed.iter().map(|placed| placed.offset()).collect();
    assert_eq!(offsets, [Some(0), Some(2), Some(2), Some(3), None, Some(4), Some(5)]);
    let read: Vec<String> = values(&log).into_iter().map(|(_, value)| value).collect();
    assert_eq!(read, ["7/0+0", "7/0+1", "7/2+0", "9/40+0", "plain", "7/3+0"]);

    // None of them: nothing is written, and that is no error.
    let appended = append(&log, vec![IDEMPOTENT.batch(3, 1), IDEMPOTENT.batch(11, 1)]);
    assert_eq!((appended.first_offset, appended.end_offset), (6, 6));
    assert_eq!(appended.placed, [Placement::Duplicate(5), out_of_order(4, 11)]);
    assert_eq!(log.bounds().end, 6);
}

/// A failed append leaves nothing behind: the batch is not taken for one that is
/// in the log.
#[test]
fn what_was_not_written_is_no_duplicate() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    put(&log, IDEMPOTENT.batch(0, 2));
    vfs.fail(rule(Operation::Write, ".log", Fault::Enospc));
    let full = log.append_as_leader(vec![IDEMPOTENT.batch(2, 2)], LeaderEpoch(1), NOW);
    assert!(matches!(full, Err(LogError::DiskFull { .. })), "{full:?}");
    assert_eq!(put(&log, IDEMPOTENT.batch(2, 2)), 2);
    assert_known(&log, &[0, 2]);
}

#[test]
fn an_epoch_fences_those_before_it_and_begins_at_zero() {
    let (log, _) = open(&SimVfs::new(), small(), OpenMode::Recover);
    let epoch = |epoch| Sender { epoch, ..IDEMPOTENT };
    put(&log, epoch(4).batch(30, 2));
    assert_eq!(send(&log, epoch(5).batch(32, 1)), out_of_order(0, 32));
    let place = put(&log, epoch(5).batch(0, 1));
    let stale = InvalidProducerEpoch { producer_id: PRODUCER, current: 5, got: 4 };
    for sequence in [30, 32] {
        assert_eq!(send(&log, epoch(4).batch(sequence, 2)), Placement::Refused(stale));
    }
    assert_eq!(send(&log, epoch(5).batch(0, 1)), Placement::Duplicate(place));
    assert_eq!(log.bounds().end, 3);
}

#[test]
fn sequences_go_on_at_zero_after_the_largest() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    put(&log, IDEMPOTENT.batch(i32::MAX - 1, 3)); // the third has 0
    assert_eq!(send(&log, IDEMPOTENT.batch(0, 1)), out_of_order(1, 0));
    let (log, _) = reopen_clean(&vfs, log);
    assert_eq!(send(&log, IDEMPOTENT.batch(i32::MAX - 1, 3)), Placement::Duplicate(0));
    assert_eq!(put(&log, IDEMPOTENT.batch(1, 1)), 3);
}

/// What a leader appended is so, whatever this node thinks of it.
#[test]
fn a_follower_takes_everything_and_learns_from_it() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    let newer = Sender { epoch: 3, ..IDEMPOTENT };
    let batches = [newer.batch(0, 2), newer.batch(50, 2), IDEMPOTENT.batch(8, 2)];
    for (mut batch, base) in batches.into_iter().zip([0, 2, 4]) {
        batch.stamp(base, LeaderEpoch(1));
        let bytes = Bytes::copy_from_slice(batch.as_bytes());
        let appended = log.append_as_follower(bytes).expect("a follower does not judge");
        assert_eq!(appended.placed, [Placement::At(base)]);
    }
    for mode in [OpenMode::Clean, OpenMode::Recover] {
        assert_eq!(send(&log, IDEMPOTENT.batch(8, 2)), Placement::Duplicate(4));
        assert_eq!(send(&log, IDEMPOTENT.batch(52, 2)), out_of_order(10, 52));
        log.sync().expect("syncs");
        let (log, _) = open(&vfs, small(), mode);
        assert_eq!(send(&log, IDEMPOTENT.batch(8, 2)), Placement::Duplicate(4), "{mode:?}");
    }
}

#[test]
fn who_is_silent_for_a_day_is_forgotten() {
    let (log, _) = open(&SimVfs::new(), small(), OpenMode::Recover);
    put(&log, IDEMPOTENT.batch(0, 1));
    put(&log, Sender { id: OTHER, ..TRANSACTIONAL }.batch(0, 1));
    assert_eq!(log.expire_producers(NOW + crate::PRODUCER_EXPIRATION_MS - 1), 0);
    assert_eq!(send(&log, IDEMPOTENT.batch(5, 1)), out_of_order(1, 5));
    // Not the one whose transaction is open.
    assert_eq!(log.expire_producers(NOW + crate::PRODUCER_EXPIRATION_MS), 1);
    put(&log, IDEMPOTENT.batch(5, 1));
    let gap = send(&log, Sender { id: OTHER, ..TRANSACTIONAL }.batch(5, 1));
    let refused = ProducerRefusal::OutOfOrderSequence { producer_id: OTHER, expected: 1, got: 5 };
    assert_eq!(gap, Placement::Refused(refused));
}
