//! What a path points to: a file of a log, a log, a data directory, or a
//! directory of several; and who uses it.

use super::files::FileKind;
use super::verify::Owner;
use crate::checkpoint;
use crate::vfs::RealVfs;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

const LOCK: &str = "lock";
const META: &str = "meta.properties";
const CLEAN_SHUTDOWN: &str = "clean-shutdown";
const METADATA: &str = "metadata";
const PARTITIONS: &str = "partitions";

/// Something that can be looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One file of a log.
    File(PathBuf, FileKind),
    /// The directory of one log.
    Log(PathBuf),
    /// A node's data directory.
    DataDir(PathBuf),
}

/// Why a path cannot be looked into.
#[derive(Debug, Error)]
pub enum TargetError {
    /// There is nothing, or it cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is something else.
    #[error("{path} is neither a file of a log, nor a log, nor a data directory")]
    Unknown {
        /// The path.
        path: PathBuf,
    },
}

fn io(path: &Path) -> impl FnOnce(io::Error) -> TargetError {
    move |error| TargetError::Io { path: path.to_owned(), error }
}

impl Target {
    /// What `path` points to. Several for a directory that holds data
    /// directories, or directories with a data directory called `data` in them,
    /// as those of `ottla dev`.
    ///
    /// # Errors
    /// Nothing there, not readable, or something else.
    pub fn at(path: &Path) -> Result<Vec<Self>, TargetError> {
        let path = path.canonicalize().map_err(io(path))?;
        if path.is_file() {
            return match kind_of(&path) {
                FileKind::Unknown => Err(TargetError::Unknown { path }),
                kind => Ok(vec![Self::File(path, kind)]),
            };
        }
        if let Some(target) = Self::of_dir(&path)? {
            return Ok(vec![target]);
        }
        let mut found = Vec::new();
        for dir in subdirs(&path).map_err(io(&path))? {
            for dir in [dir.join("data"), dir] {
                if is_data_dir(&dir) {
                    found.push(Self::DataDir(dir));
                    break;
                }
            }
        }
        if found.is_empty() { Err(TargetError::Unknown { path }) } else { Ok(found) }
    }

    fn of_dir(path: &Path) -> Result<Option<Self>, TargetError> {
        if is_data_dir(path) {
            return Ok(Some(Self::DataDir(path.to_owned())));
        }
        for entry in fs::read_dir(path).map_err(io(path))? {
            let kind = kind_of(&entry.map_err(io(path))?.path());
            if !matches!(kind, FileKind::Unknown | FileKind::Leftover) {
                return Ok(Some(Self::Log(path.to_owned())));
            }
        }
        Ok(None)
    }
}

fn kind_of(path: &Path) -> FileKind {
    path.file_name().and_then(|name| name.to_str()).map_or(FileKind::Unknown, FileKind::of)
}

fn is_data_dir(path: &Path) -> bool {
    path.join(META).is_file() || path.join(PARTITIONS).is_dir()
}

fn subdirs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The directories of all logs in a data directory, the metadata log first.
/// Partitions that are being deleted are left out.
///
/// # Errors
/// Not readable.
pub fn logs(data_dir: &Path) -> Result<Vec<PathBuf>, TargetError> {
    let mut found = Vec::new();
    let metadata = data_dir.join(METADATA).join("log");
    if metadata.is_dir() {
        found.push(metadata);
    }
    let partitions = data_dir.join(PARTITIONS);
    if partitions.is_dir() {
        let dirs = subdirs(&partitions).map_err(io(&partitions))?;
        found.extend(dirs.into_iter().filter(|dir| dir.extension().is_none()));
    }
    Ok(found)
}

impl Owner {
    /// Who has the log in `dir` (or the file in it) open, by the lock of the
    /// data directory around it. The lock is taken, shared, for an instant.
    #[must_use]
    pub fn of_log(dir: &Path) -> Self {
        let around = dir.ancestors().skip(1).find(|dir| is_data_dir(dir));
        around.map_or(Self::Unknown, Self::of_data_dir)
    }

    /// Who has a data directory open.
    #[must_use]
    pub fn of_data_dir(dir: &Path) -> Self {
        let locked = File::open(dir.join(LOCK)).is_ok_and(|file| {
            // Closing the file gives the lock back.
            matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
        });
        if locked {
            return Self::Running;
        }
        match checkpoint::read(&RealVfs, &dir.join(CLEAN_SHUTDOWN)) {
            Ok(Some(_)) => Self::Clean,
            _ => Self::Unknown,
        }
    }
}
