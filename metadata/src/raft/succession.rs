//! Not waiting for an election timeout when the leader of the quorum is known
//! to be gone: its heartbeat stream to this broker broke, and its host refuses
//! connections to its port.
//!
//! Raft itself knows only silence. A follower honours the leader's lease and
//! then waits for its own timeout, half a second in all. On proof it may do
//! what it does when the leader hands over: campaign at once, with a vote
//! request that others grant although the lease has not run out. Whoever
//! campaigns must still have the longer log and a majority, so this costs no
//! safety; leases only serve reads that this project does not make.
//!
//! A leader that lives is not deposed again and again by a node that can no
//! longer reach it: without a stream that worked, there is no proof.

use super::inner::Inner;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use ottla_proto::NodeId;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Pauses before each attempt, in milliseconds. The stream may break a moment
/// before the port is closed; later than this the election timeout is near.
const PAUSES_MS: [u64; 4] = [0, 10, 20, 40];

/// Longest wait for one connection. A refusal takes a round trip.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(100);

/// Looks, in the background, whether `leader` is gone, and campaigns if it is.
pub(super) fn start(inner: &Arc<Inner>, leader: NodeId) {
    let task = Arc::clone(inner);
    inner.tasks.spawn(async move {
        tokio::select! {
            () = task.stop.cancelled() => {}
            () = succeed(&task, leader) => {}
        }
    });
}

async fn succeed(inner: &Inner, leader: NodeId) {
    let Some(peer) = inner.addresses.of(leader) else { return };
    for pause in PAUSES_MS {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if inner.quorum.borrow().leader != Some(leader) {
            return;
        }
        let connect = inner.options.network.connect(&peer.host, peer.port);
        match tokio::time::timeout(ATTEMPT_TIMEOUT, connect).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return campaign(inner, leader).await;
            }
            Ok(_) | Err(_) => {}
        }
    }
}

async fn campaign(inner: &Inner, leader: NodeId) {
    let Some(raft) = inner.raft.get() else { return };
    let vote = raft.metrics().borrow_watched().vote;
    if !vote.is_committed() || vote.leader_id().node_id != leader.0 {
        return;
    }
    // Asked to by hand, openraft would let a learner stand too.
    let may = {
        let quorum = inner.quorum.borrow();
        quorum.may_campaign && quorum.voters.contains(&inner.options.node_id)
    };
    if !may {
        return;
    }
    tracing::info!(%leader, "the leader of the quorum is gone: campaigning");
    let transfer = TransferLeaderRequest::new(vote, inner.options.node_id.0, None);
    match raft.handle_transfer_leader(transfer).await {
        Ok(Ok(())) => {}
        // The election timeout does it then.
        Ok(Err(error)) => tracing::debug!(%error, "no campaign"),
        Err(error) => tracing::debug!(%error, "no campaign"),
    }
}
