//! Small files that are replaced as a whole: write a temporary file, fsync it,
//! rename it over the old one, fsync the directory. After a crash at any point
//! the name holds either the old or the new contents, never a mixture.
//!
//! Not its job: what the contents mean.

use crate::vfs::{Vfs, VfsFile};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Ends every checkpoint: says that the four bytes before it are a CRC.
const MAGIC: &[u8; 4] = b"OCK1";
/// CRC-32C and magic, in bytes.
const TRAILER_LEN: usize = 8;
/// Suffix of the temporary file.
const TEMPORARY: &str = "tmp";

/// Largest checkpoint that is read, in bytes: they hold a few numbers or lists
/// of them, and a garbage length must not fill the memory.
pub const MAX_CHECKPOINT_BYTES: u64 = 16 * 1024 * 1024;

/// Why a checkpoint could not be read.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The disk failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file exists, but not as it was written.
    #[error("{path} is garbage: {reason}")]
    Garbage {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
}

impl CheckpointError {
    /// What is wrong, for those who say themselves where.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Io { source, .. } => format!("cannot be read: {source}"),
            Self::Garbage { reason, .. } => (*reason).to_owned(),
        }
    }
}

/// Durably replaces the file at `path` by `bytes` and a CRC over them.
///
/// # Errors
/// Whatever the system reports; the old contents are then still in place,
/// unless the last step (syncing the directory) failed: then it may be either.
pub fn write_atomically(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let crc = crc32c::crc32c(bytes).to_be_bytes();
    replace(vfs, path, &[bytes, &crc, MAGIC])
}

/// As [`write_atomically`], but neither atomic nor durable: after a crash there
/// may be nothing, or garbage that [`read`] recognises. For what can be made
/// again. Returns the file, to be synced by who wants that.
///
/// # Errors
/// Whatever the system reports.
pub fn write_in_place(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) -> io::Result<Arc<dyn VfsFile>> {
    let crc = crc32c::crc32c(bytes).to_be_bytes();
    let file = vfs.create(path)?;
    file.write_all_at(0, &[bytes, &crc, MAGIC])?;
    Ok(file)
}

/// Reads what [`write_atomically`] wrote. `None` where there is no such file.
///
/// # Errors
/// An I/O error, or contents that were not written by [`write_atomically`]:
/// whether that may be treated as missing is for the caller to know.
pub fn read(vfs: &dyn Vfs, path: &Path) -> Result<Option<Vec<u8>>, CheckpointError> {
    let garbage = |reason| CheckpointError::Garbage { path: path.to_owned(), reason };
    let Some(mut bytes) = read_plain(vfs, path)? else {
        return Ok(None);
    };
    let Some((rest, magic)) = bytes.split_last_chunk::<4>() else {
        return Err(garbage("too short"));
    };
    if magic != MAGIC {
        return Err(garbage("unknown ending"));
    }
    let Some((contents, crc)) = rest.split_last_chunk::<4>() else {
        return Err(garbage("too short"));
    };
    if crc32c::crc32c(contents) != u32::from_be_bytes(*crc) {
        return Err(garbage("wrong CRC"));
    }
    bytes.truncate(bytes.len() - TRAILER_LEN);
    Ok(Some(bytes))
}

/// As [`write_atomically`], without the CRC: for files whose format is not ours.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_plain_atomically(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(vfs, path, &[bytes])
}

/// Reads a whole small file. `None` where there is none.
///
/// # Errors
/// An I/O error, or a file larger than [`MAX_CHECKPOINT_BYTES`].
pub fn read_plain(vfs: &dyn Vfs, path: &Path) -> Result<Option<Vec<u8>>, CheckpointError> {
    let io = |source| CheckpointError::Io { path: path.to_owned(), source };
    let file = match vfs.open_read_only(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let len = file.len().map_err(io)?;
    if len > MAX_CHECKPOINT_BYTES {
        return Err(CheckpointError::Garbage { path: path.to_owned(), reason: "too long" });
    }
    let mut bytes = Vec::new();
    file.read_at(0, len as usize, &mut bytes).map_err(io)?;
    Ok(Some(bytes))
}

fn replace(vfs: &dyn Vfs, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".");
    temporary.push(TEMPORARY);
    let temporary = PathBuf::from(temporary);
    let written = write_new(vfs, &temporary, parts).and_then(|()| vfs.rename(&temporary, path));
    if let Err(error) = written {
        // Best effort: the next attempt empties the file before it uses it.
        let _ = vfs.remove_file(&temporary);
        return Err(error);
    }
    // Whatever this is, it does not mean "nothing was changed", as a full disk
    // does before.
    vfs.sync_dir(dir).map_err(io::Error::other)
}

fn write_new(vfs: &dyn Vfs, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let file = vfs.create(path)?;
    file.write_all_at(0, parts)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Fault, FaultRule, Operation, SimVfs, create_dir_durably};

    fn disk() -> (SimVfs, PathBuf) {
        let vfs = SimVfs::new();
        create_dir_durably(&vfs, Path::new("/d")).expect("simulated");
        (vfs, PathBuf::from("/d/vote"))
    }

    #[test]
    fn missing_is_none_and_garbage_is_named() {
        let (vfs, path) = disk();
        assert!(matches!(read(&vfs, &path), Ok(None)));
        write_atomically(&vfs, &path, b"term 3").expect("writes");
        assert_eq!(read(&vfs, &path).expect("reads").as_deref(), Some(&b"term 3"[..]));
        for position in 0..14 {
            vfs.corrupt(&path, position, 0x10).expect("within the file");
            assert!(matches!(read(&vfs, &path), Err(CheckpointError::Garbage { .. })));
            vfs.corrupt(&path, position, 0x10).expect("within the file");
        }
        write_plain_atomically(&vfs, &path, b"abc").expect("writes");
        assert!(matches!(read(&vfs, &path), Err(CheckpointError::Garbage { .. })));
    }

    /// A power loss at every single step leaves the old or the new contents;
    /// after `Ok` it leaves the new ones.
    #[test]
    fn a_crash_at_any_step_leaves_old_or_new() {
        for step in 0..6 {
            for seed in 0..50 {
                let (vfs, path) = disk();
                write_atomically(&vfs, &path, b"old").expect("writes");
                vfs.power_fails_after(step);
                let done = write_atomically(&vfs, &path, b"new").is_ok();
                vfs.crash(seed);
                let found = read(&vfs, &path).expect("never garbage").expect("never missing");
                assert!(found == b"new" || (!done && found == b"old"), "step {step} seed {seed}");
            }
        }
    }

    #[test]
    fn a_full_disk_keeps_the_old_contents() {
        let (vfs, path) = disk();
        write_atomically(&vfs, &path, b"old").expect("writes");
        vfs.fail(FaultRule {
            operation: Operation::Write,
            path_ends_with: ".tmp".to_owned(),
            skip: 0,
            times: 1,
            fault: Fault::ShortWrite(2),
        });
        let error = write_atomically(&vfs, &path, b"new").expect_err("no space");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(read(&vfs, &path).expect("reads").as_deref(), Some(&b"old"[..]));
        write_atomically(&vfs, &path, b"new").expect("space again");
    }
}
