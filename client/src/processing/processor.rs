//! One record after the other, with what is to be done when that fails.

use super::dead_letters::{Failure, FailureTopics};
use super::{ProcessingError, RetryPolicy};
use crate::{ConsumedRecord, Consumer, Producer, StartPosition, TopicPartition};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, sleep_until};

/// Processes records: tries each at once a few times, then sends it through retry topics,
/// then to the dead letters, with the cause in its headers.
///
/// The consumer has to read the retry topics, too. A record that goes through one comes
/// out of order; who needs the order of a key has no retry topics.
pub struct Processor<'a> {
    consumer: &'a Consumer,
    producer: &'a Producer,
    policy: RetryPolicy,
    topics: FailureTopics,
    /// Partitions of retry topics that wait for their time.
    waiting: BTreeMap<TopicPartition, Instant>,
}

impl<'a> Processor<'a> {
    /// Tries each record three times, and ends when that does not help.
    #[must_use]
    pub fn new(consumer: &'a Consumer, producer: &'a Producer) -> Self {
        let (policy, topics) = (RetryPolicy::default(), FailureTopics::default());
        Self { consumer, producer, policy, topics, waiting: BTreeMap::new() }
    }

    /// How often a record is tried at once. Meanwhile nothing else is processed.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// After that, a record goes to this topic, and is tried again after so long. One may
    /// name several, which a record goes through one after the other.
    #[must_use]
    pub fn retry_topic(mut self, topic: impl Into<String>, delay: Duration) -> Self {
        self.topics.retries.push((topic.into(), delay));
        self
    }

    /// In the end it goes to this topic.
    #[must_use]
    pub fn dead_letters(mut self, topic: impl Into<String>) -> Self {
        self.topics.dead_letters = Some(topic.into());
        self
    }

    /// Processes until the consumer is closed. May be dropped at any moment, which leaves
    /// the record that is being processed for the next time.
    ///
    /// # Errors
    /// See [`ProcessingError`].
    pub async fn run<E, F>(
        &mut self,
        mut handle: impl FnMut(ConsumedRecord) -> F,
    ) -> Result<(), ProcessingError>
    where
        E: Display,
        F: Future<Output = Result<(), E>>,
    {
        loop {
            let next = self.waiting.values().min().copied();
            let due = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let record = tokio::select! {
                record = self.consumer.next_record() => record?,
                () = due => {
                    self.resume_due();
                    continue;
                }
            };
            let Some(record) = record else { return Ok(()) };
            if self.is_early(&record).await? {
                continue;
            }
            let tried = self.policy.run(|| handle(record.clone())).await;
            if let Err(error) = tried {
                self.failed(&record, &error.to_string()).await?;
            }
        }
    }

    fn resume_due(&mut self) {
        let now = Instant::now();
        let due: Vec<_> =
            self.waiting.iter().filter(|(_, at)| **at <= now).map(|(p, _)| p.clone()).collect();
        for partition in due {
            self.waiting.remove(&partition);
            // Another member may have it by now.
            let _ = self.consumer.resume([&partition]);
        }
    }

    /// A record of a retry topic whose time has not come: the partition waits for it, as
    /// what is behind it is later still.
    async fn is_early(&mut self, record: &ConsumedRecord) -> Result<bool, ProcessingError> {
        let not_before = Failure::of(record).map_or(0, |failure| failure.not_before_ms);
        let wait = Duration::from_millis(not_before.saturating_sub(now_ms()));
        if wait.is_zero() {
            return Ok(false);
        }
        let partition = &record.partition;
        // Another member may have been given it in this moment; then that one waits.
        if self.consumer.pause([partition]).is_ok() {
            let at = StartPosition::Offset(record.offset);
            if self.consumer.seek(partition, at).await.is_ok() {
                self.waiting.insert(partition.clone(), Instant::now() + wait);
            }
        }
        Ok(true)
    }

    /// Sends the record on. It is processed once that is acknowledged.
    async fn failed(&self, record: &ConsumedRecord, cause: &str) -> Result<(), ProcessingError> {
        let rounds = Failure::of(record).map_or(0, |failure| failure.rounds as usize);
        let (topic, delay) = match (self.topics.retries.get(rounds), &self.topics.dead_letters) {
            (Some((topic, delay)), _) => (topic, *delay),
            (None, Some(topic)) => (topic, Duration::ZERO),
            (None, None) => {
                return Err(ProcessingError::Handler {
                    partition: record.partition.clone(),
                    offset: record.offset,
                    cause: cause.to_owned(),
                });
            }
        };
        tracing::debug!(partition = %record.partition, record.offset, cause, topic, "failed");
        let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let not_before = if delay == 0 { 0 } else { now_ms().saturating_add(delay) };
        let failure = Failure::next(record, cause, not_before);
        let topic = self.producer.topic(topic).await?;
        topic.send(failure.on(record)).await?.await?;
        Ok(())
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
