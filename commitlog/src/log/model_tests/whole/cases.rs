//! What the search once found, kept as stories.

use super::*;
use crate::format::Compression;

fn append(kind: Kind) -> Event {
    let records = vec![(Some(1), false)];
    let compression = Compression::None;
    Event::Do(Op::Append(Append { kind, records, compression, step: 0, as_follower: false }))
}

fn run(config: LogConfig, events: &[Event]) -> Run {
    let mut run = Run::new(config);
    for event in events {
        run.run(event);
    }
    run
}

/// A producer's last batch is a marker, and all of it is below the log start: its
/// epochs are kept, although no placeholder can carry them.
#[test]
fn a_marker_below_the_log_start_is_compacted_around() {
    let events = [
        append(Kind::Transactional(11)),
        append(Kind::Marker(11, false)),
        append(Kind::Plain),
        Event::Do(Op::Finish),
        Event::Do(Op::Sync),
        // The ends of batches are 0, 1, 2 and 3.
        Event::Commit(3),
        Event::Do(Op::DeleteBefore(2)),
        Event::Do(Op::Compact(true)),
        Event::Do(Op::Compact(true)),
        Event::Crash(Some(1)),
    ];
    let cleanup = crate::Cleanup { delete: false, compact: true };
    let run = run(LogConfig { cleanup, ..LogConfig::default() }, &events);
    assert_eq!((run.model.start, run.model.end, run.model.compacted()), (2, 3, 3));
}

/// A reset makes the next segment while the last one is not synced yet: a crash must
/// not leave what looks like damage in a finished segment.
#[test]
fn a_reset_syncs_what_it_leaves_behind() {
    for seed in 0..20 {
        let events = [
            append(Kind::Plain),
            Event::PowerLossDuring(Op::Reset(1), 8, seed),
            append(Kind::Plain),
            Event::PowerLossDuring(Op::Reset(15), 5, seed),
        ];
        run(LogConfig::default(), &events);
    }
}

/// An aborted transaction is truncated away, and the segment goes on without any: a
/// crash must not bring it back into the index.
#[test]
fn a_truncated_transaction_stays_forgotten() {
    for seed in 0..20 {
        let events = [
            append(Kind::Transactional(12)),
            append(Kind::Marker(12, false)),
            Event::Do(Op::Sync),
            Event::CleanRestart,
            Event::Do(Op::Truncate(0)),
            append(Kind::Plain),
            Event::Do(Op::Finish),
            Event::Crash(Some(seed)),
            append(Kind::Transactional(11)),
        ];
        run(LogConfig::default(), &events);
    }
}
