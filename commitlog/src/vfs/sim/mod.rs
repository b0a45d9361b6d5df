//! A file system in memory that fails as disks and kernels do.
//!
//! [`SimVfs::crash`] is a power loss: of what was not synced, any part may be
//! gone, a write may be torn, writes may have reached the disk out of order,
//! and names that no directory sync covered may be missing. Faults are injected
//! by rule. The same calls with the same seeds give the same bytes.
//!
//! Not its job: time. Nothing here is slow.

mod disk;
mod file;

#[cfg(test)]
mod tests;

use super::{Space, Vfs, VfsFile};
use disk::{Change, Dir, Disk, FileData, Inode, NameChange, split};
use file::SimFile;
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A kind of call that a [`FaultRule`] can make fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reading from a file.
    Read,
    /// Writing to a file.
    Write,
    /// Cutting or extending a file.
    SetLen,
    /// Syncing a file.
    Sync,
    /// Opening an existing file.
    Open,
    /// Creating or emptying a file.
    Create,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
    /// Syncing a directory.
    SyncDir,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A media error. For a sync: what was not durable is lost, although it can
    /// still be read, and the next sync says `Ok` (as Linux behaves).
    Eio,
    /// No space left.
    Enospc,
    /// No space left after that many bytes of the write.
    ShortWrite(usize),
}

/// Which calls fail, and how.
#[derive(Clone, Debug)]
pub struct FaultRule {
    /// The kind of call.
    pub operation: Operation,
    /// Only on paths that end with this; empty for all.
    pub path_ends_with: String,
    /// Matching calls that still succeed before the first that fails.
    pub skip: u64,
    /// Calls that fail; the rule is gone afterwards.
    pub times: u64,
    /// What happens.
    pub fault: Fault,
}

/// The simulated file system. Clones share it.
#[derive(Clone)]
pub struct SimVfs(Arc<Mutex<Disk>>);

impl Default for SimVfs {
    fn default() -> Self {
        Self::new()
    }
}

impl SimVfs {
    /// A disk with nothing but a root directory.
    #[must_use]
    pub fn new() -> Self {
        let mut disk = Disk::default();
        disk.dirs.insert(PathBuf::from("/"), Dir::default());
        Self(Arc::new(Mutex::new(disk)))
    }

    /// Adds a rule.
    pub fn fail(&self, rule: FaultRule) {
        self.0.lock().rules.push(rule);
    }

    /// From now on one call in `one_in`, as `seed` draws, meets a media error.
    pub fn fail_one_in(&self, one_in: u64, seed: u64) {
        self.0.lock().set_errors(one_in.max(1), seed);
    }

    /// From now on there is no space: for bytes, and for new files.
    pub fn fill(&self) {
        self.0.lock().full = true;
    }

    /// From now on this is what there is said to be of room; `None`: it has no bound.
    /// Nothing fails for it.
    pub fn set_space(&self, space: Option<Space>) {
        self.0.lock().space = space;
    }

    /// Removes all rules, finds space again, and lets no call fail any more.
    pub fn heal(&self) {
        let mut disk = self.0.lock();
        disk.rules.clear();
        disk.full = false;
        disk.set_errors(0, 0);
    }

    /// The process that had files open is gone: its handles fail for ever. Nothing is
    /// lost of what it wrote.
    pub fn close_all(&self) {
        self.0.lock().boot += 1;
    }

    /// Rules that have not made all of their calls fail yet.
    #[must_use]
    pub fn unmet(&self) -> usize {
        self.0.lock().rules.len()
    }

    /// Lets the power fail at the `changes`-th changing call from now (0: the
    /// next one): it and all after it fail, a write possibly half done. Call
    /// [`SimVfs::crash`] to bring the disk back.
    pub fn power_fails_after(&self, changes: u64) {
        self.0.lock().power_left = Some(changes);
    }

    /// Number of changing calls so far: writes, syncs and changes of names.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    /// Loses power and comes back: unsynced data and names survive in whole, in
    /// part, torn, out of order or not at all, as `seed` draws. Handles from
    /// before fail for ever.
    pub fn crash(&self, seed: u64) {
        self.0.lock().crash(seed);
    }

    /// Flips bits of a stored byte, visible and durable: bit rot.
    ///
    /// # Errors
    /// No such file, or it is not that long.
    pub fn corrupt(&self, path: &Path, position: u64, xor: u8) -> io::Result<()> {
        let mut disk = self.0.lock();
        let inode = disk.inode(path)?;
        let file = disk.files.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        let position = position as usize;
        let byte = file.visible.get_mut(position).ok_or(io::ErrorKind::UnexpectedEof)?;
        *byte ^= xor;
        if let Some(byte) = file.durable.get_mut(position) {
            *byte ^= xor;
        }
        Ok(())
    }
}

impl SimVfs {
    fn handle(&self, disk: &Disk, inode: Inode, path: &Path, writable: bool) -> Arc<dyn VfsFile> {
        let (path, boot) = (path.to_owned(), disk.boot);
        Arc::new(SimFile { disk: Arc::clone(&self.0), inode, path, boot, writable })
    }

    fn open_as(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn VfsFile>> {
        let mut disk = self.0.lock();
        disk.check(Operation::Open, path)?;
        let inode = disk.inode(path)?;
        Ok(self.handle(&disk, inode, path, writable))
    }
}

impl Vfs for SimVfs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.open_as(path, true)
    }

    fn open_read_only(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.open_as(path, false)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut disk = self.0.lock();
        disk.check(Operation::Create, path)?;
        let (dir, name) = split(path)?;
        let inode = match disk.dir(&dir)?.visible.get(&name) {
            Some(&inode) => {
                let file = disk.files.entry(inode).or_default();
                file.visible.clear();
                file.unsynced.push(Change::SetLen(0));
                inode
            }
            None => {
                let inode = disk.next_inode;
                disk.next_inode += 1;
                disk.files.insert(inode, FileData::default());
                disk.change_name(&dir, NameChange::Link(name, inode))?;
                inode
            }
        };
        Ok(self.handle(&disk, inode, path, true))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.check(Operation::Rename, to)?;
        let inode = disk.inode(from)?;
        let ((dir, from), (target_dir, to)) = (split(from)?, split(to)?);
        if dir != target_dir {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        disk.change_name(&dir, NameChange::Rename(from, to, inode))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.check(Operation::Remove, path)?;
        disk.inode(path)?;
        let (dir, name) = split(path)?;
        disk.change_name(&dir, NameChange::Unlink(name))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut disk = self.0.lock();
        let dir = disk.dir(dir)?;
        Ok(dir.visible.keys().chain(dir.subdirs.keys()).cloned().collect())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        dir.ancestors().for_each(|path| disk.add_dir(path));
        Ok(())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        if disk.dirs.contains_key(dir) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.dir(dir.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        disk.add_dir(dir);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.check(Operation::SyncDir, dir)?;
        let synced = disk.dir(dir)?;
        synced.unsynced.clear();
        synced.durable = synced.visible.clone();
        synced.subdirs.values_mut().for_each(|durable| *durable = true);
        Ok(())
    }

    fn space(&self, _dir: &Path) -> io::Result<Option<Space>> {
        Ok(self.0.lock().space)
    }
}
