//! Nodes come to a quorum that exists.

use super::cluster::{Cluster, PATIENCE};
use crate::raft::LogLimits;
use crate::raft::types::{Peer, Proposal};
use crate::raft::{AdminCall, MetadataError};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{EntryPayload, Membership};
use ottla_proto::v1::{
    AddVoterRequest, CreateTopicRequest, DescribeQuorumRequest, ErrorReason, RemoveNodeRequest,
    ReplaceDiskRequest,
};
use ottla_proto::{ApiError, DirectoryId, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

const FOUR: NodeId = NodeId(4);

/// Pause before a call that can succeed later is made again.
const AGAIN: Duration = Duration::from_millis(20);

/// An operator's call to any node, again for as long as that can help: all calls
/// here may be repeated.
async fn call<C: AdminCall + Clone>(cluster: &Cluster, call: C) -> Result<C::Response, ApiError> {
    call_past(cluster, None, call).await
}

/// The same to any node but one.
async fn call_past<C: AdminCall + Clone>(
    cluster: &Cluster,
    past: Option<u64>,
    call: C,
) -> Result<C::Response, ApiError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let node = cluster.nodes.values().find(|node| Some(node.id.0) != past).expect("one runs");
        match node.metadata.administer(call.clone(), deadline).await {
            Err(error) if error.is_retriable() && Instant::now() < deadline => {
                tokio::time::sleep(AGAIN).await;
            }
            outcome => return outcome,
        }
    }
}

async fn add(cluster: &Cluster, node: u64) -> Vec<u64> {
    call(cluster, AddVoterRequest { node_id: node }).await.expect("votes").voters
}

async fn remove(cluster: &Cluster, node_id: u64) -> Result<Vec<u64>, ApiError> {
    let request = RemoveNodeRequest { node_id, force: false };
    // The node itself may not live to see it applied.
    call_past(cluster, Some(node_id), request).await.map(|answer| answer.voters)
}

/// Waits until the quorum's leader knows that a node is gone, and gives its disk up.
async fn replace(cluster: &Cluster, node_id: u64) -> Vec<u64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call(cluster, ReplaceDiskRequest { node_id }).await {
            Err(error) if error.reason == ErrorReason::NodeInUse && Instant::now() < deadline => {
                tokio::time::sleep(AGAIN).await;
            }
            outcome => return outcome.expect("its process is gone").voters,
        }
    }
}

/// Every node sees these voters.
async fn votes_everywhere(cluster: &Cluster, voters: &[u64]) {
    let expected: Vec<NodeId> = voters.iter().copied().map(NodeId).collect();
    for node in cluster.nodes.values() {
        let raft = node.metadata.inner.raft.get().expect("has joined");
        let there = |m: &openraft::RaftMetrics<_>| {
            let membership = m.committed_membership_config.membership();
            membership.get_joint_config().len() == 1 && membership.voter_ids().eq(voters.to_vec())
        };
        raft.wait(Some(PATIENCE)).metrics(there, "the voters").await.expect("in time");
        node.quorum_where("the voters", |status| status.voters == expected).await;
    }
}

async fn evicted(cluster: &Cluster, node: NodeId) -> MetadataError {
    let evicted = cluster.node(node).metadata.evicted();
    tokio::time::timeout(PATIENCE, evicted).await.expect("is told that it is no part any more")
}

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
    cluster.limits = LogLimits { snapshot_every: 20, kept: 5, ..LogLimits::default() };
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

/// Two learners get a vote each; then two of five may die, and were the voters as
/// before, nothing could be decided.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn learners_get_a_vote_and_it_counts() {
    let mut cluster = Cluster::formed().await;
    for id in [4, 5] {
        cluster.start(id).await;
        let voters = add(&cluster, id).await;
        assert_eq!(voters, (1..=id).collect::<Vec<_>>());
        let again = call(&cluster, AddVoterRequest { node_id: id }).await.expect("is fine");
        assert!(!again.changed);
    }
    votes_everywhere(&cluster, &[1, 2, 3, 4, 5]).await;
    let quorum = call(&cluster, DescribeQuorumRequest {}).await.expect("has a leader");
    assert!(!quorum.changing);
    assert!(quorum.members.iter().all(|member| member.voter && member.up), "{quorum:?}");
    let dead = [NodeId(1), NodeId(2)];
    for id in dead {
        cluster.kill(id).await;
    }
    let node = cluster.node(FOUR);
    node.image_where("the dead to be fenced", |i| !dead.iter().any(|id| i.is_active(*id))).await;
    node.create("three-of-five").await.expect("three of five decide");
    for id in dead {
        cluster.start(id.0).await;
        cluster.node(id).unfenced_here(&[1, 2, 3, 4, 5].map(|_| id.0)).await;
    }
    assert_eq!(
        call(&cluster, AddVoterRequest { node_id: 9 }).await.expect_err("no such").reason,
        ErrorReason::UnknownNode
    );
}

/// The leader dies when the voters before and after a change must both agree: the
/// next one ends the change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_finished_by_the_next_leader() {
    let mut cluster = Cluster::formed().await;
    cluster.start(4).await;
    cluster.node(FOUR).unfenced_here(&[1, 2, 3, 4]).await;
    let leader = cluster.leader().await;
    let raft = cluster.node(leader).metadata.inner.raft.get().expect("has joined").clone();
    // As after the first half of a promotion; nobody here does the second.
    let _held = cluster.node(leader).metadata.inner.changing.lock().await;
    let known = raft.metrics().borrow_watched().membership_config.clone();
    let nodes: BTreeMap<u64, Peer> =
        known.membership().nodes().map(|(id, peer)| (*id, peer.clone())).collect();
    let both = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2, 3, 4])];
    let joint = Membership::new(both, nodes).expect("all are members");
    let payload = EntryPayload::<Proposal, _, _>::Blank;
    raft.append_membership(joint, payload, []).await.expect("is committed");
    drop((raft, _held));
    cluster.kill(leader).await;
    for node in cluster.nodes.values() {
        let raft = node.metadata.inner.raft.get().expect("has joined");
        let ended = |m: &openraft::RaftMetrics<_>| {
            m.committed_membership_config.membership().get_joint_config().len() == 1
        };
        raft.wait(Some(PATIENCE)).metrics(ended, "the end of the change").await.expect("ends");
    }
    votes_everywhere(&cluster, &[1, 2, 3, 4]).await;
    cluster.nodes[&FOUR].create("after").await.expect("three of four decide");
}

/// Leader or not: a node without replicas is removed, and stays out with what it
/// has. With a blank directory it is a new node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_stays_out() {
    let mut cluster = Cluster::formed().await;
    cluster.start(4).await;
    add(&cluster, 4).await;
    for leads in [true, false] {
        let leader = cluster.leader().await;
        let other = cluster.nodes.keys().copied().find(|id| *id != leader).expect("more");
        let gone = if leads { leader } else { other };
        remove(&cluster, gone.0).await.expect("has no replicas");
        let why = evicted(&cluster, gone).await;
        assert!(why.to_string().starts_with("NODE_REMOVED"), "{why}");
        cluster.kill(gone).await;
        let rest: Vec<u64> = cluster.nodes.keys().map(|id| id.0).collect();
        votes_everywhere(&cluster, &rest).await;
        let image = cluster.nodes.values().next().expect("some").metadata.image();
        assert!(!image.brokers.contains_key(&gone) && image.topics.is_empty());
        // Removing it again is fine.
        remove(&cluster, gone.0).await.expect("has left");

        // Started again it is told so, and nobody takes notice of it.
        let term = cluster.nodes.values().next().expect("some").metadata.quorum().term;
        cluster.start(gone.0).await;
        let why = evicted(&cluster, gone).await;
        assert!(matches!(why, MetadataError::Removed { .. }), "{why}");
        cluster.kill(gone).await;
        let now = cluster.nodes.values().next().expect("some").metadata.quorum().term;
        assert_eq!(now, term, "a node that was removed disturbs nobody");

        cluster.lose_disk(gone);
        let mut blank = cluster.options(gone);
        let error = cluster.start_with(blank.clone()).await.expect_err("formatted as before");
        assert!(matches!(error, MetadataError::Removed { .. }), "{error}");
        blank.directory_id = DirectoryId::random();
        blank.voters.remove(&gone);
        cluster.start_with(blank).await.expect("is a new node");
        let all: Vec<u64> = cluster.nodes.keys().map(|id| id.0).collect();
        cluster.node(gone).unfenced_here(&all).await;
        assert_eq!(add(&cluster, gone.0).await, [1, 2, 3, 4]);
    }
    cluster.nodes[&FOUR].create("orders").await.expect("creates");
    let image = cluster.nodes[&FOUR].metadata.image();
    let busy = image.partitions.values().next().expect("a partition").replicas[0];
    let error = remove(&cluster, busy.0).await.expect_err("has replicas");
    assert_eq!(error.reason, ErrorReason::NodeInUse, "{error}");
}

/// A voter's disk is lost: what it had promised counts no more before it is let in
/// again; it comes back as a learner, and takes its vote when it has caught up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_disk_is_replaced() {
    let mut cluster = Cluster::formed().await;
    let lost = cluster.follower().await.id;
    let alive = call(&cluster, ReplaceDiskRequest { node_id: lost.0 }).await;
    assert_eq!(alive.expect_err("it lives").reason, ErrorReason::NodeInUse);
    cluster.follower().await.create("kept").await.expect("creates");
    cluster.kill(lost).await;
    let rest: Vec<u64> = cluster.nodes.keys().map(|id| id.0).collect();
    assert_eq!(replace(&cluster, lost.0).await, rest);
    assert_eq!(replace(&cluster, lost.0).await, rest, "again is fine");
    votes_everywhere(&cluster, &rest).await;
    let image = cluster.nodes.values().next().expect("two run").metadata.image();
    assert!(image.brokers.contains_key(&lost), "its replicas stay assigned");
    assert!(image.partitions.values().all(|p| !p.isr.contains(&lost) && !p.elr.contains(&lost)));

    // The disk turns up after all: it is too late.
    cluster.start(lost.0).await;
    let why = evicted(&cluster, lost).await;
    assert!(matches!(why, MetadataError::Removed { .. }), "{why}");
    cluster.kill(lost).await;

    cluster.lose_disk(lost);
    let mut blank = cluster.options(lost);
    blank.directory_id = DirectoryId::random();
    cluster.start_with(blank).await.expect("joins");
    cluster.node(lost).unfenced_here(&[1, 2, 3]).await;
    votes_everywhere(&cluster, &[1, 2, 3]).await;
    // And its vote is needed.
    let other = NodeId(rest[0]);
    cluster.kill(other).await;
    let node = cluster.node(lost);
    node.image_where("the other to be fenced", |image| !image.is_active(other)).await;
    node.image_where("what was kept", |image| image.topic_by_name("kept").is_some()).await;
    node.create("after").await.expect("two of three decide");
}

/// A voter that comes without its log, though with the directory on record, is
/// refused while the leader remembers the log it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_lost_only_its_log_is_refused() {
    let mut cluster = Cluster::formed().await;
    let lost = cluster.follower().await.id;
    cluster.kill(lost).await;
    cluster.lose_disk(lost);
    let error = cluster.start_with(cluster.options(lost)).await.expect_err("is refused");
    assert!(matches!(error, MetadataError::BlankDiskOfKnownVoter { .. }), "{error}");
}

/// No voter goes whose going leaves no majority, and without one none comes or goes:
/// nothing that was refused happens later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_changes_no_voters() {
    let mut cluster = Cluster::formed().await;
    cluster.start(4).await;
    cluster.node(FOUR).unfenced_here(&[1, 2, 3, 4]).await;
    let leader = cluster.leader().await;
    let others: Vec<NodeId> = cluster.voters.keys().copied().filter(|id| *id != leader).collect();
    let (dead, alive) = (others[0], others[1]);
    cluster.kill(dead).await;
    let node = cluster.node(leader);
    let deadline = || Instant::now() + PATIENCE;
    loop {
        let quorum = node.metadata.administer(DescribeQuorumRequest {}, deadline()).await;
        let quorum = quorum.expect("two of three decide");
        if quorum.members.iter().filter(|member| member.up).count() == 3 {
            break;
        }
        tokio::time::sleep(AGAIN).await;
    }
    let request = RemoveNodeRequest { node_id: alive.0, force: false };
    let error = node.metadata.administer(request, deadline()).await.expect_err("one of two");
    assert_eq!(error.reason, ErrorReason::TooFewVoters, "{error}");
    cluster.kill(alive).await;
    let node = cluster.node(leader);
    node.quorum_where("no leader here", |status| status.leader.is_none()).await;
    let soon = || Instant::now() + Duration::from_millis(500);
    let request = AddVoterRequest { node_id: 4 };
    let error = node.metadata.administer(request, soon()).await.expect_err("one of three");
    assert_eq!(error.reason, ErrorReason::ControllerNotAvailable, "{error}");
    let request = RemoveNodeRequest { node_id: dead.0, force: false };
    let error = node.metadata.administer(request, soon()).await.expect_err("one of three");
    assert_eq!(error.reason, ErrorReason::ControllerNotAvailable, "{error}");
    for id in &others {
        cluster.start(id.0).await;
    }
    cluster.node(FOUR).unfenced_here(&[1, 2, 3, 4]).await;
    votes_everywhere(&cluster, &[1, 2, 3]).await;
    assert_eq!(add(&cluster, 4).await, [1, 2, 3, 4]);
}

/// A node that was admitted at some entry is not elected before it has applied
/// that, though the membership it has says that its own vote is enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_elected_on_a_membership_of_the_past() {
    let mut cluster = Cluster::new().await;
    let first = NodeId(1);
    cluster.voters.retain(|id, _| *id == first);
    cluster.start(1).await;
    cluster.node(first).unfenced_here(&[1]).await;
    cluster.kill(first).await;
    let options = cluster.options(first);
    crate::raft::joining::write(options.shared.vfs(), &options.dir, 1_000).expect("writes");
    cluster.start(1).await;
    let mut quorum = cluster.node(first).metadata.quorum_changes();
    // Many election timeouts.
    let elected = quorum.wait_for(|status| status.active_here);
    let elected = tokio::time::timeout(Duration::from_secs(1), elected).await;
    elected.expect_err("it lacks what it was admitted at");
    cluster.kill(first).await;
    crate::raft::joining::write(options.shared.vfs(), &options.dir, 1).expect("writes");
    cluster.start(1).await;
    cluster.node(first).unfenced_here(&[1]).await;
}

/// A node that was removed while it was away, and remembers a leader that leads no
/// more, is told by the one that does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_told_by_whoever_leads_now() {
    let mut cluster = Cluster::formed().await;
    cluster.start(4).await;
    cluster.node(FOUR).unfenced_here(&[1, 2, 3, 4]).await;
    let remembered = cluster.leader().await;
    cluster.kill(FOUR).await;
    remove(&cluster, 4).await.expect("has no replicas");
    cluster.kill(remembered).await;
    for node in cluster.nodes.values() {
        node.quorum_where("another", |s| s.leader.is_some_and(|l| l != remembered)).await;
    }
    cluster.start(remembered.0).await;
    cluster.node(remembered).unfenced_here(&[1, 2, 3]).await;
    cluster.start(4).await;
    let why = evicted(&cluster, FOUR).await;
    assert!(matches!(why, MetadataError::Removed { .. }), "{why}");
}
