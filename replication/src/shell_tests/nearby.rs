//! Reads from followers.

use super::cluster::{Node, PATIENCE, Three, values_of};
use crate::{Acks, Fetched, Limits};
use ottla_metadata::controller::Command;
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{ApiError, NodeId, Offset};
use std::time::Duration;

async fn nearby(node: &Node, offset: Offset, wait: Duration) -> Result<Fetched, ApiError> {
    node.replicas.fetch_nearby("t", 0, offset, 1024, wait).await
}

/// A follower answers with what is committed and nothing beyond it, and a reader at the
/// end is woken when more is; everything else is for the leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_answers_with_what_is_committed() {
    let mut three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[]);
    three.until_isr(id, &[1, 2, 3].map(NodeId)).await;
    let leader = three.quorum.leader(id);
    let [near, other] = three.quorum.followers(id)[..] else { panic!("two followers") };
    three.node(leader).produce("t", "one").await.expect("acknowledged");
    let fetched = nearby(three.node(near), 0, PATIENCE).await.expect("the record comes");
    assert_eq!((values_of(&fetched.batches), fetched.high_watermark), (vec!["one".to_owned()], 1));
    let refused = three.node(near).replicas.fetch("t", 0, 0, 1024, PATIENCE).await;
    assert_eq!(refused.expect_err("a follower").reason, R::NotLeader);
    // The leader answers too.
    let fetched = nearby(three.node(leader), 0, PATIENCE).await.expect("at once");
    assert_eq!(values_of(&fetched.batches), ["one"]);

    // At the end: nothing in time is no error.
    let fetched = nearby(three.node(near), 1, Duration::ZERO).await.expect("nothing yet");
    assert!(fetched.batches.is_empty());
    // Beyond it the leader has to say whether there is such an offset.
    let beyond = nearby(three.node(near), 2, Duration::ZERO).await.expect_err("not known here");
    assert_eq!((beyond.reason, beyond.leader.map(|l| l.node_id)), (R::NotLeader, Some(leader)));

    let replicas = three.node(near).replicas.clone();
    let woken = tokio::spawn(async move { replicas.fetch_nearby("t", 0, 1, 1024, PATIENCE).await });
    three.node(leader).produce("t", "two").await.expect("acknowledged");
    let fetched = woken.await.expect("no panic").expect("fetched");
    assert_eq!(values_of(&fetched.batches), ["two"]);

    // What is not committed is there, and not shown.
    three.take(other).stop().await;
    let uncommitted = three.node(leader).produce_with("t", "three", Acks::Leader, PATIENCE).await;
    uncommitted.expect("appended");
    three.node(near).until(id, "a copy", |status| status.log_end == 3).await;
    let fetched = nearby(three.node(near), 1, PATIENCE).await.expect("committed");
    assert_eq!((values_of(&fetched.batches), fetched.high_watermark), (vec!["two".to_owned()], 2));
    three.end().await;
}

/// A follower that lost its leader, or is not in the ISR, knows too little.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_a_leader_answers_nobody() {
    let mut three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[]);
    three.until_isr(id, &[1, 2, 3].map(NodeId)).await;
    let leader = three.quorum.leader(id);
    let [near, fenced] = three.quorum.followers(id)[..] else { panic!("two followers") };
    three.node(leader).produce("t", "one").await.expect("acknowledged");
    nearby(three.node(near), 0, PATIENCE).await.expect("the record comes");
    let replicas = three.node(near).replicas.clone();
    let waiting =
        tokio::spawn(async move { replicas.fetch_nearby("t", 0, 1, 1024, PATIENCE).await });
    // It runs, and the controller does not count on it any more.
    let broker_epoch = three.quorum.image().brokers[&fenced].epoch;
    let gone = Command::BrokerGone { node_id: fenced, broker_epoch };
    three.quorum.submit(gone).expect("fenced");
    let mut images = three.node(fenced).replicas.images();
    images.wait_for(|image| image.brokers[&fenced].fenced).await.expect("it lives");
    let outside = nearby(three.node(fenced), 0, PATIENCE).await.expect_err("not in the ISR");
    assert_eq!(outside.reason, R::NotLeader);
    // Its process is gone and nobody has noticed but whoever was connected to it.
    three.take(leader).stop().await;
    let cut = waiting.await.expect("no panic").expect_err("nobody can say what is committed");
    assert_eq!(cut.reason, R::NotLeader);
    let cut = nearby(three.node(near), 0, PATIENCE).await.expect_err("no connection");
    assert_eq!(cut.reason, R::NotLeader);
    three.end().await;
}
