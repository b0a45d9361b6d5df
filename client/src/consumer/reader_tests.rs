//! The reader against nodes that misbehave on purpose.

use super::reader::*;
use super::start::StartPosition;
use crate::testing::{Cluster, Consume, Produce, TOPIC};
use crate::{Producer, ProducerOptions, ProducerRecord};
use futures::StreamExt;
use ottla_proto::ApiError;
use ottla_proto::v1::ErrorReason as R;
use std::time::Duration;

fn numbers(range: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    range.map(|n| n.to_string())
}

async fn open(cluster: &Cluster, start: StartPosition, options: ReaderOptions) -> PartitionReader {
    let client = cluster.client().await;
    PartitionReader::open(&client, TOPIC, 0, start, options).await.expect("opened")
}

/// Reads everything; every record must be the one its offset says.
async fn read_all(reader: PartitionReader) -> Vec<u64> {
    let records = reader.into_records();
    tokio::pin!(records);
    let mut offsets = Vec::new();
    while let Some(record) = records.next().await {
        let record = record.expect("readable");
        let value = record.value.expect("a value");
        assert_eq!(value, record.offset.to_string());
        offsets.push(record.offset);
    }
    offsets
}

#[tokio::test]
async fn reading_goes_on_after_the_stream_breaks_without_gap_or_repetition() {
    let cluster = Cluster::start(1, 1).await;
    cluster.write(0, numbers(0..1000));
    let refusal = ApiError::new(R::LeaderNotAvailable, "electing");
    cluster.state.lock().consume.extend([
        Consume::BreakAfter(3),
        Consume::Refuse(refusal),
        Consume::BreakAfter(0),
        Consume::BreakAfter(1),
        Consume::BreakAfter(40),
    ]);
    let reader = open(&cluster, StartPosition::Offset(5), ReaderOptions::default()).await;
    let offsets = read_all(reader.read_until(995)).await;
    assert_eq!(offsets, (5..995).collect::<Vec<_>>());
    assert!(cluster.state.lock().consume.is_empty(), "all of it happened");
}

#[tokio::test]
async fn a_new_leader_is_followed() {
    let cluster = Cluster::start(2, 1).await;
    cluster.write(0, numbers(0..100));
    cluster.state.lock().consume.push_back(Consume::BreakAfter(2));
    let mut reader = open(&cluster, StartPosition::Start, ReaderOptions::default()).await;
    let first = reader.next_batch().await.expect("readable").expect("not at the end");
    cluster.elect(Some(2), 2);
    let rest = read_all(reader.read_until(100)).await;
    assert_eq!(rest, (first.next_offset..100).collect::<Vec<_>>());
}

/// The window is smaller than what is read, so it must be given back.
/// A reader in a rack reads from the follower there, from the leader when that fails,
/// and misses nothing on the way.
#[tokio::test]
async fn a_follower_in_the_rack_is_read_from() {
    let cluster = Cluster::start(3, 1).await;
    cluster.write(0, numbers(0..1000));
    cluster.state.lock().consume.push_back(Consume::BreakAfter(3));
    let options = ReaderOptions { rack: Some("rack-2".to_owned()), ..ReaderOptions::default() };
    let reader = open(&cluster, StartPosition::Start, options.clone()).await;
    let offsets = read_all(reader.read_until(1000)).await;
    assert_eq!(offsets, (0..1000).collect::<Vec<_>>());
    assert_eq!(cluster.state.lock().consumed_from, [(2, true), (1, false)]);

    cluster.state.lock().consumed_from.clear();
    let refusal = ApiError::new(R::NotLeader, "not in the ISR");
    cluster.state.lock().consume.push_back(Consume::Refuse(refusal));
    let reader = open(&cluster, StartPosition::Start, options).await;
    assert_eq!(read_all(reader.read_until(10)).await.len(), 10);
    assert_eq!(cluster.state.lock().consumed_from, [(1, false)]);

    // In the leader's rack there is nothing nearer than the leader.
    cluster.state.lock().consumed_from.clear();
    let options = ReaderOptions { rack: Some("rack-1".to_owned()), ..ReaderOptions::default() };
    let reader = open(&cluster, StartPosition::Start, options).await;
    assert_eq!(read_all(reader.read_until(10)).await.len(), 10);
    assert_eq!(cluster.state.lock().consumed_from, [(1, false)]);
}

#[tokio::test]
async fn credit_is_given_back() {
    let cluster = Cluster::start(1, 1).await;
    cluster.write(0, numbers(0..1000));
    let options = ReaderOptions { window_records: 20, window_bytes: 1500, ..Default::default() };
    let reader = open(&cluster, StartPosition::Start, options).await;
    assert_eq!(read_all(reader.read_until(1000)).await.len(), 1000);
    assert!(cluster.state.lock().credit_messages > 10);
}

#[tokio::test]
async fn an_offset_out_of_range_is_the_callers_to_handle() {
    let cluster = Cluster::start(1, 1).await;
    let error = ApiError::new(R::OffsetOutOfRange, "10 to 20").with("log_start_offset", 10);
    cluster.state.lock().consume.push_back(Consume::Refuse(error));
    let mut reader = open(&cluster, StartPosition::Offset(5), ReaderOptions::default()).await;
    let error = reader.next_batch().await.expect_err("out of range");
    assert_eq!(error.api().expect("from the node").metadata["log_start_offset"], "10");
}

#[tokio::test]
async fn without_a_leader_reading_gives_up_after_its_time() {
    let cluster = Cluster::start(1, 1).await;
    let options =
        ReaderOptions { recovery_timeout: Duration::from_millis(300), ..ReaderOptions::default() };
    let mut reader = open(&cluster, StartPosition::Offset(0), options).await;
    cluster.elect(None, 2);
    let error = reader.next_batch().await.expect_err("no leader");
    assert_eq!(error.reason_name(), "LEADER_NOT_AVAILABLE");
    cluster.elect(Some(1), 3);
    cluster.write(0, numbers(0..1));
    let batch = reader.next_batch().await.expect("the reader can be used again");
    assert_eq!(batch.expect("not at the end").next_offset, 1);
}

/// A new leader does not know at once how far the log is committed.
#[tokio::test]
async fn offset_not_available_is_asked_again() {
    let cluster = Cluster::start(1, 1).await;
    cluster.write(0, numbers(0..3));
    let error = ApiError::new(R::OffsetNotAvailable, "not known yet");
    cluster.state.lock().list_offsets.extend([error.clone(), error]);
    let client = cluster.client().await;
    let end = client.offset_of(TOPIC, 0, StartPosition::End).await.expect("in the end");
    assert_eq!(end, 3);
}

#[tokio::test]
async fn fetch_reads_once() {
    let cluster = Cluster::start(1, 1).await;
    cluster.write(0, numbers(0..3));
    let client = cluster.client().await;
    let batch = client.fetch(TOPIC, 0, 1, 0, Duration::ZERO).await.expect("readable");
    let offsets: Vec<_> = batch.records.iter().map(|record| record.offset).collect();
    assert_eq!((offsets, batch.next_offset, batch.high_watermark), (vec![1, 2], 3, 3));
    let error = client.fetch("nobody", 0, 0, 0, Duration::ZERO).await.expect_err("no such topic");
    assert_eq!(error.reason(), Some(R::UnknownTopic));
}

/// A reader at the end waits for what is yet to be written.
#[tokio::test]
async fn what_is_produced_is_consumed() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    let producer = Producer::new(&client, ProducerOptions::default());
    let topic = producer.topic(TOPIC).await.expect("known");
    cluster.state.lock().produce.push_back(Produce::WriteThenBreak);
    for n in 0..10 {
        topic.send(ProducerRecord::keyed("k", n.to_string())).await.expect("queued");
    }
    producer.shutdown().await;
    let reader = open(&cluster, StartPosition::Start, ReaderOptions::default()).await;
    let values: Vec<_> = reader
        .read_until(10)
        .into_records()
        .map(|record| record.expect("readable").value.expect("a value"))
        .collect()
        .await;
    let sent: Vec<_> = (0..10).map(|n: u32| n.to_string()).collect();
    assert_eq!(values, sent);
}
