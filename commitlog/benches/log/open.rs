//! Opening: after a clean stop, whatever the size; after a crash, against reading
//! and checksumming the same file; and many logs side by side, against one by one.

use super::read::{drop_cache, fill, segment};
use super::{MIB, Options, append, mib_per_second, scratch, time};
use ottla_commitlog::vfs::RealVfs;
use ottla_commitlog::{Log, LogConfig, OpenMode, Shared};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn open(dir: &Path, mode: OpenMode) -> f64 {
    let shared = Shared::new(Arc::new(RealVfs));
    let taken = time(|| {
        Log::open(&shared, dir, LogConfig::default(), mode).expect("opens");
    });
    taken.as_secs_f64()
}

fn read_and_check(path: &Path) {
    let file = File::open(path).expect("opens");
    let mut buffer = vec![0; MIB];
    let mut position = 0;
    loop {
        let count = file.read_at(&mut buffer, position).expect("reads");
        if count == 0 {
            return;
        }
        std::hint::black_box(crc32c::crc32c(&buffer[..count]));
        position += count as u64;
    }
}

fn written(options: &Options, mib: usize) -> tempfile::TempDir {
    let scratch = scratch(&options.dir);
    let log = append::fresh(&scratch.path().join("log"));
    fill(&log, mib, 1024);
    log.sync().expect("syncs");
    scratch
}

/// Opens all of `dirs` after an unclean stop, so many at a time; logs per second.
fn open_all(dirs: &[PathBuf], threads: usize) -> f64 {
    let next = AtomicUsize::new(0);
    let taken = time(|| {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(dir) = dirs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        open(dir, OpenMode::Recover);
                    }
                });
            }
        });
    });
    dirs.len() as f64 / taken.as_secs_f64()
}

/// As many at a time as a node opens in each of its directories (`opening.rs` of
/// `replication`), against one after the other.
fn many(options: &Options) {
    const NAME: &str = "recovery-of-128";
    if !options.wants(NAME) {
        return;
    }
    let scratch = scratch(&options.dir);
    let dirs: Vec<PathBuf> = (0..128).map(|n| scratch.path().join(n.to_string())).collect();
    for dir in &dirs {
        let log = append::fresh(dir);
        fill(&log, 2, 1024);
        log.sync().expect("syncs");
    }
    options.compare(NAME, "1/s", || open_all(&dirs, 4), || open_all(&dirs, 1));
}

pub(crate) fn run(options: &Options) {
    many(options);
    let sizes = [("start-64MiB", 64), ("start-1GiB", 1024), ("start-4GiB", 4096)];
    for (name, mib) in sizes.into_iter().filter(|(name, _)| options.wants(name)) {
        let small = written(options, 1);
        let large = written(options, mib);
        let micros = |scratch: &tempfile::TempDir| {
            open(&scratch.path().join("log"), OpenMode::Clean) * 1_000_000.0
        };
        // The floor: the same with 1 MiB.
        options.compare(name, "us", || micros(&large), || micros(&small));
    }
    if !options.wants("recovery") {
        return;
    }
    let scratch = written(options, 512);
    let dir = scratch.path().join("log");
    let path = segment(&dir);
    let size = path.metadata().expect("is there").len() as usize;
    let rate = |seconds: f64| size as f64 / MIB as f64 / seconds;
    options.compare(
        "recovery",
        "MiB/s",
        || {
            drop_cache(&path);
            rate(open(&dir, OpenMode::Recover))
        },
        || {
            drop_cache(&path);
            mib_per_second(size, time(|| read_and_check(&path)))
        },
    );
}
