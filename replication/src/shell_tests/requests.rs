//! What callers are told.

use super::cluster::{PATIENCE, Three, batch};
use crate::{Acks, Limits, OffsetPosition};
use ottla_metadata::controller::Command;
use ottla_proto::v1::ErrorReason as R;
use std::time::Duration;
use tokio::time::Instant;

/// Bad requests get a typed error and change nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_typed() {
    let three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[("max.message.bytes", "200")]);
    let (leader, other) = (three.quorum.leader(id), three.quorum.followers(id)[0]);
    let leader = three.node(leader);
    leader.produce("t", "one").await.expect("acknowledged");
    let fetch = async |topic: &str, partition, offset| {
        leader.replicas.fetch(topic, partition, offset, 1024, Duration::ZERO).await
    };
    let reason = |error: ottla_proto::ApiError| error.reason;
    assert_eq!(fetch("nope", 0, 0).await.map_err(reason), Err(R::UnknownTopic));
    assert_eq!(fetch("t", 1, 0).await.map_err(reason), Err(R::UnknownPartition));
    let far = fetch("t", 0, 2).await.expect_err("beyond the end");
    assert_eq!(far.reason, R::OffsetOutOfRange);
    assert_eq!(far.metadata["log_start_offset"], "0");
    assert_eq!(far.metadata["high_watermark"], "1");
    assert!(fetch("t", 0, 1).await.expect("the end itself").batches.is_empty());
    let large = leader.produce("t", &"x".repeat(200)).await.expect_err("too large");
    assert_eq!(large.reason, R::RecordTooLarge);
    let follower = three.node(other).produce("t", "x").await.expect_err("not the leader");
    assert_eq!((follower.reason, follower.is_indefinite()), (R::NotLeader, false));
    assert_eq!(leader.read_all("t").await, ["one"]);
    three.end().await;
}

/// A fetch at the end of what is committed waits, and is woken by the commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_is_woken_by_the_watermark() {
    let three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[]);
    let leader = three.node(three.quorum.leader(id));
    leader.until(id, "leads", |status| status.watermark_is_current).await;
    let replicas = leader.replicas.clone();
    let fetch = tokio::spawn(async move { replicas.fetch("t", 0, 0, 1024, PATIENCE).await });
    leader.produce("t", "one").await.expect("acknowledged");
    let fetched = fetch.await.expect("no panic").expect("fetched");
    assert_eq!(super::values_of(&fetched.batches), ["one"]);
    assert_eq!((fetched.high_watermark, fetched.log_start), (1, 0));
    three.end().await;
}

/// Offsets by position and by time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_listed() {
    let three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[]);
    let leader = three.node(three.quorum.leader(id));
    for value in ["one", "two"] {
        leader.produce("t", value).await.expect("acknowledged");
    }
    let deadline = Instant::now() + PATIENCE;
    let list = async |position| {
        let listed = leader.replicas.list_offset("t", 0, position, deadline).await;
        let listed = listed.expect("listed");
        (listed.offset, listed.timestamp_ms)
    };
    assert_eq!(list(OffsetPosition::Earliest).await, (0, None));
    assert_eq!(list(OffsetPosition::Latest).await, (2, None));
    assert_eq!(list(OffsetPosition::Timestamp(1_000)).await, (0, Some(1_000)));
    assert_eq!(list(OffsetPosition::Timestamp(1_001)).await, (2, None));
    assert_eq!(list(OffsetPosition::Offset(1)).await, (1, Some(1_000)));
    assert_eq!(list(OffsetPosition::Offset(2)).await, (2, None));
    assert_eq!(list(OffsetPosition::Offset(99)).await, (2, None));
    three.end().await;
}

/// While nobody leads, a request waits for a leader until its deadline, and no
/// longer. Nothing was written then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_is_waited_for() {
    let mut three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[]);
    let leader = three.quorum.leader(id);
    let followers = three.quorum.followers(id);
    for node in &followers {
        three.take(*node).die().await;
    }
    // The last one is fenced, and stays the last member of the ISR.
    let fenced = three.quorum.image().brokers[&leader].epoch;
    let gone = Command::BrokerGone { node_id: leader, broker_epoch: fenced };
    three.quorum.submit(gone).expect("fenced");
    let node = three.node(leader);
    node.until(id, "nobody leads", |status| status.leader.is_none()).await;
    let short = Duration::from_millis(10);
    let error = node.produce_with("t", "x", Acks::Leader, short).await.expect_err("no leader");
    assert_eq!((error.reason, error.is_indefinite()), (R::LeaderNotAvailable, false));
    let replicas = node.replicas.clone();
    let waiting = tokio::spawn(async move {
        let deadline = Instant::now() + PATIENCE;
        let ticket = replicas.produce("t", 0, batch(&["one"]), Acks::Leader, deadline).await?;
        ticket.wait().await
    });
    node.unfence();
    let produced = waiting.await.expect("no panic").expect("appended");
    assert_eq!(produced.base_offset, Some(0));
    three.end().await;
}

/// A request over the node's produce memory waits until its deadline and is told
/// when to come again; room given back is used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn produce_memory_is_bounded() {
    let limits = Limits { produce_bytes: 1000, ..Limits::default() };
    let mut three = Three::start(limits).await;
    let id = three.quorum.create_topic("t", &[]);
    let leader = three.quorum.leader(id);
    for node in three.quorum.followers(id) {
        three.take(node).stop().await;
    }
    let node = three.node(leader);
    let value = "x".repeat(600);
    let first = {
        let (replicas, batch) = (node.replicas.clone(), batch(&[&value]));
        let deadline = Instant::now() + Duration::from_secs(2);
        replicas.produce("t", 0, batch, Acks::All, deadline).await.expect("taken")
    };
    let short = Duration::from_millis(10);
    let error = node.produce_with("t", &value, Acks::All, short).await.expect_err("too much");
    assert_eq!(error.reason, R::Overloaded);
    assert!(error.retry_after.is_some());
    // Nobody replicates it: the first one times out, and makes room.
    let timed_out = first.wait().await.expect_err("nobody replicates");
    assert_eq!((timed_out.reason, timed_out.is_indefinite()), (R::RequestTimedOut, true));
    node.produce_with("t", &value, Acks::Leader, PATIENCE).await.expect("there is room again");
    three.end().await;
}
