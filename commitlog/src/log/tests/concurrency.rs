//! Many threads on one log.

use super::*;
use crate::format::check_batch;
use crate::vfs::{Vfs, VfsFile};
use parking_lot::Condvar;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts syncs of files, and holds them while told to; does something before the
/// next read.
#[derive(Default)]
struct Barrier {
    before_read: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    held: Mutex<bool>,
    changed: Condvar,
    begun: Mutex<u64>,
}

impl Barrier {
    fn hold(&self, held: bool) {
        *self.held.lock() = held;
        self.changed.notify_all();
    }

    fn wait_for_begun(&self, count: u64) {
        let mut begun = self.begun.lock();
        while *begun < count {
            self.changed.wait(&mut begun);
        }
    }
}

#[derive(Clone)]
struct SlowVfs(SimVfs, Arc<Barrier>);

struct SlowFile(Arc<dyn VfsFile>, Arc<Barrier>);

impl Vfs for SlowVfs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(SlowFile(self.0.open(path)?, Arc::clone(&self.1))))
    }
    fn open_read_only(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.0.open_read_only(path)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(SlowFile(self.0.create(path)?, Arc::clone(&self.1))))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir_all(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
}

impl VfsFile for SlowFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, offset: u64, len: usize, into: &mut Vec<u8>) -> io::Result<usize> {
        let before = self.1.before_read.lock().take();
        before.into_iter().for_each(|before| before());
        self.0.read_at(offset, len, into)
    }
    fn write_all_at(&self, offset: u64, buffers: &[&[u8]]) -> io::Result<()> {
        self.0.write_all_at(offset, buffers)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        *self.1.begun.lock() += 1;
        self.1.changed.notify_all();
        let mut held = self.1.held.lock();
        while *held {
            self.1.changed.wait(&mut held);
        }
        drop(held);
        self.0.sync_data()
    }
    fn drop_clean_cache(&self) -> io::Result<()> {
        self.0.drop_clean_cache()
    }
}

/// Appends and reads go on while an fdatasync runs, and all who come meanwhile
/// share the next one.
#[test]
fn syncs_are_shared() {
    let barrier = Arc::new(Barrier::default());
    let vfs = SlowVfs(SimVfs::new(), Arc::clone(&barrier));
    let config = LogConfig::default();
    let (log, _) =
        Log::open(&Shared::new(Arc::new(vfs)), dir(), config, OpenMode::Clean).expect("opens");
    fill(&log, 1, 1);
    let before = *barrier.begun.lock();
    barrier.hold(true);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| log.sync().expect("syncs"));
        barrier.wait_for_begun(before + 1);
        fill(&log, 5, 1);
        assert_eq!(values(&log).len(), 6);
        let others: Vec<_> = (0..8).map(|_| scope.spawn(|| log.sync().expect("syncs"))).collect();
        barrier.hold(false);
        assert_eq!(first.join().expect("ends"), 1);
        for other in others {
            assert_eq!(other.join().expect("ends"), 6);
        }
    });
    assert_eq!(*barrier.begun.lock(), before + 2);
    assert_eq!(log.sync().expect("nothing to do"), 6);
    assert_eq!(*barrier.begun.lock(), before + 2);
}

/// The log is cut, and other batches are where a reader was about to look: it
/// looks again, and gets what is there now.
#[test]
fn a_read_begins_anew_after_a_truncation() {
    let barrier = Arc::new(Barrier::default());
    let vfs = SlowVfs(SimVfs::new(), Arc::clone(&barrier));
    let shared = Shared::with_hot_tail(Arc::new(vfs), 0);
    let log = Arc::new(Log::open(&shared, dir(), small(), OpenMode::Clean).expect("opens").0);
    fill(&log, 5, 1);
    let cut = Arc::clone(&log);
    *barrier.before_read.lock() = Some(Box::new(move || {
        cut.truncate_to(1).expect("truncates");
        let longer = |_| batch(&["longer than before"]);
        cut.append_as_leader((0..4).map(longer).collect(), LeaderEpoch(2), NOW).expect("appends");
    }));
    let bytes = log.read(4, u64::MAX, 1).expect("reads");
    let header = check_batch(&bytes).expect("a whole batch");
    assert_eq!((header.base_offset, header.leader_epoch), (4, LeaderEpoch(2)));
}

/// Lets other threads come as far as they can. Nothing depends on it: without,
/// the tests below would only see less.
fn let_others_run() {
    for _ in 0..2000 {
        std::thread::yield_now();
    }
}

/// Those who waited for an fdatasync that failed do not try their luck.
#[test]
fn a_failed_sync_fails_all_who_wait() {
    let (vfs, barrier) = (SimVfs::new(), Arc::new(Barrier::default()));
    let slow = SlowVfs(vfs.clone(), Arc::clone(&barrier));
    let config = LogConfig::default();
    let (log, _) =
        Log::open(&Shared::new(Arc::new(slow)), dir(), config, OpenMode::Clean).expect("opens");
    fill(&log, 1, 1);
    let before = *barrier.begun.lock();
    barrier.hold(true);
    vfs.fail(rule(Operation::Sync, ".log", Fault::Eio));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| log.sync());
        barrier.wait_for_begun(before + 1);
        let others: Vec<_> = (0..4).map(|_| scope.spawn(|| log.sync())).collect();
        let_others_run();
        barrier.hold(false);
        assert!(matches!(first.join().expect("ends"), Err(LogError::Io { .. })));
        for other in others {
            assert!(matches!(other.join().expect("ends"), Err(LogError::Offline { .. })));
        }
    });
    assert_eq!((*barrier.begun.lock(), log.bounds().synced), (before + 1, 0));
}

/// A truncation while an fdatasync runs: the sync must not say afterwards that
/// more is durable than there is.
#[test]
fn a_truncation_waits_for_the_sync() {
    let barrier = Arc::new(Barrier::default());
    let slow = SlowVfs(SimVfs::new(), Arc::clone(&barrier));
    let config = LogConfig::default();
    let (log, _) =
        Log::open(&Shared::new(Arc::new(slow)), dir(), config, OpenMode::Clean).expect("opens");
    fill(&log, 5, 1);
    let before = *barrier.begun.lock();
    barrier.hold(true);
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| log.sync().expect("syncs"));
        barrier.wait_for_begun(before + 1);
        let truncate = scope.spawn(|| log.truncate_to(2).expect("truncates"));
        let_others_run();
        barrier.hold(false);
        assert_eq!(sync.join().expect("ends"), 5);
        truncate.join().expect("ends");
    });
    assert_eq!(log.bounds(), Bounds { start: 0, end: 2, synced: 2 });
}

/// Whatever comes between, readers see whole batches that were appended, and
/// `start <= synced <= end` holds at every moment.
#[test]
fn readers_and_syncs_survive_truncations() {
    let (log, _) = open(&SimVfs::new(), small(), OpenMode::Recover);
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let running = || !done.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while running() {
                let synced = log.sync().expect("syncs");
                let bounds = log.bounds();
                assert!(bounds.synced <= bounds.end, "{bounds:?} after a sync to {synced}");
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while running() {
                    let bounds = log.bounds();
                    assert!(bounds.start <= bounds.synced && bounds.synced <= bounds.end);
                    let from = bounds.start + (bounds.end - bounds.start) / 2;
                    match log.read(from, u64::MAX, 500) {
                        Ok(bytes) if !bytes.is_empty() => {
                            let header = check_batch(&bytes).expect("a whole batch");
                            assert!((header.base_offset..=header.last_offset()).contains(&from));
                            reads.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(_) | Err(LogError::OutOfRange { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        let mut round = 0;
        while round < 300 || reads.load(Ordering::Relaxed) < 100 {
            round += 1;
            fill(&log, 7, round);
            let bounds = log.bounds();
            match round % 20 {
                0 => log.reset_to(bounds.end + 3).expect("resets"),
                5 => log.delete_before(bounds.start + 10).expect("deletes"),
                _ => log.truncate_to(bounds.end - 6).expect("truncates"),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(reads.into_inner() >= 100);
}
