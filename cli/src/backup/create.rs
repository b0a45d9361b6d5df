//! `ottla backup create`: topics, their options and the groups' offsets, out to files.

use super::batches::BatchWriter;
use super::copied::Copied;
use super::error::BackupError;
use super::manifest::{
    FORMAT, GroupEntry, Manifest, OffsetEntry, PartitionEntry, TopicEntry, partition_dir,
};
use super::source::{Nodes, Source};
use super::{INTERNAL_PREFIX, Selection, summary, topics_json};
use crate::connection::Connection;
use crate::output::{self, Format};
use crate::progress::{Progress, Unit};
use anyhow::Context as _;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use ottla_client::{Admin, Client, StartPosition, TopicDescription, v1};
use ottla_proto::TopicId;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

/// Partitions read at once: with the bytes of one answer it bounds the memory.
const PARTITIONS_AT_ONCE: usize = 8;

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
    let nodes = Nodes::new(client.clone(), args.connection.timeout);
    let progress = Progress::new(Unit::Bytes, None, true);
    let copy = Copy { dir: &args.dir, client, nodes: &nodes, progress: &progress };
    let jobs =
        topics.iter().flat_map(|topic| topic.topic.partitions.iter().map(move |p| (topic, p)));
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
        let read = copied.read(&mut source, is_compacted(topic), self.progress).await;
        if !read.with_context(|| dir.display().to_string())? {
            return Err(
                BackupError::CompactedMeanwhile { topic: name.to_owned(), partition }.into()
            );
        }
        copied.finish(partition).with_context(|| dir.display().to_string())
    }
}

fn is_compacted(topic: &TopicDescription) -> bool {
    let policy = topic.options.iter().find(|option| option.name == "cleanup.policy");
    policy.is_some_and(|policy| policy.value.split(',').any(|part| part.trim() == "compact"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
