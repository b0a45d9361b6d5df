//! `ottla backup restore`: from files into a cluster.
//!
//! ```text
//! files ─▶ check ─▶ target ─▶ create ─▶ fill ─▶ options ─▶ groups
//! ```
//! Nothing is created before every byte was read and the cluster was asked whether it can
//! take all of it.

use super::check::{Checked, check};
use super::error::BackupError;
use super::fill::Filler;
use super::manifest::{GroupEntry, Manifest, TopicEntry};
use super::target::Target;
use super::{Selection, summary, topics_json};
use crate::connection::Connection;
use crate::failure::diagnose;
use crate::output::{self, Format};
use crate::produce::INTERRUPTED;
use crate::progress::{Progress, Unit};
use anyhow::Context as _;
use ottla_client::{Client, v1};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::task::block_in_place;

/// Bring topics, their options, and how far groups were, into a cluster.
///
/// Topics must not be there yet, and groups must have no members. Records keep their order,
/// keys, values, headers and timestamps, and the topic its number of partitions. They are
/// numbered from 0 again: a group's offset becomes that of the same record.
///
/// Every file is checked before anything is created. If it is interrupted it cannot go on:
/// delete the topics that it began, and start again.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla backup restore /backups/monday --dry-run
  ottla backup restore /backups/monday
  ottla backup restore /backups/monday --topic orders --replication-factor 1 \\
      --config retention.ms=-1")]
pub(super) struct Restore {
    /// A backup.
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    #[command(flatten)]
    selection: Selection,

    /// Replicas of each partition. Default: as many as there were.
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..))]
    replication_factor: Option<u32>,

    /// An option that all restored topics are to have, whatever they had. May be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = crate::topic::key_value)]
    configs: Vec<(String, String)>,

    /// Set the options of the cluster, too, that were set on the one that was backed up.
    #[arg(long)]
    cluster_options: bool,

    /// Check everything, and say what would be done.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    pub(super) connection: Connection,
}

pub(super) async fn run(args: Restore) -> anyhow::Result<ExitCode> {
    let mut manifest = Manifest::load(&args.dir)?;
    let topics = chosen(&args, &mut manifest)?;
    let bytes = topics.iter().map(TopicEntry::bytes).sum();
    let progress = Progress::new(Unit::Bytes, Some(bytes), true);
    let checked = block_in_place(|| check(&args.dir, &manifest, &topics, &progress));
    drop(progress);
    if !checked.damages.is_empty() {
        let (dir, problems) = (args.dir, checked.damages.len());
        return Err(BackupError::Damaged { dir, problems }.into());
    }
    let groups = Group::all(&manifest.groups, &checked)?;
    let client = args.connection.client().await?;
    let cluster_options = args.cluster_options.then_some(&manifest.cluster_options);
    let target = Target { admin: client.admin(), topics: &topics, cluster_options };
    target.check(groups.iter().map(|group| &*group.name)).await?;
    if !args.dry_run {
        tokio::select! {
            done = carry_out(&args, &client, &target, &groups) => done?,
            _ = tokio::signal::ctrl_c() => {
                diagnose(&format!("ottla: {}", unfinished(&topics)));
                return Ok(ExitCode::from(INTERRUPTED));
            }
        }
    }
    show(&args, &topics, &groups)?;
    Ok(ExitCode::SUCCESS)
}

async fn carry_out(
    args: &Restore,
    client: &Client,
    target: &Target<'_>,
    groups: &[Group],
) -> anyhow::Result<()> {
    let topics = target.topics;
    let bytes = topics.iter().map(TopicEntry::bytes).sum();
    let filler = Filler {
        dir: args.dir.clone(),
        client: client.clone(),
        timeout: args.connection.timeout,
        progress: Arc::new(Progress::new(Unit::Bytes, Some(bytes), true)),
        producers: Arc::default(),
    };
    let filled = async {
        target.create().await?;
        filler.fill(topics).await?;
        target.finish().await
    };
    filled.await.with_context(|| unfinished(topics))?;
    for group in groups {
        let commit = target.commit(&group.name, group.commits());
        commit.await.with_context(|| format!("all records are there; group {}", group.name))?;
    }
    target.old_records().await?.iter().for_each(|warning| diagnose(warning));
    Ok(())
}

/// The topics that were asked for, as they are to be; the manifest keeps their groups only.
fn chosen(args: &Restore, manifest: &mut Manifest) -> anyhow::Result<Vec<TopicEntry>> {
    let overrides = crate::topic::each_once(args.configs.clone())?;
    let names = args.selection.topics(manifest.topics.iter().map(|topic| &*topic.name))?;
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    let groups = args.selection.groups(manifest.groups.iter().map(|group| &*group.group))?;
    let groups: Vec<String> = groups.into_iter().map(str::to_owned).collect();
    let mut topics = manifest.topics.clone();
    topics.retain(|topic| names.contains(&topic.name));
    for topic in &mut topics {
        topic.options.extend(overrides.clone());
        topic.replication_factor = args.replication_factor.unwrap_or(topic.replication_factor);
    }
    manifest.groups.retain(|group| groups.contains(&group.group));
    for group in &mut manifest.groups {
        group.offsets.retain(|at| names.contains(&at.topic));
    }
    manifest.groups.retain(|group| !group.offsets.is_empty());
    Ok(topics)
}

fn unfinished(topics: &[TopicEntry]) -> String {
    let names: Vec<&str> = topics.iter().map(|topic| &*topic.name).collect();
    format!(
        "the restore is not finished: delete what it has created ({}) before it is tried again",
        names.join(", ")
    )
}

/// A group, and where it goes on in each partition.
struct Group {
    name: String,
    offsets: Vec<Moved>,
}

struct Moved {
    topic: String,
    partition: u32,
    was: u64,
    is: u64,
    metadata: String,
}

impl Group {
    fn all(entries: &[GroupEntry], checked: &Checked) -> anyhow::Result<Vec<Self>> {
        let of = |entry: &GroupEntry| {
            let moved = entry.offsets.iter().map(|at| {
                let is = checked.offset(&at.topic, at.partition, at.offset).with_context(|| {
                    let (group, topic, partition) = (&entry.group, &at.topic, at.partition);
                    format!("group {group} is in {topic}-{partition}, which the backup lacks")
                })?;
                let (topic, metadata) = (at.topic.clone(), at.metadata.clone());
                Ok(Moved { topic, partition: at.partition, was: at.offset, is, metadata })
            });
            let offsets = moved.collect::<anyhow::Result<_>>()?;
            Ok(Self { name: entry.group.clone(), offsets })
        };
        entries.iter().map(of).collect()
    }

    fn commits(&self) -> Vec<v1::OffsetCommit> {
        let commit = |at: &Moved| v1::OffsetCommit {
            topic: at.topic.clone(),
            partition: at.partition,
            offset: at.is,
            metadata: at.metadata.clone(),
            ..Default::default()
        };
        self.offsets.iter().map(commit).collect()
    }

    fn json(&self) -> Value {
        let offset = |at: &Moved| json!({ "topic": at.topic, "partition": at.partition, "was": at.was, "is": at.is });
        let offsets: Vec<Value> = self.offsets.iter().map(offset).collect();
        json!({ "group": self.name, "offsets": offsets })
    }
}

fn show(args: &Restore, topics: &[TopicEntry], groups: &[Group]) -> anyhow::Result<()> {
    match args.connection.format {
        Format::Text => {
            let done = if args.dry_run { "would restore" } else { "restored" };
            output::line(&format!("{done} {}", summary(topics, groups.len())))?;
        }
        Format::Json => output::json(&json!({
            "dir": args.dir,
            "restored": !args.dry_run,
            "topics": topics_json(topics),
            "groups": groups.iter().map(Group::json).collect::<Vec<_>>(),
        }))?,
    }
    Ok(())
}
