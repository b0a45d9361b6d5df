//! Disks with little room, and with enough again.

use super::cluster::{PATIENCE, Three, batch, values_of};
use crate::{Acks, Limits, Room};
use ottla_commitlog::vfs::Space;
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{ApiError, NodeId};
use std::time::Duration;
use tokio::time::Instant;

/// On disks of a thousand bytes: below 150 somebody should look, below 50 clients do not
/// write, below 25 nobody copies.
const ALL: Space = Space { free: 1000, total: 1000 };

fn limits() -> Limits {
    Limits { disk_check: Duration::from_millis(10), ..Limits::default() }
}

/// The node has seen that there are so many bytes left.
async fn has_seen(three: &Three, node: NodeId, free: u64) -> Room {
    let space = Some(Space { free, ..ALL });
    three.machine(node).vfs.set_space(space);
    let deadline = Instant::now() + PATIENCE;
    let mut again = tokio::time::interval(Duration::from_millis(5));
    loop {
        again.tick().await;
        let disks = three.node(node).replicas.disks();
        if disks[0].space == space {
            return disks[0].room;
        }
        assert!(Instant::now() < deadline, "never seen: {disks:?}");
    }
}

async fn refused(three: &Three, leader: NodeId) -> ApiError {
    three.node(leader).produce("t", "refused").await.expect_err("too little room")
}

/// A leader refuses clients by name, and nobody else anything; with a quarter more room it
/// takes writes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_refuses_clients_until_there_is_room() {
    let three = Three::with_space(limits(), ALL).await;
    let id = three.quorum.create_topic("t", &[]);
    let leader = three.quorum.leader(id);
    let node = three.node(leader);
    node.produce("t", "one").await.expect("acknowledged");
    assert_eq!(has_seen(&three, leader, 149).await, Room::Low);
    node.produce("t", "two").await.expect("there is room yet");

    assert_eq!(has_seen(&three, leader, 49).await, Room::NoWrites);
    let error = refused(&three, leader).await;
    assert_eq!((error.reason, error.is_indefinite()), (R::DiskFull, false));
    assert!(error.is_retriable() && error.retry_after.is_some());
    let told = ["directory", "free_bytes", "threshold_bytes"].map(|name| &error.metadata[name][..]);
    let path = three.machine(leader).path().display().to_string();
    assert_eq!(told, [&path, "49", "50"]);
    assert_eq!(node.read_all("t").await, ["one", "two"]);
    // What nodes write themselves goes on.
    let epoch = node.until(id, "leads", |_| true).await.leader_epoch;
    let deadline = Instant::now() + PATIENCE;
    let own = node.replicas.produce_in(("t", 0), epoch, batch(&["three"]), deadline).await;
    own.expect("taken").wait().await.expect("acknowledged by all");

    assert_eq!(has_seen(&three, leader, 60).await, Room::NoWrites);
    refused(&three, leader).await;
    assert_eq!(has_seen(&three, leader, 70).await, Room::Low);
    node.produce("t", "four").await.expect("acknowledged");
    assert_eq!(node.read_all("t").await, ["one", "two", "three", "four"]);
    three.end().await;
}

/// A follower copies on where its leader has room, down to half of what clients' writes
/// must leave; then it leaves the ISR, and comes back when there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_copies_for_longer_and_catches_up() {
    let limits = Limits { replica_lag_max: Duration::from_millis(500), ..limits() };
    let three = Three::with_space(limits, ALL).await;
    let id = three.quorum.create_topic("t", &[]);
    let (leader, followers) = (three.quorum.leader(id), three.quorum.followers(id));
    let all = [leader, followers[0], followers[1]];
    three.until_isr(id, &all).await;
    assert_eq!(has_seen(&three, followers[0], 30).await, Room::NoWrites);
    three.node(leader).produce("t", "one").await.expect("acknowledged by all");
    let copy = three.node(followers[0]);
    copy.until(id, "copied", |status| status.log_end == 1).await;

    assert_eq!(has_seen(&three, followers[0], 20).await, Room::NoCopies);
    three.node(leader).produce("t", "two").await.expect("acknowledged by two");
    three.until_isr(id, &all[..1].iter().chain(&all[2..]).copied().collect::<Vec<_>>()).await;
    assert_eq!(copy.until(id, "nothing more", |_| true).await.log_end, 1);

    assert_eq!(has_seen(&three, followers[0], 900).await, Room::Enough);
    three.until_isr(id, &all).await;
    assert_eq!(values_of(&copy.log_bytes(id)), ["one", "two"]);
    three.end().await;
}

/// Other thresholds hold at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thresholds_change_under_way() {
    let slow = Limits { disk_check: Duration::from_hours(1), ..Limits::default() };
    let three = Three::with_space(slow, Space { free: 40, ..ALL }).await;
    let id = three.quorum.create_topic("t", &[]);
    let leader = three.quorum.leader(id);
    refused(&three, leader).await;
    let never = Limits { disk_refuse_free_bytes: 0, ..slow };
    three.node(leader).replicas.set_limits(never);
    let deadline = Instant::now() + PATIENCE;
    let mut again = tokio::time::interval(Duration::from_millis(5));
    while three.node(leader).replicas.disks()[0].room != Room::Low {
        again.tick().await;
        assert!(Instant::now() < deadline, "never followed");
    }
    three.node(leader).produce_with("t", "one", Acks::All, PATIENCE).await.expect("acknowledged");
    three.end().await;
}
