//! Reading a log from end to end in pieces of 1 MiB, against plain `pread` of its
//! file into one buffer.

use super::{MIB, Options, append, mib_per_second, scratch, time};
use ottla_commitlog::format::{ValidBatch, batch_headers};
use ottla_commitlog::vfs::{RealVfs, Vfs};
use ottla_commitlog::{Log, LogConfig, OpenMode, Shared};
use ottla_proto::LeaderEpoch;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Batches in the log: 256 MiB.
const BATCHES: usize = 256 * 16;

/// Records of 1 KiB in each.
const RECORDS: usize = 64;

pub(crate) fn fill(log: &Log, batches: usize, records: usize) {
    let template = append::encoded(records);
    for _ in 0..batches {
        let batch = ValidBatch::new(template.clone(), 8 * MIB).expect("valid");
        log.append_as_leader(vec![batch], LeaderEpoch(1), 1).expect("appends");
    }
}

pub(crate) fn segment(log: &Path) -> PathBuf {
    log.join("00000000000000000000.log")
}

pub(crate) fn drop_cache(path: &Path) {
    RealVfs.open(path).and_then(|file| file.drop_clean_cache()).expect("drops");
}

/// All of the log from `from` on.
fn read_log(log: &Log, from: u64) -> usize {
    let (mut next, mut bytes) = (from, 0);
    while next < log.bounds().end {
        let read = log.read(next, u64::MAX, MIB).expect("reads");
        bytes += read.len();
        let last = batch_headers(&read).last().expect("some").expect("good").0;
        next = last.next_offset();
    }
    bytes
}

fn read_file(path: &Path) -> usize {
    let file = File::open(path).expect("opens");
    let mut buffer = vec![0; MIB];
    let mut position = 0;
    loop {
        match file.read_at(&mut buffer, position as u64).expect("reads") {
            0 => return position,
            count => position += count,
        }
    }
}

fn rate(work: impl FnOnce() -> usize) -> f64 {
    let mut bytes = 0;
    let taken = time(|| bytes = work());
    mib_per_second(bytes, taken)
}

pub(crate) fn run(options: &Options) {
    if !options.wants("read-cold") && !options.wants("read-warm") && !options.wants("read-hot") {
        return;
    }
    let scratch = scratch(&options.dir);
    let dir = scratch.path().join("log");
    let written = append::fresh(&dir);
    fill(&written, BATCHES, RECORDS);
    written.sync().expect("syncs");
    let path = segment(&dir);
    // A log of its own, without anything in memory.
    let shared = Shared::with_hot_tail(Arc::new(RealVfs), 0);
    let config = LogConfig::default();
    let disk = Log::open(&shared, &dir, config, OpenMode::Clean).expect("opens").0;
    options.compare(
        "read-cold",
        "MiB/s",
        || {
            drop_cache(&path);
            rate(|| read_log(&disk, 0))
        },
        || {
            drop_cache(&path);
            rate(|| read_file(&path))
        },
    );
    options.compare(
        "read-warm",
        "MiB/s",
        || rate(|| read_log(&disk, 0)),
        || rate(|| read_file(&path)),
    );
    let records = (BATCHES * RECORDS) as u64;
    // The last 32 MiB, which are in memory.
    let from = records - records / 8;
    options.compare(
        "read-hot",
        "MiB/s",
        || rate(|| read_log(&written, from)),
        || rate(|| read_file(&path)),
    );
}
