//! Nodes of different releases: a rolling upgrade, and what an old node does when
//! the cluster has moved on. A release is what it supports, hence a parameter.

use super::cluster::{Cluster, PATIENCE};
use crate::raft::MetadataError;
use crate::records::{FeatureLevel, FeatureLevels};
use ottla_proto::v1::{ErrorReason, UpgradeFeaturesRequest, UpgradeFeaturesResponse};
use ottla_proto::{ApiError, NodeId};
use tokio::time::Instant;

const OLD: FeatureLevels = FeatureLevels { min: FeatureLevel(1), max: FeatureLevel(1) };
/// Far beyond what the releases of today know.
const NEXT: FeatureLevels = FeatureLevels { min: FeatureLevel(1), max: FeatureLevel(100) };

async fn upgrade(cluster: &Cluster, level: u32) -> Result<UpgradeFeaturesResponse, ApiError> {
    let request = UpgradeFeaturesRequest { level, ..Default::default() };
    cluster.follower().await.metadata.administer(request, Instant::now() + PATIENCE).await
}

async fn stops_for(cluster: &Cluster, node: NodeId) -> MetadataError {
    let evicted = cluster.node(node).metadata.evicted();
    tokio::time::timeout(PATIENCE, evicted).await.expect("it notices and stops")
}

fn is_incompatible(error: &MetadataError) -> bool {
    let text = error.to_string();
    matches!(error, MetadataError::Incompatible { .. })
        && text.contains("INCOMPATIBLE_RELEASE")
        && text.contains("feature level 100")
        && text.contains("supports 1 to 1")
}

/// Three nodes of the old release are restarted with the next one, one by one, while
/// the cluster goes on at its level; then the level is raised. A node of the old
/// release is refused from then on: from its own disk and as a new one; and with the
/// next release it goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_upgrade_ends_with_a_higher_level() {
    let mut cluster = Cluster::new().await;
    cluster.levels = OLD;
    cluster.start_all().await;
    for id in 1..=3 {
        let refused = upgrade(&cluster, 100).await.expect_err("not all support it");
        assert_eq!(refused.reason, ErrorReason::UnsupportedFeatureLevel, "{refused}");
        cluster.kill(NodeId(id)).await;
        cluster.levels = NEXT;
        cluster.start(id).await;
        let node = cluster.node(NodeId(id));
        node.unfenced_here(&[1, 2, 3]).await;
        node.image_where("its levels", |image| image.brokers[&NodeId(id)].levels == NEXT).await;
        let created = node.create(&format!("during-{id}")).await.expect("goes on");
        assert!(created.header.is_some());
    }
    let away = cluster.follower().await.id;
    cluster.kill(away).await;
    let raised = upgrade(&cluster, 100).await.expect("all support it");
    assert_eq!((raised.level, raised.changed), (100, true));
    let again = upgrade(&cluster, 0).await.expect("is there");
    assert_eq!((again.level, again.changed), (100, false));

    // One missed it. Its old release finds it in the log; once it has it on disk,
    // it does not even start.
    let mut old = cluster.options(away);
    old.levels = OLD;
    cluster.start_with(old.clone()).await.expect("its own disk says nothing of it");
    let error = stops_for(&cluster, away).await;
    assert!(is_incompatible(&error), "{error}");
    cluster.kill(away).await;
    cluster.start(away.0).await;
    let node = cluster.node(away);
    node.image_where("the level", |image| image.feature_level == FeatureLevel(100)).await;
    let image = node.unfenced_here(&[1, 2, 3]).await;
    assert_eq!(image.topics.len(), 3, "nothing was lost on the way");
    cluster.kill(away).await;
    let error = crate::raft::Metadata::open(old).await.err().expect("refuses");
    assert!(is_incompatible(&error), "{error}");
    cluster.start(away.0).await;
    cluster.node(away).unfenced_here(&[1, 2, 3]).await;

    // A blank node of the old release.
    let mut old = cluster.options(NodeId(4));
    old.levels = OLD;
    match cluster.start_with(old).await {
        Ok(()) => {
            let error = stops_for(&cluster, NodeId(4)).await;
            assert!(is_incompatible(&error), "{error}");
        }
        Err(error) => assert!(is_incompatible(&error), "{error}"),
    }
}
