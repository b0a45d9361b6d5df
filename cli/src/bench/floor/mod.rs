//! The floor: nothing but the bytes. They are sent over loopback TCP, checksummed
//! (CRC-32C) and written to files: what nobody can leave out who keeps copies of them.
//!
//! Not its job: acknowledgements over the network, offsets, records, recovery. A copy
//! says within the process how far it is, which costs next to nothing.

mod command;
mod copy;

pub(super) use command::{Args, run};

use super::proc::{cpu_time, peak_bytes};
use anyhow::{Context as _, ensure};
use copy::{Copy, Progress};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// When the bytes are on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// When the operating system likes.
    Never,
    /// When everything is written.
    AtEnd,
    /// Before they count as received: one fdatasync covers what has come meanwhile, as
    /// in the group commit of a log.
    Always,
}

/// What the floor does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) bytes: u64,
    /// Bytes of one send and one write.
    pub(super) chunk_bytes: usize,
    /// Files: the first gets the bytes from the sender, the others from the first.
    pub(super) copies: u16,
    pub(super) sync: Sync,
    /// Bytes sent that not every copy has received, at most.
    pub(super) window_bytes: u64,
}

/// What it took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    pub(super) time: Duration,
    /// Processor time of this process meanwhile.
    pub(super) cpu: Duration,
    /// The most memory of this process so far, in bytes.
    pub(super) peak_bytes: u64,
}

/// Does it once, in a directory, with files that are gone afterwards.
pub(super) fn work(dir: &Path, work: Work) -> anyhow::Result<Took> {
    ensure!(work.copies > 0 && work.chunk_bytes > 0, "nothing to do");
    let pid = std::process::id();
    let progress = Arc::new(Progress::new(work.copies));
    let cpu_before = cpu_time(pid)?;
    let started = Instant::now();
    let mut copies = Vec::new();
    let mut followers = Vec::new();
    // The first copy is made last: it needs the others' addresses.
    for index in (0..work.copies).rev() {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
        let address = listener.local_addr()?;
        let next = if index == 0 { std::mem::take(&mut followers) } else { Vec::new() };
        let file = dir.join(format!("floor-{index}"));
        let copy = Copy { index, file, work, progress: Arc::clone(&progress) };
        copies.push(thread::spawn(move || copy.run(&listener, &next)));
        followers.push(address);
    }
    let leader = *followers.last().context("a copy")?;
    let sent =
        send(TcpStream::connect(leader).context("no connection on loopback")?, work, &progress);
    for copy in copies {
        copy.join().ok().context("a copy of the floor failed")??;
    }
    sent.context("cannot send on loopback")?;
    let time = started.elapsed();
    let cpu = cpu_time(pid)?.saturating_sub(cpu_before);
    for index in 0..work.copies {
        let file = dir.join(format!("floor-{index}"));
        std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(Took { time, cpu, peak_bytes: peak_bytes(pid)? })
}

fn send(mut stream: TcpStream, work: Work, progress: &Progress) -> std::io::Result<()> {
    let chunk: Vec<u8> = (0..work.chunk_bytes).map(|index| (index % 251) as u8).collect();
    let mut sent = 0;
    while sent < work.bytes {
        let left = usize::try_from(work.bytes - sent).unwrap_or(usize::MAX);
        let size = chunk.len().min(left);
        // At least one chunk is on its way.
        if !progress.until(sent.saturating_sub(work.window_bytes)) {
            return Ok(());
        }
        stream.write_all(&chunk[..size])?;
        sent += size as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_arrives_everywhere_and_the_files_go() {
        let dir = tempfile::tempdir().expect("a directory");
        for sync in [Sync::Never, Sync::AtEnd, Sync::Always] {
            for (bytes, copies) in [(1, 3), (40_000, 1), (123_457, 3)] {
                let chunk_bytes = 10_000;
                let all = Work { bytes, chunk_bytes, copies, sync, window_bytes: 30_000 };
                let took = work(dir.path(), all).expect("runs");
                assert!(took.time > Duration::ZERO && took.peak_bytes > 0);
                assert_eq!(dir.path().read_dir().expect("readable").count(), 0);
            }
        }
    }

    #[test]
    fn a_copy_that_cannot_write_ends_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let all = Work {
            bytes: 1 << 20,
            chunk_bytes: 1 << 16,
            copies: 3,
            sync: Sync::Always,
            window_bytes: 1 << 17,
        };
        std::fs::create_dir(dir.path().join("floor-2")).expect("in its way");
        let error = work(dir.path(), all).expect_err("a directory is no file");
        assert!(format!("{error:#}").contains("floor-2"), "{error:#}");
    }
}
