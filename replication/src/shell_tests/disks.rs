//! Disks that fail, fill up and lose power; logs that are deleted, and those
//! that must not be.

use super::cluster::{PATIENCE, Three, values_of};
use crate::{Acks, Limits, LocalPartition};
use ottla_commitlog::vfs::{Fault, FaultRule, Operation};
use ottla_metadata::controller::Command;
use ottla_proto::NodeId;
use ottla_proto::v1::ErrorReason as R;

/// All three nodes lose power at once, and every disk what it had not synced.
/// Nothing that was acknowledged is missing afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_records_survive_a_power_loss_of_all() {
    for seed in 0..4 {
        let mut three = Three::start(Limits::default()).await;
        let id = three.quorum.create_topic("t", &[]);
        let leader = three.quorum.leader(id);
        for value in super::NUMBERS {
            three.node(leader).produce("t", value).await.expect("acknowledged");
        }
        let unacknowledged =
            three.node(leader).produce_with("t", "six", Acks::Leader, PATIENCE).await;
        unacknowledged.expect("appended");
        let nodes = [1, 2, 3].map(NodeId);
        for node in nodes {
            three.machine(node).vfs.crash(seed + node.0);
        }
        for node in nodes {
            three.take(node).die().await;
        }
        for node in nodes {
            three.restart(node).await;
        }
        three.until_isr(id, &nodes).await;
        let leader = three.node(three.quorum.leader(id));
        leader.produce("t", "seven").await.expect("acknowledged");
        let read = leader.read_all("t").await;
        assert_eq!(read[..5], super::NUMBERS, "seed {seed}");
        assert_eq!(read.last().map(String::as_str), Some("seven"), "seed {seed}");
        three.end().await;
    }
}

/// A failed disk takes the partition offline on its node, with a name; others on
/// the node go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_disk_takes_one_partition_offline() {
    let three = Three::start(Limits::default()).await;
    let good = three.quorum.create_topic("good", &[("min.insync.replicas", "1")]);
    let bad = three.quorum.create_topic("bad", &[("min.insync.replicas", "1")]);
    let leader = three.quorum.leader(bad);
    three.node(leader).produce("bad", "one").await.expect("acknowledged");
    let path = three.node(leader).partition(bad).log().expect("open").dir().to_owned();
    let file = path.join("00000000000000000000.log");
    let name = file.components().rev().take(2).collect::<Vec<_>>();
    let ends = name.iter().rev().collect::<std::path::PathBuf>();
    three.machine(leader).vfs.fail(FaultRule {
        operation: Operation::Write,
        path_ends_with: ends.to_string_lossy().into_owned(),
        skip: 0,
        times: 1,
        fault: Fault::Eio,
    });
    let node = three.node(leader);
    let error = node.produce("bad", "two").await.expect_err("the write failed");
    assert_eq!((error.reason, error.is_indefinite()), (R::LeadershipLost, true));
    let offline = |state: &LocalPartition| matches!(state, LocalPartition::Offline { .. });
    node.until_state(bad, "offline", offline).await;
    let error = node.produce("bad", "three").await.expect_err("offline");
    assert_eq!((error.reason, error.is_indefinite()), (R::PartitionOffline, false));
    let other = three.node(three.quorum.leader(good));
    other.produce("good", "fine").await.expect("acknowledged");
    three.end().await;
}

/// A full disk refuses writes by name, lets reads go on, and takes writes again
/// once there is space.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_recovers() {
    let three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[]);
    let leader = three.quorum.leader(id);
    let node = three.node(leader);
    node.produce("t", "one").await.expect("acknowledged");
    three.machine(leader).vfs.fail(FaultRule {
        operation: Operation::Write,
        path_ends_with: ".log".to_owned(),
        skip: 0,
        times: 1,
        fault: Fault::Enospc,
    });
    let error = node.produce("t", "two").await.expect_err("no space");
    assert_eq!((error.reason, error.is_indefinite()), (R::DiskFull, false));
    assert_eq!(node.read_all("t").await, ["one"]);
    let produced = node.produce("t", "two").await.expect("acknowledged");
    assert_eq!(produced.base_offset, Some(1));
    three.end().await;
}

/// A follower without space catches up once there is some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_with_a_full_disk_recovers() {
    let three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[]);
    let follower = three.quorum.followers(id)[0];
    let node = three.node(follower);
    node.until(id, "follows", |status| status.leader.is_some()).await;
    three.machine(follower).vfs.fail(FaultRule {
        operation: Operation::Write,
        path_ends_with: ".log".to_owned(),
        skip: 0,
        times: 2,
        fault: Fault::Enospc,
    });
    three.node(three.quorum.leader(id)).produce("t", "one").await.expect("acknowledged by all");
    let bytes = node.log_bytes(id);
    assert_eq!(values_of(&bytes), ["one"]);
    three.end().await;
}

/// Logs go with their topic, at once or at the next start. A start that sees only
/// metadata from before its own registration deletes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_go_with_their_topic_and_not_before() {
    let mut three = Three::start(Limits::default()).await;
    let kept = three.quorum.create_topic("kept", &[]);
    let gone = three.quorum.create_topic("gone", &[]);
    let node = NodeId(1);
    for id in [kept, gone] {
        three.node(node).until_state(id, "open", |state| state.status().is_some()).await;
        // The logs are on a simulated disk; what is looked at here is the real one.
        let dir = three.machine(node).path().join("partitions").join(id.to_string());
        std::fs::create_dir_all(dir).expect("a directory");
    }
    let here = |three: &Three, id: ottla_proto::PartitionId| {
        three.machine(node).path().join("partitions").join(id.to_string()).exists()
    };
    three.take(node).stop().await;
    three.quorum.submit(Command::DeleteTopic { name: "gone".to_owned() }).expect("deleted");
    assert!(here(&three, gone));
    three.restart(node).await;
    three.node(node).until_state(kept, "open", |state| state.status().is_some()).await;
    assert!(here(&three, kept) && !here(&three, gone));
    assert_eq!(three.node(node).replicas.status(gone), None);
    // And while it runs.
    three.quorum.submit(Command::DeleteTopic { name: "kept".to_owned() }).expect("deleted");
    three.take(node).stop().await;
    assert!(!here(&three, kept));
    three.end().await;
}
