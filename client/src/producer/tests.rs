//! The producer against nodes that misbehave on purpose.

use super::*;
use crate::testing::{Cluster, Produce, TOPIC};
use ottla_proto::ApiError;
use ottla_proto::v1::ErrorReason as R;

fn options() -> ProducerOptions {
    ProducerOptions { linger: Duration::from_millis(1), ..ProducerOptions::default() }
}

fn to_partition(partition: u32, value: &str) -> ProducerRecord {
    let partition = Some(partition);
    ProducerRecord { partition, ..ProducerRecord::value(value.to_owned()) }
}

async fn topic(cluster: &Cluster, options: ProducerOptions) -> (Producer, TopicProducer) {
    let producer = Producer::new(&cluster.client().await, options);
    let topic = producer.topic(TOPIC).await.expect("there is such a topic");
    (producer, topic)
}

/// Sends and waits, one record after another.
async fn deliver(topic: &TopicProducer, value: &str) -> Result<Delivered, ClientError> {
    topic.send(to_partition(0, value)).await.expect("queued").await
}

#[tokio::test]
async fn every_record_learns_its_offset() {
    let cluster = Cluster::start(1, 2).await;
    let (producer, topic) = topic(&cluster, options()).await;
    let mut deliveries = Vec::new();
    for n in 0..1000_u32 {
        let record = to_partition(n % 2, &n.to_string());
        deliveries.push((n, topic.send(record).await.expect("queued")));
    }
    producer.flush().await;
    for (n, delivery) in deliveries {
        let delivered = delivery.await.expect("written");
        assert_eq!((delivered.partition, delivered.offset), (n % 2, Some(u64::from(n / 2))));
    }
    assert_eq!(cluster.values(1)[3], "7");
    assert_eq!(producer.stats().records, 1000);
    assert!(cluster.state.lock().produced_to.len() < 500, "records travel in batches");
}

#[tokio::test]
async fn not_leader_is_followed_at_once() {
    let cluster = Cluster::start(3, 1).await;
    // GetMetadata still names node 1; only the error's hint names node 3.
    let stale = cluster.state.lock().leaders.clone();
    cluster.state.lock().stale_leaders = Some(stale);
    cluster.state.lock().leaders = vec![(Some(3), 2)];
    let (_producer, topic) = topic(&cluster, options()).await;
    let asked = cluster.state.lock().metadata_calls;
    deliver(&topic, "a").await.expect("redirected");
    deliver(&topic, "b").await.expect("straight there");
    let state = cluster.state.lock();
    assert_eq!(state.produced_to, [1, 3, 3]);
    assert_eq!(state.metadata_calls, asked, "the hint is enough");
}

#[tokio::test]
async fn definite_errors_are_retried_and_order_is_kept() {
    let cluster = Cluster::start(1, 1).await;
    let refusal = Produce::Refuse(ApiError::new(R::NotEnoughReplicas, "1 of 2 in sync"));
    cluster.state.lock().produce.extend([refusal.clone(), refusal]);
    // Retrying what is definite needs no permission.
    let options = ProducerOptions { retry_indefinite: false, batch_bytes: 200, ..options() };
    let (producer, topic) = topic(&cluster, options).await;
    let sent: Vec<String> = (0..100).map(|n| format!("value {n}")).collect();
    let mut deliveries = Vec::new();
    for value in &sent {
        deliveries.push(topic.send(to_partition(0, value)).await.expect("queued"));
    }
    for delivery in deliveries {
        delivery.await.expect("written in the end");
    }
    assert_eq!(cluster.values(0), sent);
    let stats = producer.stats();
    assert_eq!((stats.retries, stats.possible_duplicates), (2, 0));
}

#[tokio::test]
async fn indefinite_errors_are_not_retried_when_that_is_off() {
    let cluster = Cluster::start(1, 1).await;
    let timeout = ApiError::new(R::RequestTimedOut, "not replicated in time");
    cluster.state.lock().produce.extend([Produce::WriteThenFail(timeout), Produce::WriteThenBreak]);
    let options = ProducerOptions { retry_indefinite: false, ..options() };
    let (_producer, topic) = topic(&cluster, options).await;
    let error = deliver(&topic, "a").await.expect_err("timed out");
    assert!(error.is_indefinite(), "{error}");
    assert_eq!(error.reason(), Some(R::RequestTimedOut));
    let error = deliver(&topic, "b").await.expect_err("broken off");
    assert!(error.is_indefinite() && matches!(error, ClientError::Disconnected { .. }), "{error}");
    let delivered = deliver(&topic, "c").await.expect("what follows is written");
    assert_eq!(delivered.offset, Some(2));
    assert_eq!(cluster.values(0), ["a", "b", "c"], "each once, in order");
}

#[tokio::test]
async fn what_is_in_doubt_is_sent_again_and_written_once() {
    let cluster = Cluster::start(1, 1).await;
    let timeout = ApiError::new(R::RequestTimedOut, "not replicated in time");
    let lost = [Produce::WriteThenBreak, Produce::Break, Produce::WriteThenFail(timeout)];
    cluster.state.lock().produce.extend(lost);
    let (producer, topic) = topic(&cluster, options()).await;
    let delivered = deliver(&topic, "a").await.expect("written, and said so in the end");
    assert_eq!(delivered.offset, Some(0));
    assert_eq!(deliver(&topic, "b").await.expect("written").offset, Some(1));
    assert_eq!(cluster.values(0), ["a", "b"]);
    let stats = producer.stats();
    assert_eq!((stats.retries, stats.in_doubt, stats.possible_duplicates), (3, 1, 0));
}

/// Many batches under way, and streams that break before or after any of them was
/// written.
#[tokio::test]
async fn batches_under_way_are_written_once_and_in_order_whatever_breaks() {
    let cluster = Cluster::start(1, 1).await;
    let refusal = ApiError::new(R::NotEnoughReplicas, "1 of 2 in sync");
    let script = (0..40).map(|n| match n % 10 {
        3 => Produce::WriteThenBreak,
        5 => Produce::Break,
        8 => Produce::Refuse(refusal.clone()),
        _ => Produce::Write,
    });
    cluster.state.lock().produce.extend(script);
    let options = ProducerOptions { batch_bytes: 200, ..options() };
    let (producer, topic) = topic(&cluster, options).await;
    let sent: Vec<String> = (0..200).map(|n| format!("value {n}")).collect();
    let mut deliveries = Vec::new();
    for value in &sent {
        deliveries.push(topic.send(to_partition(0, value)).await.expect("queued"));
    }
    for (offset, delivery) in (0..).zip(deliveries) {
        assert_eq!(delivery.await.expect("written").offset, Some(offset));
    }
    assert_eq!(cluster.values(0), sent);
    assert_eq!(producer.stats().possible_duplicates, 0);
    assert!(cluster.state.lock().produce.is_empty(), "all of it happened");
}

/// A batch whose time is over while it is in doubt leaves a gap, which the next epoch
/// steps over.
#[tokio::test]
async fn after_a_batch_was_given_up_in_doubt_the_next_is_written() {
    let cluster = Cluster::start(1, 1).await;
    let timeout = ApiError::new(R::RequestTimedOut, "not replicated in time");
    let never = Produce::Refuse(timeout);
    cluster.state.lock().produce.extend(std::iter::repeat_n(never, 1000));
    let options = ProducerOptions { delivery_timeout: Duration::from_millis(300), ..options() };
    let (_producer, topic) = topic(&cluster, options).await;
    let error = deliver(&topic, "a").await.expect_err("no answer says what became of it");
    assert!(error.is_indefinite(), "{error}");
    assert_eq!(error.reason(), Some(R::RequestTimedOut));
    cluster.state.lock().produce.clear();
    for (offset, value) in ["b", "c"].into_iter().enumerate() {
        let delivered = deliver(&topic, value).await.expect("goes on");
        assert_eq!(delivered.offset, Some(offset as u64));
    }
    assert_eq!(cluster.state.lock().producer_ids, 1, "it keeps its id");
}

/// Who lost its id to somebody else takes another.
#[tokio::test]
async fn a_stolen_id_is_left_to_the_thief() {
    let cluster = Cluster::start(1, 1).await;
    let (_producer, topic) = topic(&cluster, options()).await;
    deliver(&topic, "a").await.expect("written");
    cluster.state.lock().producers[0].steal();
    deliver(&topic, "b").await.expect("written under another id");
    assert_eq!(cluster.values(0), ["a", "b"]);
    assert_eq!(cluster.state.lock().producer_ids, 2);
}

/// A cluster without producer ids says so; who can do without goes on.
#[tokio::test]
async fn without_ids_there_is_no_idempotence() {
    let cluster = Cluster::start(1, 1).await;
    let error = ApiError::new(R::FeatureLevelTooLow, "this needs feature level 2");
    cluster.state.lock().no_producer_ids = Some(error);
    let (_producer, idempotent) = topic(&cluster, options()).await;
    let error = deliver(&idempotent, "a").await.expect_err("there are none");
    assert_eq!(error.reason(), Some(R::FeatureLevelTooLow));
    assert!(!error.is_indefinite() && !error.is_retriable(), "{error}");
    let plain = ProducerOptions { idempotent: false, ..options() };
    let (_producer, plain) = topic(&cluster, plain).await;
    deliver(&plain, "b").await.expect("needs none");
    assert_eq!(cluster.values(0), ["b"]);
}

#[tokio::test]
async fn without_idempotence_what_may_be_written_twice_is_counted() {
    let cluster = Cluster::start(1, 1).await;
    cluster.state.lock().produce.push_back(Produce::WriteThenBreak);
    let options = ProducerOptions { idempotent: false, ..options() };
    let (producer, topic) = topic(&cluster, options).await;
    let delivered = deliver(&topic, "a").await.expect("written again");
    assert_eq!(delivered.offset, Some(1));
    assert_eq!(cluster.values(0), ["a", "a"]);
    assert_eq!(producer.stats().possible_duplicates, 1);
}

/// A definite refusal after an attempt that may have been written does not
/// make the record certainly unwritten.
#[tokio::test]
async fn a_late_refusal_stays_indefinite() {
    let cluster = Cluster::start(1, 1).await;
    let refusal = ApiError::new(R::RecordTooLarge, "the limit was lowered");
    cluster.state.lock().produce.extend([Produce::WriteThenBreak, Produce::Refuse(refusal)]);
    let (_producer, topic) = topic(&cluster, options()).await;
    let error = deliver(&topic, "a").await.expect_err("refused");
    assert!(error.is_indefinite(), "{error}");
    assert_eq!(error.reason(), Some(R::RecordTooLarge));
}

#[tokio::test]
async fn a_refusal_that_lasts_ends_with_the_delivery_timeout_and_its_reason() {
    let cluster = Cluster::start(1, 1).await;
    let refusal = Produce::Refuse(ApiError::new(R::NotEnoughReplicas, "1 of 2 in sync"));
    cluster.state.lock().produce.extend(std::iter::repeat_n(refusal, 1000));
    let options = ProducerOptions { delivery_timeout: Duration::from_millis(300), ..options() };
    let (_producer, topic) = topic(&cluster, options).await;
    let error = deliver(&topic, "a").await.expect_err("refused for good");
    assert_eq!(error.reason(), Some(R::NotEnoughReplicas));
    assert!(!error.is_indefinite(), "it was certainly never written: {error}");
    assert!(cluster.values(0).is_empty());
}

#[tokio::test]
async fn a_full_buffer_makes_send_wait_and_try_send_hand_the_record_back() {
    let cluster = Cluster::start(1, 1).await;
    cluster.held.send_replace(Some(1));
    let options = ProducerOptions { buffer_bytes: 2000, ..options() };
    let (_producer, topic) = topic(&cluster, options).await;
    let first = topic.send(to_partition(0, &"x".repeat(1500))).await.expect("room");
    let record = to_partition(0, &"y".repeat(1500));
    let refused = topic.try_send(record.clone()).expect_err("no room");
    assert!(matches!(refused.reason, TrySendReason::Full));
    assert_eq!(refused.record, record);
    let second = topic.send(record);
    tokio::pin!(second);
    assert!(futures::poll!(&mut second).is_pending(), "waits for room");
    cluster.held.send_replace(None);
    first.await.expect("written");
    second.await.expect("room again").await.expect("written");
    assert_eq!(cluster.values(0).len(), 2);
}

#[tokio::test]
async fn what_can_never_be_sent_is_refused_before_it_is_queued() {
    let cluster = Cluster::start(1, 2).await;
    let (producer, topic) = topic(&cluster, options()).await;
    let error = topic.send(to_partition(2, "a")).await.expect_err("two partitions");
    assert_eq!(error.reason(), Some(R::UnknownPartition));
    let error = topic.send(to_partition(0, &"x".repeat(1 << 20))).await.expect_err("too large");
    assert_eq!(error.reason(), Some(R::RecordTooLarge));
    let record = ProducerRecord { timestamp_ms: Some(-1), ..to_partition(0, "a") };
    assert!(topic.send(record).await.is_err());
    let error = producer.topic("nobody").await.err().expect("no such topic");
    assert_eq!(error.reason(), Some(R::UnknownTopic));
    producer.shutdown().await;
    let error = topic.send(to_partition(0, "a")).await.expect_err("closed");
    assert!(matches!(error, ClientError::Closed));
    assert!(cluster.state.lock().produced_to.is_empty(), "nothing was sent");
}

/// A leader that hangs without breaking its connections is left as soon as the
/// cluster has elected another.
#[tokio::test]
async fn a_silent_leader_is_left_when_another_is_elected() {
    let cluster = Cluster::start(2, 1).await;
    cluster.held.send_replace(Some(1));
    let (producer, topic) = topic(&cluster, options()).await;
    let delivery = topic.send(to_partition(0, "a")).await.expect("queued");
    tokio::pin!(delivery);
    while cluster.state.lock().produced_to.is_empty() {
        assert!(futures::poll!(&mut delivery).is_pending());
        tokio::task::yield_now().await;
    }
    cluster.elect(Some(2), 2);
    delivery.await.expect("written by the new leader");
    assert_eq!(cluster.state.lock().produced_to, [1, 2]);
    assert_eq!(producer.stats().possible_duplicates, 0, "either would know it again");
}

#[tokio::test]
async fn shutdown_sends_what_is_buffered() {
    let cluster = Cluster::start(1, 1).await;
    let options = ProducerOptions { linger: Duration::from_secs(3600), ..options() };
    let (producer, topic) = topic(&cluster, options).await;
    let delivery = topic.send(to_partition(0, "a")).await.expect("queued");
    producer.shutdown().await;
    assert_eq!(delivery.await.expect("written").offset, Some(0));
}

/// Keys stay together and in order; records without one fill one batch after
/// another.
#[tokio::test]
async fn records_are_spread_by_key_and_without_one_by_batch() {
    let cluster = Cluster::start(1, 4).await;
    let options = ProducerOptions { batch_bytes: 300, ..options() };
    let (producer, topic) = topic(&cluster, options).await;
    for n in 0..50 {
        let record = ProducerRecord::keyed("key", format!("keyed {n}"));
        let delivery = topic.send(record).await.expect("queued");
        assert_eq!(delivery.partition(), partition_for_key(b"key", 4));
    }
    // Some hundred turns, each to a partition by chance.
    for n in 0..1000 {
        topic.send(ProducerRecord::value(format!("free {n}"))).await.expect("queued");
    }
    producer.flush().await;
    let all: Vec<Vec<String>> = (0..4).map(|partition| cluster.values(partition)).collect();
    let keyed: Vec<_> = all[partition_for_key(b"key", 4) as usize]
        .iter()
        .filter(|value| value.starts_with("keyed"))
        .collect();
    assert_eq!(keyed.len(), 50);
    assert!(keyed.iter().zip(0..).all(|(value, n)| **value == format!("keyed {n}")));
    for values in &all {
        assert!(values.iter().any(|value| value.starts_with("free")), "all partitions are used");
    }
    assert_eq!(all.iter().map(Vec::len).sum::<usize>(), 1050);
}

/// Everything to the last partition, unless it has a key.
#[derive(Debug)]
struct Last;

impl Partitioner for Last {
    fn partition(&self, topic: &str, record: &ProducerRecord, partitions: u32) -> Option<u32> {
        assert_eq!(topic, TOPIC);
        record.key.is_none().then(|| partitions - 1)
    }
}

#[tokio::test]
async fn a_program_may_choose_partitions_itself() {
    let cluster = Cluster::start(1, 3).await;
    let options = ProducerOptions { partitioner: Some(Arc::new(Last)), ..options() };
    let (_producer, topic) = topic(&cluster, options).await;
    let of = async |record| topic.send(record).await.expect("queued").await.expect("written");
    assert_eq!(of(ProducerRecord::value("a")).await.partition, 2);
    assert_eq!(of(to_partition(1, "b")).await.partition, 1);
    let keyed = of(ProducerRecord::keyed("k", "c")).await;
    assert_eq!(keyed.partition, partition_for_key(b"k", 3));
}

/// The nodes get further partitions, led by node 1. Watchers are told by
/// `Cluster::elect`.
fn grow(cluster: &Cluster, partitions: usize) {
    let mut state = cluster.state.lock();
    state.leaders.resize(partitions, (Some(1), 1));
    state.logs.resize(partitions, Vec::new());
    state.producers.resize_with(partitions, Default::default);
}

#[tokio::test]
async fn a_topic_that_grows_is_written_to_everywhere() {
    let cluster = Cluster::start(1, 2).await;
    // Every record turns to a partition by chance.
    let options = ProducerOptions { batch_bytes: 1, ..options() };
    let (producer, topic) = topic(&cluster, options).await;
    assert_eq!(topic.partitions(), 2);
    grow(&cluster, 4);
    cluster.elect(Some(1), 2);
    let client = &producer.shared.context.client;
    assert_eq!(client.more_partitions(TOPIC, 2).await, 4);
    assert_eq!(topic.partitions(), 4);
    for _ in 0..200 {
        topic.send(ProducerRecord::value("x")).await.expect("queued").await.expect("written");
    }
    let key = (0..).map(|n: u32| n.to_string()).find(|key| {
        partition_for_key(key.as_bytes(), 4) == 3 && partition_for_key(key.as_bytes(), 2) == 1
    });
    let record = ProducerRecord { key: key.map(Into::into), ..ProducerRecord::value("y") };
    let delivered = topic.send(record).await.expect("queued").await.expect("written");
    assert_eq!(delivered.partition, 3, "keys are spread over all of them");
    for partition in 0..4 {
        assert!(cluster.values(partition).contains(&"x".to_owned()), "{partition}");
    }
}

/// Who names a partition that this producer has not heard of yet.
#[tokio::test]
async fn an_unknown_partition_is_asked_for_once() {
    let cluster = Cluster::start(1, 1).await;
    let (_producer, topic) = topic(&cluster, options()).await;
    let asked = || cluster.state.lock().metadata_calls;
    let before = asked();
    grow(&cluster, 2);
    topic.send(to_partition(1, "a")).await.expect("it is there").await.expect("written");
    assert_eq!(asked(), before + 1);
    let error = topic.send(to_partition(2, "b")).await.expect_err("there is none");
    assert_eq!((error.reason_name(), asked()), ("UNKNOWN_PARTITION", before + 2));
}
