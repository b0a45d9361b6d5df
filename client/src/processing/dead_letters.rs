//! Where records go that could not be processed, and how they come back.

use super::ProcessingError;
use crate::{
    Client, ConsumedRecord, Consumer, Producer, ProducerRecord, Record, RecordHeader,
    StartPosition, TopicPartition,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

/// What every header of a failure begins with.
const PREFIX: &str = "ottla-failure-";
const TOPIC: &str = "ottla-failure-topic";
const PARTITION: &str = "ottla-failure-partition";
const OFFSET: &str = "ottla-failure-offset";
const CAUSE: &str = "ottla-failure-cause";
const ROUNDS: &str = "ottla-failure-rounds";
const NOT_BEFORE: &str = "ottla-failure-not-before";

/// Longest cause that goes into a header, in bytes: for people, and beside the record in
/// one batch.
const MAX_CAUSE_BYTES: usize = 4 * 1024;

/// The topics for what could not be processed. They have to be there.
#[derive(Clone, Debug, Default)]
pub struct FailureTopics {
    /// Topics from which a record comes again after a delay, one after the other.
    pub retries: Vec<(String, Duration)>,
    /// Where it goes then. `None`: processing ends with the first record that fails for
    /// good.
    pub dead_letters: Option<String>,
}

/// What the headers of a record say that could not be processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where it was written first.
    pub partition: TopicPartition,
    /// Its offset there.
    pub offset: u64,
    /// What the handler said last.
    pub cause: String,
    /// Through how many topics it has come.
    pub rounds: u32,
    /// Milliseconds since the Unix epoch; it is not to be tried before.
    pub not_before_ms: u64,
}

impl Failure {
    /// What is said of a record, if it has failed before.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        let text = |name: &str| {
            let header = record.headers.iter().rev().find(|header| header.name == name)?;
            String::from_utf8(header.value.as_ref()?.to_vec()).ok()
        };
        fn number<T: FromStr>(text: Option<String>) -> Option<T> {
            text?.parse().ok()
        }
        Some(Self {
            partition: TopicPartition::new(text(TOPIC)?, number(text(PARTITION))?),
            offset: number(text(OFFSET))?,
            cause: text(CAUSE)?,
            rounds: number(text(ROUNDS))?,
            not_before_ms: number(text(NOT_BEFORE))?,
        })
    }

    /// The next one, after a record has failed (again).
    pub(super) fn next(record: &ConsumedRecord, cause: &str, not_before_ms: u64) -> Self {
        let before = Self::of(record);
        let mut cause = cause.to_owned();
        cause.truncate(cause.floor_char_boundary(MAX_CAUSE_BYTES));
        let rounds = before.as_ref().map_or(0, |failure| failure.rounds) + 1;
        let (partition, offset) = match before {
            Some(before) => (before.partition, before.offset),
            None => (record.partition.clone(), record.offset),
        };
        Self { partition, offset, cause, rounds, not_before_ms }
    }

    fn headers(&self) -> Vec<RecordHeader> {
        let header = |(name, value): (&'static str, String)| RecordHeader {
            name: Bytes::from_static(name.as_bytes()),
            value: Some(value.into()),
        };
        let all = [
            (TOPIC, self.partition.topic.to_string()),
            (PARTITION, self.partition.partition.to_string()),
            (OFFSET, self.offset.to_string()),
            (CAUSE, self.cause.clone()),
            (ROUNDS, self.rounds.to_string()),
            (NOT_BEFORE, self.not_before_ms.to_string()),
        ];
        all.into_iter().map(header).collect()
    }

    /// The record with what is to be said of it.
    pub(super) fn on(&self, record: &Record) -> ProducerRecord {
        let mut copy = without_failure(record);
        copy.headers.extend(self.headers());
        copy
    }
}

/// The record as it was.
fn without_failure(record: &Record) -> ProducerRecord {
    let is_ours = |header: &&RecordHeader| !header.name.starts_with(PREFIX.as_bytes());
    ProducerRecord {
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.iter().filter(is_ours).cloned().collect(),
        timestamp_ms: Some(record.timestamp_ms),
        partition: None,
    }
}

/// Sends dead letters back to where they came from, as they were, up to those that are
/// there now; only those that are `wanted`. The others stay where they are, and are passed
/// over. `group` remembers what was replayed. Returns how many were.
///
/// # Errors
/// Nothing is committed of what could not be sent.
pub async fn replay_dead_letters(
    client: &Client,
    producer: &Producer,
    group: &str,
    topic: &str,
    mut wanted: impl FnMut(&Record, &Failure) -> bool,
) -> Result<u64, ProcessingError> {
    let mut ends = BTreeMap::new();
    for partition in 0..client.partitions(topic).await? {
        let start = client.offset_of(topic, partition, StartPosition::Start).await?;
        let end = client.offset_of(topic, partition, StartPosition::End).await?;
        if start < end {
            ends.insert(TopicPartition::new(topic, partition), end);
        }
    }
    let mut replayed = 0;
    if ends.is_empty() {
        return Ok(replayed);
    }
    let builder = Consumer::builder(client).group(group).assign(ends.keys().cloned());
    let consumer = builder.manual_commit().build().await?;
    ends.retain(|partition, end| consumer.position(partition).is_none_or(|at| at < *end));
    while !ends.is_empty() {
        let Some(record) = consumer.next_record().await? else { break };
        let Some(end) = ends.get(&record.partition).copied() else { continue };
        let failure = Failure::of(&record).filter(|_| record.offset < end);
        if let Some(failure) = failure.filter(|failure| wanted(&record, failure)) {
            let origin = producer.topic(&failure.partition.topic).await?;
            origin.send(without_failure(&record)).await?.await?;
            replayed += 1;
        }
        if record.offset + 1 >= end {
            ends.remove(&record.partition);
        }
        let next = (record.offset + 1).min(end);
        consumer.commit_offsets([(record.partition.clone(), next)]).await?;
    }
    consumer.close().await?;
    Ok(replayed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(headers: Vec<RecordHeader>) -> ConsumedRecord {
        let value = Some(Bytes::from_static(b"v"));
        let record = Record { offset: 7, timestamp_ms: 5, key: None, value, headers };
        ConsumedRecord { partition: TopicPartition::new("orders", 3), record }
    }

    /// The first place and the last cause are kept, the rounds counted, and what the
    /// application had in its headers stays.
    #[test]
    fn a_failure_is_told_in_headers_and_taken_off_again() {
        let own = RecordHeader { name: Bytes::from_static(b"trace"), value: None };
        let first = record(vec![own.clone()]);
        assert_eq!(Failure::of(&first), None);
        let sent = Failure::next(&first, "too early", 100).on(&first);
        let mut again = record(sent.headers);
        again.partition = TopicPartition::new("orders-retry", 0);
        again.record.offset = 99;
        let sent = Failure::next(&again, &"too late ".repeat(1_000), 0).on(&again);
        let dead = record(sent.headers);
        let failure = Failure::of(&dead).expect("it has failed");
        assert_eq!((failure.partition.to_string().as_str(), failure.offset), ("orders-3", 7));
        assert_eq!((failure.rounds, failure.not_before_ms), (2, 0));
        assert!(failure.cause.starts_with("too late") && failure.cause.len() <= MAX_CAUSE_BYTES);
        assert_eq!(without_failure(&dead).headers, [own]);
    }
}
