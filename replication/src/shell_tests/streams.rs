//! What one connection carries for many partitions: nobody keeps the others waiting.

use super::cluster::{Node, PATIENCE, Three, batch};
use super::moves::{log_dir, reassign, until_gone};
use crate::{Acks, Limits, SentBytes};
use ottla_proto::{NodeId, PartitionId};
use tokio::time::Instant;

/// Bytes in each record of what is to be large.
const LARGE: usize = 256 * 1024;

/// Records of what is far behind: many times what one turn carries.
const FAR: usize = 32;

/// So slow that what is far behind would take longer than any test may.
const SLOW: u64 = 128 * 1024;

async fn produce(leader: &Node, topic: &str, partition: u32, value: &str) {
    let (deadline, batch) = (Instant::now() + PATIENCE, batch(&[value]));
    let ticket = leader.replicas.produce(topic, partition, batch, Acks::All, deadline).await;
    ticket.expect("taken").wait().await.expect("acknowledged");
}

fn all(id: PartitionId, count: u32) -> Vec<PartitionId> {
    (0..count).map(|index| PartitionId { index, ..id }).collect()
}

/// A follower comes back that lacks a lot of one partition and little of many others,
/// over a connection that is slow for who catches up. The many are in sync at once,
/// and written to, while the one is far behind; no limit holds for them then. The
/// limit goes, and the one is in sync too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_do_not_wait_for_one_that_is_far_behind() {
    let mut three = Three::start(Limits::default()).await;
    let huge = three.quorum.create_topic("huge", &[]);
    let many = all(three.quorum.create_wide_topic("many", 12, &[]), 12);
    let away = NodeId(3);
    three.take(away).die().await;
    let large = "x".repeat(LARGE);
    for _ in 0..FAR {
        let leader = three.node(three.quorum.leader(huge));
        produce(leader, "huge", 0, &large).await;
    }
    for id in &many {
        produce(three.node(three.quorum.leader(*id)), "many", id.index, "missed").await;
    }
    for node in [1, 2].map(NodeId) {
        three.node(node).replicas.limit_catch_up(SLOW);
    }
    three.restart(away).await;
    let nodes = [1, 2, 3].map(NodeId);
    for id in &many {
        three.until_isr(*id, &nodes).await;
        produce(three.node(three.quorum.leader(*id)), "many", id.index, &large).await;
    }
    let behind = three.node(away).until(huge, "follows", |status| status.leader.is_some()).await;
    assert!(behind.log_end < FAR as u64, "it cannot be here yet: {behind:?}");
    let isr = &three.quorum.image().partitions[&huge].isr;
    assert_eq!(isr.len(), 2, "it is not in sync: {isr:?}");
    for node in [1, 2].map(NodeId) {
        three.node(node).replicas.limit_catch_up(0);
    }
    three.until_isr(huge, &nodes).await;
    three.end().await;
}

/// A new replica is copied as fast as it may be, and not as what is behind; the limit
/// concerns nobody else, and can be lifted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reassignment_is_limited() {
    let three = Three::on_real_disks().await;
    let id = three.quorum.create_topic("t", &[]);
    let leader = three.quorum.leader(id);
    let [stays, comes] = three.quorum.followers(id)[..] else { panic!("two followers") };
    three.until_isr(id, &[leader, stays, comes]).await;
    reassign(&three, &[leader, stays]);
    until_gone(&log_dir(&three, comes, id)).await;
    let large = "x".repeat(LARGE);
    let node = three.node(leader);
    node.replicas.limit_reassignment(SLOW);
    for _ in 0..FAR {
        produce(node, "t", 0, &large).await;
    }
    reassign(&three, &[leader, stays, comes]);
    let offset = three.quorum.image().offset;
    // Its old log may still be on its way out.
    let replicas = &three.node(comes).replicas;
    let mut images = replicas.images();
    let here = images.wait_for(|now| now.offset >= offset && replicas.local(id).is_some());
    here.await.expect("the node lives");
    let begun = |status: &crate::ReplicaStatus| status.log_end > 0;
    three.node(comes).until(id, "something comes", begun).await;
    produce(node, "t", 0, &large).await;
    let SentBytes { in_sync, catch_up, reassignment } = node.replicas.sent_bytes();
    let whole = (FAR * LARGE) as u64;
    assert!(in_sync > whole, "{in_sync} to the member of the ISR");
    assert!((1..whole).contains(&reassignment), "{reassignment} of {whole}");
    assert_eq!(catch_up, 0);
    assert!(three.quorum.image().partitions[&id].reassignment.is_some());
    node.replicas.limit_reassignment(0);
    three.until_isr(id, &[leader, stays, comes]).await;
    assert!(node.replicas.sent_bytes().reassignment > whole);
    assert!(three.quorum.image().partitions[&id].reassignment.is_none());
    three.end().await;
}

/// Without memory for what was appended last, everything is read from the disk, and
/// all the same those in sync are served as such.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_in_sync_are_served_from_the_disk() {
    let three = Three::without_memory().await;
    let id = three.quorum.create_topic("t", &[]);
    three.until_isr(id, &[1, 2, 3].map(NodeId)).await;
    let leader = three.node(three.quorum.leader(id));
    for value in ["one", "two", "three"] {
        produce(leader, "t", 0, value).await;
    }
    assert_eq!(leader.read_all("t").await, ["one", "two", "three"]);
    let sent = leader.replicas.sent_bytes();
    let twice = 2 * leader.log_bytes(id).len() as u64;
    assert_eq!(sent, SentBytes { in_sync: twice, ..SentBytes::default() });
    three.end().await;
}
