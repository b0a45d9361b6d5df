//! A file system in memory that fails as disks and kernels do.
//!
//! [`SimVfs::crash`] is a power loss: of what was not synced, any part may be
//! gone, a write may be torn, writes may have reached the disk out of order,
//! and names that no directory sync covered may be missing. Faults are injected
//! by rule. The same calls with the same seeds give the same bytes.
//!
//! Not its job: time. Nothing here is slow.

use super::{Vfs, VfsFile};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
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

type Inode = u64;

#[derive(Default)]
struct Disk {
    next_inode: Inode,
    files: BTreeMap<Inode, FileData>,
    dirs: BTreeMap<PathBuf, Dir>,
    rules: Vec<FaultRule>,
    /// Counts crashes: a handle from before one is dead.
    boot: u64,
    /// Changing calls until the power fails, if it is going to.
    power_left: Option<u64>,
    changes: u64,
}

#[derive(Default)]
struct FileData {
    visible: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let start = *offset as usize;
                let end = start + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[start..end].copy_from_slice(data);
            }
            Self::SetLen(len) => bytes.resize(*len as usize, 0),
        }
    }
}

#[derive(Default)]
struct Dir {
    visible: BTreeMap<String, Inode>,
    durable: BTreeMap<String, Inode>,
    unsynced: Vec<NameChange>,
    /// Directories are created durably: nothing here depends on losing one.
    subdirs: BTreeSet<String>,
}

#[derive(Clone)]
enum NameChange {
    Link(String, Inode),
    Unlink(String),
    Rename(String, String, Inode),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, Inode>) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
            Self::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

/// SplitMix64: enough to draw which bytes a crash takes.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

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

    /// Removes all rules.
    pub fn heal(&self) {
        self.0.lock().rules.clear();
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
        let mut disk = self.0.lock();
        let mut draw = Draw(seed);
        disk.boot += 1;
        disk.power_left = None;
        for dir in disk.dirs.values_mut() {
            survive_names(dir, &mut draw);
        }
        let linked: BTreeSet<Inode> =
            disk.dirs.values().flat_map(|dir| dir.durable.values().copied()).collect();
        disk.files.retain(|inode, _| linked.contains(inode));
        for file in disk.files.values_mut() {
            survive_bytes(file, &mut draw);
        }
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

/// Of the unsynced changes of names, each survives or not by itself.
fn survive_names(dir: &mut Dir, draw: &mut Draw) {
    let all = draw.below(3) == 0;
    for change in std::mem::take(&mut dir.unsynced) {
        if all || draw.below(2) == 0 {
            change.apply(&mut dir.durable);
        }
    }
    dir.visible = dir.durable.clone();
}

fn survive_bytes(file: &mut FileData, draw: &mut Draw) {
    let changes = std::mem::take(&mut file.unsynced);
    match draw.below(4) {
        // All of it reached the disk, none of it, …
        0 => changes.iter().for_each(|change| change.apply(&mut file.durable)),
        1 => {}
        // … a prefix with a torn end, …
        2 => {
            let whole = draw.below(changes.len() as u64 + 1) as usize;
            changes[..whole].iter().for_each(|change| change.apply(&mut file.durable));
            if let Some(Change::Write(offset, data)) = changes.get(whole) {
                let len = draw.below(data.len() as u64 + 1) as usize;
                Change::Write(*offset, data[..len].to_vec()).apply(&mut file.durable);
            }
        }
        // … or pages out of order, with holes of zeros.
        _ => {
            for change in &changes {
                if draw.below(2) == 0 {
                    change.apply(&mut file.durable);
                }
            }
        }
    }
    file.visible = file.durable.clone();
}

fn split(path: &Path) -> io::Result<(PathBuf, String)> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().and_then(|n| n.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok((dir.to_owned(), name.to_owned()))
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

fn enospc() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error())
}

impl Disk {
    fn dir(&mut self, dir: &Path) -> io::Result<&mut Dir> {
        self.dirs.get_mut(dir).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn inode(&mut self, path: &Path) -> io::Result<Inode> {
        let (dir, name) = split(path)?;
        self.dir(&dir)?.visible.get(&name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The fault that this call meets, if any.
    fn fault(&mut self, operation: Operation, path: &Path) -> Option<Fault> {
        if operation != Operation::Read && operation != Operation::Open {
            self.changes += 1;
            match &mut self.power_left {
                Some(0) => return Some(Fault::Eio),
                Some(left) => *left -= 1,
                None => {}
            }
        }
        let name = path.to_string_lossy();
        let index = self
            .rules
            .iter()
            .position(|rule| rule.operation == operation && name.ends_with(&rule.path_ends_with))?;
        let rule = &mut self.rules[index];
        if rule.skip > 0 {
            rule.skip -= 1;
            return None;
        }
        rule.times = rule.times.saturating_sub(1);
        let fault = rule.fault;
        if rule.times == 0 {
            self.rules.remove(index);
        }
        Some(fault)
    }

    fn check(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        match self.fault(operation, path) {
            None => Ok(()),
            Some(Fault::Eio) => Err(eio()),
            Some(Fault::Enospc | Fault::ShortWrite(_)) => Err(enospc()),
        }
    }

    fn change_name(&mut self, dir: &Path, change: NameChange) -> io::Result<()> {
        let dir = self.dir(dir)?;
        change.apply(&mut dir.visible);
        dir.unsynced.push(change);
        Ok(())
    }
}

struct SimFile {
    disk: Arc<Mutex<Disk>>,
    inode: Inode,
    path: PathBuf,
    boot: u64,
    writable: bool,
}

impl SimFile {
    fn with<T>(&self, body: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.disk.lock();
        if disk.boot != self.boot {
            return Err(io::Error::other("the handle is from before a crash"));
        }
        body(&mut disk)
    }

    fn change(&self, disk: &mut Disk, change: Change) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let file = disk.files.get_mut(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        change.apply(&mut file.visible);
        file.unsynced.push(change);
        Ok(())
    }
}

impl VfsFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|disk| Ok(disk.files.get(&self.inode).map_or(0, |f| f.visible.len() as u64)))
    }

    fn read_at(&self, offset: u64, len: usize, into: &mut Vec<u8>) -> io::Result<usize> {
        self.with(|disk| {
            disk.check(Operation::Read, &self.path)?;
            let file = disk.files.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
            let start = file.visible.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
            let end = file.visible.len().min(start.saturating_add(len));
            into.extend_from_slice(&file.visible[start..end]);
            Ok(end - start)
        })
    }

    fn write_all_at(&self, offset: u64, buffers: &[&[u8]]) -> io::Result<()> {
        self.with(|disk| {
            let mut data = buffers.concat();
            let result = match disk.fault(Operation::Write, &self.path) {
                None => Ok(()),
                Some(Fault::Enospc) => return Err(enospc()),
                Some(Fault::ShortWrite(len)) => {
                    data.truncate(len);
                    Err(enospc())
                }
                // A media error or a power loss comes in the middle.
                Some(Fault::Eio) => {
                    data.truncate(data.len() / 2);
                    Err(eio())
                }
            };
            self.change(disk, Change::Write(offset, data))?;
            result
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|disk| {
            disk.check(Operation::SetLen, &self.path)?;
            self.change(disk, Change::SetLen(len))
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|disk| {
            let powered = disk.power_left != Some(0);
            let result = disk.check(Operation::Sync, &self.path);
            let file = disk.files.get_mut(&self.inode).ok_or(io::ErrorKind::NotFound)?;
            match result {
                Ok(()) => {
                    for change in std::mem::take(&mut file.unsynced) {
                        change.apply(&mut file.durable);
                    }
                    Ok(())
                }
                Err(error) => {
                    // A failed sync forgets the dirty pages; a power loss leaves
                    // their fate to the crash.
                    if powered {
                        file.unsynced.clear();
                    }
                    Err(error)
                }
            }
        })
    }

    fn drop_clean_cache(&self) -> io::Result<()> {
        self.with(|disk| {
            let file = disk.files.get_mut(&self.inode).ok_or(io::ErrorKind::NotFound)?;
            file.visible = file.durable.clone();
            for change in &file.unsynced {
                change.apply(&mut file.visible);
            }
            Ok(())
        })
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
        Ok(dir.visible.keys().chain(&dir.subdirs).cloned().collect())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        for path in dir.ancestors() {
            disk.dirs.entry(path.to_owned()).or_default();
            if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
                let name = name.to_string_lossy().into_owned();
                disk.dirs.entry(parent.to_owned()).or_default().subdirs.insert(name);
            }
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.check(Operation::SyncDir, dir)?;
        let dir = disk.dir(dir)?;
        dir.unsynced.clear();
        dir.durable = dir.visible.clone();
        Ok(())
    }
}
