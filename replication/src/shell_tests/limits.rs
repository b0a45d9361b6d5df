//! Limits that change while the node runs.

use super::cluster::{PATIENCE, Three, batch};
use crate::{Acks, Limits};
use ottla_proto::NodeId;
use ottla_proto::v1::ErrorReason as R;
use std::time::Duration;
use tokio::time::Instant;

/// Longer than any test lasts.
const NEVER: Duration = Duration::from_hours(1);

/// A follower that is away is waited for as long as it takes, until somebody says
/// otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patience_with_followers_changes_under_way() {
    let limits = Limits { replica_lag_max: NEVER, ..Limits::default() };
    let mut three = Three::start(limits).await;
    let id = three.quorum.create_topic("t", &[]);
    let leader = three.quorum.leader(id);
    let followers = three.quorum.followers(id);
    three.node(leader).produce("t", "one").await.expect("acknowledged by three");
    three.take(followers[1]).stop().await;
    let waiting = {
        let (replicas, batch) = (three.node(leader).replicas.clone(), batch(&["two"]));
        let deadline = Instant::now() + PATIENCE;
        replicas.produce("t", 0, batch, Acks::All, deadline).await.expect("taken")
    };
    let node = three.node(leader);
    node.until(id, "appended", |status| status.log_end == 2).await;
    assert_eq!(node.until(id, "as before", |_| true).await.high_watermark, 1);
    node.replicas.set_limits(Limits { replica_lag_max: Duration::from_millis(1), ..limits });
    waiting.wait().await.expect("acknowledged by two");
    three.until_isr(id, &[leader, followers[0]]).await;
    three.end().await;
}

/// Logs are looked at in the new rhythm at once, not after the old pause.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shorter_pause_begins_at_once() {
    let limits = Limits { retention_check: NEVER, ..Limits::default() };
    let three = Three::start(limits).await;
    let options = [("retention.ms", "-1"), ("retention.bytes", "6000"), ("segment.bytes", "4096")];
    let id = three.quorum.create_topic("t", &options);
    let leader = three.node(three.quorum.leader(id));
    for _ in 0..4 {
        leader.produce("t", &"x".repeat(3_000)).await.expect("acknowledged");
    }
    assert_eq!(leader.partition(id).log().expect("open").bounds().start, 0);
    let quick = Limits { retention_check: Duration::from_millis(20), ..limits };
    for node in [1, 2, 3].map(NodeId) {
        three.node(node).replicas.set_limits(quick);
        three.node(node).until(id, "the oldest go", |status| status.log_start == 2).await;
    }
    three.end().await;
}

/// Room that is given is used by who waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn produce_memory_grows_under_way() {
    let limits = Limits { produce_bytes: 1000, replica_lag_max: NEVER, ..Limits::default() };
    let mut three = Three::start(limits).await;
    let id = three.quorum.create_topic("t", &[]);
    let leader = three.quorum.leader(id);
    for node in three.quorum.followers(id) {
        three.take(node).stop().await;
    }
    let node = three.node(leader);
    let value = "x".repeat(600);
    let replicas = node.replicas.clone();
    let deadline = Instant::now() + PATIENCE;
    let _held =
        replicas.produce("t", 0, batch(&[&value]), Acks::All, deadline).await.expect("taken");
    let short = Duration::from_millis(10);
    let error = node.produce_with("t", &value, Acks::Leader, short).await.expect_err("too much");
    assert_eq!(error.reason, R::Overloaded);
    replicas.set_limits(Limits { produce_bytes: 2000, ..limits });
    node.produce_with("t", &value, Acks::Leader, PATIENCE).await.expect("there is room");
    three.end().await;
}
