//! What a node knows about its quorum and about itself as a broker.

use ottla_proto::{BrokerEpoch, NodeId};

/// The metadata quorum as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuorumStatus {
    /// The Raft leader that this node last heard of, hence the active controller
    /// or about to become it. Stays until there is another: a follower that is cut
    /// off, or whose leader just died, does not know that it is out of date. A leader
    /// that no majority has answered for one and a half election timeouts knows: `None`.
    pub leader: Option<NodeId>,
    /// Raft term.
    pub term: u64,
    /// Voters, in order. While they change: those of before and after.
    pub voters: Vec<NodeId>,
    /// Nodes that follow the quorum without a vote, in order.
    pub learners: Vec<NodeId>,
    /// Whether this node has applied what it was admitted at, and may be elected.
    pub may_campaign: bool,
    /// Whether the controller of *this* node is the active one.
    pub active_here: bool,
    /// Why Raft on this node has ended, if it has: nothing but a restart of
    /// the node helps.
    pub failure: Option<String>,
}

/// This node as a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerStatus {
    /// Its registration, once it has one.
    pub epoch: Option<BrokerEpoch>,
    /// Whether it is fenced, as far as it was told. Also true before the
    /// registration.
    pub fenced: bool,
    /// The controller let it stop.
    pub may_stop: bool,
}

impl Default for BrokerStatus {
    fn default() -> Self {
        Self { epoch: None, fenced: true, may_stop: false }
    }
}
