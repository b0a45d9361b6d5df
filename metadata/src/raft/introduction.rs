//! How a node with a blank disk gets into the quorum.
//!
//! A voter promises: one vote in a term, and no entry it acknowledged is ever
//! missing from its log. A voter whose disk was lost has forgotten both. Let
//! back in under its old id, it could vote a second time in the same term, and
//! it could help elect a leader that lacks entries which were committed with
//! its own acknowledgement: committed facts would be gone with one lost disk.
//! So a node whose Raft log is empty takes part in nothing (its Raft service
//! answers introductions only) until it knows that it has promised nothing:
//!
//! - Either **the quorum is new**: a majority of the voters, this node included,
//!   are blank, and none that was heard is initialised. Then it initialises
//!   itself with the configured voters. Several nodes may do so at the same
//!   time: their first entries name the same voters, and the first leader's
//!   replaces the others. A node that has initialised itself and heard from no
//!   leader still counts as blank, or the first to do so would keep away those
//!   whose votes it needs.
//! - Or **the quorum knows this disk**: the active controller has committed its
//!   directory id. Every format of a data directory draws a new id, so a node
//!   for which another directory is on record has lost its disk, and is
//!   refused. The controller also records the directory of every voter that
//!   registers as a broker, so the record does not depend on this path.
//!   A node that is no member of the quorum becomes a learner with that.
//!
//! What remains: voters that lose their disks while the quorum forms, before
//! their first registration was committed or while another voter has never been
//! started, are not recognised. An operator who forms a cluster of three
//! starts all three.
//!
//! A lost disk is replaced by giving the old directory up (`members`): then the node
//! has no vote any more, and comes back as a learner. `replace_directory` (for `dev`
//! only) does that on the word of the node itself.

use super::channel;
use super::evicted::Evicted;
use super::inner::Inner;
use super::members;
use super::metadata::MetadataError;
use super::types::Peer;
use crate::controller::Command;
use ottla_proto::internal::v1 as wire;
use ottla_proto::internal::v1::introduce_response::Standing;
use ottla_proto::internal::v1::raft_service_client::RaftServiceClient;
use ottla_proto::v1::{Endpoint, ErrorReason};
use ottla_proto::{ApiError, DirectoryId, NodeId};
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for the answer to one introduction: an election and a commit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause between two rounds of introductions.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// Rounds between two log lines about still waiting.
const ROUNDS_PER_REPORT: u32 = 50;

/// A node that introduces itself.
#[derive(Clone, Debug)]
pub(super) struct Newcomer {
    pub(super) node_id: NodeId,
    /// Where its services are, if it said so.
    pub(super) peer: Option<Peer>,
    pub(super) directory: DirectoryId,
    pub(super) replace: bool,
    /// Its log is not empty.
    pub(super) has_log: bool,
}

/// How a blank node may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Initialise Raft with the configured voters.
    Initialize,
    /// Start Raft and wait for the leader, without standing for election before
    /// this entry of the log is applied.
    Follow { admitted_at: u64 },
}

/// Introduces this node until it is known how to go on.
pub(super) async fn introduce(inner: &Inner) -> Result<Way, MetadataError> {
    let mut round = 0_u32;
    let mut known = inner.addresses.others(inner.options.node_id);
    loop {
        let asked = known.values().map(|peer| ask(inner, peer, false));
        let answers = futures::future::join_all(asked).await;
        let answers: Vec<_> = answers.into_iter().flatten().collect();
        known.extend(answers.iter().filter_map(leader_of));
        match conclude(inner, &answers)? {
            Some(way) => return Ok(way),
            None if round % ROUNDS_PER_REPORT == ROUNDS_PER_REPORT - 1 => {
                tracing::warn!(heard = answers.len(), "still waiting for the metadata quorum");
            }
            None => {}
        }
        round = round.wrapping_add(1);
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}

/// What the answers of one round allow.
fn conclude(
    inner: &Inner,
    answers: &[wire::IntroduceResponse],
) -> Result<Option<Way>, MetadataError> {
    if let Some(evicted) = answers.iter().find_map(verdict) {
        return Err(evicted.into_error(&inner.options));
    }
    let admitted = answers.iter().filter(|answer| answer.standing() == Standing::Admitted);
    if let Some(admitted_at) = admitted.map(|answer| answer.admitted_at).max() {
        return Ok(Some(Way::Follow { admitted_at }));
    }
    let configured = &inner.addresses.configured;
    if !configured.contains_key(&inner.options.node_id.0) {
        // It belongs to no new cluster.
        return Ok(None);
    }
    let blank = 1 + answers.iter().filter(|answer| answer.standing() == Standing::Blank).count();
    let all_blank = blank == 1 + answers.len();
    Ok((all_blank && blank > configured.len() / 2).then_some(Way::Initialize))
}

/// What an answer says against this node for good.
pub(super) fn verdict(answer: &wire::IntroduceResponse) -> Option<Evicted> {
    let detail = answer.message.clone();
    match answer.standing() {
        Standing::Refused => Some(Evicted::BlankDisk(detail)),
        Standing::Removed => Some(Evicted::Removed(detail)),
        _ => None,
    }
}

/// Who leads, as an answer has it: perhaps a node that is not configured here.
fn leader_of(answer: &wire::IntroduceResponse) -> Option<(NodeId, Peer)> {
    let endpoint = answer.leader.clone()?;
    let peer = Peer { host: endpoint.host, port: u16::try_from(endpoint.port).ok()? };
    Some((NodeId(answer.leader_id?), peer))
}

/// Introduces this node to another one.
pub(super) async fn ask(
    inner: &Inner,
    peer: &Peer,
    has_log: bool,
) -> Option<wire::IntroduceResponse> {
    let (host, port) = inner.options.advertised.clone();
    let request = wire::IntroduceRequest {
        cluster_id: inner.options.cluster_id.clone(),
        node_id: inner.options.node_id.0,
        directory_id: inner.options.directory_id.to_wire().into(),
        replace_directory: inner.options.replace_directory,
        endpoint: Some(Endpoint { host, port: port.into() }),
        has_log,
    };
    let call = async {
        let channel = channel::connect(&inner.options.network, peer).await?;
        anyhow::Ok(RaftServiceClient::new(channel).introduce(request).await?.into_inner())
    };
    match tokio::time::timeout(ANSWER_TIMEOUT, call).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::debug!(?peer, %error, "introduction");
            None
        }
        Err(_elapsed) => None,
    }
}

fn answer(standing: Standing, message: impl Into<String>) -> wire::IntroduceResponse {
    wire::IntroduceResponse {
        standing: standing.into(),
        message: message.into(),
        ..wire::IntroduceResponse::default()
    }
}

/// Not now, and who leads, if this error says so.
fn not_now(error: &ApiError) -> wire::IntroduceResponse {
    let leader = error.leader.clone();
    wire::IntroduceResponse {
        leader_id: leader.as_ref().map(|leader| leader.node_id.0),
        leader: leader.map(|leader| Endpoint { host: leader.host, port: leader.port.into() }),
        ..answer(Standing::Wait, error.to_string())
    }
}

/// What this node says to one that introduces itself.
pub(super) async fn receive(inner: &Arc<Inner>, newcomer: Newcomer) -> wire::IntroduceResponse {
    if inner.is_newborn() {
        // A cluster begins with the voters that all of them are configured with.
        let configured = &inner.addresses.configured;
        let both = [newcomer.node_id, inner.options.node_id];
        if both.iter().all(|node| configured.contains_key(&node.0)) {
            return answer(Standing::Blank, "");
        }
        return answer(Standing::Wait, "this node waits for its cluster too");
    }
    let Some(peer) = newcomer.peer.clone() else {
        return answer(Standing::Wait, "expected a host and a port where the node can be reached");
    };
    match admit(inner, &newcomer, peer).await {
        Ok(admitted_at) => {
            wire::IntroduceResponse { admitted_at, ..answer(Standing::Admitted, "") }
        }
        Err(error) => match error.reason {
            ErrorReason::BlankDiskOfKnownVoter => answer(Standing::Refused, error.message),
            ErrorReason::NodeRemoved => answer(Standing::Removed, error.message),
            _ => not_now(&error),
        },
    }
}

async fn admit(inner: &Arc<Inner>, newcomer: &Newcomer, peer: Peer) -> Result<u64, ApiError> {
    let Newcomer { node_id, directory, .. } = *newcomer;
    inner.control.until_active().await?;
    if newcomer.replace {
        let known = inner.image().voter_directories.get(&node_id).copied();
        if known.is_some_and(|known| known != directory) {
            members::replace_unasked(inner, node_id).await?;
        }
    }
    if !newcomer.has_log {
        members::check_blank(inner, node_id).await?;
    }
    let record = Command::RecordVoterDirectory { node_id, directory };
    inner.control.submit_here(record).await?;
    members::enroll(inner, node_id, peer).await
}
