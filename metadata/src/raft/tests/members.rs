//! Nodes come to a quorum that exists.

use super::cluster::{Cluster, PATIENCE};
use crate::raft::LogLimits;
use ottla_proto::NodeId;
use ottla_proto::v1::CreateTopicRequest;
use std::time::Duration;
use tokio::time::Instant;

const FOUR: NodeId = NodeId(4);

/// A node that is no voter joins: it gets the log, serves as a broker, and votes
/// on nothing. Started again, it is what it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_follows_as_a_learner() {
    let mut cluster = Cluster::formed().await;
    cluster.follower().await.create("before").await.expect("creates");
    cluster.start(4).await;
    for _ in 0..2 {
        let node = cluster.node(FOUR);
        let image = node.unfenced_here(&[1, 2, 3, 4]).await;
        assert!(image.topic_by_name("before").is_some());
        let directory = cluster.options(FOUR).directory_id;
        assert_eq!(image.voter_directories.get(&FOUR), Some(&directory));
        let status = node.quorum_where("its place", |s| s.learners == [FOUR]).await;
        assert_eq!(status.voters, [1, 2, 3].map(NodeId));
        assert!(status.may_campaign, "it has applied what it was admitted at");
        // It takes administration like any other.
        let name = format!("by-four-{}", image.offset);
        node.create(&name).await.expect("creates");
        cluster.kill(FOUR).await;
        cluster.start(4).await;
    }
}

/// Whoever leads when a node asks: it finds the leader through nodes that do not
/// lead, and a leader that is itself no node to begin with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_needs_to_know_one_that_is_there() {
    let mut cluster = Cluster::formed().await;
    let leader = cluster.leader().await;
    let mut options = cluster.options(FOUR);
    options.voters.retain(|id, _| *id != leader);
    assert_eq!(options.voters.len(), 2);
    cluster.start_with(options).await.expect("joins");
    cluster.node(FOUR).unfenced_here(&[1, 2, 3, 4]).await;
}

/// What a new node lacks may be in no log any more: it gets a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_gets_a_snapshot() {
    let mut cluster = Cluster::new().await;
    cluster.limits = LogLimits { snapshot_every: 20, kept: 5 };
    cluster.start_all().await;
    let node = cluster.node(cluster.leader().await);
    for index in 0..40 {
        let request = CreateTopicRequest { name: format!("topic-{index}"), ..Default::default() };
        let deadline = Instant::now() + PATIENCE;
        node.metadata.administer(request, deadline).await.expect("creates");
    }
    node.purged_beyond(1).await;
    cluster.start(4).await;
    let image = cluster.node(FOUR).unfenced_here(&[1, 2, 3, 4]).await;
    assert_eq!(image.topics.len(), 40);
}

/// Without a quorum nobody is admitted; with it, the same node is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_admitted_without_a_quorum() {
    let mut cluster = Cluster::formed().await;
    for id in [1, 2] {
        cluster.kill(NodeId(id)).await;
    }
    let node = cluster.open(FOUR, cluster.options(FOUR)).await;
    let joined = tokio::time::timeout(Duration::from_millis(500), node.metadata.join()).await;
    joined.expect_err("one of three voters admits nobody");
    node.stop().await;
    cluster.start(1).await;
    cluster.start(4).await;
    cluster.node(FOUR).unfenced_here(&[1, 3, 4]).await;
}
