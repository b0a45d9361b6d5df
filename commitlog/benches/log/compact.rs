//! Compaction of random keys, four versions of each, against a program that reads
//! the same bytes, checksums them, and writes and syncs the fourth that stays.

use super::{MIB, Options, mib_per_second, scratch, time};
use bytes::Bytes;
use ottla_commitlog::format::{BatchOptions, NewRecord, ValidBatch, encode_batch};
use ottla_commitlog::vfs::RealVfs;
use ottla_commitlog::{
    Cleaner, Cleanup, CompactionEnd, DEFAULT_KEY_MAP_BYTES, Log, LogConfig, OpenMode, Shared,
};
use ottla_proto::LeaderEpoch;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Batches in the log: 256 MiB.
const BATCHES: usize = 256 * 16;

/// Records of 1 KiB in each.
const RECORDS: usize = 64;

const KEYS: u64 = (BATCHES * RECORDS / 4) as u64;

const SEGMENT_BYTES: u64 = 32 * MIB as u64;

/// The same keys in every round (Knuth's constants).
fn next_key(state: &mut u64) -> Bytes {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    Bytes::copy_from_slice(&((*state >> 33) % KEYS).to_be_bytes())
}

/// A log whose segments all are finished.
fn worn(dir: &Path) -> Log {
    let config = LogConfig {
        segment_bytes: SEGMENT_BYTES,
        cleanup: Cleanup { delete: false, compact: true },
        ..LogConfig::default()
    };
    let shared = Shared::new(Arc::new(RealVfs));
    let log = Log::open(&shared, dir, config, OpenMode::Clean).expect("opens").0;
    let value = Bytes::from(vec![b'v'; 1000]);
    let mut state = 1;
    for _ in 0..BATCHES {
        let records: Vec<NewRecord> = std::iter::repeat_with(|| NewRecord {
            key: Some(next_key(&mut state)),
            value: Some(value.clone()),
            timestamp_ms: 1,
            ..NewRecord::default()
        })
        .take(RECORDS)
        .collect();
        let bytes = encode_batch(&records, &BatchOptions::default()).expect("encodes");
        let batch = ValidBatch::new(bytes, 8 * MIB).expect("valid");
        log.append_as_leader(vec![batch], LeaderEpoch(1), 1).expect("appends");
    }
    log.finish_segment().expect("rolls");
    log
}

fn compact(options: &Options, map_bytes: &mut usize) -> f64 {
    let dir = scratch(&options.dir);
    let log = worn(&dir.path().join("log"));
    let before = log.size_bytes();
    let mut cleaner = Cleaner::new(DEFAULT_KEY_MAP_BYTES);
    let go = &mut |_| ControlFlow::Continue(());
    let taken = time(|| {
        let done = log.compact(1, log.bounds().end, &mut cleaner, go).expect("compacts");
        assert_eq!(done.end, CompactionEnd::Done);
    });
    assert!(log.size_bytes() < before / 3, "{} of {before} bytes stay", log.size_bytes());
    *map_bytes = cleaner.most_bytes();
    mib_per_second(before as usize, taken)
}

fn floor(options: &Options) -> f64 {
    let dir = scratch(&options.dir);
    let path = dir.path().join("file");
    let source = File::options().read(true).write(true).create_new(true).open(path);
    let source = source.expect("creates");
    let mut buffer = vec![b'v'; MIB];
    let blocks = BATCHES * RECORDS / 1024;
    for block in 0..blocks {
        source.write_all_at(&buffer, (block * MIB) as u64).expect("writes");
    }
    let target = File::create(dir.path().join("kept")).expect("creates");
    let taken = time(|| {
        for block in 0..blocks {
            source.read_exact_at(&mut buffer, (block * MIB) as u64).expect("reads");
            std::hint::black_box(crc32c::crc32c(&buffer));
            if block % 4 == 0 {
                target.write_all_at(&buffer, (block / 4 * MIB) as u64).expect("writes");
            }
        }
        target.sync_data().expect("syncs");
    });
    mib_per_second(blocks * MIB, taken)
}

#[expect(clippy::print_stderr, reason = "beside the figures")]
pub(crate) fn run(options: &Options) {
    let mut map_bytes = 0;
    options.compare("compact", "MiB/s", || compact(options, &mut map_bytes), || floor(options));
    if map_bytes > 0 {
        eprintln!("compact: at most {map_bytes} bytes for the keys of {KEYS} and their versions");
    }
}
