//! Facts about where the members of the metadata quorum keep their logs.

use ottla_proto::{DirectoryId, NodeId};
use serde::{Deserialize, Serialize};

/// A member of the quorum keeps its log and its votes in this directory. A voter
/// that turns up with another one has lost what it promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterDirectoryRecorded {
    /// The member.
    pub node_id: NodeId,
    /// The directory since it was formatted.
    pub directory: DirectoryId,
}

/// A directory is no part of the cluster any more: its disk was lost, or its
/// node removed. Whoever comes with it is refused for ever; the node may come
/// back with a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryRetired {
    /// The node it belonged to.
    pub node_id: NodeId,
    /// The directory since it was formatted.
    pub directory: DirectoryId,
}
