//! The hot tail and what the log does to it.

use super::*;

fn hot() -> (Arc<Shared>, Log) {
    let shared = Shared::new(Arc::new(SimVfs::new()));
    let log = Log::open(&shared, dir(), small(), OpenMode::Recover).expect("opens").0;
    fill(&log, 10, 1);
    (shared, log)
}

/// Memory of what was cut is free at once, and what remains is still served from
/// memory.
#[test]
fn a_truncation_frees_what_it_cuts() {
    let (shared, log) = hot();
    let all = shared.hot_tail_use().bytes;
    log.truncate_to(4).expect("truncates");
    assert_eq!(shared.hot_tail_use().bytes, all / 10 * 4);
    fill(&log, 1, 2);
    assert_eq!(shared.hot_tail_use().bytes, all / 10 * 5);
    let seen = values(&log);
    assert_eq!((seen.len(), seen[4].1.as_str()), (5, "e2-0"));
    assert_eq!(shared.hot_tail_use().misses, 0);
}

#[test]
fn a_reset_frees_everything() {
    for start in [3, 10, 20] {
        let (shared, log) = hot();
        log.reset_to(start).expect("resets");
        assert_eq!(shared.hot_tail_use().bytes, 0, "at {start}");
        fill(&log, 1, 2);
        assert_eq!(values(&log), [(start, "e2-0".to_owned())]);
    }
}

/// Who must not wait for a disk gets what is in memory, and hears what is not; that
/// is no miss, for nothing was read.
#[test]
fn a_read_from_memory_goes_to_no_disk() {
    let (shared, log) = hot();
    let held = |log: &Log, from| log.read_hot(from, 10, 1 << 20).expect("within the log");
    assert_eq!(held(&log, 3), Some(log.read(3, 10, 1 << 20).expect("held")));
    assert_eq!(held(&log, 10), Some(Bytes::new()), "the end");
    assert!(matches!(log.read_hot(11, 12, 1), Err(LogError::OutOfRange { .. })));
    log.close().expect("closes");
    let log = Log::open(&shared, dir(), small(), OpenMode::Clean).expect("opens").0;
    assert_eq!(held(&log, 3), None, "a new process remembers nothing");
    assert_eq!(shared.hot_tail_use().misses, 0);
    assert!(!log.read(3, 10, 1 << 20).expect("on the disk").is_empty());
}
