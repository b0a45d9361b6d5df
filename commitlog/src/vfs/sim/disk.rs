//! What is on the simulated disk: what can be seen, what is durable, and the
//! changes between the two, of which a crash keeps what it likes.

use super::{Fault, FaultRule, Operation, Space};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

pub(super) type Inode = u64;

#[derive(Default)]
pub(super) struct Disk {
    pub(super) next_inode: Inode,
    pub(super) files: BTreeMap<Inode, FileData>,
    pub(super) dirs: BTreeMap<PathBuf, Dir>,
    pub(super) rules: Vec<FaultRule>,
    /// One call in so many fails, as drawn.
    errors: Option<(u64, Draw)>,
    pub(super) full: bool,
    /// What there is said to be of room.
    pub(super) space: Option<Space>,
    /// Counts crashes: a handle from before one is dead.
    pub(super) boot: u64,
    /// Changing calls until the power fails, if it is going to.
    pub(super) power_left: Option<u64>,
    pub(super) changes: u64,
}

#[derive(Default)]
pub(super) struct FileData {
    pub(super) visible: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) unsynced: Vec<Change>,
}

#[derive(Clone)]
pub(super) enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl Change {
    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
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
pub(super) struct Dir {
    pub(super) visible: BTreeMap<String, Inode>,
    pub(super) durable: BTreeMap<String, Inode>,
    pub(super) unsynced: Vec<NameChange>,
    /// Directories in it, and whether their names are durable.
    pub(super) subdirs: BTreeMap<String, bool>,
}

#[derive(Clone)]
pub(super) enum NameChange {
    Link(String, Inode),
    Unlink(String),
    Rename(String, String, Inode),
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, Inode>) {
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

pub(super) fn split(path: &Path) -> io::Result<(PathBuf, String)> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().and_then(|n| n.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok((dir.to_owned(), name.to_owned()))
}

pub(super) fn eio() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

pub(super) fn enospc() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error())
}

impl Disk {
    /// Adds a directory; its name is durable once its parent is synced.
    pub(super) fn add_dir(&mut self, dir: &Path) {
        self.dirs.entry(dir.to_owned()).or_default();
        if let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) {
            let name = name.to_string_lossy().into_owned();
            let parent = self.dirs.entry(parent.to_owned()).or_default();
            parent.subdirs.entry(name).or_insert(false);
        }
    }

    /// Of the directories whose names are not durable each survives or not, with
    /// all that is in it.
    fn survive_dirs(&mut self, draw: &mut Draw) {
        let mut lost = Vec::new();
        for (path, dir) in &mut self.dirs {
            dir.subdirs.retain(|name, durable| {
                *durable |= draw.below(2) == 0;
                if !*durable {
                    lost.push(path.join(name));
                }
                *durable
            });
        }
        self.dirs.retain(|path, _| !lost.iter().any(|gone| path.starts_with(gone)));
    }

    /// `one_in` 0: no call fails any more.
    pub(super) fn set_errors(&mut self, one_in: u64, seed: u64) {
        self.errors = (one_in > 0).then_some((one_in, Draw(seed)));
    }

    pub(super) fn crash(&mut self, seed: u64) {
        let mut draw = Draw(seed);
        self.boot += 1;
        self.power_left = None;
        self.survive_dirs(&mut draw);
        for dir in self.dirs.values_mut() {
            survive_names(dir, &mut draw);
        }
        let linked: BTreeSet<Inode> =
            self.dirs.values().flat_map(|dir| dir.durable.values().copied()).collect();
        self.files.retain(|inode, _| linked.contains(inode));
        for file in self.files.values_mut() {
            survive_bytes(file, &mut draw);
        }
    }

    pub(super) fn dir(&mut self, dir: &Path) -> io::Result<&mut Dir> {
        self.dirs.get_mut(dir).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn inode(&mut self, path: &Path) -> io::Result<Inode> {
        let (dir, name) = split(path)?;
        self.dir(&dir)?.visible.get(&name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The fault that this call meets, if any.
    pub(super) fn fault(&mut self, operation: Operation, path: &Path) -> Option<Fault> {
        if operation != Operation::Read && operation != Operation::Open {
            self.changes += 1;
            match &mut self.power_left {
                Some(0) => return Some(Fault::Eio),
                Some(left) => *left -= 1,
                None => {}
            }
        }
        if let Some((one_in, draw)) = &mut self.errors
            && draw.below(*one_in) == 0
        {
            return Some(Fault::Eio);
        }
        // Cutting a file and giving names away needs no space.
        if self.full && matches!(operation, Operation::Write | Operation::Create) {
            return Some(Fault::Enospc);
        }
        self.rule_met(operation, path)
    }

    fn rule_met(&mut self, operation: Operation, path: &Path) -> Option<Fault> {
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

    pub(super) fn check(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        match self.fault(operation, path) {
            None => Ok(()),
            Some(Fault::Eio) => Err(eio()),
            Some(Fault::Enospc | Fault::ShortWrite(_)) => Err(enospc()),
        }
    }

    pub(super) fn change_name(&mut self, dir: &Path, change: NameChange) -> io::Result<()> {
        let dir = self.dir(dir)?;
        change.apply(&mut dir.visible);
        dir.unsynced.push(change);
        Ok(())
    }
}
