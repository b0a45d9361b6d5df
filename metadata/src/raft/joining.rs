//! How far a node that came with a blank log must get before it may stand for
//! election.
//!
//! A blank log is filled from its beginning, and every membership in it counts
//! as soon as it is appended, however old. A node that was once the only voter,
//! or one of several that are all blank now, would meet a membership under which
//! it could elect itself, beside a quorum that has long moved on. So it does
//! not campaign until it has applied what was committed when it was admitted.
//! That must outlive a restart, hence a file: written before the first entry,
//! and never again, as it does no harm once the node is past it.
//!
//! ```text
//! joining: index of a log entry, u64 LE, and the CRC of a checkpoint
//! ```

use super::metadata::MetadataError;
use ottla_commitlog::checkpoint;
use ottla_commitlog::vfs::Vfs;
use std::io;
use std::path::Path;

const FILE_NAME: &str = "joining";

/// Keeps the index, durably.
pub(super) fn write(vfs: &dyn Vfs, dir: &Path, admitted_at: u64) -> io::Result<()> {
    checkpoint::write_atomically(vfs, &dir.join(FILE_NAME), &admitted_at.to_le_bytes())
}

/// The index, or 0 for a node that was there from the beginning. An unreadable
/// file is an error: to guess could elect a second leader.
pub(super) fn read(vfs: &dyn Vfs, dir: &Path) -> Result<u64, MetadataError> {
    let path = dir.join(FILE_NAME);
    let unreadable = |what: String| MetadataError::Joining { path: path.clone(), what };
    let bytes = checkpoint::read(vfs, &path).map_err(|error| unreadable(error.to_string()))?;
    let Some(bytes) = bytes else { return Ok(0) };
    let index = bytes.try_into().map_err(|_| unreadable("not a log index".to_owned()))?;
    Ok(u64::from_le_bytes(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_commitlog::vfs::SimVfs;

    #[test]
    fn is_kept_and_never_guessed() {
        let vfs = SimVfs::new();
        let dir = Path::new("/metadata");
        ottla_commitlog::vfs::create_dir_durably(&vfs, dir).expect("creates");
        assert_eq!(read(&vfs, dir).expect("none"), 0);
        write(&vfs, dir, 77).expect("writes");
        vfs.crash(1);
        assert_eq!(read(&vfs, dir).expect("reads"), 77);
        vfs.corrupt(&dir.join(FILE_NAME), 0, 1).expect("within the file");
        let error = read(&vfs, dir).expect_err("damaged");
        assert!(matches!(error, MetadataError::Joining { .. }), "{error}");
    }
}
