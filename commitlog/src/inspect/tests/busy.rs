//! Logs that are in use while they are looked at.

use super::*;
use crate::vfs::VfsFile;
use parking_lot::Mutex;
use std::io;

type Deed = Box<dyn FnMut(&str) + Send>;

/// The simulated disk, with somebody who does something between two calls.
struct Meddler {
    disk: SimVfs,
    /// Called before each file is opened, and before (`list`) and after
    /// (`listed`) each listing.
    deed: Mutex<Deed>,
}

impl Meddler {
    fn new(disk: &SimVfs, deed: impl FnMut(&str) + Send + 'static) -> Self {
        Self { disk: disk.clone(), deed: Mutex::new(Box::new(deed)) }
    }
}

impl Vfs for Meddler {
    fn open(&self, _: &Path) -> io::Result<Arc<dyn VfsFile>> {
        panic!("an inspection writes nothing")
    }
    fn open_read_only(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        (self.deed.lock())(&path.to_string_lossy());
        self.disk.open_read_only(path)
    }
    fn create(&self, _: &Path) -> io::Result<Arc<dyn VfsFile>> {
        panic!("an inspection writes nothing")
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        panic!("an inspection writes nothing")
    }
    fn remove_file(&self, _: &Path) -> io::Result<()> {
        panic!("an inspection writes nothing")
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        (self.deed.lock())("list");
        let names = self.disk.list(dir);
        (self.deed.lock())("listed");
        names
    }
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        panic!("an inspection writes nothing")
    }
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        panic!("an inspection writes nothing")
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        panic!("an inspection writes nothing")
    }
}

/// Does something once, when `when` says so.
fn once(
    when: impl Fn(&str) -> bool + Send + 'static,
    what: impl FnOnce() + Send + 'static,
) -> impl FnMut(&str) + Send {
    let mut what = Some(what);
    move |call| {
        if when(call)
            && let Some(what) = what.take()
        {
            what();
        }
    }
}

#[test]
fn an_append_in_progress_is_no_damage() {
    let vfs = written();
    let last = segment(*bases(&vfs).last().expect("some"));
    let end = len(&vfs, &last);
    for part in [1, 40, 80] {
        let new = batch("new", 40);
        let half = [&new.as_bytes()[..part]];
        vfs.open(&last).expect("opens").write_all_at(end, &half).expect("writes");
        let found = look(&vfs, Owner::Running);
        let (path, bytes) = (last.clone(), part as u64);
        assert_eq!(found.being_written, Some(BeingWritten { path, position: end, bytes }));
        assert_eq!((&found.problems[..], found.records), (&[][..], 40));
    }
}

/// The tail of a busy log is no excuse for bad bytes that are all there.
#[test]
fn damage_in_a_busy_log_is_still_damage() {
    let vfs = written();
    let last = segment(*bases(&vfs).last().expect("some"));
    let end = len(&vfs, &last);
    vfs.corrupt(&last, end - 1, 1).expect("within the file");
    let found = look(&vfs, Owner::Running);
    assert_eq!((found.problems.len(), found.being_written), (1, None));
    assert_eq!(found.problems[0].severity, Severity::Damage);
}

#[test]
fn files_about_to_be_renamed_are_no_leftovers() {
    let vfs = written();
    drop(vfs.create(&file("leader-epoch-checkpoint.tmp")).expect("creates"));
    assert_eq!(look(&vfs, Owner::Running).problems, []);
}

#[test]
fn deletion_under_our_eyes_means_a_fresh_look() {
    let vfs = SimVfs::new();
    let log = open(&vfs);
    append(&log, 20, 1);
    log.sync().expect("syncs");
    let meddler = Meddler::new(
        &vfs,
        once(|call| call == "listed", move || log.delete_before(25).expect("deletes")),
    );
    let found = look(&meddler, Owner::Running);
    assert_eq!((found.start, found.end, &found.problems[..]), (25, 40, &[][..]));
    // Nobody is there who could have removed it: that is an error.
    let vfs = written();
    let (disk, gone) = (vfs.clone(), segment(bases(&vfs)[1]));
    let remove = move || disk.remove_file(&gone).expect("removes");
    assert!(
        verify(&Meddler::new(&vfs, once(|call| call == "listed", remove)), dir(), Owner::Clean)
            .is_err()
    );
}

/// A follower's log is cut and goes on differently, in the midst of the look.
#[test]
fn truncation_under_our_eyes_means_a_fresh_look() {
    let vfs = SimVfs::new();
    let log = open(&vfs);
    append(&log, 20, 1);
    let last = segment(*bases(&vfs).last().expect("some")).to_string_lossy().into_owned();
    let change = move || {
        log.truncate_to(11).expect("truncates");
        append(&log, 30, 2);
    };
    let meddler = Meddler::new(&vfs, once(move |call| call == last, change));
    let found = look(&meddler, Owner::Running);
    assert_eq!((found.end, &found.problems[..]), (70, &[][..]));
}

/// A log that never holds still is an error in the end, not an endless loop.
#[test]
fn fresh_looks_are_bounded() {
    let vfs = written();
    let (disk, restless) = (vfs.clone(), segment(1000));
    let looks = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&looks);
    let meddler = Meddler::new(&vfs, move |call| match call {
        "list" => drop(disk.create(&restless).expect("creates")),
        "listed" => {
            *counter.lock() += 1;
            disk.remove_file(&restless).expect("removes");
        }
        _ => {}
    });
    let error = verify(&meddler, dir(), Owner::Running).expect_err("never holds still");
    assert!(matches!(error, crate::LogError::Io { .. }), "{error}");
    assert_eq!(*looks.lock(), 8);
}
