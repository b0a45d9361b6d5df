//! Putting a rewritten segment in the place of those it was made from, so that
//! after a crash at any point either they are there or it is, never a mixture.
//!
//! 1. `BASE.log.cleaned` is written and synced: it stands for nothing.
//! 2. It becomes `BASE-END.swap`, and the directory is synced. From here on it
//!    stands for everything from BASE to below END.
//! 3. What it replaces is removed, its indexes are written, and the directory is
//!    synced.
//! 4. It becomes `BASE.log`, and the directory is synced.
//!
//! A start goes on behind the last step that it finds done.

use super::rewrite::Rewritten;
use crate::LogError;
use crate::log::segment::{base_of, log_path, remove_files, remove_indexes};
use crate::log::{Log, Slot};
use crate::vfs::Vfs;
use ottla_proto::Offset;
use std::io;
use std::path::{Path, PathBuf};

const CLEANED: &str = ".cleaned";
const SWAP: &str = ".swap";

/// `00000000000000000042.log.cleaned`
pub(super) fn cleaned_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{base:020}.log{CLEANED}"))
}

/// `00000000000000000042-00000000000000000077.swap`
fn swap_path(dir: &Path, base: Offset, end: Offset) -> PathBuf {
    dir.join(format!("{base:020}-{end:020}{SWAP}"))
}

fn swap_range(name: &str) -> Option<(Offset, Offset)> {
    let (base, end) = name.strip_suffix(SWAP)?.split_once('-')?;
    let number = |digits: &str| base_of(&format!("{digits}.log"), "log");
    Some((number(base)?, number(end)?))
}

impl Log {
    /// Puts `new` in the place of `old`, neighbours that end at `end`. Returns
    /// whether it did: not if they are no longer what they were at `generation`.
    /// Appends and reads go on; what removes segments waits.
    pub(super) fn swap(
        &self,
        generation: u64,
        old: &[Slot],
        end: Offset,
        new: Rewritten,
    ) -> Result<bool, LogError> {
        let _shape = self.shape.lock();
        let base = old[0].segment.base;
        {
            let state = self.state.read();
            state.check_online()?;
            if state.generation != generation || place_of(&state.slots, old).is_none() {
                return Ok(false);
            }
        }
        let swap = swap_path(&self.dir, base, end);
        (self.vfs().rename(&cleaned_path(&self.dir, base), &swap))
            .map_err(|error| self.offline_unless_full(LogError::io("rename", &swap, error)))?;
        self.sync_dir()?;
        // Whoever still reads the old ones must not take the new ones' indexes
        // for theirs, nor write over them.
        for slot in old {
            slot.segment.index.lock().detach(self.vfs());
            slot.segment.aborted.lock().detach(self.vfs());
        }
        let segment = std::sync::Arc::clone(&new.slot.segment);
        {
            let mut state = self.state.write();
            let at = place_of(&state.slots, old).expect("nobody else changes finished segments");
            state.slots.splice(at..at + old.len(), [new.slot]);
        }
        self.tail.forget_below(end);
        let replaced: Vec<Offset> = old.iter().map(|slot| slot.segment.base).collect();
        let write_indexes = || {
            segment.finish_index(self.vfs());
            match self.seal_aborted(&segment) {
                // Missing, it is made anew; a part of it would be believed.
                Err(LogError::DiskFull { path }) => remove_unfinished(self.vfs(), &path),
                sealed => sealed,
            }
        };
        replace(self.vfs(), &self.dir, &swap, base, &replaced, write_indexes)
            .map_err(|error| self.offline(error))?;
        segment.index.lock().forget();
        Ok(true)
    }
}

/// Where `part` is in `all`, if it is there as it was.
fn place_of(all: &[Slot], part: &[Slot]) -> Option<usize> {
    let base = part[0].segment.base;
    let at = all.binary_search_by_key(&base, |slot| slot.segment.base).ok()?;
    // The last segment is being written: it is never replaced.
    let there = all[..all.len() - 1].get(at..at + part.len())?;
    let same = |(one, other): (&Slot, &Slot)| {
        std::sync::Arc::ptr_eq(&one.segment, &other.segment) && one.size == other.size
    };
    there.iter().zip(part).all(same).then_some(at)
}

/// Steps 3 and 4. Removing must be durable before the name is given: else the new
/// segment could come back beside old ones that it stands for. An index of a
/// finished segment is whole or missing, so what `write_indexes` writes comes
/// before the name as well.
fn replace(
    vfs: &dyn Vfs,
    dir: &Path,
    swap: &Path,
    base: Offset,
    replaced: &[Offset],
    write_indexes: impl FnOnce() -> Result<(), LogError>,
) -> Result<(), LogError> {
    for gone in replaced.iter().filter(|gone| **gone != base) {
        remove_files(vfs, dir, *gone)?;
    }
    remove_indexes(vfs, dir, base)?;
    write_indexes()?;
    sync_dir(vfs, dir)?;
    let path = log_path(dir, base);
    vfs.rename(swap, &path).map_err(|error| LogError::io("rename", &path, error))?;
    sync_dir(vfs, dir)
}

fn sync_dir(vfs: &dyn Vfs, dir: &Path) -> Result<(), LogError> {
    vfs.sync_dir(dir).map_err(|error| LogError::io("sync", dir, error))
}

/// Finishes or undoes what an interrupted compaction left in `dir`. Called
/// before anything is looked at there.
pub(in crate::log) fn settle(vfs: &dyn Vfs, dir: &Path) -> Result<(), LogError> {
    let names = vfs.list(dir).map_err(|error| LogError::io("list", dir, error))?;
    let swaps: Vec<(Offset, Offset)> = names.iter().filter_map(|name| swap_range(name)).collect();
    if !swaps.is_empty() {
        // The name can be seen; nothing may be removed for it before it is safe.
        sync_dir(vfs, dir)?;
    }
    for (base, end) in swaps {
        // By any of their files: a crash may have left only an index.
        let replaced: Vec<Offset> = names
            .iter()
            .filter_map(|name| base_of(name, name.split_once('.')?.1))
            .filter(|found| (base..end).contains(found))
            .collect();
        tracing::info!(dir = %dir.display(), base, end, "finishing an interrupted compaction");
        replace(vfs, dir, &swap_path(dir, base, end), base, &replaced, || Ok(()))?;
    }
    for name in names.iter().filter(|name| name.ends_with(CLEANED)) {
        remove_unfinished(vfs, &dir.join(name))?;
    }
    Ok(())
}

/// Removes a file that was not finished.
pub(super) fn remove_unfinished(vfs: &dyn Vfs, path: &Path) -> Result<(), LogError> {
    match vfs.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LogError::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_replaced() {
        let name = "00000000000000000042-00000000000000000077.swap";
        assert_eq!(swap_path(Path::new("/d"), 42, 77), Path::new("/d").join(name));
        assert_eq!(swap_range(name), Some((42, 77)));
        for other in ["00000000000000000042.swap", "42-77.swap", "00000000000000000042.log"] {
            assert_eq!(swap_range(other), None, "{other}");
        }
    }
}
