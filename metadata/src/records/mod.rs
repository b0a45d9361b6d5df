//! The facts in the metadata log, and their encoding: one version byte, then
//! MessagePack with field names.
//!
//! Records say what has happened (a leader *is* elected), never what should
//! happen: replaying them needs no rule that a later release might change.
//! Not their job: what they do to an image (`image`), and when they are
//! written (`controller`).
//!
//! Within one version only fields may be added that an older node can ignore
//! without ending up with another image. Everything else takes a new version,
//! which older nodes refuse.

mod broker;
mod config;
mod feature;
mod overrides;
mod partition;
mod producer_ids;
mod request;
mod snapshot;
mod topic;
mod voter;

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
mod tests;

pub use broker::{
    BrokerDraining, BrokerFenced, BrokerRegistered, BrokerShutdownStarted, BrokerUnfenced,
    BrokerUnregistered, ReplicasOffline,
};
pub use config::{
    CleanupPolicy, ConfigError, Durability, LogFilter, MAX_MAX_MESSAGE_BYTES,
    MAX_NODE_MEMORY_BYTES, MAX_NODE_MS, MAX_SEGMENT_BYTES, MIN_MAX_MESSAGE_BYTES,
    MIN_SEGMENT_BYTES, NodeDefault, NodeOption, NodeOptions, NodeValue, OPTION_NAMES, OptionInfo,
    Ratio, TimestampType, TopicConfig, TopicOptions, TopicSource, UNLIMITED, node_option,
    node_options, topic_option, topic_options,
};
pub use feature::{FeatureLevel, FeatureLevelFinalised, FeatureLevels};
pub use overrides::{ConfigChanged, ConfigResource};
pub use partition::{
    Leadership, PartitionChanged, PartitionCreated, Reassignment, ReassignmentChange,
};
pub use producer_ids::ProducerIdsAllocated;
pub use request::RequestCarriedOut;
pub use snapshot::SnapshotEnded;
pub use topic::{TopicConfigChanged, TopicCreated, TopicDeleted, TopicGrown};
pub use voter::{DirectoryRetired, VoterDirectoryRecorded};

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::io::Cursor;

/// The newest encoding this release reads. A record is written in the oldest
/// that holds it, so that older nodes refuse only what they would misread. A further one
/// takes a line in `feature` too.
pub const RECORD_VERSION: u8 = 9;

/// The oldest encoding this release reads.
pub const OLDEST_RECORD_VERSION: u8 = 1;

/// From here on partitions have eligible leader replicas, and perhaps no ISR.
const ELR_VERSION: u8 = 2;

/// From here on topics can grow.
const GROWTH_VERSION: u8 = 3;
/// From here on nodes can leave for good.
const DEPARTURES_VERSION: u8 = 3;

/// From here on requests that were carried out are remembered.
const REQUEST_VERSION: u8 = 4;

/// From here on partitions can move to other nodes.
const REASSIGNMENT_VERSION: u8 = 5;

/// From here on a cluster has a feature level.
const LEVEL_VERSION: u8 = 6;

/// From here on nodes can be drained.
const DRAIN_VERSION: u8 = 7;

/// From here on cluster and nodes have options.
const CONFIG_VERSION: u8 = 8;

/// From here on idempotent producers get their ids from the cluster.
const PRODUCER_IDS_VERSION: u8 = 9;

/// One fact of the metadata log.
///
/// Its serde form, for use inside other messages, is the byte string of
/// [`encode`](Self::encode): the version byte travels with every record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub enum MetadataRecord {
    /// A process took a node id.
    BrokerRegistered(BrokerRegistered),
    /// A broker may lead nothing and be in no ISR.
    BrokerFenced(BrokerFenced),
    /// A broker may lead and join ISRs.
    BrokerUnfenced(BrokerUnfenced),
    /// A broker is on its way out.
    BrokerShutdownStarted(BrokerShutdownStarted),
    /// A broker is being emptied, or is not any more.
    BrokerDraining(BrokerDraining),
    /// A node is no broker any more.
    BrokerUnregistered(BrokerUnregistered),
    /// The disk under some replicas of a broker failed.
    ReplicasOffline(ReplicasOffline),
    /// A topic exists; its partitions follow.
    TopicCreated(TopicCreated),
    /// A topic has other options.
    TopicConfigChanged(TopicConfigChanged),
    /// The cluster or a node has other options.
    ConfigChanged(ConfigChanged),
    /// A topic has more partitions; the new ones follow.
    TopicGrown(TopicGrown),
    /// A topic and all its partitions are gone.
    TopicDeleted(TopicDeleted),
    /// A partition exists, in this whole state.
    PartitionCreated(PartitionCreated),
    /// A partition has another ISR, another leader, or other candidates.
    PartitionChanged(PartitionChanged),
    /// A member of the quorum keeps its log in this directory.
    VoterDirectoryRecorded(VoterDirectoryRecorded),
    /// A directory is no part of the cluster any more.
    DirectoryRetired(DirectoryRetired),
    /// A request was carried out, and must not be again.
    RequestCarriedOut(RequestCarriedOut),
    /// Producer ids were given away.
    ProducerIdsAllocated(ProducerIdsAllocated),
    /// The cluster has a higher feature level.
    FeatureLevelFinalised(FeatureLevelFinalised),
    /// Last record of a snapshot.
    SnapshotEnded(SnapshotEnded),
}

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There is not even a version byte.
    #[error("a metadata record of no bytes")]
    Empty,
    /// Written by another release; guessing would make two nodes disagree.
    #[error(
        "metadata record of version {found}, this release reads versions \
         {OLDEST_RECORD_VERSION} to {RECORD_VERSION}"
    )]
    UnknownVersion {
        /// The version byte.
        found: u8,
    },
    /// The version is known, the rest is not a record of it.
    #[error("malformed metadata record: {0}")]
    Malformed(String),
    /// A whole record, and then more.
    #[error("{0} bytes after a metadata record")]
    TrailingBytes(usize),
}

/// Gives the derived, tagged form, while `MetadataRecord` itself serialises as
/// a byte string.
struct Tagged<T>(T);

impl Serialize for Tagged<&MetadataRecord> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        MetadataRecord::serialize(self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Tagged<MetadataRecord> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        MetadataRecord::deserialize(deserializer).map(Self)
    }
}

impl MetadataRecord {
    /// The bytes that go to the log.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.version()];
        let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
        Serialize::serialize(&Tagged(self), &mut serializer)
            .expect("plain structs always serialise into memory");
        bytes
    }

    fn version(&self) -> u8 {
        match self {
            Self::TopicGrown(_) => GROWTH_VERSION,
            Self::PartitionCreated(record) if record.needs_reassignment() => REASSIGNMENT_VERSION,
            Self::PartitionChanged(record) if record.needs_reassignment() => REASSIGNMENT_VERSION,
            Self::PartitionCreated(record) if record.needs_elr() => ELR_VERSION,
            Self::PartitionChanged(record) if record.needs_elr() => ELR_VERSION,
            Self::BrokerUnregistered(_) | Self::DirectoryRetired(_) => DEPARTURES_VERSION,
            Self::RequestCarriedOut(_) => REQUEST_VERSION,
            Self::FeatureLevelFinalised(_) => LEVEL_VERSION,
            Self::BrokerDraining(_) => DRAIN_VERSION,
            Self::ConfigChanged(_) => CONFIG_VERSION,
            Self::ProducerIdsAllocated(_) => PRODUCER_IDS_VERSION,
            _ => OLDEST_RECORD_VERSION,
        }
    }

    /// The lowest feature level of a cluster that may hold it.
    #[must_use]
    pub fn level(&self) -> FeatureLevel {
        FeatureLevel::of_version(self.version())
    }

    /// Reads what [`encode`](Self::encode) wrote, by this release or an older one.
    ///
    /// # Errors
    /// Anything but exactly one whole record of a known version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (&version, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
        if !(OLDEST_RECORD_VERSION..=RECORD_VERSION).contains(&version) {
            return Err(DecodeError::UnknownVersion { found: version });
        }
        let mut deserializer = rmp_serde::Deserializer::new(Cursor::new(body));
        let Tagged(record) = Deserialize::deserialize(&mut deserializer)
            .map_err(|error: rmp_serde::decode::Error| DecodeError::Malformed(error.to_string()))?;
        let read = usize::try_from(deserializer.position()).unwrap_or(usize::MAX);
        match body.len().saturating_sub(read) {
            0 => Ok(record),
            trailing => Err(DecodeError::TrailingBytes(trailing)),
        }
    }
}

impl Serialize for MetadataRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encode())
    }
}

impl<'de> Deserialize<'de> for MetadataRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(RecordVisitor)
    }
}

struct RecordVisitor;

impl Visitor<'_> for RecordVisitor {
    type Value = MetadataRecord;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of a metadata record")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<MetadataRecord, E> {
        MetadataRecord::decode(bytes).map_err(E::custom)
    }
}

macro_rules! from_each {
    ($($name:ident),*) => {
        $(impl From<$name> for MetadataRecord {
            fn from(record: $name) -> Self {
                Self::$name(record)
            }
        })*
    };
}

from_each!(
    BrokerRegistered,
    BrokerFenced,
    BrokerUnfenced,
    BrokerShutdownStarted,
    BrokerUnregistered,
    BrokerDraining,
    DirectoryRetired,
    ReplicasOffline,
    TopicCreated,
    TopicConfigChanged,
    ConfigChanged,
    TopicGrown,
    TopicDeleted,
    PartitionCreated,
    PartitionChanged,
    VoterDirectoryRecorded,
    RequestCarriedOut,
    ProducerIdsAllocated,
    FeatureLevelFinalised,
    SnapshotEnded
);
