//! Several data directories, and many logs to open.

use super::cluster::{Machine, PATIENCE, Quorum, Three, batch};
use crate::{Acks, Limits, LocalPartition, OpeningProgress};
use ottla_commitlog::data_dir::DirectoryState;
use ottla_commitlog::vfs::{Fault, FaultRule, Operation};
use ottla_proto::{NodeId, PartitionId};
use std::path::PathBuf;
use tokio::time::{Instant, timeout};

/// The data directory in which a node has this log.
fn directory(three: &Three, node: NodeId, id: PartitionId) -> PathBuf {
    let partition = three.node(node).partition(id);
    let dir = partition.log().expect("open").dir().to_owned();
    dir.ancestors().nth(2).expect("within a data directory").to_owned()
}

/// One of two disks is missing when a node starts: what lies there is led by others,
/// the rest by this node too, and nothing is begun anew. With the disk everything is
/// back, and no log was lost on the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_missing_at_a_start_takes_only_its_own_logs_offline() {
    let mut three = Three::with_directories(Limits::default(), 2).await;
    let nodes = [1, 2, 3].map(NodeId);
    let mut ids = Vec::new();
    for topic in ["first", "second"] {
        let id = three.quorum.create_topic(topic, &[]);
        let leader = three.node(three.quorum.leader(id));
        // Acknowledged by all, so placed by all before the next one.
        leader.produce(topic, "one").await.expect("acknowledged");
        ids.push(id);
    }
    let [first, second] = ids[..] else { panic!("two topics") };
    let node = three.quorum.leader(second);
    let disks = three.machine(node).directories.clone();
    assert_eq!(directory(&three, node, first), disks[0]);
    assert_eq!(directory(&three, node, second), disks[1]);

    three.take(node).die().await;
    let aside = disks[1].with_extension("aside");
    std::fs::rename(&disks[1], &aside).expect("renamed");
    three.restart(node).await;
    let offline = |state: &LocalPartition| matches!(state, LocalPartition::Offline { .. });
    let state = three.node(node).until_state(second, "offline", offline).await;
    let LocalPartition::Offline { reason } = state else { panic!("just seen") };
    assert!(reason.contains("is offline") && reason.contains("d1"), "{reason}");
    let others = three.quorum.all_but(second, node);
    let known = |image: &std::sync::Arc<ottla_metadata::image::Image>| {
        image.is_offline(node, second) && image.partitions[&second].leader != Some(node)
    };
    three.quorum.until("the report", known).await;
    three.until_isr(first, &nodes).await;
    let leader = three.node(three.quorum.leader(second));
    leader.produce("second", "two").await.expect("acknowledged without it");
    assert_eq!(three.quorum.all_but(second, node), others);
    // What is new has a place all the same.
    let third = three.quorum.create_topic("third", &[]);
    three.node(node).until_state(third, "open", |state| state.status().is_some()).await;
    assert_eq!(directory(&three, node, third), disks[0]);

    three.take(node).die().await;
    std::fs::rename(&aside, &disks[1]).expect("renamed");
    three.restart(node).await;
    three.until_isr(second, &nodes).await;
    assert_eq!(directory(&three, node, second), disks[1]);
    assert_eq!(three.node(three.quorum.leader(second)).read_all("second").await, ["one", "two"]);
    three.end().await;
}

/// A log that failed makes its directory suspect: new ones go to the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_logs_avoid_a_directory_whose_disk_failed() {
    let three = Three::with_directories(Limits::default(), 2).await;
    let bad = three.quorum.create_topic("bad", &[]);
    let leader = three.quorum.leader(bad);
    three.node(leader).produce("bad", "one").await.expect("acknowledged");
    let disks = three.machine(leader).directories.clone();
    assert_eq!(directory(&three, leader, bad), disks[0]);
    three.machine(leader).vfs.fail(FaultRule {
        operation: Operation::Sync,
        path_ends_with: format!("{bad}/00000000000000000000.log"),
        skip: 0,
        times: 1,
        fault: Fault::Eio,
    });
    three.node(leader).produce("bad", "two").await.expect_err("the disk failed");
    let offline = |state: &LocalPartition| matches!(state, LocalPartition::Offline { .. });
    three.node(leader).until_state(bad, "offline", offline).await;
    for name in ["b", "c"] {
        let id = three.quorum.create_topic(name, &[]);
        three.node(leader).until_state(id, "open", |state| state.status().is_some()).await;
        assert_eq!(directory(&three, leader, id), disks[1]);
    }
    let states = three.node(leader).data_dirs.statuses();
    assert!(matches!(states[0].state, DirectoryState::Suspect { .. }), "{states:?}");
    assert_eq!(states[1].state, DirectoryState::Online);
    three.end().await;
}

/// Five hundred logs in two directories after a loss of power: all are scanned and
/// open, and the progress says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_logs_are_recovered_with_progress() {
    const LOGS: u32 = 500;
    let quorum = Quorum::new();
    let mut machine = Machine::with_directories(1, 2);
    let node = machine.start(&quorum).await;
    // What is there when the node first looks counts as there at its start.
    let mut looked = node.replicas.opening();
    let looked = timeout(PATIENCE, looked.wait_for(|progress| progress.known)).await;
    drop(looked.expect("in time").expect("the node lives"));
    let PartitionId { topic, .. } = quorum.create_wide_topic("wide", LOGS, &[]);
    let ids = (0..LOGS).map(|index| PartitionId { topic, index });
    for id in ids.clone() {
        node.until_state(id, "open", |state| state.leading().is_some()).await;
    }
    // One that never held anything would not be scanned.
    for index in 0..LOGS {
        let deadline = Instant::now() + PATIENCE;
        let sent = node.replicas.produce("wide", index, batch(&["one"]), Acks::All, deadline).await;
        sent.expect("taken").wait().await.expect("acknowledged");
    }
    // The first logs were new: none of them is counted.
    let done = OpeningProgress { known: true, ..OpeningProgress::default() };
    assert_eq!(*node.replicas.opening().borrow(), done);
    node.stop().await;
    machine.vfs.crash(1);

    let node = machine.start(&quorum).await;
    let mut progress = node.replicas.opening();
    let opened = timeout(PATIENCE, progress.wait_for(OpeningProgress::is_done)).await;
    let opened = *opened.expect("in time").expect("the node lives");
    assert_eq!((opened.logs, opened.done, opened.failed), (500, 500, 0));
    assert_eq!(opened.scanned, 500);
    assert!(opened.bytes_scanned > 0 && opened.cut == 0, "{opened:?}");
    let in_each: Vec<usize> = node.data_dirs.statuses().iter().map(|d| d.partitions).collect();
    assert_eq!(in_each, [250, 250]);
    for id in ids {
        node.until_state(id, "leads again", |state| state.leading().is_some()).await;
    }
    assert_eq!(node.read_all("wide").await, ["one"]);
    node.stop().await;
}
