//! How far a log is compacted, durably: `cleaner-offset-checkpoint`.
//!
//! Lost, it only costs work: everything counts as dirty. What it must never do
//! is call clean what was written after a truncation; so it is removed before
//! the log is cut below it.

use crate::LogError;
use crate::checkpoint::{self, CheckpointError, write_atomically};
use crate::log::Log;
use crate::vfs::Vfs;
use ottla_proto::Offset;
use std::io;
use std::path::Path;

pub(crate) const CLEANER_FILE: &str = "cleaner-offset-checkpoint";

/// The offset on record, for a log that ends at `end`; 0 if there is none.
pub(in crate::log) fn read(vfs: &dyn Vfs, dir: &Path, end: Offset) -> Result<Offset, LogError> {
    let path = dir.join(CLEANER_FILE);
    let recorded = match checkpoint::read(vfs, &path) {
        Ok(bytes) => bytes.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok()),
        Err(error @ CheckpointError::Garbage { .. }) => {
            tracing::warn!(%error, "the whole log counts as not compacted");
            None
        }
        Err(CheckpointError::Io { path, source }) => {
            return Err(LogError::io("read", &path, source));
        }
    };
    let offset: Offset = recorded.unwrap_or(0);
    if offset > end {
        // What follows the end is yet to be written.
        remove(vfs, dir)?;
        return Ok(0);
    }
    Ok(offset)
}

fn remove(vfs: &dyn Vfs, dir: &Path) -> Result<(), LogError> {
    let path = dir.join(CLEANER_FILE);
    match vfs.remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(LogError::io("remove", &path, error)),
        Ok(()) => {}
    }
    vfs.sync_dir(dir).map_err(|error| LogError::io("sync", dir, error))
}

impl Log {
    /// Records that everything below `clean_to` is compacted, unless the log is
    /// no longer what it was at `generation`. Returns whether it did.
    pub(super) fn record_clean(&self, generation: u64, clean_to: Offset) -> Result<bool, LogError> {
        let _shape = self.shape.lock();
        {
            let state = self.state.read();
            state.check_online()?;
            if state.generation != generation {
                return Ok(false);
            }
        }
        let path = self.dir.join(CLEANER_FILE);
        write_atomically(self.vfs(), &path, clean_to.to_string().as_bytes())
            .map_err(|error| self.offline_unless_full(LogError::io("write", &path, error)))?;
        self.state.write().clean_to = clean_to;
        Ok(true)
    }

    /// Durably forgets how far the log is compacted, if it is about to be cut
    /// below that. The caller holds `shape`.
    pub(in crate::log) fn forget_clean_beyond(&self, end: Offset) -> Result<(), LogError> {
        if self.state.read().clean_to > end {
            remove(self.vfs(), &self.dir).map_err(|error| self.offline(error))?;
            self.state.write().clean_to = 0;
        }
        Ok(())
    }
}
