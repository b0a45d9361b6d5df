//! The cluster that a backup is restored into: whether it can take it, its topics before
//! and after they are filled, and its groups.

use super::error::BackupError;
use super::manifest::TopicEntry;
use anyhow::Context as _;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use ottla_client::{Admin, ConfigChange, NewTopic, TopicChange, TopicDescription, v1};
use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

/// The feature level that brought producers whose records are written once.
const IDEMPOTENCE: u32 = 2;

/// Requests under way at once.
const REQUESTS_AT_ONCE: usize = 16;

/// Offsets of one commit, at most: a node takes 2,000.
const OFFSETS_OF_A_COMMIT: usize = 1_000;

/// What a topic has set while it is filled, whatever it will have: everything stays, with
/// its own timestamp, and batches may be as large as any were.
const WHILE_FILLED: [(&str, &str); 5] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("message.timestamp.type", "CreateTime"),
    ("max.message.bytes", "8388608"),
];

pub(super) struct Target<'a> {
    pub(super) admin: Admin,
    /// As they are to be.
    pub(super) topics: &'a [TopicEntry],
    /// Options that are to be set on the cluster.
    pub(super) cluster_options: Option<&'a BTreeMap<String, String>>,
}

impl Target<'_> {
    /// Whether all of it can be created. Changes nothing.
    pub(super) async fn check(&self, groups: impl Iterator<Item = &str>) -> anyhow::Result<()> {
        let found = self.admin.cluster_info().await?.feature_level;
        if found < IDEMPOTENCE {
            return Err(BackupError::FeatureLevel { found, expected: IDEMPOTENCE }.into());
        }
        let there = self.admin.list_topics().await?;
        let is_there = |name: &String| there.iter().any(|topic| topic.name == *name);
        let names = self.topics.iter().map(|topic| topic.name.clone());
        let known: Vec<String> = names.filter(is_there).collect();
        if !known.is_empty() {
            return Err(BackupError::TopicsExist(known).into());
        }
        let there = self.admin.list_groups().await?;
        let is_used = |name: &&str| there.iter().any(|g| g.group == **name && g.members > 0);
        let used: Vec<String> = groups.filter(is_used).map(str::to_owned).collect();
        if !used.is_empty() {
            return Err(BackupError::GroupsInUse(used).into());
        }
        self.set_on_cluster(true).await?;
        let options = |topic: &TopicEntry| topic.options.clone().into_iter().collect();
        self.create_all(options, true).await
    }

    /// Creates the topics as they are while they are filled.
    pub(super) async fn create(&self) -> anyhow::Result<()> {
        self.set_on_cluster(false).await?;
        self.create_all(while_filled, false).await
    }

    async fn set_on_cluster(&self, validate_only: bool) -> anyhow::Result<()> {
        if let Some(options) = self.cluster_options.filter(|options| !options.is_empty()) {
            let set = options.clone().into_iter().collect();
            let change = ConfigChange { set, validate_only, ..ConfigChange::default() };
            self.admin.alter_config(change).await.context("options of the cluster")?;
        }
        Ok(())
    }

    async fn create_all(
        &self,
        options: impl Fn(&TopicEntry) -> HashMap<String, String>,
        validate_only: bool,
    ) -> anyhow::Result<()> {
        let create = |topic: &TopicEntry| {
            let new = NewTopic {
                name: topic.name.clone(),
                partitions: u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX),
                replication_factor: topic.replication_factor,
                configs: options(topic),
                validate_only,
            };
            let (admin, name) = (self.admin.clone(), topic.name.clone());
            async move {
                let created = admin.create_topic(new).await.map(drop);
                created.with_context(|| format!("topic {name}"))
            }
        };
        self.for_all(create).await.map(drop)
    }

    async fn for_all<T, F: Future<Output = anyhow::Result<T>>>(
        &self,
        ask: impl Fn(&TopicEntry) -> F,
    ) -> anyhow::Result<Vec<T>> {
        let asked = stream::iter(self.topics.iter().map(ask));
        asked.buffered(REQUESTS_AT_ONCE).try_collect().await
    }

    /// Gives the topics, which are full, the options that they are to have.
    pub(super) async fn finish(&self) -> anyhow::Result<()> {
        let alter = |topic: &TopicEntry| {
            let (admin, name, change) = (self.admin.clone(), topic.name.clone(), afterwards(topic));
            async move {
                let altered = admin.alter_topic(&name, change).await.map(drop);
                altered.with_context(|| format!("the options of topic {name}"))
            }
        };
        self.for_all(alter).await.map(drop)
    }

    pub(super) async fn commit(
        &self,
        group: &str,
        offsets: Vec<v1::OffsetCommit>,
    ) -> anyhow::Result<()> {
        for part in offsets.chunks(OFFSETS_OF_A_COMMIT) {
            self.admin.commit_offsets(group, part.to_vec()).await?;
        }
        Ok(())
    }

    /// What is to be said of records that will not stay for long.
    pub(super) async fn old_records(&self) -> anyhow::Result<Vec<String>> {
        let describe = |topic: &TopicEntry| {
            let (admin, name) = (self.admin.clone(), topic.name.clone());
            async move { Ok(admin.describe_topic(&name).await?) }
        };
        let described = self.for_all(describe).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let pairs = self.topics.iter().zip(&described);
        Ok(pairs.filter_map(|(topic, described)| too_old(topic, described, now_ms)).collect())
    }
}

fn while_filled(topic: &TopicEntry) -> HashMap<String, String> {
    let filling = WHILE_FILLED.map(|(key, value)| (key.to_owned(), value.to_owned()));
    topic.options.clone().into_iter().chain(filling).collect()
}

fn afterwards(topic: &TopicEntry) -> TopicChange {
    let filling = WHILE_FILLED.iter().map(|(key, _)| (*key).to_owned());
    TopicChange {
        set: topic.options.clone().into_iter().collect(),
        unset: filling.filter(|key| !topic.options.contains_key(key)).collect(),
        validate_only: false,
    }
}

/// A warning, if all records of a partition are older than what is kept.
fn too_old(topic: &TopicEntry, described: &TopicDescription, now_ms: i64) -> Option<String> {
    let value = |name: &str| {
        let option = described.options.iter().find(|option| option.name == name);
        option.map(|option| &*option.value)
    };
    let deletes = value("cleanup.policy").is_some_and(|policy| policy.contains("delete"));
    let kept_ms: i64 = value("retention.ms")?.parse().ok().filter(|ms| deletes && *ms >= 0)?;
    let newest = |partition: &super::manifest::PartitionEntry| partition.newest_timestamp_ms;
    let mut newest = topic.partitions.iter().filter_map(newest);
    newest.any(|ms| ms < now_ms.saturating_sub(kept_ms)).then(|| {
        let name = &topic.name;
        format!(
            "ottla: {name} has records older than its retention.ms of {kept_ms}, which will be \
             deleted soon; `ottla topic alter {name} --config retention.ms=-1` keeps them"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::PartitionEntry;

    fn topic(options: &[(&str, &str)]) -> TopicEntry {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let partition = PartitionEntry {
            partition: 0,
            from: 0,
            until: 1,
            records: 1,
            newest_timestamp_ms: Some(5_000),
            files: Vec::new(),
        };
        TopicEntry {
            name: "orders".to_owned(),
            topic_id: String::new(),
            replication_factor: 3,
            options,
            partitions: vec![partition],
        }
    }

    #[test]
    fn a_topic_keeps_everything_while_it_is_filled_and_has_its_options_afterwards() {
        let topic = topic(&[("cleanup.policy", "compact"), ("segment.bytes", "8192")]);
        let filling = while_filled(&topic);
        assert_eq!(filling["cleanup.policy"], "delete");
        assert_eq!((&*filling["segment.bytes"], filling.len()), ("8192", 6));
        let TopicChange { set, mut unset, validate_only } = afterwards(&topic);
        assert_eq!((set.len(), &*set["cleanup.policy"], validate_only), (2, "compact", false));
        unset.sort();
        let kept = ["max.message.bytes", "message.timestamp.type"];
        assert_eq!(unset, [&kept[..], &["retention.bytes", "retention.ms"]].concat());
    }

    #[test]
    fn records_that_are_about_to_go_are_told() {
        let described = |policy: &str, retention: &str| {
            let option = |name: &str, value: &str| v1::TopicOption {
                name: name.to_owned(),
                value: value.to_owned(),
                ..Default::default()
            };
            let options = vec![option("cleanup.policy", policy), option("retention.ms", retention)];
            TopicDescription { options, ..TopicDescription::default() }
        };
        let told = |policy, retention, now| {
            too_old(&topic(&[]), &described(policy, retention), now).is_some()
        };
        assert!(told("delete", "1000", 6_001) && told("compact,delete", "1000", 6_001));
        assert!(!told("delete", "1000", 6_000), "not yet");
        assert!(!told("compact", "1000", 9_000) && !told("delete", "-1", 9_000));
    }
}
