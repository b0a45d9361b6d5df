//! Decisions that are larger than an entry of the log, in a running quorum whose
//! entries are small.

use super::cluster::{Cluster, PATIENCE};
use crate::raft::LogLimits;
use ottla_proto::NodeId;
use ottla_proto::v1::{CreateTopicRequest, ErrorReason};
use tokio::time::Instant;

/// What thirty partitions take, and far less than 180 do.
const ENTRY_BYTES: usize = 8 * 1024;

/// A broker with more partitions than fit one entry is fenced all the same, and comes
/// back. What an operator asks for and does not fit is refused, and says what helps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_with_any_number_of_partitions_is_fenced_and_comes_back() {
    let mut cluster = Cluster::new().await;
    cluster.limits = LogLimits { proposal_bytes: ENTRY_BYTES, ..LogLimits::default() };
    cluster.start_all().await;
    let create = |name: String, partitions| CreateTopicRequest {
        name,
        partitions,
        replication_factor: 3,
        ..Default::default()
    };
    let any = cluster.follower().await;
    for topic in 0..6 {
        let request = create(format!("topic-{topic}"), 30);
        any.metadata.administer(request, Instant::now() + PATIENCE).await.expect("fits");
    }
    let wide = any.metadata.administer(create("wide".to_owned(), 180), Instant::now() + PATIENCE);
    let error = wide.await.expect_err("does not fit");
    assert_eq!(error.reason, ErrorReason::InvalidRequest, "{error}");
    assert!(error.message.contains("several steps"), "{error}");

    for dead in [cluster.follower().await.id, cluster.leader().await] {
        let entries = cluster.node(dead).last_log_index();
        cluster.kill(dead).await;
        let node = cluster.nodes.values().next().expect("two run");
        let image = node.image_where("all partitions led by others", |image| {
            image.brokers[&dead].fenced
                && image.partitions.values().all(|p| p.leader.is_some_and(|l| l != dead))
        });
        let image = image.await;
        assert!(image.partitions.values().all(|p| !p.isr.contains(&dead)));
        assert_eq!(image.partitions.len(), 180);
        assert!(node.last_log_index() > entries + 2, "it took several entries");
        cluster.start(dead.0).await;
        cluster.node(dead).unfenced_here(&[1, 2, 3]).await;
    }
    assert!(cluster.nodes.contains_key(&NodeId(1)));
}
