//! Where records go that could not be processed, and how they come back.

use super::ProcessingError;
use crate::{
    Client, ConsumedRecord, ConsumerError, PartitionReader, Producer, ProducerRecord,
    ReaderOptions, Record, RecordHeader, StartPosition, TopicPartition,
};
use bytes::Bytes;
use ottla_proto::v1::{self, ErrorReason};
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
/// over. `group` remembers what was replayed, and has no members. Returns how many were.
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
    let committed = how_far(client, group, topic).await?;
    let mut replayed = 0;
    for partition in 0..client.partitions(topic).await? {
        let start = client.offset_of(topic, partition, StartPosition::Start).await?;
        let end = client.offset_of(topic, partition, StartPosition::End).await?;
        let from = committed.get(&partition).map_or(start, |at| start.max(*at));
        if from >= end {
            continue;
        }
        let place = TopicPartition::new(topic, partition);
        let (from, options) = (StartPosition::Offset(from), ReaderOptions::default());
        let reader = PartitionReader::open(client, topic, partition, from, options).await;
        let mut reader = reader.map_err(ConsumerError::from)?.read_until(end);
        while let Some(batch) = reader.next_batch().await.map_err(ConsumerError::from)? {
            for record in &batch.records {
                let failure = Failure::of(record);
                let Some(failure) = failure.filter(|failure| wanted(record, failure)) else {
                    continue;
                };
                let origin = producer.topic(&failure.partition.topic).await?;
                origin.send(without_failure(record)).await?.await?;
                replayed += 1;
                commit(client, group, &reader, &place, record.offset + 1).await?;
            }
        }
        // The last offsets may hold no record: compaction took it, or there never was one.
        commit(client, group, &reader, &place, end).await?;
    }
    Ok(replayed)
}

/// By partition.
async fn how_far(
    client: &Client,
    group: &str,
    topic: &str,
) -> Result<BTreeMap<u32, u64>, ConsumerError> {
    match client.admin().describe_group(group).await {
        Ok(found) => {
            let of_it = found.offsets.into_iter().filter(|one| one.topic == topic);
            Ok(of_it.map(|one| (one.partition, one.offset)).collect())
        }
        Err(error) if error.is(ErrorReason::UnknownGroup) => Ok(BTreeMap::new()),
        Err(error) => Err(error.into()),
    }
}

async fn commit(
    client: &Client,
    group: &str,
    reader: &PartitionReader,
    place: &TopicPartition,
    offset: u64,
) -> Result<(), ConsumerError> {
    let commit = v1::OffsetCommit {
        topic: place.topic.to_string(),
        topic_id: reader.topic_id().map(|id| id.to_wire().into()).unwrap_or_default(),
        partition: place.partition,
        offset,
        ..Default::default()
    };
    client.admin().commit_offsets(group, vec![commit]).await.map_err(ConsumerError::Commit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProducerOptions;
    use crate::testing::Cluster;

    /// Nothing here takes so long when things go well.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// What compaction has left of the end, or a transaction, is no record to wait for.
    #[tokio::test]
    async fn a_replay_ends_where_the_last_offsets_hold_no_record() {
        let cluster = Cluster::start(1, 2).await;
        for partition in 0..2 {
            cluster.write(partition, (0..5).map(|n| n.to_string()));
        }
        cluster.state.lock().empty_from = Some(3);
        let client = cluster.client().await;
        let producer = Producer::new(&client, ProducerOptions::default());
        for _ in 0..2 {
            let replay =
                replay_dead_letters(&client, &producer, "replay", crate::testing::TOPIC, |_, _| {
                    true
                });
            let replayed = tokio::time::timeout(PATIENCE, replay).await.expect("it ends");
            assert_eq!(replayed.expect("replayed"), 0, "none of them has failed");
        }
        let state = cluster.state.lock();
        let committed = |partition| state.coordinator.committed("replay", partition);
        assert_eq!([0, 1].map(committed), [Some(5); 2]);
        assert_eq!(state.coordinator.commits, 2, "nothing is read a second time");
    }

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
