//! Looking at a consumer's partitions, and steering them.

use super::consumer::Consumer;
use super::member::Command;
use super::membership::Subscription;
use super::shared::Begin;
use super::types::{ConsumerError, TopicPartition};
use crate::StartPosition;

impl Consumer {
    /// Partitions that are read at the moment.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.shelf.lock().assignment()
    }

    /// The next offset to be handed out, as soon as that is known.
    #[must_use]
    pub fn position(&self, partition: &TopicPartition) -> Option<u64> {
        self.shared.shelf.lock().position(partition)
    }

    /// Whether what is processed is committed without being told to.
    #[must_use]
    pub fn commits_by_itself(&self) -> bool {
        self.shared.options.auto_commit.is_some()
    }

    /// The member's id in its group.
    #[must_use]
    pub fn member_id(&self) -> &str {
        &self.shared.member_id
    }

    /// Goes on elsewhere in a partition. What was read ahead is dropped.
    ///
    /// # Errors
    /// `NotAssigned`, or the offset of a time cannot be found out.
    pub async fn seek(
        &self,
        partition: &TopicPartition,
        to: StartPosition,
    ) -> Result<(), ConsumerError> {
        let offset =
            self.shared.client.offset_of(&partition.topic, partition.partition, to).await?;
        let held = self.shared.shelf.lock().find(partition);
        let held = held.ok_or_else(|| ConsumerError::NotAssigned(vec![partition.clone()]))?;
        let at = StartPosition::Offset(offset);
        self.shared.begin(&held, Begin { at, committed: None });
        Ok(())
    }

    /// Hands out nothing of these partitions until they are resumed. They stay assigned.
    ///
    /// # Errors
    /// `NotAssigned`; the others are paused.
    pub fn pause<'a>(
        &self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
    ) -> Result<(), ConsumerError> {
        self.set_paused(partitions, true)
    }

    /// Goes on with partitions that were paused.
    ///
    /// # Errors
    /// `NotAssigned`; the others are resumed.
    pub fn resume<'a>(
        &self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
    ) -> Result<(), ConsumerError> {
        self.set_paused(partitions, false)
    }

    fn set_paused<'a>(
        &self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
        paused: bool,
    ) -> Result<(), ConsumerError> {
        let mut shelf = self.shared.shelf.lock();
        let all = partitions.into_iter();
        let unknown: Vec<_> = all.filter(|one| !shelf.pause(one, paused)).cloned().collect();
        drop(shelf);
        self.shared.news.notify_one();
        if unknown.is_empty() { Ok(()) } else { Err(ConsumerError::NotAssigned(unknown)) }
    }

    /// Wants other topics from now on. Partitions come and go as the group says.
    ///
    /// # Errors
    /// `Invalid` if it never subscribed, `Closed`.
    pub async fn subscribe<T: Into<String>>(
        &self,
        topics: impl IntoIterator<Item = T>,
        pattern: Option<String>,
    ) -> Result<(), ConsumerError> {
        if self.shared.lease.borrow().is_none() {
            let what = "a consumer that was assigned partitions cannot subscribe";
            return Err(ConsumerError::Invalid(what.to_owned()));
        }
        let topics = topics.into_iter().map(Into::into).collect();
        let wants = Command::Subscribe(Subscription { topics, pattern });
        self.shared.commands.send(wants).await.map_err(|_| ConsumerError::Closed)
    }
}
