//! Verifies one log: every byte of every file, against the batches.
//!
//! Not its job: the walk itself (`look`).

use super::look::Look;
use super::problem::{Problem, Severity};
use crate::vfs::Vfs;
use crate::{Log, LogError};
use ottla_proto::Offset;
use std::io;
use std::path::{Path, PathBuf};

/// Looks at a log that is in use, at most: each begins anew because files went
/// away or were cut during the one before.
const MAX_LOOKS: u32 = 8;

/// What is known of whoever uses the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A process has it open: what is at its end may be half written, and files
    /// may come and go.
    Running,
    /// It was closed, and everything in it was synced before.
    Clean,
    /// Nobody has it open, and nothing is known of its end.
    Unknown,
}

/// The end of the last segment of a log that is in use: a batch of which not
/// all bytes are there yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeingWritten {
    /// The segment.
    pub path: PathBuf,
    /// Where the batch starts.
    pub position: u64,
    /// Bytes of it that are there.
    pub bytes: u64,
}

/// What a log holds, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Segments.
    pub segments: u32,
    /// Good batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes in the segments.
    pub bytes: u64,
    /// Log start offset.
    pub start: Offset,
    /// Offset behind the last good batch.
    pub end: Offset,
    /// Not a problem, but not looked at either.
    pub being_written: Option<BeingWritten>,
    /// The first [`super::MAX_PROBLEMS`] problems, in order.
    pub problems: Vec<Problem>,
}

impl Verification {
    /// The problems that concern records; what remains mends itself.
    pub fn damage(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.severity <= Severity::Torn)
    }
}

impl Log {
    /// [`verify`] for a log that nobody has open.
    ///
    /// # Errors
    /// `Io`. What is wrong with the log is in the result.
    pub fn verify(vfs: &dyn Vfs, dir: &Path) -> Result<Verification, LogError> {
        verify(vfs, dir, Owner::Unknown)
    }
}

/// Reads everything in a log's directory and changes nothing: every batch down
/// to its records, their order, indexes, checkpoints, and files that should not
/// be there. Holds one read of a segment and one batch in memory.
///
/// Of a log in use, a problem counts only if a second look finds it again: by
/// then retention or a truncation that came between is over.
///
/// # Errors
/// `Io` if the directory cannot be listed, or if a log in use did not hold still
/// for one look. Everything else is in the result.
pub fn verify(vfs: &dyn Vfs, dir: &Path, owner: Owner) -> Result<Verification, LogError> {
    verify_some(vfs, dir, owner, None)
}

/// [`verify`] for one segment of a log, and its indexes.
///
/// # Errors
/// As [`verify`]; `Io` where there is no such segment.
pub fn verify_segment(
    vfs: &dyn Vfs,
    dir: &Path,
    base: Offset,
    owner: Owner,
) -> Result<Verification, LogError> {
    verify_some(vfs, dir, owner, Some(base))
}

fn verify_some(
    vfs: &dyn Vfs,
    dir: &Path,
    owner: Owner,
    only: Option<Offset>,
) -> Result<Verification, LogError> {
    let mut before: Option<Verification> = None;
    let mut looks = 0;
    loop {
        looks += 1;
        let look = Look::new(vfs, dir, owner);
        let found = match only {
            None => look.all(),
            Some(base) => look.segment_at(base),
        };
        let mut found = match found {
            Err(error) if owner == Owner::Running && looks < MAX_LOOKS && vanished(&error) => {
                continue;
            }
            found => found?,
        };
        if owner != Owner::Running || found.problems.is_empty() {
            return Ok(found);
        }
        if let Some(before) = before {
            found.problems.retain(|problem| before.problems.contains(problem));
            return Ok(found);
        }
        before = Some(found);
    }
}

fn vanished(error: &LogError) -> bool {
    matches!(error, LogError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}
