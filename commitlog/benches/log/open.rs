//! Opening: after a clean stop, whatever the size; and after a crash, against
//! reading and checksumming the same file.

use super::read::{drop_cache, fill, segment};
use super::{MIB, Options, append, mib_per_second, scratch, time};
use ottla_commitlog::vfs::RealVfs;
use ottla_commitlog::{Log, LogConfig, OpenMode, Shared};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

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

pub(crate) fn run(options: &Options) {
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
