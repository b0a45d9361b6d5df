//! The only way to the disk: a small trait with the few operations that the
//! log needs, a real implementation, and a simulated one that loses, tears and
//! refuses what a disk may lose, tear and refuse.
//!
//! Not its job: what the files mean.

mod real;
mod sim;

pub use real::RealVfs;
pub use sim::{Fault, FaultRule, Operation, SimVfs};

use std::io;
use std::path::Path;
use std::sync::Arc;

/// A file system. Paths are compared as given; nothing follows the working
/// directory.
///
/// Durability, which callers must count on and no more:
/// - the bytes and the length of a file survive a power loss once
///   [`VfsFile::sync_data`] has returned `Ok` after they were written;
/// - the *name* of a new, renamed or removed file survives once
///   [`Vfs::sync_dir`] of its directory has returned `Ok` after that;
/// - a rename is atomic: after a crash the target is the old or the new file;
/// - after a failed sync, what was written since the last good one may be lost
///   although it can still be read, and another sync may return `Ok` without
///   having saved it.
pub trait Vfs: Send + Sync {
    /// Opens an existing file for positioned reads and writes.
    ///
    /// # Errors
    /// `NotFound` where there is none; whatever the system reports.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;

    /// Opens an existing file for reads; writes to it fail.
    ///
    /// # Errors
    /// As [`Vfs::open`].
    fn open_read_only(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;

    /// Creates an empty file, or empties the one that is there.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;

    /// Gives a file another name in the same directory, replacing what has it.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    ///
    /// # Errors
    /// `NotFound` where there is none; whatever the system reports.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Names of what is in a directory, in no order.
    ///
    /// # Errors
    /// `NotFound` where there is no such directory; whatever the system reports.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Creates a directory and all above it that are missing.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Creates one directory.
    ///
    /// # Errors
    /// `NotFound` where there is none for it to be in, `AlreadyExists`; whatever the
    /// system reports.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable (fsync of the directory).
    ///
    /// # Errors
    /// Whatever the system reports.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Room on the file system that a directory is on; `None` where it has no bound, as
    /// in memory.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn space(&self, _dir: &Path) -> io::Result<Option<Space>> {
        Ok(None)
    }
}

/// Room on a file system, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// What may still be used: not by root alone.
    pub free: u64,
    /// The whole of it.
    pub total: u64,
}

/// An open file. All access is positioned, so one handle serves any number of
/// threads.
#[expect(clippy::len_without_is_empty, reason = "nobody asks an open file for that")]
pub trait VfsFile: Send + Sync {
    /// Length in bytes.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn len(&self) -> io::Result<u64>;

    /// Appends up to `len` bytes from `offset` on to `into` and returns how
    /// many: fewer than `len` only where the file ends.
    ///
    /// # Errors
    /// Whatever the system reports; `into` may have grown.
    fn read_at(&self, offset: u64, len: usize, into: &mut Vec<u8>) -> io::Result<usize>;

    /// Writes all `buffers`, one after the other, at `offset`.
    ///
    /// # Errors
    /// Whatever the system reports; any part may have been written.
    fn write_all_at(&self, offset: u64, buffers: &[&[u8]]) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes bytes and length durable (fdatasync). Never retry a failed one in
    /// the hope that it says the truth the second time.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn sync_data(&self) -> io::Result<()>;

    /// Forgets cached bytes that need not be written any more, so that reads
    /// show what the disk holds. Best effort. What a failed sync lost can stay
    /// readable from the cache, even in a later process, which must not take it
    /// for durable.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn drop_clean_cache(&self) -> io::Result<()>;
}

/// Creates `dir` and what is missing above it, so that it survives a crash.
///
/// # Errors
/// Whatever the system reports.
pub fn create_dir_durably(vfs: &dyn Vfs, dir: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    for ancestor in dir.ancestors() {
        match vfs.list(ancestor) {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(ancestor),
            Err(error) => return Err(error),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    vfs.create_dir_all(dir)?;
    for created in missing.iter().rev() {
        match created.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => vfs.sync_dir(parent)?,
            _ => vfs.sync_dir(Path::new("."))?,
        }
    }
    Ok(())
}
