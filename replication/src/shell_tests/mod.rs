//! Whole nodes: actors, connections and handles together.

mod cluster;
mod directories;
mod disks;
mod hand_over;
mod limits;
mod moves;
mod nearby;
mod old_records;
mod producers;
mod requests;
mod room;
mod stale;
mod streams;

use crate::{Acks, Limits};
use cluster::{PATIENCE, Three, values_of};
use ottla_proto::v1::ErrorReason as R;
use std::time::Duration;

const NUMBERS: [&str; 5] = ["one", "two", "three", "four", "five"];

/// acks=all across three replicas: everything acknowledged is readable at its
/// offset, and in the end the same bytes lie on all three.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_all_reaches_every_replica() {
    let three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[]);
    let leader = three.node(three.quorum.leader(id));
    for (offset, value) in (0..).zip(NUMBERS) {
        let produced = leader.produce("t", value).await.expect("acknowledged");
        assert_eq!(produced.base_offset, Some(offset));
        // Acknowledged with durability=disk: synced on the whole ISR, now.
        for node in [1, 2, 3].map(ottla_proto::NodeId) {
            let synced = three.node(node).partition(id).log().expect("open").bounds().synced;
            assert!(synced > offset, "node {node} had synced {synced} at the acknowledgement");
        }
    }
    assert_eq!(leader.read_all("t").await, NUMBERS);
    let bytes = leader.log_bytes(id);
    for node in [1, 2, 3].map(ottla_proto::NodeId) {
        let node = three.node(node);
        node.until(id, "the watermark arrives", |status| status.high_watermark == 5).await;
        assert_eq!(node.log_bytes(id), bytes);
    }
    three.end().await;
}

/// durability=memory acknowledges what no replica has synced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durability_memory_waits_for_no_disk() {
    let three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[("durability", "memory")]);
    let leader = three.quorum.leader(id);
    let produced = three.node(leader).produce("t", "one").await.expect("acknowledged");
    assert_eq!(produced.base_offset, Some(0));
    for node in [1, 2, 3].map(ottla_proto::NodeId) {
        let bounds = three.node(node).partition(id).log().expect("open").bounds();
        assert_eq!((bounds.end, bounds.synced), (1, 0), "node {node}");
    }
    three.end().await;
}

/// A leader that wrote what nobody else has, and died, comes back as a follower
/// and drops it: its log ends up as the others'.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_diverged_tail_is_truncated() {
    let mut three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[]);
    let old = three.quorum.leader(id);
    let followers = three.quorum.followers(id);
    three.node(old).produce("t", "kept").await.expect("acknowledged");
    // The followers stand still; the leader takes acks=1 all the same.
    for node in &followers {
        three.take(*node).stop().await;
    }
    for value in ["lost", "lost too"] {
        let produced = three.node(old).produce_with("t", value, Acks::Leader, PATIENCE).await;
        produced.expect("appended");
    }
    assert_eq!(values_of(&three.node(old).log_bytes(id)), ["kept", "lost", "lost too"]);
    three.take(old).die().await;
    for node in &followers {
        three.resume(*node).await;
    }
    let new = three.quorum.leader(id);
    assert_ne!(new, old);
    three.node(new).produce("t", "new").await.expect("acknowledged by two");
    three.restart(old).await;
    three.until_isr(id, &[old, followers[0], followers[1]]).await;
    three.node(new).produce("t", "newer").await.expect("acknowledged by three");
    for node in [1, 2, 3].map(ottla_proto::NodeId) {
        let node = three.node(node);
        node.until(id, "the watermark arrives", |status| status.high_watermark == 3).await;
        assert_eq!(values_of(&node.log_bytes(id)), ["kept", "new", "newer"]);
    }
    three.end().await;
}

/// A follower that stands still holds a write back until it is taken out of the
/// ISR, and is taken back once it has caught up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_follower_leaves_the_isr_and_returns() {
    let limits = Limits { replica_lag_max: Duration::from_millis(500), ..Limits::default() };
    let mut three = Three::start(limits).await;
    let id = three.quorum.create_topic("t", &[]);
    let leader = three.quorum.leader(id);
    let followers = three.quorum.followers(id);
    three.node(leader).produce("t", "one").await.expect("acknowledged by three");
    three.take(followers[1]).stop().await;
    three.node(leader).produce("t", "two").await.expect("acknowledged by two, in the end");
    three.until_isr(id, &[leader, followers[0]]).await;
    three.resume(followers[1]).await;
    three.until_isr(id, &[leader, followers[0], followers[1]]).await;
    let status = three.node(followers[1]).until(id, "caught up", |s| s.log_end == 2).await;
    assert_eq!(status.leader, Some(leader));
    three.end().await;
}

/// Below min.insync.replicas acks=all is refused by name, acks=1 is taken and
/// invisible; both are well again by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_min_isr_and_back() {
    let mut three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[]);
    let leader = three.quorum.leader(id);
    let followers = three.quorum.followers(id);
    three.node(leader).produce("t", "one").await.expect("acknowledged by three");
    for node in &followers {
        three.take(*node).die().await;
    }
    let alone = three.node(leader);
    alone.until(id, "alone", |status| status.partition_epoch.0 >= 2).await;
    let refused = alone.produce("t", "refused").await.expect_err("too few replicas");
    assert_eq!(refused.reason, R::NotEnoughReplicas);
    assert!(!refused.is_indefinite());
    let one = alone.produce_with("t", "two", Acks::Leader, PATIENCE).await.expect("appended");
    assert_eq!(one.base_offset, Some(1));
    let status = alone.until(id, "appended and synced", |status| status.synced == 2).await;
    assert_eq!(status.high_watermark, 1, "invisible until the ISR recovers");
    three.restart(followers[0]).await;
    three.until_isr(id, &[leader, followers[0]]).await;
    three.node(leader).produce("t", "three").await.expect("acknowledged by two");
    assert_eq!(three.node(leader).read_all("t").await, ["one", "two", "three"]);
    three.end().await;
}

/// A planned stop: leadership moves while the node still runs; who comes to the
/// old leader is sent to the new one, which serves at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over() {
    let three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[]);
    let old = three.quorum.leader(id);
    three.node(old).produce("t", "one").await.expect("acknowledged");
    three.node(old).want_shutdown();
    let new = three.quorum.leader(id);
    assert_ne!(new, old);
    three.node(old).until(id, "follows", |status| status.leader == Some(new)).await;
    let sent_on = three.node(old).produce("t", "refused").await.expect_err("not the leader");
    assert_eq!(sent_on.reason, R::NotLeader);
    assert_eq!(sent_on.leader.expect("a hint").node_id, new);
    let produced = three.node(new).produce("t", "two").await.expect("acknowledged");
    assert_eq!(produced.base_offset, Some(1));
    assert_eq!(three.node(new).read_all("t").await, ["one", "two"]);
    three.end().await;
}
