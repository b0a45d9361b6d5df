//! Disks that fail, fill up and lose power; logs that are deleted, and those
//! that must not be.

use super::cluster::{PATIENCE, Three, values_of};
use crate::{Acks, Limits, LocalPartition};
use ottla_commitlog::vfs::{Fault, FaultRule, Operation};
use ottla_metadata::controller::Command;
use ottla_metadata::image::Image;
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{NodeId, PartitionId};
use std::sync::Arc;

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

/// The rule that makes every write to this log fail on that node.
fn fail_writes(three: &Three, node: NodeId, id: PartitionId, operation: Operation) {
    let dir = three.node(node).partition(id).log().expect("open").dir().to_owned();
    let name = dir.file_name().expect("a name").to_string_lossy().into_owned();
    three.machine(node).vfs.fail(FaultRule {
        operation,
        path_ends_with: format!("{name}/00000000000000000000.log"),
        skip: 0,
        times: 1,
        fault: Fault::Eio,
    });
}

/// A failed disk under a leader takes the partition offline there, with a name, and
/// another replica leads: nothing acknowledged is missing. Other partitions of the
/// node go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_leads_when_the_disk_under_the_leader_fails() {
    for operation in [Operation::Write, Operation::Sync] {
        let mut three = Three::start(Limits::default()).await;
        let good = three.quorum.create_topic("good", &[]);
        let bad = three.quorum.create_topic("bad", &[]);
        let leader = three.quorum.leader(bad);
        three.node(leader).produce("bad", "one").await.expect("acknowledged");
        fail_writes(&three, leader, bad, operation);
        let node = three.node(leader);
        let error = node.produce("bad", "two").await.expect_err("the disk failed");
        assert_eq!((error.reason, error.is_indefinite()), (R::LeadershipLost, true));
        let offline = |state: &LocalPartition| matches!(state, LocalPartition::Offline { .. });
        node.until_state(bad, "offline", offline).await;
        let others = three.quorum.all_but(bad, leader);
        three.until_isr(bad, &others).await;
        let second = three.quorum.leader(bad);
        assert_ne!(second, leader);
        three.node(second).produce("bad", "three").await.expect("acknowledged");
        let error = node.produce("bad", "four").await.expect_err("somebody else leads");
        assert_eq!((error.reason, error.is_indefinite()), (R::NotLeader, false));
        let read = three.node(second).read_all("bad").await;
        assert_eq!(read.first().map(String::as_str), Some("one"), "{operation:?}");
        assert_eq!(read.last().map(String::as_str), Some("three"), "{operation:?}");
        let other = three.node(three.quorum.leader(good));
        other.produce("good", "fine").await.expect("acknowledged");
        // A new process looks at the disk anew and catches up.
        three.take(leader).die().await;
        three.restart(leader).await;
        three.until_isr(bad, &[1, 2, 3].map(NodeId)).await;
        assert_eq!(three.node(leader).log_bytes(bad), three.node(second).log_bytes(bad));
        three.end().await;
    }
}

/// A follower whose disk failed leaves the ISR at once: writes do not wait until it
/// has lagged for long enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_leaves_the_isr_when_its_disk_fails() {
    // Nobody is ever found to lag.
    let limits = Limits { replica_lag_max: PATIENCE * 100, ..Limits::default() };
    let three = Three::start(limits).await;
    let id = three.quorum.create_topic("t", &[]);
    let [gone, stays] = three.quorum.followers(id)[..] else { panic!("two followers") };
    let leader = three.quorum.leader(id);
    three.node(leader).produce("t", "one").await.expect("acknowledged");
    fail_writes(&three, gone, id, Operation::Write);
    three.node(leader).produce("t", "two").await.expect("acknowledged without it");
    three.until_isr(id, &[leader, stays]).await;
    three.end().await;
}

/// The last in-sync replica stays eligible when its disk fails: nobody leads, and
/// nobody else is elected, until it is back with all that was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_in_sync_replica_is_waited_for() {
    let mut three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[("min.insync.replicas", "1")]);
    let leader = three.quorum.leader(id);
    for follower in three.quorum.followers(id) {
        three.take(follower).die().await;
    }
    three.until_isr(id, &[leader]).await;
    three.node(leader).produce("t", "one").await.expect("acknowledged");
    fail_writes(&three, leader, id, Operation::Sync);
    three.node(leader).produce("t", "two").await.expect_err("the disk failed");
    let nobody = |image: &Arc<Image>| image.partitions[&id].leader.is_none();
    three.quorum.until("nobody leads", nobody).await;
    for follower in three.quorum.image().partitions[&id].replicas.clone() {
        if follower != leader {
            three.restart(follower).await;
        }
    }
    let partition = Arc::clone(&three.quorum.image().partitions[&id]);
    assert_eq!((partition.isr.as_slice(), partition.elr.as_slice()), (&[][..], &[leader][..]));
    assert_eq!(partition.leader, None);
    three.take(leader).die().await;
    three.restart(leader).await;
    three.until_isr(id, &[1, 2, 3].map(NodeId)).await;
    let read = three.node(leader).read_all("t").await;
    assert_eq!(read.first().map(String::as_str), Some("one"));
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

/// A follower without space catches up once there is some, and meanwhile neither
/// fetches nor tries more than once a second.
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
    let full = std::time::Instant::now();
    three.node(three.quorum.leader(id)).produce("t", "one").await.expect("acknowledged by all");
    // Two attempts failed, and there was a pause behind each.
    assert!(full.elapsed() >= std::time::Duration::from_secs(2), "{:?}", full.elapsed());
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
