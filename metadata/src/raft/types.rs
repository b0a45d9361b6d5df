//! What openraft is told about our types, and the MessagePack form in which its
//! own messages travel and rest.
//!
//! Not its job: what a metadata record means.

use super::incompatible::Fact;
use crate::records::MetadataRecord;
use ottla_proto::MetadataOffset;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;

openraft::declare_raft_types!(
    /// The metadata quorum's Raft. Leader ids are (term, node): two candidates
    /// of one term need no further round, the higher node id wins.
    pub(crate) TypeConfig:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = Peer,
);

pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Membership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type LeaderId = openraft::type_config::alias::LeaderIdOf<TypeConfig>;

/// Where a voter's gRPC services are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// One batch of facts, valid only on top of the image it was decided on: all
/// of it is applied, or nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Proposal {
    pub(crate) decided_on: MetadataOffset,
    pub(crate) records: Vec<Fact>,
}

impl Proposal {
    pub(crate) fn new(decided_on: MetadataOffset, records: Vec<MetadataRecord>) -> Self {
        Self { decided_on, records: records.into_iter().map(Fact::Known).collect() }
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records on {}", self.records.len(), self.decided_on)
    }
}

/// What became of a log entry when it was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// The image is at this offset after the entry.
    Applied(MetadataOffset),
    /// The image had moved on to this offset before the entry; nothing was done.
    Conflict(MetadataOffset),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// MessagePack by field name: fields may be added without a flag day.
pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    rmp_serde::to_vec_named(value).map_err(io::Error::other)
}

/// The reverse of [`encode`]; anything unreadable is `InvalidData`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    rmp_serde::from_slice(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
