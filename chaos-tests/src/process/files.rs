//! What a stopped node has on its disk, and what becomes of it there.

use super::Node;
use crate::history::Records;
use anyhow::Context as _;
use ottla_commitlog::data_dir::DataDir;
use ottla_commitlog::format;
use ottla_commitlog::vfs::RealVfs;
use ottla_commitlog::{Log, LogConfig, OpenMode, Shared};
use ottla_proto::{PartitionId, TopicId, v1};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes read at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Reads one partition's replica of a stopped node from its files: every record
/// from the log start to the log end.
pub fn read_replica(
    node: &Node,
    topic: &v1::TopicMetadata,
    partition: u32,
) -> anyhow::Result<Records> {
    let dir = DataDir::open(&node.data_dir())?;
    let topic_id = TopicId::from_wire(&topic.topic_id).context("a topic id has 16 bytes")?;
    let path = dir.partition_dir(PartitionId { topic: topic_id, index: partition });
    let shared = Shared::new(Arc::new(RealVfs));
    let (log, _) = Log::open(&shared, &path, LogConfig::default(), OpenMode::Recover)?;
    let bounds = log.bounds();
    let mut records = Vec::new();
    let mut next = bounds.start;
    while next < bounds.end {
        let batches = log.read(next, bounds.end, CHUNK_BYTES)?;
        // Not where the last record ends: compaction leaves batches without any.
        for header in format::batch_headers(&batches) {
            next = header?.0.next_offset();
        }
        for record in format::decode_records(&batches) {
            let record = record?;
            let value = record.value.context("the tests write no tombstones")?;
            records.push((record.offset, String::from_utf8(value.to_vec())?));
        }
    }
    Ok(records)
}

/// The segments of a stopped node's partitions that were finished before.
pub fn finished_segments(node: &Node) -> anyhow::Result<Vec<PathBuf>> {
    let mut finished = Vec::new();
    for partition in fs::read_dir(node.data_dir().join("partitions"))? {
        let mut segments = Vec::new();
        for file in fs::read_dir(partition?.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                segments.push(path);
            }
        }
        // Names are offsets: the last is the one that is written to.
        segments.sort_unstable();
        segments.pop();
        finished.extend(segments);
    }
    finished.sort_unstable();
    Ok(finished)
}

/// Flips a bit in a file that is not empty. `chance` says which. Says where it was.
pub fn flip_a_bit(path: &Path, chance: u64) -> anyhow::Result<String> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    anyhow::ensure!(length > 0, "{} is empty", path.display());
    let (position, bit) = ((chance >> 16) % length, (chance >> 8) % 8);
    let mut byte = [0];
    file.read_exact_at(&mut byte, position)?;
    file.write_all_at(&[byte[0] ^ (1 << bit)], position)?;
    file.sync_all()?;
    Ok(format!("bit {bit} of byte {position} of {}", path.display()))
}
