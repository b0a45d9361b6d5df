//! The node's high watermarks on disk, one small file for all partitions.
//!
//! A hint, not a truth: every line was once known to be committed, so what is
//! below it may be read at once after a restart, even while too few replicas are
//! there to commit more. Without the file readers wait for a new watermark.

use crate::env::Env;
use ottla_commitlog::checkpoint;
use ottla_commitlog::vfs::Vfs;
use ottla_proto::{Offset, PartitionId, TopicId};
use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Kafka's name for the same thing.
pub(crate) const FILE: &str = "replication-offset-checkpoint";

/// Between two writes of the file (Kafka's figure). What is younger is learned
/// again from the other replicas.
const WRITE_EVERY: Duration = Duration::from_secs(5);

/// The watermarks of the last run; none if the file is missing or damaged.
pub(crate) fn load(vfs: &dyn Vfs, dir: &Path) -> HashMap<PartitionId, Offset> {
    match checkpoint::read(vfs, &dir.join(FILE)) {
        Ok(Some(bytes)) => decode(&bytes),
        Ok(None) => HashMap::new(),
        Err(error) => {
            tracing::warn!(%error, "high watermarks of the last run are not readable");
            HashMap::new()
        }
    }
}

/// Writes the file from time to time until the node stops.
pub(crate) async fn run(env: Arc<Env>) {
    let work = async {
        let mut written = String::new();
        loop {
            tokio::time::sleep(WRITE_EVERY).await;
            written = store(&env, written).await;
        }
    };
    env.stop.run_until_cancelled(work).await;
}

/// Writes the file unless it would say what was `written` last; returns what it
/// says now.
pub(crate) async fn store(env: &Arc<Env>, written: String) -> String {
    let text = encode(env);
    if text == written {
        return written;
    }
    let (shared, path) = (Arc::clone(&env.shared), env.data_dirs.first().path().join(FILE));
    let bytes = text.clone();
    let work = ottla_host::blocking(move || {
        checkpoint::write_atomically(shared.vfs(), &path, bytes.as_bytes())
    });
    match work.await {
        Ok(Ok(())) => text,
        Ok(Err(error)) => {
            tracing::warn!(%error, "high watermarks could not be written");
            written
        }
        Err(error) => {
            tracing::warn!(%error, "high watermarks could not be written");
            written
        }
    }
}

fn encode(env: &Env) -> String {
    let mut lines: Vec<(PartitionId, Offset)> = env
        .partitions
        .read()
        .values()
        .filter_map(|partition| {
            Some((partition.id, partition.state().borrow().status()?.high_watermark))
        })
        .collect();
    lines.sort_unstable();
    lines.iter().fold(String::new(), |mut text, (id, offset)| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{id} {offset}");
        text
    })
}

fn decode(bytes: &[u8]) -> HashMap<PartitionId, Offset> {
    String::from_utf8_lossy(bytes).lines().filter_map(decode_line).collect()
}

fn decode_line(line: &str) -> Option<(PartitionId, Offset)> {
    let (id, offset) = line.split_once(' ')?;
    let (topic, index) = id.rsplit_once('-')?;
    let topic: TopicId = topic.parse().ok()?;
    Some((PartitionId { topic, index: index.parse().ok()? }, offset.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line is a partition as it is displayed and its watermark; anything else
    /// is left out and does no harm.
    #[test]
    fn lines_are_read_as_written() {
        let topic = "6f9619ff-8b86-d011-b42d-00cf4fc964ff";
        let text =
            format!("{topic}-0 17\n{topic}-12 18446744073709551615\nnonsense\n{topic}-x 1\n");
        let read = decode(text.as_bytes());
        let id = |index| PartitionId { topic: topic.parse().expect("a uuid"), index };
        assert_eq!(read.len(), 2);
        assert_eq!((read[&id(0)], read[&id(12)]), (17, u64::MAX));
        assert_eq!(format!("{}", id(12)), format!("{topic}-12"));
    }
}
