//! Whether the voters of the metadata quorum may be changed, judged by what its
//! leader sees. A change that would leave too few voters that are up is refused:
//! it could be begun and never ended.
//!
//! Not its job: carrying changes out, which takes Raft, and what leaving means
//! for brokers and directories (`voters`).

use crate::image::Image;
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// Largest quorum: more voters make every change of the metadata slower and the
/// cluster no safer. Further nodes stay learners.
pub const MAX_VOTERS: usize = 5;

/// Entries of the metadata log that a node may lack and still count as caught up:
/// what one append carries. It is there within a round trip.
pub const MAX_MEMBER_LAG: u64 = 512;

/// The quorum as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// Who sees it.
    pub leader: NodeId,
    /// Whether a change of the members is not finished.
    pub changing: bool,
    /// Index of the last entry of the leader's log.
    pub last: u64,
    /// Voters and learners.
    pub members: BTreeMap<NodeId, Member>,
}

/// A member of the quorum as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Whether it has a vote.
    pub voter: bool,
    /// The last entry it is known to have.
    pub matched: Option<u64>,
    /// Whether the leader has heard of it lately.
    pub up: bool,
}

impl Quorum {
    /// Who votes.
    #[must_use]
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.members.iter().filter(|(_, member)| member.voter).map(|(id, _)| *id).collect()
    }

    /// Entries that a member lacks, as far as the leader knows.
    #[must_use]
    pub fn lag(&self, node: NodeId) -> u64 {
        let member = self.members.get(&node);
        let matched = member.and_then(|member| member.matched).unwrap_or(0);
        if node == self.leader { 0 } else { self.last.saturating_sub(matched) }
    }

    fn is_up(&self, node: NodeId) -> bool {
        node == self.leader || self.members.get(&node).is_some_and(|member| member.up)
    }

    /// One change at a time, and only one that both the voters before and those
    /// after it can agree to: of each a majority must be up.
    fn check_change(&self, after: &BTreeSet<NodeId>) -> Result<(), ApiError> {
        if self.changing {
            let what = "another change of the quorum's members is running: only one at a time is \
                        safe";
            return Err(ApiError::new(ErrorReason::MembershipChangeRunning, what));
        }
        [&self.voters(), after].into_iter().try_for_each(|voters| self.check_majority(voters))
    }

    fn check_majority(&self, voters: &BTreeSet<NodeId>) -> Result<(), ApiError> {
        let up = voters.iter().filter(|node| self.is_up(**node)).count();
        let needed = voters.len() / 2 + 1;
        if up >= needed {
            return Ok(());
        }
        let down: Vec<String> =
            voters.iter().filter(|node| !self.is_up(**node)).map(NodeId::to_string).collect();
        let message = format!(
            "of {} voters {needed} would have to be up, and {up} are: start node {} first",
            voters.len(),
            down.join(" and node ")
        );
        let error = ApiError::new(ErrorReason::TooFewVoters, message);
        Err(error.with("up", up).with("needed", needed))
    }
}

/// A learner is to vote. False: it does already.
///
/// # Errors
/// Why it may not, or not now.
pub fn check_promotion(quorum: &Quorum, image: &Image, node: NodeId) -> Result<bool, ApiError> {
    let mut voters = quorum.voters();
    let known = image.voter_directories.contains_key(&node);
    let Some(member) = quorum.members.get(&node).filter(|member| member.voter || known) else {
        return Err(unknown(node));
    };
    if member.voter {
        return Ok(false);
    }
    if voters.len() >= MAX_VOTERS {
        let message = format!(
            "there are {} voters, and {MAX_VOTERS} at most: node {node} serves all the same",
            voters.len()
        );
        return Err(ApiError::new(ErrorReason::InvalidRequest, message));
    }
    let lag = quorum.lag(node);
    if !member.up || lag > MAX_MEMBER_LAG {
        let state = if member.up { "is up" } else { "was not heard of lately" };
        let message = format!(
            "node {node} {state} and lacks {lag} entries of the metadata log; to vote it must be \
             up and lack at most {MAX_MEMBER_LAG}"
        );
        return Err(ApiError::new(ErrorReason::LearnerBehind, message).with("lag", lag));
    }
    voters.insert(node);
    quorum.check_change(&voters)?;
    Ok(true)
}

/// A node is to leave the quorum, dead or alive. The answer says whether a vote
/// goes with it.
///
/// # Errors
/// Why it may not, or not now.
pub fn check_departure(quorum: &Quorum, node: NodeId) -> Result<bool, ApiError> {
    let mut voters = quorum.voters();
    if !voters.remove(&node) {
        return Ok(false);
    }
    if voters.is_empty() {
        let message = format!("node {node} is the only voter: add another one first");
        return Err(ApiError::new(ErrorReason::TooFewVoters, message));
    }
    quorum.check_change(&voters)?;
    Ok(true)
}

/// A node's data directory is to be given up: its process must be gone.
///
/// # Errors
/// NODE_IN_USE while it lives.
pub fn check_gone(quorum: &Quorum, image: &Image, node: NodeId) -> Result<(), ApiError> {
    let active = image.brokers.get(&node).is_some_and(|broker| !broker.fenced);
    if !active && !quorum.is_up(node) {
        return Ok(());
    }
    let message = format!("node {node} is running: stop it first");
    Err(ApiError::new(ErrorReason::NodeInUse, message))
}

/// UNKNOWN_NODE, and what helps.
#[must_use]
pub fn unknown(node: NodeId) -> ApiError {
    let message = format!(
        "node {node} is not part of this cluster: `ottla cluster info` lists who is, and a new node is started first"
    );
    ApiError::new(ErrorReason::UnknownNode, message)
}
