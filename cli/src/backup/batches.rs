//! A backup's files as whole batches: written to a temporary name, synced, renamed; read
//! one at a time, each with its checksum proved.
//!
//! Not its job: what the batches mean.

use super::error::Damage;
use super::manifest::{FileEntry, file_name, hex};
use bytes::{Bytes, BytesMut};
use ottla_node::inspect::BatchHeader;
use ottla_proto::MAX_BATCH_BYTES;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use tokio::task::block_in_place;

/// Bytes from which on a file is finished and the next one begun: what is copied to
/// another place, and copied again if that fails, in one piece.
const FILE_BYTES: u64 = 256 * 1024 * 1024;

/// Bytes read or written at once: small batches are many.
const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes of a batch in front of its records.
const HEADER_BYTES: usize = 61;

/// Where what the CRC covers begins.
const CRC_START: usize = 21;

/// Writes the files of one partition.
pub(super) struct BatchWriter {
    dir: PathBuf,
    file_bytes: u64,
    open: Option<OpenFile>,
    finished: Vec<FileEntry>,
}

struct OpenFile {
    file: BufWriter<File>,
    base_offset: u64,
    bytes: u64,
    sha256: Sha256,
}

impl BatchWriter {
    /// Into a directory that is made here.
    pub(super) fn create(dir: PathBuf) -> io::Result<Self> {
        Self::with_files_of(dir, FILE_BYTES)
    }

    fn with_files_of(dir: PathBuf, file_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, file_bytes, open: None, finished: Vec::new() })
    }

    pub(super) fn append(&mut self, header: &BatchHeader, batch: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|open| open.bytes >= self.file_bytes) {
            self.finish_file()?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let file = File::create_new(self.temporary(header.base_offset))?;
                self.open.insert(OpenFile {
                    file: BufWriter::with_capacity(BUFFER_BYTES, file),
                    base_offset: header.base_offset,
                    bytes: 0,
                    sha256: Sha256::new(),
                })
            }
        };
        open.sha256.update(batch);
        open.bytes += batch.len() as u64;
        open.file.write_all(batch)
    }

    fn temporary(&self, base_offset: u64) -> PathBuf {
        self.dir.join(file_name(base_offset) + ".tmp")
    }

    fn finish_file(&mut self) -> io::Result<()> {
        let Some(OpenFile { file, base_offset, bytes, sha256 }) = self.open.take() else {
            return Ok(());
        };
        let file = file.into_inner()?;
        block_in_place(|| file.sync_all())?;
        fs::rename(self.temporary(base_offset), self.dir.join(file_name(base_offset)))?;
        self.finished.push(FileEntry { base_offset, bytes, sha256: hex(&sha256.finalize()) });
        Ok(())
    }

    /// All files and the directory are on the disk then.
    pub(super) fn finish(mut self) -> io::Result<Vec<FileEntry>> {
        self.finish_file()?;
        File::open(&self.dir)?.sync_all()?;
        Ok(self.finished)
    }
}

/// A batch as it was written.
pub(super) type ReadBatch = (BatchHeader, Bytes);

/// The batches of one file, one after another.
pub(super) struct BatchReader {
    path: PathBuf,
    file: BufReader<File>,
    /// Where the next batch begins.
    position: u64,
    sha256: Sha256,
}

impl BatchReader {
    pub(super) fn open(dir: &Path, entry: &FileEntry) -> Result<Self, Damage> {
        let path = dir.join(file_name(entry.base_offset));
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let damage = |reason: String| Damage { path: path.clone(), position: 0, reason };
        let (bytes, file) = opened.map_err(|error| damage(error.to_string()))?;
        if bytes != entry.bytes {
            return Err(damage(format!("the file has {bytes} bytes instead of {}", entry.bytes)));
        }
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(Self { path, file, position: 0, sha256: Sha256::new() })
    }

    /// The next batch; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<ReadBatch>, Damage> {
        let mut batch = BytesMut::zeroed(HEADER_BYTES);
        match self.file.read_exact(&mut batch[..1]) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read.map_err(|error| self.damage(error))?,
        }
        self.file.read_exact(&mut batch[1..]).map_err(|error| self.damage(error))?;
        let header = BatchHeader::parse(&batch).map_err(|error| self.damage(error))?;
        let length = header.total_len();
        if length > MAX_BATCH_BYTES {
            let what = format!("a batch of {length} bytes, it has {MAX_BATCH_BYTES} at most");
            return Err(self.damage(what));
        }
        batch.resize(length, 0);
        self.file.read_exact(&mut batch[HEADER_BYTES..]).map_err(|error| self.damage(error))?;
        let crc = crc32c::crc32c(&batch[CRC_START..]);
        if crc != header.crc {
            let what = format!("CRC-32C is {crc:08x}, the batch states {:08x}", header.crc);
            return Err(self.damage(what));
        }
        self.sha256.update(&batch);
        self.position += length as u64;
        Ok(Some((header, batch.freeze())))
    }

    /// Once all batches were read: whether they are those that were written.
    pub(super) fn check_end(self, entry: &FileEntry) -> Result<(), Damage> {
        let found = hex(&self.sha256.clone().finalize());
        if found != entry.sha256 {
            return Err(self.damage(format!("SHA-256 is {found} instead of {}", entry.sha256)));
        }
        Ok(())
    }

    pub(super) fn damage(&self, reason: impl ToString) -> Damage {
        let (path, position) = (self.path.clone(), self.position);
        Damage { path, position, reason: reason.to_string() }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ottla_commitlog::format::{
        BatchOptions, NewRecord, Placeholder, TimestampType, decode_records, encode_batch,
        encode_kept, encode_placeholder,
    };
    use ottla_proto::LeaderEpoch;

    /// A batch of the records at these places from its offset on; others were compacted.
    pub(in super::super) fn batch(base: u64, kept: &[u64]) -> Bytes {
        let last = kept.last().expect("a record");
        let record = |delta: u64| NewRecord {
            key: Some(format!("k{delta}").into()),
            value: Some(format!("v{}", base + delta).into()),
            ..NewRecord::default()
        };
        let all: Vec<NewRecord> = (0..=*last).map(record).collect();
        let mut full = encode_batch(&all, &BatchOptions::default()).expect("a batch");
        full[..8].copy_from_slice(&base.to_be_bytes());
        let full = full.freeze();
        let records = decode_records(&full).map(|record| record.expect("a record"));
        let records: Vec<_> =
            records.filter(|record| kept.contains(&(record.offset - base))).collect();
        let header = BatchHeader::parse(&full).expect("a header");
        encode_kept(&header, &records, None).expect("a batch").freeze()
    }

    pub(in super::super) fn placeholder(base_offset: u64, last_offset: u64) -> Bytes {
        encode_placeholder(&Placeholder {
            base_offset,
            last_offset,
            leader_epoch: LeaderEpoch(0),
            max_timestamp_ms: -1,
            timestamp_type: TimestampType::CreateTime,
            producer: None,
            transactional: false,
            control: false,
        })
        .freeze()
    }

    pub(in super::super) fn written(dir: &Path, batches: &[Bytes], file: u64) -> Vec<FileEntry> {
        let mut writer = BatchWriter::with_files_of(dir.to_owned(), file).expect("a directory");
        for batch in batches {
            let header = BatchHeader::parse(batch).expect("a header");
            writer.append(&header, batch).expect("written");
        }
        writer.finish().expect("finished")
    }

    fn read(dir: &Path, entry: &FileEntry) -> Result<Vec<Bytes>, Damage> {
        let mut reader = BatchReader::open(dir, entry)?;
        let mut batches = Vec::new();
        while let Some((_, batch)) = reader.next()? {
            batches.push(batch);
        }
        reader.check_end(entry)?;
        Ok(batches)
    }

    #[test]
    fn batches_come_back_as_they_were_from_files_of_some_size() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("orders/0");
        let batches = [batch(5, &[0, 1]), batch(7, &[0, 3]), placeholder(11, 19), batch(20, &[0])];
        let files = written(&dir, &batches, 100);
        let bases: Vec<u64> = files.iter().map(|file| file.base_offset).collect();
        assert_eq!(bases, [5, 11], "a file ends with the batch that fills it");
        let found: Vec<Bytes> =
            files.iter().flat_map(|file| read(&dir, file).expect("undamaged")).collect();
        assert_eq!(found, batches);
        let names = fs::read_dir(&dir).expect("lists").map(|file| file.expect("a file").path());
        assert!(names.into_iter().all(|path| path.extension().is_some_and(|end| end == "log")));
    }

    #[test]
    fn a_flipped_bit_is_found_wherever_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = batch(0, &[0, 1]);
        let files = written(dir.path(), &[first.clone(), batch(2, &[0])], 1_000);
        let path = dir.path().join(file_name(0));
        let good = fs::read(&path).expect("read");
        for position in 0..good.len() {
            let mut bytes = good.clone();
            bytes[position] ^= 4;
            fs::write(&path, &bytes).expect("written");
            let damage = read(dir.path(), &files[0]).expect_err("damage");
            assert_eq!(damage.path, path, "byte {position}");
            // The CRC covers neither offset nor epoch: there the file's checksum tells.
            let is_of_second = position >= first.len() + 17;
            assert!(!is_of_second || damage.position >= first.len() as u64, "{damage}");
        }
        fs::write(&path, &good[..good.len() - 1]).expect("written");
        let damage = read(dir.path(), &files[0]).expect_err("too short");
        assert!(damage.reason.contains("bytes instead of"), "{damage}");
        fs::remove_file(&path).expect("removed");
        read(dir.path(), &files[0]).expect_err("it is gone");
    }
}
