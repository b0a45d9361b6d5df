//! How a node with a blank disk becomes a voter.
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
//!
//! What remains: voters that lose their disks while the quorum forms, before
//! their first registration was committed or while another voter has never been
//! started, are not recognised. An operator who forms a cluster of three
//! starts all three.
//!
//! `replace_directory` (for `dev` only) has a new directory put on record.

use super::active::Submitted;
use super::channel;
use super::inner::Inner;
use super::metadata::MetadataError;
use super::types::Peer;
use crate::controller::Command;
use ottla_proto::internal::v1 as wire;
use ottla_proto::internal::v1::introduce_response::Standing;
use ottla_proto::internal::v1::raft_service_client::RaftServiceClient;
use ottla_proto::v1::ErrorReason;
use ottla_proto::{DirectoryId, NodeId};
use std::time::Duration;

/// Longest wait for the answer to one introduction: an election and a commit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause between two rounds of introductions.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// Rounds between two log lines about still waiting.
const ROUNDS_PER_REPORT: u32 = 50;

/// A node that introduces itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newcomer {
    pub(super) node_id: NodeId,
    pub(super) directory: DirectoryId,
    pub(super) replace: bool,
}

/// How a blank node may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Initialise Raft with the configured voters.
    Initialize,
    /// Start Raft and wait for the leader.
    Follow,
}

/// Introduces this node until it is known how to go on.
pub(super) async fn introduce(inner: &Inner) -> Result<Way, MetadataError> {
    let mut round = 0_u32;
    loop {
        let answers = futures::future::join_all(
            inner
                .endpoints
                .iter()
                .filter(|(id, _)| **id != inner.options.node_id.0)
                .map(|(_, peer)| ask(inner, peer)),
        )
        .await;
        let answers: Vec<_> = answers.into_iter().flatten().collect();
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
    if let Some(refusal) = answers.iter().find(|answer| answer.standing() == Standing::Refused) {
        return Err(MetadataError::BlankDiskOfKnownVoter {
            node_id: inner.options.node_id,
            directory: inner.options.directory_id,
            detail: refusal.message.clone(),
        });
    }
    if answers.iter().any(|answer| answer.standing() == Standing::Admitted) {
        return Ok(Some(Way::Follow));
    }
    let blank = 1 + answers.iter().filter(|answer| answer.standing() == Standing::Blank).count();
    let all_blank = blank == 1 + answers.len();
    Ok((all_blank && blank > inner.endpoints.len() / 2).then_some(Way::Initialize))
}

async fn ask(inner: &Inner, peer: &Peer) -> Option<wire::IntroduceResponse> {
    let request = wire::IntroduceRequest {
        cluster_id: inner.options.cluster_id.clone(),
        node_id: inner.options.node_id.0,
        directory_id: inner.options.directory_id.to_wire().into(),
        replace_directory: inner.options.replace_directory,
    };
    let call = async {
        let channel = channel::endpoint(peer)?.connect().await?;
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
    wire::IntroduceResponse { standing: standing.into(), message: message.into() }
}

/// What this node says to one that introduces itself.
pub(super) async fn receive(inner: &Inner, newcomer: Newcomer) -> wire::IntroduceResponse {
    if !inner.endpoints.contains_key(&newcomer.node_id.0) {
        let what = format!("node {} is not one of the configured voters", newcomer.node_id);
        return answer(Standing::Wait, what);
    }
    if inner.is_newborn() {
        return answer(Standing::Blank, "");
    }
    let command = Command::RecordVoterDirectory {
        node_id: newcomer.node_id,
        directory: newcomer.directory,
        replace: newcomer.replace,
    };
    match inner.control.submit_here(command).await {
        Ok(Submitted { .. }) => {
            inner.expect_blank_log(newcomer.node_id).await;
            answer(Standing::Admitted, "")
        }
        Err(error) if error.reason == ErrorReason::BlankDiskOfKnownVoter => {
            answer(Standing::Refused, error.message)
        }
        Err(error) => answer(Standing::Wait, error.to_string()),
    }
}
