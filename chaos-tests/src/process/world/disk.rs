//! The disk of a host: a file system of its own in a file, that can lose power, fill
//! up, and has a size.
//!
//! Losing power is what the kernel's own developers test file systems with: the
//! `shutdown` call of ext4, without flushing its log. Everything that is only in memory
//! is lost at once, what was synced is on the disk, and the next mount replays the
//! journal.

use super::host::run;
use anyhow::Context as _;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

/// Room for half an hour's records and the metadata of a small cluster.
const BYTES: u64 = 1024 * 1024 * 1024;

/// Of the journal: enough for such a disk, and small beside it.
const JOURNAL_MIB: &str = "size=16";

/// Takes up what is free.
const BALLAST: &str = "ballast";

/// See the module.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mounted_at: PathBuf,
}

impl Disk {
    /// An empty one, in a file below `dir`, mounted below `dir`.
    pub(super) fn create(dir: &Path) -> anyhow::Result<Self> {
        let disk = Self { image: dir.join("disk.img"), mounted_at: dir.join("disk") };
        fs::create_dir_all(&disk.mounted_at)?;
        File::create(&disk.image)?.set_len(BYTES)?;
        let image = disk.image.to_string_lossy();
        // Nothing is put off: what the kernel would write later is noise in a test.
        let now = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
        // Without reserved blocks: full means full for everybody.
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-J", JOURNAL_MIB, "-E", now, &image])?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mounted_at
    }

    fn ballast(&self) -> PathBuf {
        self.mounted_at.join(BALLAST)
    }

    fn mount(&self) -> anyhow::Result<()> {
        let (image, path) = (self.image.to_string_lossy(), self.mounted_at.to_string_lossy());
        run("mount", &["-o", "loop", "-t", "ext4", &image, &path])
    }

    /// Whatever was not synced is lost. Nobody may use the disk any more.
    pub fn lose_power(&self) -> anyhow::Result<()> {
        let path = self.mounted_at.to_string_lossy();
        run("xfs_io", &["-x", "-c", "shutdown", &path])
    }

    /// It comes back after a loss of power.
    pub fn regain_power(&self) -> anyhow::Result<()> {
        run("umount", &[&self.mounted_at.to_string_lossy()])?;
        self.mount()
    }

    /// Takes all but about so many bytes of the room that is left. What another call took
    /// is given back before.
    pub fn leave(&self, bytes: u64) -> anyhow::Result<()> {
        let file = OpenOptions::new().create(true).append(true).open(self.ballast())?;
        file.set_len(0)?;
        // What was written and has no place yet counts as free.
        nix::unistd::syncfs(&file)?;
        let found = nix::sys::statvfs::fstatvfs(&file)?;
        let free = found.blocks_available() * found.fragment_size();
        let take = i64::try_from(free.saturating_sub(bytes))?;
        nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, take)?;
        Ok(file.sync_all()?)
    }

    /// Takes all the room that is left.
    pub fn fill(&self) -> anyhow::Result<()> {
        let file = OpenOptions::new().create(true).append(true).open(self.ballast())?;
        let mut step = BYTES;
        // Halves, until not a block is left.
        while step >= 4096 {
            let length = file.metadata()?.len();
            let reserve = nix::fcntl::fallocate(
                &file,
                nix::fcntl::FallocateFlags::empty(),
                length as i64,
                step as i64,
            );
            match reserve {
                Ok(()) => {}
                Err(nix::errno::Errno::ENOSPC) => step /= 2,
                Err(error) => return Err(error).context("ballast"),
            }
        }
        Ok(())
    }

    /// Gives that room back.
    pub fn free(&self) -> anyhow::Result<()> {
        fs::remove_file(self.ballast())?;
        // Or a loss of power would bring it back.
        Ok(File::open(&self.mounted_at)?.sync_all()?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The namespace takes it away in any case, if later.
        let _unmounted = run("umount", &["-l", &self.mounted_at.to_string_lossy()]);
    }
}
