//! What a stopped node has on its disk.

use super::Node;
use crate::checker::Reading;
use anyhow::Context as _;
use ottla_commitlog::data_dir::DataDir;
use ottla_commitlog::format;
use ottla_commitlog::vfs::RealVfs;
use ottla_commitlog::{Log, LogConfig, OpenMode, Shared};
use ottla_proto::{PartitionId, TopicId, v1};
use std::sync::Arc;

/// Bytes read at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Reads one partition's replica of a stopped node from its files: every record
/// from the log start to the log end.
pub fn read_replica(
    node: &Node,
    topic: &v1::TopicMetadata,
    partition: u32,
) -> anyhow::Result<Reading> {
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
    Ok(Reading { reader: format!("node {}'s files", node.id()), partition, records })
}
