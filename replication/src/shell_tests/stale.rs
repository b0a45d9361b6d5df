//! A leader that was replaced and has not heard of it.

use super::cluster::{Three, values_of};
use crate::RoleKind;
use ottla_metadata::image::Image;
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{ApiError, NodeId, Offset, PartitionId};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

fn led_by(image: &Arc<Image>, id: PartitionId) -> Option<NodeId> {
    image.partitions[&id].leader
}

async fn read(three: &Three, node: NodeId, offset: Offset) -> Result<Vec<String>, ApiError> {
    let replicas = &three.node(node).replicas;
    let fetched = replicas.fetch("t", 0, offset, 1024, Duration::ZERO).await?;
    Ok(values_of(&fetched.batches))
}

/// It knows fewer records than there are. Whoever believed that an offset is none would begin
/// anew, or skip what comes (KIP-320 has epochs in requests for that).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_replaced_does_not_say_that_an_offset_is_none() {
    let three = Three::with_ears().await;
    let id = three.quorum.create_topic("t", &[]);
    three.until_isr(id, &[1, 2, 3].map(NodeId)).await;
    let old = three.quorum.leader(id);
    three.node(old).produce("t", "one").await.expect("acknowledged");
    three.node(old).deafen();
    let another = |leader: NodeId| leader != old;
    let led = |image: &_| led_by(image, id).is_some_and(another);
    three.quorum.until("another leads", led).await;
    let new = three.quorum.leader(id);
    three.node(new).until(id, "it leads", |status| status.role == RoleKind::Leader).await;
    for value in ["two", "three"] {
        three.node(new).produce("t", value).await.expect("acknowledged");
    }

    assert_eq!(read(&three, old, 0).await.expect("what was committed stays"), ["one"]);
    let refused = read(&three, old, 2).await.expect_err("it cannot know");
    assert_eq!((refused.reason, refused.leader.map(|l| l.node_id)), (R::NotLeader, Some(new)));
    three.quorum.has_majority.store(false, Relaxed);
    let refused = read(&three, old, 2).await.expect_err("nobody can say");
    assert_eq!(refused.reason, R::LeaderNotAvailable);
    assert!(refused.is_retriable(), "{refused}");

    // Who leads says so, if it is certain.
    let refused = read(&three, new, 4).await.expect_err("nobody can say");
    assert_eq!(refused.reason, R::LeaderNotAvailable);
    three.quorum.has_majority.store(true, Relaxed);
    let refused = read(&three, new, 4).await.expect_err("there is none");
    assert_eq!(refused.reason, R::OffsetOutOfRange);
    three.node(new).until(id, "all is committed", |status| status.high_watermark == 3).await;
    assert_eq!(read(&three, new, 2).await.expect("it is there"), ["three"]);
    three.end().await;
}
