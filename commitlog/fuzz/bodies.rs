//! What the fuzz targets do with their input. `tests/fuzz_corpus.rs` runs the
//! committed corpus through the same functions, on any toolchain.
//!
//! They take any bytes and panic only for a bug.
#![allow(dead_code, reason = "each target uses its own")]

use bytes::Bytes;
use ottla_commitlog::format::{
    BatchOptions, FormatError, HEADER_LEN, NewRecord, Record, ValidBatch, batch_headers,
    check_batch, decode_marker, decode_records, encode_batch, encode_kept,
};
use ottla_commitlog::vfs::{SimVfs, Vfs};
use ottla_commitlog::{Log, LogConfig, OpenMode, Shared};
use ottla_proto::LeaderEpoch;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The input as it is, and with length, magic and CRC made right: no fuzzer
/// guesses a checksum.
pub(crate) fn batch(input: &[u8]) {
    readers_agree(input);
    let mut sealed = input.to_vec();
    if sealed.len() >= HEADER_LEN {
        let length = (sealed.len() - 12) as u32;
        sealed[8..12].copy_from_slice(&length.to_be_bytes());
        sealed[16] = 2;
        let crc = crc32c::crc32c(&sealed[21..]);
        sealed[17..21].copy_from_slice(&crc.to_be_bytes());
        readers_agree(&sealed);
    }
}

/// Every reader of batches on the same bytes.
fn readers_agree(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    let headers = batch_headers(&bytes).filter_map(Result::ok).count();
    assert!(headers <= input.len() / HEADER_LEN);
    let decoded: Result<Vec<Record>, FormatError> = decode_records(&bytes).collect();
    assert_eq!(ValidBatch::marker(bytes.clone()).is_ok(), is_marker(&bytes));
    let Ok(valid) = ValidBatch::new(bytes.clone(), input.len()) else {
        return;
    };
    let decoded = decoded.expect("what a leader takes can be read");
    let header = check_batch(&bytes).expect("what a leader takes a follower takes");
    assert_eq!(header, *valid.header());
    assert_eq!(decoded.len(), header.record_count as usize);
    assert_eq!(valid.every_record_has_a_key(), decoded.iter().all(|r| r.key.is_some()));
    let half = &decoded[decoded.len() / 2..];
    if let Ok(kept) = encode_kept(&header, half, None) {
        let again: Result<Vec<Record>, FormatError> = decode_records(&kept.freeze()).collect();
        assert_eq!(again.expect("what compaction writes can be read"), half);
    }
}

fn is_marker(bytes: &Bytes) -> bool {
    let whole = check_batch(bytes).is_ok_and(|header| {
        header.is_transactional()
            && header.total_len() == bytes.len()
            && header.next_offset() == header.base_offset + 1
    });
    whole && decode_marker(bytes).is_ok()
}

const DIR: &str = "/log";

/// Behind the CRC at the end of a checkpoint.
const CHECKPOINT_MAGIC: &[u8] = b"OCK1";

/// Files beside the segments, and of each segment by their extension.
const SHARED_FILES: [&str; 2] = ["leader-epoch-checkpoint", "cleaner-offset-checkpoint"];
const SEGMENT_FILES: [&str; 4] = ["index", "timeindex", "txnindex", "snapshot"];

/// The first byte says which file of a small log, the second how it is opened;
/// the rest becomes the file's contents, as it is, and with a CRC behind it where
/// the file has one. Derived files never keep a log from starting, and never
/// change what is read.
pub(crate) fn index(input: &[u8]) {
    let [file, mode, contents @ ..] = input else {
        return;
    };
    beside_a_log(*file, *mode, contents);
    let crc = crc32c::crc32c(contents).to_be_bytes();
    beside_a_log(*file, *mode, &[contents, &crc, CHECKPOINT_MAGIC].concat());
}

fn beside_a_log(file: u8, mode: u8, contents: &[u8]) {
    let vfs = SimVfs::new();
    let records = write_log(&vfs);
    let path = side_file(&vfs, usize::from(file));
    if path.extension().is_some_and(|extension| extension == "snapshot") {
        // The newest, that of the clean stop, would do without any other.
        let newest = Path::new(DIR).join(format!("{:020}.snapshot", records.len()));
        vfs.remove_file(&newest).expect("simulated");
    }
    let handle = vfs.create(&path).expect("simulated");
    handle.write_all_at(0, &[contents]).expect("simulated");
    handle.sync_data().expect("simulated");
    let mode = if mode & 1 == 0 { OpenMode::Clean } else { OpenMode::Recover };
    let (log, _) = open(&vfs, mode);
    let bounds = log.bounds();
    let mut read = Vec::new();
    let mut next = bounds.start;
    while next < bounds.end {
        let bytes = log.read(next, bounds.end, 256).expect("readable");
        next = batch_headers(&bytes).last().expect("a batch").expect("whole").0.next_offset();
        for record in decode_records(&bytes) {
            read.push(record.expect("good").offset);
        }
    }
    assert_eq!(read, records, "the log is what was written");
    for timestamp in [0, 1000, 1010, i64::MAX] {
        let found = log.offset_for_timestamp(timestamp, bounds.end).expect("searchable");
        let expected = records.iter().copied().find(|offset| 1000 + *offset as i64 >= timestamp);
        assert_eq!(found.map(|(offset, _)| offset), expected);
    }
    let stable = log.last_stable_offset(bounds.end);
    assert!((bounds.start..=bounds.end).contains(&stable));
    log.aborted_transactions(bounds.start, stable).expect("made again if need be");
}

fn open(vfs: &SimVfs, mode: OpenMode) -> (Log, ottla_commitlog::Recovery) {
    let config = LogConfig { segment_bytes: 600, index_interval_bytes: 64, ..LogConfig::default() };
    let shared = Shared::new(Arc::new(vfs.clone()));
    Log::open(&shared, Path::new(DIR), config, mode).expect("the log opens")
}

/// Some segments, closed; the offsets of the records, each with the timestamp
/// 1000 + offset.
fn write_log(vfs: &SimVfs) -> Vec<u64> {
    let (log, _) = open(vfs, OpenMode::Recover);
    for offset in 0..20 {
        let record = NewRecord {
            value: Some(Bytes::from_static(b"value")),
            timestamp_ms: 1000 + offset,
            ..NewRecord::default()
        };
        let batch = encode_batch(&[record], &BatchOptions::default()).expect("encodes");
        let batch = ValidBatch::new(batch, 1 << 20).expect("valid");
        let epoch = LeaderEpoch(1 + offset as u32 / 7);
        log.append_as_leader(vec![batch], epoch, 5000).expect("appends");
    }
    log.sync().expect("syncs");
    (0..20).collect()
}

fn side_file(vfs: &SimVfs, choice: usize) -> PathBuf {
    let dir = Path::new(DIR);
    if let Some(name) = SHARED_FILES.get(choice) {
        return dir.join(name);
    }
    let mut logs: Vec<String> = vfs
        .list(dir)
        .expect("simulated")
        .into_iter()
        .filter(|name| name.ends_with(".log"))
        .collect();
    logs.sort();
    let choice = choice - SHARED_FILES.len();
    let log = &logs[choice / SEGMENT_FILES.len() % logs.len()];
    dir.join(log).with_extension(SEGMENT_FILES[choice % SEGMENT_FILES.len()])
}
