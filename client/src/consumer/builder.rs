//! What a consumer is to read, and how.

use super::consumer::Consumer;
use super::membership::Subscription;
use super::options::ConsumerOptions;
use super::types::{ConsumerError, IsolationLevel, OffsetReset, TopicPartition};
use crate::{Client, StartPosition};
use std::time::Duration;

/// Makes a [`Consumer`].
#[must_use]
pub struct ConsumerBuilder {
    pub(super) client: Client,
    pub(super) options: ConsumerOptions,
    pub(super) group: Option<String>,
    pub(super) subscription: Option<Subscription>,
    pub(super) assigned: Vec<(TopicPartition, Option<StartPosition>)>,
}

impl ConsumerBuilder {
    pub(super) fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            options: ConsumerOptions::default(),
            group: None,
            subscription: None,
            assigned: Vec::new(),
        }
    }

    /// The group whose offsets it goes on from and commits to, and whose partitions it
    /// shares if it subscribes.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Reads these topics, sharing their partitions with the other members of the group.
    /// They need not exist yet.
    pub fn subscribe<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        let subscription = self.subscription.get_or_insert_default();
        subscription.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// Reads all topics whose whole name matches this regular expression (RE2 syntax),
    /// those to come included, internal ones not.
    pub fn subscribe_pattern(mut self, pattern: impl Into<String>) -> Self {
        self.subscription.get_or_insert_default().pattern = Some(pattern.into());
        self
    }

    /// Reads these partitions, whoever else does. They begin where the group is, if there
    /// is one, else as the reset policy says.
    pub fn assign(mut self, partitions: impl IntoIterator<Item = TopicPartition>) -> Self {
        self.assigned.extend(partitions.into_iter().map(|partition| (partition, None)));
        self
    }

    /// Reads this partition from there on.
    pub fn assign_at(mut self, partition: TopicPartition, at: StartPosition) -> Self {
        self.assigned.push((partition, Some(at)));
        self
    }

    /// Where to begin when nothing was committed, or what was is gone. Default: at the
    /// first record there is.
    pub fn reset(mut self, reset: OffsetReset) -> Self {
        self.options.reset = reset;
        self
    }

    /// Which records are read.
    pub fn isolation(mut self, isolation: IsolationLevel) -> Self {
        self.options.isolation = isolation;
        self
    }

    /// Commits what was processed so often: what the application has asked for more after.
    /// Default: every second.
    pub fn auto_commit(mut self, every: Duration) -> Self {
        self.options.auto_commit = Some(every);
        self
    }

    /// Only the application commits.
    pub fn manual_commit(mut self) -> Self {
        self.options.auto_commit = None;
        self
    }

    /// Is the same member when it comes back under this name within its session.
    pub fn instance_id(mut self, name: impl Into<String>) -> Self {
        self.options.instance_id = Some(name.into());
        self
    }

    /// Reads from followers in this rack where the leader is elsewhere.
    pub fn rack(mut self, rack: impl Into<String>) -> Self {
        self.options.rack = Some(rack.into());
        self
    }

    /// Everything else.
    pub fn options(mut self, change: impl FnOnce(&mut ConsumerOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// Begins to read. Returns before a group has given anything.
    ///
    /// # Errors
    /// `Invalid`; for assigned partitions also `NoOffset`, and a coordinator that cannot
    /// be reached.
    pub async fn build(self) -> Result<Consumer, ConsumerError> {
        Consumer::start(self).await
    }
}
