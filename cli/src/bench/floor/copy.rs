//! One copy of the bytes: received, checksummed, handed on, written, synced.

use super::{Sync, Work};
use anyhow::{Context as _, ensure};
use parking_lot::{Condvar, Mutex};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

/// How far each copy is, for who waits for it.
pub(super) struct Progress {
    state: Mutex<State>,
    moved: Condvar,
}

struct State {
    /// Bytes that each copy has written.
    written: Vec<u64>,
    /// Bytes that each copy counts as received.
    received: Vec<u64>,
    /// A copy is over, for good or bad: nobody should wait for it.
    ended: Vec<bool>,
}

impl Progress {
    pub(super) fn new(copies: u16) -> Self {
        let none = vec![0; copies.into()];
        let state =
            State { written: none.clone(), received: none, ended: vec![false; copies.into()] };
        Self { state: Mutex::new(state), moved: Condvar::new() }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.moved.notify_all();
    }

    /// Waits until every copy has received so many bytes. False: one has ended before.
    pub(super) fn until(&self, bytes: u64) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.received.iter().all(|received| *received >= bytes) {
                return true;
            }
            if state.ended.contains(&true) {
                return false;
            }
            self.moved.wait(&mut state);
        }
    }

    /// Waits until a copy has written more than so many bytes: how many. `None`: it has
    /// ended without.
    fn written(&self, index: usize, beyond: u64) -> Option<u64> {
        let mut state = self.state.lock();
        loop {
            if state.written[index] > beyond {
                return Some(state.written[index]);
            }
            if state.ended[index] {
                return None;
            }
            self.moved.wait(&mut state);
        }
    }
}

pub(super) struct Copy {
    pub(super) index: u16,
    pub(super) file: PathBuf,
    pub(super) work: Work,
    pub(super) progress: Arc<Progress>,
}

impl Copy {
    /// Receives one connection to its end, and hands everything on to the next copies.
    pub(super) fn run(self, listener: &TcpListener, next: &[SocketAddr]) -> anyhow::Result<()> {
        let received = self.receive(listener, next);
        let index = usize::from(self.index);
        self.progress.change(|state| state.ended[index] = true);
        let received = received.with_context(|| format!("cannot write {}", self.file.display()))?;
        let bytes = self.work.bytes;
        ensure!(received == bytes, "{received} of {bytes} bytes arrived");
        Ok(())
    }

    fn receive(&self, listener: &TcpListener, next: &[SocketAddr]) -> anyhow::Result<u64> {
        let next: Result<Vec<_>, _> = next.iter().map(TcpStream::connect).collect();
        let file = File::create(&self.file)?;
        let (stream, _) = listener.accept().context("cannot accept on loopback")?;
        if self.work.sync != Sync::Always {
            let received = self.write(stream, &file, next?)?;
            if self.work.sync == Sync::AtEnd {
                file.sync_data()?;
            }
            return Ok(received);
        }
        thread::scope(|scope| {
            let syncing = scope.spawn(|| self.sync(&file));
            let received = self.write(stream, &file, next?);
            let index = usize::from(self.index);
            self.progress.change(|state| state.ended[index] = true);
            syncing.join().ok().context("a thread of the floor failed")??;
            received
        })
    }

    /// Returns how many bytes were written.
    fn write(
        &self,
        mut from: TcpStream,
        mut file: &File,
        mut next: Vec<TcpStream>,
    ) -> anyhow::Result<u64> {
        let mut chunk = vec![0; self.work.chunk_bytes];
        let (mut done, mut checksum) = (0, 0);
        loop {
            let size = fill(&mut from, &mut chunk)?;
            for stream in &mut next {
                stream.write_all(&chunk[..size])?;
            }
            checksum = crc32c::crc32c_append(checksum, &chunk[..size]);
            file.write_all(&chunk[..size])?;
            done += size as u64;
            let index = usize::from(self.index);
            self.progress.change(|state| {
                state.written[index] = done;
                if self.work.sync != Sync::Always {
                    state.received[index] = done;
                }
            });
            if size < chunk.len() {
                break;
            }
        }
        // It is there to be computed: nobody may leave it out.
        std::hint::black_box(checksum);
        Ok(done)
    }

    /// Syncs whatever is written and not synced, until there is no more.
    fn sync(&self, file: &File) -> std::io::Result<()> {
        let index = usize::from(self.index);
        let mut synced = 0;
        while let Some(written) = self.progress.written(index, synced) {
            file.sync_data()?;
            synced = written;
            self.progress.change(|state| state.received[index] = synced);
        }
        Ok(())
    }
}

fn fill(stream: &mut TcpStream, chunk: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        match stream.read(&mut chunk[filled..])? {
            0 => break,
            size => filled += size,
        }
    }
    Ok(filled)
}
