//! Who belongs to the metadata quorum, changed by its leader: nodes are admitted
//! as learners, which follow the log and have no vote.
//!
//! Every change goes through openraft's membership entries, one at a time.
//!
//! Not its job: whether a node may come at all (`controller::voters`).

use super::MetadataRaft;
use super::inner::Inner;
use super::types::{Peer, TypeConfig};
use openraft::ChangeMembers;
use openraft::RaftMetrics;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, NodeId};
use std::collections::BTreeMap;

/// Makes a node a learner, if it is not a member of the quorum yet. Returns the
/// last entry that it must have applied before it may be elected.
pub(super) async fn enroll(inner: &Inner, node: NodeId, peer: Peer) -> Result<u64, ApiError> {
    let raft = inner.raft.get().ok_or_else(|| inner.control.not_controller())?;
    let metrics = metrics(raft);
    if metrics.membership_config.membership().get_node(&node.0).is_some() {
        return Ok(metrics.last_log_index.unwrap_or(0));
    }
    let _one_at_a_time = inner.changing.try_lock().map_err(|_| change_running())?;
    let nodes = ChangeMembers::AddNodes(BTreeMap::from([(node.0, peer)]));
    let changed = raft.change_membership(nodes, true).await;
    let changed = changed.map_err(|error| refused(inner, error))?;
    tracing::info!(%node, "follows the metadata quorum as a learner");
    Ok(changed.log_id.index)
}

fn metrics(raft: &MetadataRaft) -> RaftMetrics<TypeConfig> {
    // Cloned at once: holding the reference could block openraft.
    raft.metrics().borrow_watched().clone()
}

fn change_running() -> ApiError {
    let what = "another change of the quorum's members is running: only one at a time is safe";
    ApiError::new(ErrorReason::MembershipChangeRunning, what)
}

/// What openraft said to a change of the membership.
fn refused(inner: &Inner, error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ApiError {
    let error = match error {
        RaftError::APIError(error) => error,
        RaftError::Fatal(error) => {
            return ApiError::new(ErrorReason::LeadershipLost, error.to_string());
        }
    };
    match error {
        ClientWriteError::ForwardToLeader(_) => inner.control.not_controller(),
        ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)) => {
            change_running()
        }
        other => ApiError::new(ErrorReason::LeadershipLost, other.to_string()),
    }
}
