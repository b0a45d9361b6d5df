//! Partitions that leave a node and come back.

use super::cluster::{PATIENCE, Three};
use ottla_metadata::controller::{Command, Reassign, Reply};
use ottla_proto::{NodeId, PartitionId};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{interval, timeout};

/// Departures of a partition, each followed by its return at once.
const ROUNDS: usize = 10;

pub(super) fn reassign(three: &Three, to: &[NodeId]) {
    let command = Command::Reassign(Reassign {
        topic: "t".to_owned(),
        partitions: vec![(0, to.to_vec())],
        validate_only: false,
    });
    let reply = three.quorum.submit(command).expect("a good assignment");
    assert!(matches!(&reply, Reply::Reassigned { changed, .. } if changed == &[0]), "{reply:?}");
}

pub(super) fn log_dir(three: &Three, node: NodeId, id: PartitionId) -> PathBuf {
    three.machine(node).directories[0].join("partitions").join(id.to_string())
}

/// The log is deleted in the background, and nothing else tells of it.
pub(super) async fn until_gone(dir: &Path) {
    let mut look_again = interval(Duration::from_millis(5));
    let gone = async {
        while dir.exists() {
            look_again.tick().await;
        }
    };
    timeout(PATIENCE, gone).await.unwrap_or_else(|_| panic!("{dir:?} is still there"));
}

/// The leader is taken out of the assignment and put back before it has deleted its
/// log, again and again. Each time it begins anew, copies everything, and is in sync;
/// nothing acknowledged is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_comes_back_at_once_begins_anew() {
    let three = Three::on_real_disks().await;
    let id = three.quorum.create_topic("t", &[]);
    let nodes = [1, 2, 3].map(NodeId);
    let mut written = Vec::new();
    for round in 0..ROUNDS {
        let leader = three.quorum.leader(id);
        let value = format!("round {round}");
        three.node(leader).produce("t", &value).await.expect("acknowledged");
        written.push(value);
        let others = three.quorum.followers(id);
        reassign(&three, &others);
        let offset = three.quorum.image().offset;
        let mut images = three.node(leader).replicas.images();
        images.wait_for(|image| image.offset >= offset).await.expect("the node lives");
        assert!(three.node(leader).replicas.local(id).is_none(), "it is no replica");
        reassign(&three, &[others[0], others[1], leader]);
        three.until_isr(id, &nodes).await;
    }
    let leader = three.node(three.quorum.leader(id));
    assert_eq!(leader.read_all("t").await, written);
    let bytes = leader.log_bytes(id);
    for node in nodes {
        three.node(node).until(id, "all of it", |now| now.log_end == ROUNDS as u64).await;
        assert_eq!(three.node(node).log_bytes(id), bytes);
    }
    assert!(three.quorum.image().partitions[&id].reassignment.is_none());
    three.end().await;
}

/// A node deletes its log when it leaves the assignment, also when it was down then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_the_assignment_deletes_its_log() {
    let mut three = Three::on_real_disks().await;
    let id = three.quorum.create_topic("t", &[("min.insync.replicas", "1")]);
    three.until_isr(id, &[1, 2, 3].map(NodeId)).await;
    let leader = three.quorum.leader(id);
    three.node(leader).produce("t", "one").await.expect("acknowledged");
    let [away, here] = three.quorum.followers(id)[..] else { panic!("two followers") };
    let dirs = [away, here, leader].map(|node| log_dir(&three, node, id));
    let missing: Vec<_> = dirs.iter().filter(|dir| !dir.exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");

    three.take(away).die().await;
    reassign(&three, &[leader]);
    until_gone(&dirs[1]).await;
    assert!(dirs[0].exists(), "nobody was there to delete it");
    three.restart(away).await;
    until_gone(&dirs[0]).await;
    assert!(dirs[2].exists());
    assert_eq!(three.node(leader).read_all("t").await, ["one"]);
    three.end().await;
}
