//! Records that go: on request, by age, and behind the back of a follower that
//! is away.

use super::cluster::{PATIENCE, Three, batch, values_of};
use crate::Limits;
use ottla_metadata::controller::{AlterTopicConfig, Command};
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{NodeId, PartitionId};
use std::time::Duration;
use tokio::time::Instant;

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

fn quick() -> Limits {
    Limits {
        replica_lag_max: Duration::from_millis(500),
        retention_check: Duration::from_millis(20),
        ..Limits::default()
    }
}

fn later() -> Instant {
    Instant::now() + PATIENCE
}

async fn delete(
    three: &Three,
    id: PartitionId,
    before: Option<u64>,
) -> Result<u64, ottla_proto::ApiError> {
    let leader = three.node(three.quorum.leader(id));
    leader.replicas.delete_records("t", 0, before, later()).await
}

/// Deleted records are gone from every replica when the call returns; reads below
/// name the range there is. What follows goes on as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_records_are_gone_everywhere() {
    let three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[]);
    let leader = three.node(three.quorum.leader(id));
    for value in super::NUMBERS {
        leader.produce("t", value).await.expect("acknowledged");
    }
    assert_eq!(delete(&three, id, Some(2)).await, Ok(2));
    for node in NODES {
        assert_eq!(three.node(node).partition(id).log().expect("open").bounds().start, 2);
    }
    let beyond = delete(&three, id, Some(6)).await.expect_err("not committed");
    assert_eq!((beyond.reason, &*beyond.metadata["high_watermark"]), (R::OffsetOutOfRange, "5"));
    let below = leader.replicas.fetch("t", 0, 1, 1024, Duration::ZERO).await.expect_err("gone");
    assert_eq!((below.reason, &*below.metadata["log_start_offset"]), (R::OffsetOutOfRange, "2"));
    let rest = leader.replicas.fetch("t", 0, 2, 1 << 20, PATIENCE).await.expect("there");
    assert_eq!((values_of(&rest.batches).len(), rest.log_start), (3, 2));
    assert_eq!(delete(&three, id, None).await, Ok(5), "everything that is committed");
    assert_eq!(delete(&three, id, Some(1)).await, Ok(5), "nothing is left to do");
    let produced = leader.produce("t", "six").await.expect("acknowledged");
    assert_eq!(produced.base_offset, Some(5));
    let follower = three.node(three.quorum.followers(id)[0]);
    let refused = follower.replicas.delete_records("t", 0, None, later()).await;
    assert_eq!(refused.expect_err("not the leader").reason, R::NotLeader);
    three.end().await;
}

/// A follower that was away for long begins anew where the leader's log starts:
/// even if that is within a batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_below_the_log_start_begins_anew() {
    let mut three = Three::start(quick()).await;
    let id = three.quorum.create_topic("t", &[("retention.ms", "-1")]);
    let leader = three.quorum.leader(id);
    let (away, other) = (three.quorum.followers(id)[0], three.quorum.followers(id)[1]);
    three.node(leader).produce("t", "one").await.expect("acknowledged by three");
    three.take(away).stop().await;
    let node = three.node(leader);
    for values in [&["two", "three"][..], &["four", "five", "six"][..]] {
        let acks = crate::Acks::All;
        let ticket = node.replicas.produce("t", 0, batch(values), acks, later()).await;
        ticket.expect("taken").wait().await.expect("acknowledged by two");
    }
    three.until_isr(id, &[leader, other]).await;
    assert_eq!(delete(&three, id, Some(4)).await, Ok(4), "who is away is not waited for");
    three.restart(away).await;
    three.until_isr(id, &NODES).await;
    let back = three.node(away);
    back.until(id, "the start follows", |status| status.log_start == 4).await;
    assert_eq!(values_of(&back.log_bytes(id)), ["four", "five", "six"]);
    three.node(leader).produce("t", "seven").await.expect("acknowledged by three");
    assert_eq!(back.partition(id).log().expect("open").bounds().end, 7);
    three.end().await;
}

/// Retention that is switched on while the topic is used deletes finished
/// segments on every replica, and nothing that is not committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_works_on_running_logs() {
    let three = Three::start(quick()).await;
    let options = [("retention.ms", "-1"), ("segment.bytes", "4096")];
    let id = three.quorum.create_topic("t", &options);
    let leader = three.node(three.quorum.leader(id));
    for _ in 0..4 {
        leader.produce("t", &"x".repeat(3_000)).await.expect("acknowledged");
    }
    assert_eq!(leader.partition(id).log().expect("open").bounds().start, 0);
    let altered = three.quorum.submit(Command::AlterTopicConfig(AlterTopicConfig {
        name: "t".to_owned(),
        set: [("retention.bytes".to_owned(), "6000".to_owned())].into(),
        unset: [].into(),
        validate_only: false,
    }));
    altered.expect("altered");
    for node in NODES {
        three.node(node).until(id, "the oldest go", |status| status.log_start == 2).await;
    }
    let rest = leader.replicas.fetch("t", 0, 2, 1 << 20, PATIENCE).await.expect("there");
    assert_eq!(values_of(&rest.batches).len(), 2);
    three.end().await;
}

/// A compacted topic takes only records with a key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_topic_asks_for_keys() {
    let three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[("cleanup.policy", "compact")]);
    let leader = three.node(three.quorum.leader(id));
    let refused = leader.produce("t", "no key").await.expect_err("refused");
    assert_eq!((refused.reason, refused.is_indefinite()), (R::InvalidRecord, false));
    assert!(leader.read_all("t").await.is_empty());
    three.end().await;
}
