//! What may happen to a log, drawn at random.

use crate::vfs::{Fault, FaultRule, Operation};
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(super) enum Op {
    /// Records per batch, and how far the epoch goes up.
    Lead(Vec<u8>, u32),
    /// The same as a follower; the epoch goes up before the last batch.
    Follow(Vec<u8>, u32),
    StartEpoch(u32),
    Truncate(u16),
    Reset(u16),
    DeleteBefore(u16),
    Sync,
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    Do(Op),
    /// Sync, close, open as clean.
    CleanRestart,
    /// The process dies and comes back; the page cache survives.
    ProcessCrash,
    /// Power is lost between two operations.
    PowerLoss(u64),
    /// Power is lost that many changes of the disk into an operation.
    PowerLossDuring(Op, u64, u64),
    /// Something fails during an operation; if that takes the log offline it is
    /// opened again, after a power loss (by that seed) or without one.
    FaultDuring(Op, FaultRule, Option<u64>),
}

fn op() -> impl Strategy<Value = Op> {
    let batches = || prop::collection::vec(0..6u8, 1..4);
    let step = || prop_oneof![4 => Just(0u32), 1 => 1..3u32];
    prop_oneof![
        6 => (batches(), step()).prop_map(|(b, s)| Op::Lead(b, s)),
        4 => (batches(), step()).prop_map(|(b, s)| Op::Follow(b, s)),
        1 => (0..3u32).prop_map(Op::StartEpoch),
        2 => any::<u16>().prop_map(Op::Truncate),
        1 => any::<u16>().prop_map(Op::Reset),
        2 => any::<u16>().prop_map(Op::DeleteBefore),
        4 => Just(Op::Sync),
    ]
}

fn fault() -> impl Strategy<Value = FaultRule> {
    use Operation as O;
    let operation = prop::sample::select(vec![
        O::Write,
        O::Write,
        O::Write,
        O::Sync,
        O::Sync,
        O::SetLen,
        O::Create,
        O::Rename,
        O::Remove,
        O::SyncDir,
    ]);
    let fault = prop_oneof![
        Just(Fault::Eio),
        Just(Fault::Enospc),
        (0..300usize).prop_map(Fault::ShortWrite)
    ];
    let path = prop::sample::select(vec!["", ".log", ".index", ".timeindex", "checkpoint.tmp"]);
    (operation, fault, path, 0..2u64, 1..3u64).prop_map(|(operation, fault, path, skip, times)| {
        FaultRule { operation, path_ends_with: path.to_owned(), skip, times, fault }
    })
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => op().prop_map(Event::Do),
        1 => Just(Event::CleanRestart),
        1 => Just(Event::ProcessCrash),
        2 => any::<u64>().prop_map(Event::PowerLoss),
        4 => (op(), 0..24u64, any::<u64>()).prop_map(|(o, n, s)| Event::PowerLossDuring(o, n, s)),
        4 => (op(), fault(), prop::option::of(any::<u64>()))
            .prop_map(|(o, f, s)| Event::FaultDuring(o, f, s)),
    ]
}
