//! What may happen to a log that is used for everything at once, drawn at random.

use crate::format::{Compression, TimestampType};
use crate::vfs::{Fault, FaultRule, Operation};
use crate::{Cleanup, LogConfig};
use proptest::prelude::*;

/// `delete.retention.ms` of every log here.
pub(super) const TOMBSTONES_MS: i64 = 500;

/// What a batch is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Plain,
    /// Of one of a few idempotent producers.
    Idempotent(i64),
    /// The same batch again: so many before the producer's last.
    Again(i64, u8),
    /// One of a producer that skipped a sequence.
    Skipping(i64),
    /// Of one of a few transactional producers.
    Transactional(i64),
    /// The end of its transaction, if it has one open; commit or abort.
    Marker(i64, bool),
}

#[derive(Clone, Debug)]
pub(super) struct Append {
    pub(super) kind: Kind,
    /// Keys (none, or one of a few), and whether the value is null.
    pub(super) records: Vec<(Option<u8>, bool)>,
    pub(super) compression: Compression,
    /// How far the epoch goes up.
    pub(super) step: u32,
    pub(super) as_follower: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    Append(Append),
    Finish,
    Sync,
    /// To one of the batches at or behind the high watermark.
    Truncate(u16),
    Reset(u16),
    DeleteBefore(u16),
    Retain,
    /// With room for many keys, or few.
    Compact(bool),
    Configure(LogConfig),
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    Do(Op),
    /// The high watermark moves to one of the synced batches' ends.
    Commit(u16),
    Wait(u16),
    CleanRestart,
    /// The process dies; the page cache survives, or not (by that seed).
    Crash(Option<u64>),
    /// Power is lost that many changes of the disk into an operation.
    PowerLossDuring(Op, u64, u64),
    /// Something fails once or twice during an operation; if that takes the log
    /// offline it is opened again, after a power loss or without one.
    FaultDuring(Op, FaultRule, Option<u64>),
}

fn append() -> impl Strategy<Value = Append> {
    let kind = prop_oneof![
        4 => Just(Kind::Plain),
        3 => (1..3i64).prop_map(Kind::Idempotent),
        2 => (1..3i64, 0..5u8).prop_map(|(id, back)| Kind::Again(id, back)),
        1 => (1..3i64).prop_map(Kind::Skipping),
        3 => (11..13i64).prop_map(Kind::Transactional),
        3 => (11..13i64, any::<bool>()).prop_map(|(id, commit)| Kind::Marker(id, commit)),
    ];
    let record = (prop::option::weighted(0.9, 0..5u8), prop::bool::weighted(0.2));
    let compression = prop::sample::select(vec![
        Compression::None,
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ]);
    let step = prop_oneof![6 => Just(0u32), 1 => 1..3u32];
    let records = prop::collection::vec(record, 1..5);
    (kind, records, compression, step, prop::bool::weighted(0.3)).prop_map(
        |(kind, records, compression, step, as_follower)| Append {
            kind,
            records,
            compression,
            step,
            as_follower,
        },
    )
}

prop_compose! {
    pub(super) fn config()(
        segment_bytes in 150..900u64,
        index_interval_bytes in 0..300u32,
        max_index_entries in prop_oneof![1..4u32, Just(1000)],
        append_time in prop::bool::weighted(0.3),
        delete in any::<bool>(),
        compact in prop::bool::weighted(0.7),
        retention_ms in prop::option::of(0..2000u64),
        retention_bytes in prop::option::of(0..3000u64),
    ) -> LogConfig {
        LogConfig {
            segment_bytes,
            index_interval_bytes,
            max_index_entries,
            timestamp_type: if append_time {
                TimestampType::LogAppendTime
            } else {
                TimestampType::CreateTime
            },
            cleanup: Cleanup { delete, compact },
            retention_ms,
            retention_bytes,
            delete_retention_ms: TOMBSTONES_MS as u64,
            ..LogConfig::default()
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        16 => append().prop_map(Op::Append),
        3 => Just(Op::Finish),
        3 => Just(Op::Sync),
        2 => any::<u16>().prop_map(Op::Truncate),
        1 => any::<u16>().prop_map(Op::Reset),
        1 => any::<u16>().prop_map(Op::DeleteBefore),
        2 => Just(Op::Retain),
        4 => any::<bool>().prop_map(Op::Compact),
        1 => config().prop_map(Op::Configure),
    ]
}

fn fault() -> impl Strategy<Value = FaultRule> {
    use Operation as O;
    let operation = prop::sample::select(vec![
        O::Write,
        O::Write,
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
    let path = prop::sample::select(vec![
        "",
        ".log",
        "index",
        ".txnindex",
        ".snapshot",
        "checkpoint.tmp",
        ".cleaned",
        ".swap",
    ]);
    (operation, fault, path, 0..3u64, 1..3u64).prop_map(|(operation, fault, path, skip, times)| {
        FaultRule { operation, path_ends_with: path.to_owned(), skip, times, fault }
    })
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        24 => op().prop_map(Event::Do),
        6 => any::<u16>().prop_map(Event::Commit),
        3 => (0..1500u16).prop_map(Event::Wait),
        1 => Just(Event::CleanRestart),
        3 => prop::option::of(any::<u64>()).prop_map(Event::Crash),
        4 => (op(), 0..40u64, any::<u64>()).prop_map(|(o, n, s)| Event::PowerLossDuring(o, n, s)),
        4 => (op(), fault(), prop::option::of(any::<u64>()))
            .prop_map(|(o, f, s)| Event::FaultDuring(o, f, s)),
    ]
}
