//! Appending without a sync: validation, stamping, writing, the indexes and the hot
//! tail, against a program that checksums the same bytes and writes them.

use super::{MIB, Options, mib_per_second, scratch, time};
use bytes::{Bytes, BytesMut};
use ottla_commitlog::format::{BatchOptions, NewRecord, ValidBatch, encode_batch};
use ottla_commitlog::vfs::RealVfs;
use ottla_commitlog::{Log, LogConfig, OpenMode, Shared};
use ottla_proto::LeaderEpoch;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Bytes in front of those that a batch's CRC covers.
const CRC_START: usize = 21;

/// Batches of 1 MiB in a round.
const LARGE: usize = 128;

/// Batches of 1 KiB in a round.
const SMALL: usize = 64 * 1024;

/// A batch of `records` records, each 1 KiB in all.
pub(crate) fn encoded(records: usize) -> BytesMut {
    let value = Bytes::from(vec![b'v'; 1024 - if records == 1 { 70 } else { 10 }]);
    let record = NewRecord { value: Some(value), timestamp_ms: 1, ..NewRecord::default() };
    encode_batch(&vec![record; records], &BatchOptions::default()).expect("encodes")
}

pub(crate) fn fresh(dir: &Path) -> Log {
    let shared = Shared::new(Arc::new(RealVfs));
    Log::open(&shared, dir, LogConfig::default(), OpenMode::Clean).expect("opens").0
}

/// Fresh copies, as they come from the network.
fn copies(template: &BytesMut, count: usize) -> Vec<BytesMut> {
    (0..count).map(|_| template.clone()).collect()
}

fn append(options: &Options, template: &BytesMut, count: usize, group: usize) -> f64 {
    let dir = scratch(&options.dir);
    let log = fresh(&dir.path().join("log"));
    let mut batches = copies(template, count).into_iter();
    let taken = time(|| {
        while batches.len() > 0 {
            let valid = |bytes| ValidBatch::new(bytes, 8 * MIB).expect("valid");
            let together: Vec<ValidBatch> = batches.by_ref().take(group).map(valid).collect();
            log.append_as_leader(together, LeaderEpoch(1), 1).expect("appends");
        }
    });
    mib_per_second(template.len() * count, taken)
}

fn floor(options: &Options, template: &BytesMut, count: usize, group: usize) -> f64 {
    let dir = scratch(&options.dir);
    let file = File::create(dir.path().join("file")).expect("creates");
    let mut batches = copies(template, count).into_iter();
    let taken = time(|| {
        let mut position = 0;
        while batches.len() > 0 {
            let together: Vec<BytesMut> = batches.by_ref().take(group).collect();
            for bytes in &together {
                std::hint::black_box(crc32c::crc32c(&bytes[CRC_START..]));
            }
            if let [one] = &together[..] {
                file.write_all_at(one, position).expect("writes");
                position += one.len() as u64;
            } else {
                let all = together.concat();
                file.write_all_at(&all, position).expect("writes");
                position += all.len() as u64;
            }
        }
    });
    mib_per_second(template.len() * count, taken)
}

pub(crate) fn run(options: &Options) {
    let large = encoded(1024);
    options.compare(
        "append-1MiB",
        "MiB/s",
        || append(options, &large, LARGE, 1),
        || floor(options, &large, LARGE, 1),
    );
    let small = encoded(1);
    let per_second = |mib: f64| mib * MIB as f64 / small.len() as f64;
    for (name, group) in [("append-1KiB", 1), ("append-1KiB-by-64", 64)] {
        options.compare(
            name,
            "1/s",
            || per_second(append(options, &small, SMALL, group)),
            || per_second(floor(options, &small, SMALL, group)),
        );
    }
}
