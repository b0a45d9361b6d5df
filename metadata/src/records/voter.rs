//! Facts about the voters of the metadata quorum.

use ottla_proto::{DirectoryId, NodeId};
use serde::{Deserialize, Serialize};

/// A voter keeps its log and its votes in this directory. A voter that turns
/// up with another one has lost what it promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterDirectoryRecorded {
    /// The voter.
    pub node_id: NodeId,
    /// The directory since it was formatted.
    pub directory: DirectoryId,
}
