//! Who belongs to the metadata quorum, changed by its leader. Nodes are admitted
//! as learners, which follow the log and have no vote; they get one, lose it, and
//! leave.
//!
//! Every change goes through openraft's membership entries, one at a time, and
//! runs to its end although its caller may be gone. A leader that dies in the
//! middle leaves a joint membership behind, in which both the old and the new
//! voters must agree: the next leader finishes it ([`tend`]).
//!
//! Whoever leaves loses its vote first, then what it was becomes a fact of the
//! metadata (`controller::voters`), then it gets the log no more. So wherever
//! that ends early, nobody votes who has been given up, and the same call again
//! does the rest.
//!
//! Not its job: whether a change may be made (`controller::members`).

use super::MetadataRaft;
use super::control::Submitted;
use super::inner::Inner;
use super::types::{Peer, TypeConfig};
use crate::controller::{self, Command, Member, Quorum};
use crate::image::Image;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _, RaftMetrics};
use ottla_proto::v1::{self, ErrorReason};
use ottla_proto::{ApiError, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Silence after which a member counts as down: twenty heartbeats, and longer
/// than an election.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(1);

/// Interval at which the leader looks for a change that nobody finished.
const TEND_INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait for a node that leaves to get the entry that says so, and for
/// another leader before this one leaves. A heartbeat or an election.
const FAREWELL: Duration = Duration::from_secs(1);

/// Interval of looking whether it has.
const FAREWELL_LOOK: Duration = Duration::from_millis(20);

type Change = ChangeMembers<u64, Peer>;

/// Makes a node a learner, if it is not a member of the quorum yet. Returns the
/// last entry that it must have applied before it may be elected.
pub(super) async fn enroll(inner: &Arc<Inner>, node: NodeId, peer: Peer) -> Result<u64, ApiError> {
    let raft = inner.raft.get().ok_or_else(|| inner.control.not_controller())?;
    let now = metrics(raft);
    if now.membership_config.membership().get_node(&node.0).is_some() {
        return Ok(now.last_log_index.unwrap_or(0));
    }
    whole(inner, |inner| async move {
        let _one_at_a_time = lock(&inner)?;
        let nodes = Change::AddNodes(BTreeMap::from([(node.0, peer)]));
        let index = change(&inner, nodes).await?;
        tracing::info!(%node, "follows the metadata quorum as a learner");
        Ok(index)
    })
    .await
}

/// A node came with an empty log. That a voter had a log this leader knows of: it
/// lost what it promised, though its directory is the one on record. A learner
/// promised nothing: it gets everything once more.
pub(super) async fn check_blank(inner: &Arc<Inner>, node: NodeId) -> Result<(), ApiError> {
    let quorum = see(inner)?;
    let Some(member) = quorum.members.get(&node) else { return Ok(()) };
    let Some(matched) = member.matched else { return Ok(()) };
    if member.voter {
        let message = format!(
            "node {node} is a voter, had the metadata log up to entry {matched}, and came without \
             any: its votes and its log are lost"
        );
        return Err(ApiError::new(ErrorReason::BlankDiskOfKnownVoter, message));
    }
    let raft = inner.raft.get().ok_or_else(|| inner.control.not_controller())?;
    let allowed = raft.trigger().allow_next_revert(&node.0, true).await;
    allowed.map(drop).map_err(|error| unknown_fate(&error))
}

/// The quorum, if this node leads it.
pub(super) async fn describe(inner: &Arc<Inner>) -> Result<v1::DescribeQuorumResponse, ApiError> {
    inner.control.until_active().await?;
    let quorum = see(inner)?;
    let members = quorum.members.iter().map(|(id, member)| v1::QuorumMember {
        node_id: id.0,
        voter: member.voter,
        up: member.up,
        lag: quorum.lag(*id),
    });
    Ok(v1::DescribeQuorumResponse {
        header: header(inner),
        leader_id: quorum.leader.0,
        term: inner.quorum.borrow().term,
        last_index: quorum.last,
        changing: quorum.changing,
        members: members.collect(),
    })
}

/// Gives a learner a vote.
pub(super) async fn add(
    inner: Arc<Inner>,
    request: v1::AddVoterRequest,
) -> Result<v1::AddVoterResponse, ApiError> {
    let node = NodeId(request.node_id);
    inner.control.until_active().await?;
    whole(&inner, |inner| async move {
        let _one_at_a_time = lock(&inner)?;
        let changed = controller::check_promotion(&see(&inner)?, &inner.image(), node)?;
        if changed {
            change(&inner, Change::AddVoterIds(BTreeSet::from([node.0]))).await?;
            tracing::info!(%node, "votes in the metadata quorum");
        }
        Ok(v1::AddVoterResponse { header: header(&inner), changed, voters: voters(&inner)? })
    })
    .await
}

/// Takes a node out of the cluster for good.
pub(super) async fn remove(
    inner: Arc<Inner>,
    request: v1::RemoveNodeRequest,
) -> Result<v1::RemoveNodeResponse, ApiError> {
    let node = NodeId(request.node_id);
    inner.control.until_active().await?;
    whole(&inner, |inner| async move {
        let _one_at_a_time = lock(&inner)?;
        let (quorum, image) = (see(&inner)?, inner.image());
        let remaining = if request.force { replicas(&image, node) } else { 0 };
        if remaining == 0 {
            controller::check_removable(&image, node)?;
        } else {
            controller::check_gone(&quorum, &image, node)?;
            controller::check_replaceable(&image, node)?;
        }
        let votes = controller::check_departure(&quorum, node)?;
        if node == inner.options.node_id {
            inner.hand_over(Instant::now() + FAREWELL).await;
            // The next leader does it, when it is asked again.
            return Err(inner.control.not_controller());
        }
        let command = if remaining == 0 {
            Command::RemoveNode { node_id: node }
        } else {
            Command::RetireDirectory { node_id: node }
        };
        leave(&inner, node, votes, command).await?;
        Ok(v1::RemoveNodeResponse {
            header: header(&inner),
            remaining_replicas: remaining,
            voters: voters(&inner)?,
        })
    })
    .await
}

/// Gives up the data directory of a node that is stopped.
pub(super) async fn replace_disk(
    inner: Arc<Inner>,
    request: v1::ReplaceDiskRequest,
) -> Result<v1::ReplaceDiskResponse, ApiError> {
    let node = NodeId(request.node_id);
    inner.control.until_active().await?;
    whole(&inner, |inner| async move {
        let _one_at_a_time = lock(&inner)?;
        controller::check_gone(&see(&inner)?, &inner.image(), node)?;
        give_up(&inner, node).await?;
        Ok(v1::ReplaceDiskResponse {
            header: header(&inner),
            replicas: replicas(&inner.image(), node),
            voters: voters(&inner)?,
        })
    })
    .await
}

/// As [`replace_disk`], on the word of a node that came with another directory.
pub(super) async fn replace_unasked(inner: &Arc<Inner>, node: NodeId) -> Result<(), ApiError> {
    inner.control.until_active().await?;
    whole(inner, |inner| async move {
        let _one_at_a_time = lock(&inner)?;
        give_up(&inner, node).await
    })
    .await
}

async fn give_up(inner: &Arc<Inner>, node: NodeId) -> Result<(), ApiError> {
    controller::check_replaceable(&inner.image(), node)?;
    let votes = controller::check_departure(&see(inner)?, node)?;
    leave(inner, node, votes, Command::RetireDirectory { node_id: node }).await
}

/// First the vote, then the fact, then the log.
async fn leave(
    inner: &Arc<Inner>,
    node: NodeId,
    votes: bool,
    command: Command,
) -> Result<(), ApiError> {
    if votes {
        change(inner, Change::RemoveVoters(BTreeSet::from([node.0]))).await?;
        tracing::info!(%node, "votes in the metadata quorum no more");
    }
    let Submitted { .. } = inner.control.submit_here(command).await?;
    forget(inner, node).await
}

/// Ends the replication of the log to a node that has left. One that lives is
/// told before.
async fn forget(inner: &Arc<Inner>, node: NodeId) -> Result<(), ApiError> {
    let told = see(inner)?.last;
    let deadline = Instant::now() + FAREWELL;
    loop {
        let quorum = see(inner)?;
        let Some(member) = quorum.members.get(&node) else { return Ok(()) };
        let waits = member.up && member.matched.is_none_or(|matched| matched < told);
        if !waits || Instant::now() >= deadline {
            break;
        }
        tokio::time::sleep(FAREWELL_LOOK).await;
    }
    change(inner, Change::RemoveNodes(BTreeSet::from([node.0]))).await?;
    tracing::info!(%node, "has left the metadata quorum");
    Ok(())
}

/// While this node leads: finishes what a leader before it began, until the node
/// shuts down.
pub(super) async fn tend(inner: Arc<Inner>) {
    let mut quorum = inner.quorum.subscribe();
    loop {
        let leads = quorum.borrow_and_update().active_here;
        if leads && let Err(error) = finish(&inner).await {
            tracing::warn!(%error, "a change of the quorum's members is not finished");
        }
        tokio::select! {
            () = inner.stop.cancelled() => return,
            changed = quorum.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TEND_INTERVAL), if leads => {}
        }
    }
}

async fn finish(inner: &Arc<Inner>) -> Result<(), ApiError> {
    // Whoever holds it finishes by himself.
    let Ok(_one_at_a_time) = lock(inner) else { return Ok(()) };
    let raft = inner.raft.get().ok_or_else(|| inner.control.not_controller())?;
    if metrics(raft).membership_config.membership().get_joint_config().len() > 1 {
        change(inner, Change::AddVoterIds(BTreeSet::new())).await?;
        tracing::info!("finished a change of the quorum's voters that another leader began");
    }
    let image = inner.image();
    let gone = |node: &NodeId| {
        !image.voter_directories.contains_key(node)
            && image.retired_directories.values().any(|owner| owner == node)
    };
    let learners = inner.quorum.borrow().learners.clone();
    for node in learners.iter().filter(|node| gone(node)) {
        forget(inner, *node).await?;
    }
    Ok(())
}

/// A node that is configured as a voter, and is none, asks for its vote as soon
/// as it could have it: after its disk was replaced, or when it is added to a
/// cluster on purpose.
pub(super) async fn claim_vote(inner: Arc<Inner>) {
    let node = inner.options.node_id;
    if !inner.addresses.configured.contains_key(&node.0) {
        return;
    }
    let mut quorum = inner.quorum.subscribe();
    loop {
        let learns = |s: &super::QuorumStatus| s.may_campaign && s.learners.contains(&node);
        tokio::select! {
            () = inner.stop.cancelled() => return,
            status = quorum.wait_for(learns) => if status.is_err() { return },
        }
        let call = super::administration::Call::AddVoter(v1::AddVoterRequest { node_id: node.0 });
        let asked = super::controller_client::administer(&inner, call, Instant::now() + FAREWELL);
        if let Err(error) = asked.await {
            tracing::info!(%error, "no vote in the metadata quorum yet");
        }
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(TEND_INTERVAL) => {}
        }
    }
}

/// Runs a change to its end, whether or not its caller waits.
async fn whole<T, F>(inner: &Arc<Inner>, run: impl FnOnce(Arc<Inner>) -> F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ApiError>> + Send + 'static,
{
    let task = inner.tasks.spawn(run(Arc::clone(inner)));
    task.await.unwrap_or_else(|error| Err(unknown_fate(&error)))
}

fn lock(inner: &Inner) -> Result<tokio::sync::MutexGuard<'_, ()>, ApiError> {
    inner.changing.try_lock().map_err(|_| change_running())
}

/// One change of the membership, and where in the log it ended. Fails when this
/// node's leadership ends before: the change may be made or not.
async fn change(inner: &Inner, change: Change) -> Result<u64, ApiError> {
    let raft = inner.raft.get().ok_or_else(|| inner.control.not_controller())?;
    let mut quorum = inner.quorum.subscribe();
    tokio::select! {
        changed = raft.change_membership(change, true) => {
            Ok(changed.map_err(|error| refused(inner, error))?.log_id.index)
        }
        _ = quorum.wait_for(|status| !status.active_here) => {
            Err(unknown_fate(&"this node leads the metadata quorum no more"))
        }
    }
}

fn metrics(raft: &MetadataRaft) -> RaftMetrics<TypeConfig> {
    // Cloned at once: holding the reference could block openraft.
    raft.metrics().borrow_watched().clone()
}

/// The quorum as this node sees it, if it leads.
fn see(inner: &Inner) -> Result<Quorum, ApiError> {
    let raft = inner.raft.get().ok_or_else(|| inner.control.not_controller())?;
    let now = metrics(raft);
    let (Some(heard), Some(progress)) = (now.heartbeat, now.replication) else {
        return Err(inner.control.not_controller());
    };
    let effective = now.membership_config.membership();
    let voters: BTreeSet<u64> = effective.voter_ids().collect();
    let member = |id: u64| Member {
        voter: voters.contains(&id),
        matched: progress.get(&id).and_then(|at| at.as_ref()).map(|at| at.index),
        up: id == inner.options.node_id.0
            || heard
                .get(&id)
                .and_then(|at| at.as_ref())
                .is_some_and(|at| at.elapsed() <= SILENT_AFTER),
    };
    Ok(Quorum {
        leader: inner.options.node_id,
        changing: effective.get_joint_config().len() > 1
            || now.membership_config.log_id() != now.committed_membership_config.log_id(),
        last: now.last_log_index.unwrap_or(0),
        members: effective.nodes().map(|(id, _)| (NodeId(*id), member(*id))).collect(),
    })
}

fn voters(inner: &Inner) -> Result<Vec<u64>, ApiError> {
    Ok(see(inner)?.voters().into_iter().map(|node| node.0).collect())
}

fn replicas(image: &Image, node: NodeId) -> u32 {
    let hosted = image.partitions.values().filter(|p| p.replicas.contains(&node)).count();
    u32::try_from(hosted).unwrap_or(u32::MAX)
}

fn header(inner: &Inner) -> Option<v1::ResponseHeader> {
    Some(inner.header(inner.image().offset))
}

fn change_running() -> ApiError {
    let what = "another change of the quorum's members is running: only one at a time is safe";
    ApiError::new(ErrorReason::MembershipChangeRunning, what)
}

fn unknown_fate(what: &dyn std::fmt::Display) -> ApiError {
    let what = format!("whether the quorum's members were changed is not known: {what}");
    ApiError::new(ErrorReason::LeadershipLost, what)
}

/// What openraft said to a change of the membership.
fn refused(inner: &Inner, error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ApiError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => inner.control.not_controller(),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_),
        )) => change_running(),
        other => unknown_fate(&other),
    }
}
