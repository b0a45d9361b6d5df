//! The floor: nothing but the bytes. One thread sends them over loopback, another
//! checksums them and writes them to a file, and syncs it once at the end.

use anyhow::Context;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes in one write: as a node sends and writes them.
const CHUNK_BYTES: usize = 512 * 1024;

/// Sends so many bytes; returns how long that took. The file is removed.
pub(super) fn run(file: &Path, bytes: u64) -> anyhow::Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
    let address = listener.local_addr()?;
    let started = Instant::now();
    let sender = std::thread::spawn(move || send(TcpStream::connect(address)?, bytes));
    let (stream, _) = listener.accept().context("cannot accept on loopback")?;
    let received = receive(stream, file);
    let took = started.elapsed();
    sender.join().ok().context("the floor's sender failed")??;
    let received = received.with_context(|| format!("cannot write {}", file.display()))?;
    anyhow::ensure!(received == bytes, "{received} of {bytes} bytes arrived");
    fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))?;
    Ok(took)
}

fn send(mut stream: TcpStream, bytes: u64) -> std::io::Result<()> {
    let chunk: Vec<u8> = (0..CHUNK_BYTES).map(|index| (index % 251) as u8).collect();
    let mut left = bytes;
    while left > 0 {
        let size = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        stream.write_all(&chunk[..size])?;
        left -= size as u64;
    }
    Ok(())
}

/// Until the sender closes. Returns how many bytes arrived.
fn receive(mut stream: TcpStream, path: &Path) -> std::io::Result<u64> {
    let mut file = File::create(path)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut received, mut checksum) = (0, 0);
    loop {
        let size = fill(&mut stream, &mut chunk)?;
        checksum = crc32c::crc32c_append(checksum, &chunk[..size]);
        file.write_all(&chunk[..size])?;
        received += size as u64;
        if size < chunk.len() {
            break;
        }
    }
    // It is there to be computed: nobody may leave it out.
    std::hint::black_box(checksum);
    file.sync_data()?;
    Ok(received)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_arrives_and_the_file_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        for bytes in [1, CHUNK_BYTES as u64, 3 * CHUNK_BYTES as u64 + 7] {
            let file = dir.path().join("floor");
            run(&file, bytes).expect("runs");
            assert!(!file.exists());
        }
    }
}
