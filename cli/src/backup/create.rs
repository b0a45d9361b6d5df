//! `ottla backup create`: topics, their options and the groups' offsets, out to files.

use super::batches::BatchWriter;
use super::error::BackupError;
use super::manifest::{
    FORMAT, GroupEntry, Manifest, OffsetEntry, PartitionEntry, TopicEntry, partition_dir,
};
use super::mapping::{has_records, records_from};
use super::source::{Fetched, Nodes, Source};
use super::{INTERNAL_PREFIX, Selection, summary, topics_json};
use crate::connection::Connection;
use crate::output::{self, Format};
use crate::progress::{Progress, Unit};
use anyhow::Context as _;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use ottla_client::{Admin, Client, StartPosition, TopicDescription, v1};
use ottla_node::inspect::BatchHeader;
use ottla_proto::TopicId;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;
use tokio::task::block_in_place;

/// Partitions read at once: with the bytes of one answer it bounds the memory.
const PARTITIONS_AT_ONCE: usize = 8;

/// How often a compacted partition is read on, each time to where it ends by then. Each
/// stretch is what was written during the last one, so this many say that it never ends.
const MAX_STRETCHES: u32 = 100;

/// Write topics, their options, and how far groups are, to a directory.
///
/// Of each partition everything is copied that is committed when its turn comes, batch by
/// batch as it lies on the disks, while producers and consumers go on. The directory must
/// be empty, or not there; the backup is one once its manifest.json is there.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla backup create /backups/monday
  ottla backup create /backups/orders --topic orders --topic 'refunds-.*'
  ottla backup create /backups/billing --topic orders --group billing --format json")]
pub(super) struct Create {
    /// Where to.
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    #[command(flatten)]
    selection: Selection,

    #[command(flatten)]
    pub(super) connection: Connection,
}

pub(super) async fn run(args: &Create) -> anyhow::Result<ExitCode> {
    let client = args.connection.client().await?;
    let admin = client.admin();
    let cluster_id = admin.cluster_info().await?.header.unwrap_or_default().cluster_id;
    let created_at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let topics = topics(&admin, &args.selection).await?;
    // Before the partitions' ends are looked for, so that these are not below.
    let groups = groups(&admin, &args.selection, &topics).await?;
    prepare(&args.dir)?;
    let topics = copy(args, &client, topics).await?;
    let manifest = Manifest {
        format: FORMAT,
        created_at,
        ottla_version: ottla_node::VERSION.to_owned(),
        cluster_id,
        cluster_options: super::cluster_options(&admin).await?,
        topics,
        groups,
        sha256: String::new(),
    };
    manifest.save(&args.dir)?;
    match args.connection.format {
        Format::Text => {
            let what = summary(&manifest.topics, manifest.groups.len());
            output::line(&format!("backed up {what} to {}", args.dir.display()))?;
        }
        Format::Json => output::json(&json!({
            "dir": args.dir,
            "cluster_id": manifest.cluster_id,
            "topics": topics_json(&manifest.topics),
            "groups": manifest.groups.iter().map(|group| &group.group).collect::<Vec<_>>(),
        }))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The directory is there and empty afterwards.
fn prepare(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let mut files =
        std::fs::read_dir(dir).with_context(|| format!("looking into {}", dir.display()))?;
    match files.next() {
        Some(_) => Err(BackupError::NotEmpty(dir.to_owned()).into()),
        None => Ok(()),
    }
}

async fn topics(admin: &Admin, selection: &Selection) -> anyhow::Result<Vec<TopicDescription>> {
    let listed = admin.list_topics().await?.into_iter().map(|topic| topic.name);
    let names: Vec<String> = listed.filter(|name| !name.starts_with(INTERNAL_PREFIX)).collect();
    let chosen = selection.topics(names.iter().map(String::as_str))?;
    let describe = |name: &str| {
        let (admin, name) = (admin.clone(), name.to_owned());
        async move { admin.describe_topic(&name).await }
    };
    let described = stream::iter(chosen.into_iter().map(describe)).buffered(PARTITIONS_AT_ONCE);
    Ok(described.try_collect().await?)
}

/// What the groups have committed in these topics.
async fn groups(
    admin: &Admin,
    selection: &Selection,
    topics: &[TopicDescription],
) -> anyhow::Result<Vec<GroupEntry>> {
    let ids: BTreeSet<&Bytes> = topics.iter().map(|topic| &topic.topic.topic_id).collect();
    let names: Vec<String> =
        admin.list_groups().await?.into_iter().map(|group| group.group).collect();
    let mut entries = Vec::new();
    for group in selection.groups(names.iter().map(String::as_str))? {
        let described = admin.describe_group(group).await;
        let described = described.with_context(|| format!("group {group}"))?;
        let of_these = described.offsets.into_iter().filter(|at| ids.contains(&at.topic_id));
        let mut offsets: Vec<OffsetEntry> = of_these.map(offset_entry).collect();
        offsets.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        if !offsets.is_empty() {
            entries.push(GroupEntry { group: group.to_owned(), offsets });
        }
    }
    Ok(entries)
}

fn offset_entry(committed: v1::CommittedOffset) -> OffsetEntry {
    let v1::CommittedOffset { topic, partition, offset, metadata, .. } = committed;
    OffsetEntry { topic, partition, offset, metadata }
}

async fn copy(
    args: &Create,
    client: &Client,
    topics: Vec<TopicDescription>,
) -> anyhow::Result<Vec<TopicEntry>> {
    let nodes = Nodes::new(client.admin(), args.connection.timeout);
    let progress = Progress::new(Unit::Bytes, None, true);
    let copy = Copy { dir: &args.dir, client, nodes: &nodes, progress: &progress };
    let jobs = topics.iter().flat_map(|topic| topic.topic.partitions.iter().map(move |p| (topic, p)));
    let jobs = jobs.map(|(topic, partition)| copy.partition(topic, partition.partition));
    let mut copied = stream::iter(jobs).buffered(PARTITIONS_AT_ONCE);
    let mut entries = Vec::new();
    for topic in &topics {
        let mut partitions = Vec::new();
        for _ in &topic.topic.partitions {
            partitions.push(copied.try_next().await?.context("a partition for each job")?);
        }
        entries.push(topic_entry(&topic.topic, partitions));
    }
    Ok(entries)
}

fn topic_entry(topic: &v1::TopicMetadata, partitions: Vec<PartitionEntry>) -> TopicEntry {
    let replicas = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
    TopicEntry {
        name: topic.name.clone(),
        topic_id: TopicId::from_wire(&topic.topic_id).map(|id| id.to_string()).unwrap_or_default(),
        replication_factor: u32::try_from(replicas).unwrap_or_default(),
        options: topic.configs.clone().into_iter().collect(),
        partitions,
    }
}

struct Copy<'a> {
    dir: &'a Path,
    client: &'a Client,
    nodes: &'a Nodes,
    progress: &'a Progress,
}

impl Copy<'_> {
    /// All of a partition that is committed now.
    ///
    /// Where it is compacted that is not enough: a record that was there now may be gone
    /// before it is read, because of a later one of the same key. So the log is read on,
    /// each time to where it ends by then, until a stretch lacks nothing. Whatever was
    /// taken away had a successor below that stretch's end.
    async fn partition(
        &self,
        topic: &TopicDescription,
        partition: u32,
    ) -> anyhow::Result<PartitionEntry> {
        let name = &*topic.topic.name;
        let id = topic.topic.topic_id.clone();
        let from = self.client.offset_of(name, partition, StartPosition::Start).await?;
        let dir = partition_dir(self.dir, name, partition);
        let writer = BatchWriter::create(dir.clone());
        let mut copied = Copied::new(from, writer.with_context(|| dir.display().to_string())?);
        let mut source = Source::new(self.nodes, name, id, partition);
        for _ in 0..MAX_STRETCHES {
            let until = self.client.offset_of(name, partition, StartPosition::End).await?;
            let (begun, before) = (copied.position, copied.records);
            while copied.position < until {
                let written = copied.take(source.fetch(copied.position).await?);
                self.progress.add(written.with_context(|| dir.display().to_string())?);
            }
            let is_whole = copied.records - before == copied.position - begun;
            if is_whole || !is_compacted(topic) {
                let finished = block_in_place(|| copied.finish(partition));
                return finished.with_context(|| dir.display().to_string());
            }
        }
        Err(BackupError::CompactedMeanwhile { topic: name.to_owned(), partition }.into())
    }
}

fn is_compacted(topic: &TopicDescription) -> bool {
    let policy = topic.options.iter().find(|option| option.name == "cleanup.policy");
    policy.is_some_and(|policy| policy.value.split(',').any(|part| part.trim() == "compact"))
}

/// A partition, as far as it was copied.
struct Copied {
    from: u64,
    /// Where to go on.
    position: u64,
    /// Behind the last batch that was written.
    end: u64,
    records: u64,
    newest_timestamp_ms: Option<i64>,
    writer: BatchWriter,
}

impl Copied {
    fn new(from: u64, writer: BatchWriter) -> Self {
        Self { from, position: from, end: 0, records: 0, newest_timestamp_ms: None, writer }
    }

    /// Writes what is new, and returns how many bytes that were.
    fn take(&mut self, fetched: Fetched) -> anyhow::Result<u64> {
        let (mut batches, next_offset) = match fetched {
            Fetched::Batches { batches, next_offset } => (batches, next_offset),
            // Retention was quicker.
            Fetched::StartsAt(start) => {
                self.position = start;
                return Ok(0);
            }
        };
        let mut written = 0;
        while !batches.is_empty() {
            let header = BatchHeader::parse(&batches)?;
            anyhow::ensure!(header.total_len() <= batches.len(), "a node sent half a batch");
            let batch = batches.split_to(header.total_len());
            if header.base_offset < self.end {
                // A placeholder that compaction has made larger since.
                let is_new = has_records(&header) && header.next_offset() > self.end;
                anyhow::ensure!(!is_new, "a node sent offset {} twice", header.base_offset);
                continue;
            }
            block_in_place(|| self.writer.append(&header, &batch))?;
            written += batch.len() as u64;
            self.end = header.next_offset();
            if has_records(&header) {
                let newest = self.newest_timestamp_ms.max(Some(header.max_timestamp));
                self.newest_timestamp_ms = newest;
                self.records += records_from(&header, &batch, self.from)
                    .map_err(anyhow::Error::msg)?;
            }
        }
        self.position = next_offset.max(self.end);
        Ok(written)
    }

    fn finish(self, partition: u32) -> anyhow::Result<PartitionEntry> {
        let Self { from, position, records, newest_timestamp_ms, writer, .. } = self;
        let files = writer.finish()?;
        let until = position;
        Ok(PartitionEntry { partition, from, until, records, newest_timestamp_ms, files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::batches::tests::{batch, placeholder};

    /// `block_in_place` wants a runtime of several threads.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn batches_are_taken_once_and_counted_from_the_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let writer = BatchWriter::create(dir.path().join("p")).expect("a directory");
        let mut copied = Copied::new(5, writer);
        let fetched = |batches: &[Bytes], next_offset| Fetched::Batches {
            batches: batches.concat().into(),
            next_offset,
        };
        let first = [batch(4, &[0, 1, 2]), placeholder(7, 9)];
        let bytes = first.iter().map(|batch| batch.len() as u64).sum::<u64>();
        assert_eq!(copied.take(fetched(&first, 10)).expect("taken"), bytes);
        assert_eq!((copied.records, copied.position), (2, 10), "4 was deleted");
        // Compaction has merged two placeholders meanwhile.
        let second = [placeholder(7, 12), batch(13, &[0, 3])];
        assert_eq!(copied.take(fetched(&second, 17)).expect("taken"), second[1].len() as u64);
        assert_eq!((copied.records, copied.position), (4, 17));
        copied.take(fetched(&[batch(16, &[0, 1])], 18)).expect_err("16 was there already");
        assert_eq!(copied.take(Fetched::StartsAt(30)).expect("taken"), 0);
        assert_eq!(copied.position, 30);
        let entry = copied.finish(3).expect("finished");
        assert_eq!((entry.partition, entry.from, entry.until, entry.records), (3, 5, 30, 4));
        assert_eq!(entry.files.len(), 1);
    }

    #[test]
    fn only_an_empty_directory_is_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let new = dir.path().join("a/b");
        prepare(&new).expect("made");
        prepare(&new).expect("empty");
        let error = prepare(dir.path()).expect_err("not empty").to_string();
        assert!(error.contains("is not empty"), "{error}");
    }
}
