//! An open file of the simulated disk.

use super::disk::{Change, Disk, Inode, eio, enospc};
use super::{Fault, Operation};
use crate::vfs::VfsFile;
use parking_lot::Mutex;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub(super) struct SimFile {
    pub(super) disk: Arc<Mutex<Disk>>,
    pub(super) inode: Inode,
    pub(super) path: PathBuf,
    pub(super) boot: u64,
    pub(super) writable: bool,
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
