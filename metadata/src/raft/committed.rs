//! How far the Raft log was known to be committed: one small file, overwritten
//! in place and never synced.
//!
//! Raft does not rely on it. A node that comes back with a stale or unreadable
//! one shows an older image until it hears from the leader, and nothing worse;
//! an fdatasync for every committed entry would slow down each failover.
//!
//! ```text
//! CRC-32C of what follows u32 LE · length u8 · log id (MessagePack)
//! ```

use super::types::{self, LogId};
use ottla_commitlog::vfs::{Vfs, VfsFile};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Longest file that is looked at, in bytes.
const MAX_LEN: usize = 4 + 1 + u8::MAX as usize;

pub(crate) struct CommittedHint(Arc<dyn VfsFile>);

impl CommittedHint {
    pub(crate) fn open(vfs: &dyn Vfs, path: &Path) -> io::Result<Self> {
        let file = vfs.open(path).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => vfs.create(path),
            _ => Err(error),
        })?;
        Ok(Self(file))
    }

    pub(crate) fn write(&self, committed: &LogId) -> io::Result<()> {
        let id = types::encode(committed)?;
        let len = u8::try_from(id.len()).map_err(io::Error::other)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&[len]), &id);
        self.0.write_all_at(0, &[&crc.to_le_bytes(), &[len], &id])
    }

    /// `None` for anything but a whole, intact hint.
    pub(crate) fn read(&self) -> io::Result<Option<LogId>> {
        let mut bytes = Vec::new();
        self.0.read_at(0, MAX_LEN, &mut bytes)?;
        let Some((crc, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let Some(content) = rest.first().and_then(|&len| rest.get(..=usize::from(len))) else {
            return Ok(None);
        };
        if crc32c::crc32c(content) != u32::from_le_bytes(*crc) {
            return Ok(None);
        }
        Ok(types::decode(&content[1..]).ok())
    }
}
