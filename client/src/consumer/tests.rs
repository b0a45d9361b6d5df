//! Consumers against nodes that do what a test wants, and the groups of a real
//! coordinator.

use super::*;
use crate::testing::groups::SESSION;
use crate::testing::{Cluster, Consume, TOPIC};
use futures::{StreamExt, TryStreamExt};
use ottla_proto::ApiError;
use ottla_proto::v1::ErrorReason as R;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Nothing here takes so long when things go well.
const PATIENCE: Duration = Duration::from_secs(30);

fn partition(index: u32) -> TopicPartition {
    TopicPartition::new(TOPIC, index)
}

/// Each partition has so many records, each of which is its offset.
async fn cluster(partitions: usize, records: u64) -> Cluster {
    let cluster = Cluster::start(1, partitions).await;
    for index in 0..partitions {
        cluster.write(index, (0..records).map(|n| n.to_string()));
    }
    cluster
}

async fn member(cluster: &Cluster) -> ConsumerBuilder {
    Consumer::builder(&cluster.client().await)
        .group("billing")
        .subscribe([TOPIC])
        .auto_commit(Duration::from_millis(20))
}

async fn next(consumer: &Consumer) -> ConsumedRecord {
    let record = timeout(PATIENCE, consumer.next_record()).await.expect("in time");
    record.expect("readable").expect("not closed")
}

/// So many records, which must come in order, each partition from where it is said.
async fn read(consumer: &Consumer, count: usize, from: &mut BTreeMap<TopicPartition, u64>) {
    for _ in 0..count {
        let ConsumedRecord { partition, record } = next(consumer).await;
        let expected = from.entry(partition.clone()).or_default();
        assert_eq!(record.offset, *expected, "{partition}");
        assert_eq!(record.value.as_deref(), Some(record.offset.to_string().as_bytes()));
        *expected += 1;
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    let mut again = tokio::time::interval(Duration::from_millis(5));
    while !is_so() {
        assert!(Instant::now() < deadline, "waited for: {what}");
        again.tick().await;
    }
}

async fn event(consumer: &Consumer, wanted: impl Fn(&ConsumerEvent) -> bool) -> ConsumerEvent {
    timeout(PATIENCE, async {
        loop {
            if let Some(Next::Event(event)) = consumer.next().await.expect("readable")
                && wanted(&event)
            {
                return event;
            }
        }
    })
    .await
    .expect("in time")
}

/// What was handed out last is not processed before more is asked for.
#[tokio::test]
async fn what_was_processed_is_committed_and_read_no_more() {
    let cluster = cluster(3, 100).await;
    let consumer = member(&cluster).await.build().await.expect("built");
    let mut read_so_far = BTreeMap::new();
    read(&consumer, 150, &mut read_so_far).await;
    let last = consumer.records();
    drop(last);
    consumer.close().await.expect("closed");
    let committed = |index| cluster.state.lock().coordinator.committed("billing", index);
    let all: u64 = (0..3).filter_map(committed).sum();
    assert_eq!(all, 149, "all but the last one");
    assert!(cluster.state.lock().coordinator.members("billing").is_empty(), "it has left");

    let mut from: BTreeMap<_, _> =
        (0..3).map(|index| (partition(index), committed(index).unwrap_or(0))).collect();
    let consumer = member(&cluster).await.build().await.expect("built");
    read(&consumer, 151, &mut from).await;
    assert!(from.values().all(|next| *next == 100), "{from:?}");
}

#[tokio::test]
async fn only_the_application_commits() {
    let cluster = cluster(1, 100).await;
    let consumer = member(&cluster).await.manual_commit().build().await.expect("built");
    let mut from = BTreeMap::new();
    read(&consumer, 10, &mut from).await;
    consumer.commit().await.expect("committed");
    assert_eq!(cluster.state.lock().coordinator.committed("billing", 0), Some(10));
    read(&consumer, 10, &mut from).await;
    let later = consumer.commit_later();
    consumer.commit_offsets([(partition(0), 15)]).await.expect("committed");
    later.await.expect("committed before");
    assert_eq!(cluster.state.lock().coordinator.committed("billing", 0), Some(15));
    let error = consumer.commit_offsets([(partition(7), 1)]).await.expect_err("not its own");
    assert!(matches!(error, ConsumerError::NotAssigned(which) if which == [partition(7)]));
    read(&consumer, 10, &mut from).await;
    consumer.close().await.expect("closed");
    assert_eq!(cluster.state.lock().coordinator.committed("billing", 0), Some(15));
}

/// What the application commits is processed: nothing older is committed over it.
#[tokio::test]
async fn an_offset_committed_by_hand_stays() {
    let cluster = cluster(1, 100).await;
    let consumer = member(&cluster).await.build().await.expect("built");
    let batch = consumer.next_batch().await.expect("readable").expect("not closed");
    assert!(batch.records.len() > 4, "{batch:?}");
    consumer.commit_offsets([(partition(0), 4)]).await.expect("committed");
    consumer.close().await.expect("closed");
    assert_eq!(cluster.state.lock().coordinator.committed("billing", 0), Some(4));
}

/// A batch handed out can be committed until it is given back, and the other goes on
/// behind it.
#[tokio::test]
async fn a_partition_is_given_back_after_the_application_knows() {
    let cluster = cluster(2, 50).await;
    let first = member(&cluster).await.manual_commit().build().await.expect("built");
    let mut seen = BTreeMap::new();
    read(&first, 100, &mut seen).await;
    let second = member(&cluster).await.manual_commit().build().await.expect("built");
    let revoking = event(&first, |event| matches!(event, ConsumerEvent::Revoking(_))).await;
    let ConsumerEvent::Revoking(given) = revoking else { unreachable!() };
    assert_eq!(given.len(), 1);
    assert_eq!(first.assignment().len(), 1, "it reads the other one");
    assert!(second.assignment().is_empty(), "nothing was given back yet");
    first.commit().await.expect("committed");
    cluster.write(given[0].partition as usize, ["50".to_owned()]);
    let more = async {
        loop {
            assert!(first.next_record().await.expect("readable").is_some(), "closed");
        }
    };
    tokio::select! {
        () = more => {}
        record = next(&second) => {
            assert_eq!((record.partition, record.record.offset), (given[0].clone(), 50));
        }
    }
}

/// Commits go by epoch: what was another's meanwhile cannot be committed.
#[tokio::test]
async fn who_was_put_out_commits_nothing_and_joins_again() {
    let cluster = cluster(1, 100).await;
    let consumer = member(&cluster).await.manual_commit().build().await.expect("built");
    let mut from = BTreeMap::new();
    read(&consumer, 10, &mut from).await;
    let error = ApiError::new(R::UnknownMember, "put out");
    cluster.state.lock().coordinator.refuse.push(error);
    let lost = event(&consumer, |event| matches!(event, ConsumerEvent::Lost(_))).await;
    assert!(matches!(lost, ConsumerEvent::Lost(which) if which == [partition(0)]));
    // It is a member again, and begins where the group is.
    from.clear();
    read(&consumer, 10, &mut from).await;
    consumer.commit().await.expect("committed");
}

/// A member that hears nothing for a session hands out nothing: others may read by now.
#[tokio::test]
async fn nothing_is_handed_out_after_a_session_of_silence() {
    let cluster = cluster(1, 1_000).await;
    let consumer = member(&cluster).await.build().await.expect("built");
    read(&consumer, 10, &mut BTreeMap::new()).await;
    cluster.state.lock().coordinator.silent = true;
    let silence = Instant::now();
    let mut last = Instant::now();
    // It has plenty ahead, and hands it out as long as it may.
    while let Ok(record) = timeout(SESSION, consumer.next_record()).await {
        record.expect("readable").expect("not closed");
        last = Instant::now();
        tokio::task::yield_now().await;
        if last - silence > PATIENCE {
            break;
        }
        consumer.seek(&partition(0), StartPosition::Start).await.expect("assigned");
    }
    assert!(last - silence <= SESSION + SESSION / 4, "{:?}", last - silence);
    cluster.state.lock().coordinator.silent = false;
    next(&consumer).await;
}

#[tokio::test]
async fn an_application_that_does_not_ask_gives_its_partitions_up() {
    let cluster = cluster(1, 100).await;
    let limit = Duration::from_millis(100);
    let builder = member(&cluster).await.options(|options| options.max_poll_interval = limit);
    let consumer = builder.build().await.expect("built");
    read(&consumer, 10, &mut BTreeMap::new()).await;
    until("the group is empty", || cluster.state.lock().coordinator.members("billing").is_empty())
        .await;
    event(&consumer, |event| matches!(event, ConsumerEvent::Lost(_))).await;
    // Nine were processed when it was last heard of.
    assert_eq!(next(&consumer).await.record.offset, 9);
}

#[tokio::test]
async fn one_seeks_pauses_and_resumes() {
    let cluster = cluster(2, 100).await;
    let builder = Consumer::builder(&cluster.client().await)
        .assign([partition(0)])
        .assign_at(partition(1), StartPosition::Offset(90));
    let consumer = builder.build().await.expect("built");
    let paused = partition(0);
    consumer.pause([&paused]).expect("assigned");
    let mut from = BTreeMap::from([(partition(1), 90)]);
    read(&consumer, 10, &mut from).await;
    assert_eq!(consumer.position(&partition(1)), Some(100));
    consumer.seek(&partition(1), StartPosition::Offset(50)).await.expect("assigned");
    let mut from = BTreeMap::from([(partition(1), 50)]);
    read(&consumer, 50, &mut from).await;
    consumer.resume([&paused]).expect("assigned");
    read(&consumer, 100, &mut BTreeMap::new()).await;
    let nobodys = partition(5);
    assert!(consumer.pause([&nobodys]).is_err());
    let error = consumer.seek(&nobodys, StartPosition::Offset(0)).await.expect_err("nobody's");
    assert!(matches!(error, ConsumerError::NotAssigned(_)), "{error}");
    let error = consumer.commit().await.expect_err("no group");
    assert!(matches!(error, ConsumerError::Invalid(_)), "{error}");
}

/// An application that takes its time is sent no more than fits.
#[tokio::test]
async fn prefetch_is_bounded() {
    const WINDOW: u64 = 64 * 1024;
    const MESSAGE: u64 = 300;
    let cluster = cluster(1, 20_000).await;
    let builder = Consumer::builder(&cluster.client().await).assign([partition(0)]);
    let consumer = builder.options(|o| o.prefetch_bytes = 1).build().await.expect("built");
    let mut from = BTreeMap::new();
    read(&consumer, 1, &mut from).await;
    let sent = || cluster.state.lock().bytes_sent;
    until("all that fits was sent", || sent() >= WINDOW - MESSAGE).await;
    assert!(sent() <= WINDOW + MESSAGE, "{}", sent());
    read(&consumer, 19_999, &mut from).await;
    assert!(sent() > 4 * WINDOW, "it was given back many times");
}

#[tokio::test]
async fn reading_goes_on_over_broken_streams_and_other_leaders() {
    let cluster = Cluster::start(2, 2).await;
    for index in 0..2 {
        cluster.write(index, (0..500).map(|n| n.to_string()));
    }
    let breaks = [3, 0, 1, 7, 2].map(Consume::BreakAfter);
    cluster.state.lock().consume.extend(breaks);
    let consumer = member(&cluster).await.build().await.expect("built");
    let mut from = BTreeMap::new();
    read(&consumer, 300, &mut from).await;
    cluster.elect(Some(2), 2);
    read(&consumer, 700, &mut from).await;
}

#[tokio::test]
async fn what_is_gone_from_the_log_is_reset_as_was_said() {
    let cluster = cluster(1, 100).await;
    cluster.state.lock().log_start = 40;
    let builder = || async {
        let client = cluster.client().await;
        Consumer::builder(&client).assign_at(partition(0), StartPosition::Offset(10))
    };
    let consumer = builder().await.build().await.expect("built");
    let reset = event(&consumer, |event| matches!(event, ConsumerEvent::Reset { .. })).await;
    assert!(matches!(reset, ConsumerEvent::Reset { from: 10, to: 40, .. }), "{reset:?}");
    assert_eq!(next(&consumer).await.offset, 40);

    let consumer = builder().await.reset(OffsetReset::Fail).build().await.expect("built");
    let error = consumer.next_record().await.expect_err("gone");
    assert!(matches!(error, ConsumerError::OutOfRange { offset: 10, .. }), "{error}");
    consumer.seek(&partition(0), StartPosition::Start).await.expect("assigned");
    assert_eq!(next(&consumer).await.offset, 40);

    let nowhere = member(&cluster).await.reset(OffsetReset::Fail).build().await.expect("built");
    let error = nowhere.next_record().await.expect_err("nothing was committed");
    assert!(matches!(error, ConsumerError::NoOffset(_)), "{error}");
}

/// Where a group begins at the end, that is remembered at once: what is written from then
/// on is read, by whoever reads.
#[tokio::test]
async fn the_end_at_which_a_group_begins_is_committed() {
    let cluster = cluster(2, 100).await;
    let consumer = member(&cluster).await.reset(OffsetReset::Latest).build().await.expect("built");
    let waiting = consumer.next_record();
    tokio::pin!(waiting);
    let committed = async {
        until("both are committed", || {
            let state = cluster.state.lock();
            (0..2).all(|index| state.coordinator.committed("billing", index) == Some(100))
        })
        .await;
    };
    tokio::select! {
        record = &mut waiting => panic!("nothing was written: {record:?}"),
        () = committed => {}
    }
}

/// K-20539: a partition that came while nobody was there is read from its start.
#[tokio::test]
async fn a_partition_that_comes_later_is_read_from_its_start() {
    let cluster = cluster(1, 100).await;
    let latest = async || member(&cluster).await.reset(OffsetReset::Latest).build().await;
    let consumer = latest().await.expect("built");
    let committed = || cluster.state.lock().coordinator.committed("billing", 0);
    tokio::select! {
        record = consumer.next_record() => panic!("older than the group: {record:?}"),
        () = until("it begins at the end", || committed() == Some(100)) => {}
    }
    consumer.close().await.expect("closed");
    cluster.state.lock().logs.push(Vec::new());
    cluster.state.lock().producers.push(Default::default());
    cluster.state.lock().leaders.push((Some(1), 1));
    cluster.write(1, (0..5).map(|n| n.to_string()));
    let consumer = latest().await.expect("built");
    let first = next(&consumer).await;
    assert_eq!((first.partition, first.record.offset), (partition(1), 0));
}

#[tokio::test]
async fn a_topic_that_goes_is_left_out() {
    let cluster = cluster(2, 100).await;
    let consumer = member(&cluster).await.build().await.expect("built");
    read(&consumer, 200, &mut BTreeMap::new()).await;
    cluster.state.lock().topic_is_gone = true;
    event(&consumer, |event| matches!(event, ConsumerEvent::Revoking(_))).await;
    consumer.close().await.expect("what cannot be committed need not be");

    let client = cluster.client().await;
    let alone = Consumer::builder(&client).assign([partition(0)]).build().await.expect("built");
    let gone = event(&alone, |event| matches!(event, ConsumerEvent::Gone(_))).await;
    assert!(matches!(gone, ConsumerEvent::Gone(which) if which == partition(0)));
    assert!(alone.assignment().is_empty());
}

#[tokio::test]
async fn a_static_member_keeps_its_partitions_while_it_is_away() {
    let cluster = cluster(1, 100).await;
    let named = || async { member(&cluster).await.instance_id("first") };
    let consumer = named().await.build().await.expect("built");
    read(&consumer, 10, &mut BTreeMap::new()).await;
    consumer.close().await.expect("closed");
    assert_eq!(cluster.state.lock().coordinator.members("billing"), ["first"], "it will be back");
    let consumer = named().await.build().await.expect("built");
    assert_eq!(next(&consumer).await.offset, 9);
}

#[tokio::test]
async fn streams_end_with_the_consumer() {
    let cluster = cluster(1, 30).await;
    let consumer = member(&cluster).await.build().await.expect("built");
    let batches = consumer.batches().map_ok(|batch| batch.records.len());
    tokio::pin!(batches);
    let mut read = 0;
    while read < 30 {
        read += batches.next().await.expect("not closed").expect("readable");
    }
    assert_eq!(read, 30);
    let error = ApiError::new(R::InvalidSubscription, "not a pattern");
    cluster.state.lock().coordinator.refuse.push(error);
    let refused = timeout(PATIENCE, batches.next()).await.expect("in time");
    assert!(matches!(refused, Some(Err(ConsumerError::Group { .. }))), "{refused:?}");
    assert!(batches.next().await.is_none());
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let cluster = cluster(1, 0).await;
    let client = cluster.client().await;
    let builder = || Consumer::builder(&client);
    for wrong in [
        builder(),
        builder().subscribe([TOPIC]),
        builder().group("g").subscribe([TOPIC]).assign([partition(0)]),
        builder().assign([partition(0)]).isolation(IsolationLevel::ReadCommitted),
        builder().assign([partition(0)]).options(|options| options.max_batch_records = 0),
    ] {
        let refused = wrong.build().await.err().expect("refused");
        assert!(matches!(refused, ConsumerError::Invalid(_)), "{refused}");
    }
}
