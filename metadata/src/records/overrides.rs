//! Facts about options that were set for the cluster or for one node.

use super::{NodeOptions, TopicConfig};
use ottla_proto::NodeId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Whose options: topics keep theirs by themselves (`TopicConfigChanged`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConfigResource {
    /// Defaults of all nodes and of all topics.
    Cluster,
    /// One node.
    Node(NodeId),
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("the cluster"),
            Self::Node(node) => write!(f, "node {node}"),
        }
    }
}

/// These are the options that are set on a resource now, all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChanged {
    /// Of what.
    pub resource: ConfigResource,
    /// Defaults of topics; only the cluster has any.
    pub topics: TopicConfig,
    /// Options of nodes.
    pub nodes: NodeOptions,
}
