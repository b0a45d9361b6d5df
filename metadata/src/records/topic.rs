//! Facts about topics.

use super::TopicConfig;
use ottla_proto::TopicId;
use serde::{Deserialize, Serialize};

/// A topic exists. One `PartitionCreated` for each partition follows in the
/// same batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicCreated {
    /// Its id, for ever.
    pub id: TopicId,
    /// Its name, until it is deleted.
    pub name: String,
    /// Number of partitions.
    pub partitions: u32,
    /// The options set on it.
    pub config: TopicConfig,
}

/// A topic has other options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicConfigChanged {
    /// The topic.
    pub id: TopicId,
    /// All options that are set on it now.
    pub config: TopicConfig,
}

/// A topic has more partitions than before. One `PartitionCreated` for each new
/// one follows in the same batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicGrown {
    /// The topic.
    pub id: TopicId,
    /// Number of partitions from now on.
    pub partitions: u32,
}

/// A topic and all its partitions are gone; the name is free again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicDeleted {
    /// The topic.
    pub id: TopicId,
}
