//! A read-only walk over a whole log, for `ottla log verify` and for tests.

use super::Log;
use super::epochs::Epochs;
use super::open::{read_epochs, read_start, segment_bases};
use super::segment::Segment;
use super::walk::SCAN_CHUNK_BYTES;
use crate::LogError;
use crate::format::ValidBatch;
use crate::vfs::Vfs;
use bytes::BytesMut;
use ottla_proto::{MAX_BATCH_BYTES, Offset};
use std::path::{Path, PathBuf};

/// Problems that are listed one by one: enough to see what is wrong. The walk
/// goes on behind the last, so that the totals are right.
pub const MAX_PROBLEMS: usize = 100;

/// Something that should not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// Byte within it.
    pub position: u64,
    /// What is wrong.
    pub reason: String,
}

/// What [`Log::verify`] saw.
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
    /// The first [`MAX_PROBLEMS`] problems, in order.
    pub problems: Vec<Problem>,
}

impl Log {
    /// Reads everything in `dir`, changes nothing: every batch down to its
    /// records, their order, and the checkpoint of epochs. A segment is left at
    /// its first bad batch. Meant for a log that is not open: in one that is,
    /// an append in progress looks like a torn tail.
    ///
    /// # Errors
    /// `Io`. What is wrong with the log is in the result.
    pub fn verify(vfs: &dyn Vfs, dir: &Path) -> Result<Verification, LogError> {
        let mut found = Verification::default();
        let bases = segment_bases(vfs, dir)?;
        let start = read_start(vfs, dir)?;
        found.start = start.max(bases.first().copied()).unwrap_or(0);
        let mut epochs = Epochs::default();
        let mut expected = bases.first().copied().unwrap_or(found.start);
        for base in bases {
            let segment = Segment::open(vfs, dir, base, true)?;
            if base != expected && !(expected..=found.start).contains(&base) {
                found.problem(&segment.path, 0, format!("{expected} was to follow"));
            }
            expected = found.walk(&segment, &mut epochs)?;
        }
        found.end = expected.max(found.start);
        found.check_epochs(vfs, dir, &epochs)?;
        Ok(found)
    }
}

impl Verification {
    fn problem(&mut self, path: &Path, position: u64, reason: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { path: path.to_owned(), position, reason });
        }
    }

    /// One segment; returns the offset behind its last good batch.
    fn walk(&mut self, segment: &Segment, epochs: &mut Epochs) -> Result<Offset, LogError> {
        let size = segment.file_len()?;
        self.segments += 1;
        self.bytes += size;
        let mut next = segment.base;
        let mut walker = segment.walk(0, size, SCAN_CHUNK_BYTES);
        loop {
            let at = walker.position();
            let bytes = match walker.next_batch() {
                Ok(None) => return Ok(next),
                Ok(Some(batch)) => BytesMut::from(batch.bytes),
                Err(LogError::Corrupt { position, reason, .. }) => {
                    self.problem(&segment.path, position, reason);
                    return Ok(next);
                }
                Err(error) => return Err(error),
            };
            let batch = match ValidBatch::new(bytes, MAX_BATCH_BYTES) {
                Ok(batch) => batch,
                Err(error) => {
                    self.problem(&segment.path, at, error.to_string());
                    return Ok(next);
                }
            };
            let header = batch.header();
            let base = header.base_offset;
            if base != next && !(next..=self.start).contains(&base) {
                self.problem(&segment.path, at, format!("offset {base} where {next} follows"));
            }
            let epoch = header.leader_epoch;
            if epochs.last() > Some(epoch) {
                self.problem(&segment.path, at, format!("leader epoch {epoch} goes back"));
            } else if header.last_offset() >= self.start {
                epochs.assign(epoch, base.max(self.start));
            }
            next = header.next_offset();
            self.batches += 1;
            self.records += u64::from(header.record_count);
        }
    }

    fn check_epochs(&mut self, vfs: &dyn Vfs, dir: &Path, epochs: &Epochs) -> Result<(), LogError> {
        let recorded = read_epochs(vfs, dir)?;
        let agrees = match &recorded {
            Some(recorded) => recorded.agree_with(epochs, self.end),
            None => epochs.last().is_none(),
        };
        if !agrees {
            let reason = "does not agree with the batches".to_owned();
            self.problem(&dir.join(super::EPOCHS_FILE), 0, reason);
        }
        Ok(())
    }
}
