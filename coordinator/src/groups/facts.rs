//! What is remembered of groups, and its form in `__consumer_offsets`.
//!
//! A [`Fact`] stands under its key; the latest one holds, and one without a value takes
//! it back, so that compaction keeps what is needed. Pure.

use super::assign::Assignor;
use ottla_proto::internal::v1 as wire;
use ottla_proto::internal::v1::group_record_key::Fact as Key;
use ottla_proto::{Offset, PartitionId, TopicId};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The name of a group.
pub type GroupId = Arc<str>;

/// The name a member has chosen for itself.
pub type MemberId = Arc<str>;

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupFact {
    /// Grows whenever members, what they want, or the topics change.
    pub epoch: u32,
    /// Who has computed the target of this epoch.
    pub assignor: Assignor,
    /// The topics, and how many partitions they had when the target was computed.
    pub topics: BTreeMap<TopicId, u32>,
    /// When the last member went, in milliseconds since the Unix epoch.
    pub empty_since_ms: Option<u64>,
    /// Of each topic that it has read: how many partitions it had when the group began
    /// with it.
    pub begun: BTreeMap<TopicId, u32>,
    /// What its members subscribe to, or did when the last of them went.
    pub wanted: Wanted,
}

/// Topics to be read, whether they exist or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// By name.
    pub topics: BTreeSet<String>,
    /// And those whose whole name matches one of these.
    pub patterns: BTreeSet<String>,
}

/// Who a member is, and what it wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberFact {
    /// The name under which a static member comes back.
    pub instance_id: Option<String>,
    /// Where it runs.
    pub rack: Option<String>,
    /// For people.
    pub client_id: String,
    /// Topics by name.
    pub topics: BTreeSet<String>,
    /// And those whose whole name matches this.
    pub pattern: Option<String>,
    /// How long it may take to give partitions back.
    pub rebalance_timeout_ms: u32,
    /// The assignor that it would like.
    pub assignor: Assignor,
}

/// Where a member is on its way to what it is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CurrentFact {
    /// The epoch of the group that the member has come to.
    pub epoch: u32,
    /// The one before: the answer that told the new one may have been lost.
    pub previous_epoch: u32,
    /// What it may read.
    pub assigned: BTreeSet<PartitionId>,
    /// What it has yet to give back.
    pub revoking: BTreeSet<PartitionId>,
    /// A static member that said that it will be back.
    pub away: bool,
    /// Of the heartbeat that led here: who says what it knew before is not believed.
    pub sequence: u64,
}

/// How far a group is in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetFact {
    /// Of the next record to be read.
    pub offset: Offset,
    /// Of the last record read, if its reader knew.
    pub leader_epoch: Option<u32>,
    /// The reader's own.
    pub metadata: String,
    /// In milliseconds since the Unix epoch.
    pub committed_at_ms: u64,
}

/// One thing that is so, or (without a value) no longer so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Of the group itself.
    Group(GroupId, Option<GroupFact>),
    /// Of a member.
    Member(GroupId, MemberId, Option<MemberFact>),
    /// What a member is to have.
    Target(GroupId, MemberId, Option<BTreeSet<PartitionId>>),
    /// What it has.
    Current(GroupId, MemberId, Option<CurrentFact>),
    /// A committed offset.
    Offset(GroupId, PartitionId, Option<OffsetFact>),
}

/// Key and value of the record of a fact.
pub type FactRecord = (Vec<u8>, Option<Vec<u8>>);

/// A record that this release cannot read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableFact {
    /// Not the protobuf that was expected.
    #[error("not a record of a group: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// No known kind of fact: a newer release wrote it.
    #[error("a kind of record that this release does not know")]
    Unknown,
    /// A topic id that is not 16 bytes long.
    #[error("a topic id of {0} bytes, expected 16")]
    TopicId(usize),
}

impl Fact {
    /// Says nothing of any group: to be written when it is only asked whether writing is
    /// possible. No group has this name.
    #[must_use]
    pub fn nothing() -> Self {
        Self::Group(GroupId::from(""), None)
    }

    /// The group that it is about.
    #[must_use]
    pub fn group(&self) -> &GroupId {
        match self {
            Self::Group(group, _)
            | Self::Member(group, ..)
            | Self::Target(group, ..)
            | Self::Current(group, ..)
            | Self::Offset(group, ..) => group,
        }
    }

    /// Key and value of its record.
    #[must_use]
    pub fn encode(&self) -> FactRecord {
        let member = |member: &MemberId| wire::MemberKey { member_id: member.to_string() };
        let (fact, value) = match self {
            Self::Group(_, fact) => {
                (Key::OfGroup(wire::GroupKey {}), fact.as_ref().map(encode_group))
            }
            Self::Member(_, id, fact) => {
                (Key::OfMember(member(id)), fact.as_ref().map(encode_member))
            }
            Self::Target(_, id, target) => {
                let value = |partitions| wire::TargetValue { partitions: lists(partitions) };
                (Key::TargetOf(member(id)), target.as_ref().map(value).map(|v| v.encode_to_vec()))
            }
            Self::Current(_, id, fact) => {
                (Key::CurrentOf(member(id)), fact.as_ref().map(encode_current))
            }
            Self::Offset(_, id, fact) => {
                let (topic_id, partition) = (id.topic.to_wire().into(), id.index);
                let key = wire::OffsetKey { topic_id, partition };
                (Key::OffsetOf(key), fact.as_ref().map(encode_offset))
            }
        };
        let key = wire::GroupRecordKey { group: self.group().to_string(), fact: Some(fact) };
        (key.encode_to_vec(), value)
    }

    /// The fact of a record.
    ///
    /// # Errors
    /// The record is damaged, or of a newer release.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Self, UnreadableFact> {
        let key = wire::GroupRecordKey::decode(key)?;
        let group = GroupId::from(key.group);
        Ok(match key.fact.ok_or(UnreadableFact::Unknown)? {
            Key::OfGroup(wire::GroupKey {}) => {
                Self::Group(group, value.map(decode_group).transpose()?)
            }
            Key::OfMember(key) => {
                Self::Member(group, key.member_id.into(), value.map(decode_member).transpose()?)
            }
            Key::TargetOf(key) => {
                let target = |value| partitions(wire::TargetValue::decode(value)?.partitions);
                Self::Target(group, key.member_id.into(), value.map(target).transpose()?)
            }
            Key::CurrentOf(key) => {
                Self::Current(group, key.member_id.into(), value.map(decode_current).transpose()?)
            }
            Key::OffsetOf(key) => {
                let id = PartitionId { topic: topic_id(&key.topic_id)?, index: key.partition };
                Self::Offset(group, id, value.map(decode_offset).transpose()?)
            }
        })
    }
}

fn encode_group(fact: &GroupFact) -> Vec<u8> {
    let topic = |(id, partitions): (&TopicId, &u32)| wire::CountedTopic {
        topic_id: id.to_wire().into(),
        partitions: *partitions,
    };
    wire::GroupValue {
        epoch: fact.epoch,
        assignor: fact.assignor.name().to_owned(),
        topics: fact.topics.iter().map(topic).collect(),
        empty_since_ms: fact.empty_since_ms,
        begun: fact.begun.iter().map(topic).collect(),
        wanted_topics: fact.wanted.topics.iter().cloned().collect(),
        wanted_patterns: fact.wanted.patterns.iter().cloned().collect(),
    }
    .encode_to_vec()
}

fn decode_group(value: &[u8]) -> Result<GroupFact, UnreadableFact> {
    let value = wire::GroupValue::decode(value)?;
    let counted = |topics: Vec<wire::CountedTopic>| -> Result<_, UnreadableFact> {
        topics.iter().map(|topic| Ok((topic_id(&topic.topic_id)?, topic.partitions))).collect()
    };
    Ok(GroupFact {
        epoch: value.epoch,
        assignor: Assignor::from_name(&value.assignor).unwrap_or_default(),
        topics: counted(value.topics)?,
        empty_since_ms: value.empty_since_ms,
        begun: counted(value.begun)?,
        wanted: Wanted {
            topics: value.wanted_topics.into_iter().collect(),
            patterns: value.wanted_patterns.into_iter().collect(),
        },
    })
}

fn encode_member(fact: &MemberFact) -> Vec<u8> {
    wire::MemberValue {
        instance_id: fact.instance_id.clone(),
        rack: fact.rack.clone(),
        client_id: fact.client_id.clone(),
        topics: fact.topics.iter().cloned().collect(),
        pattern: fact.pattern.clone(),
        rebalance_timeout_ms: fact.rebalance_timeout_ms,
        assignor: fact.assignor.name().to_owned(),
    }
    .encode_to_vec()
}

fn decode_member(value: &[u8]) -> Result<MemberFact, UnreadableFact> {
    let value = wire::MemberValue::decode(value)?;
    Ok(MemberFact {
        instance_id: value.instance_id,
        rack: value.rack,
        client_id: value.client_id,
        topics: value.topics.into_iter().collect(),
        pattern: value.pattern,
        rebalance_timeout_ms: value.rebalance_timeout_ms,
        assignor: Assignor::from_name(&value.assignor).unwrap_or_default(),
    })
}

fn encode_current(fact: &CurrentFact) -> Vec<u8> {
    wire::CurrentValue {
        epoch: fact.epoch,
        previous_epoch: fact.previous_epoch,
        assigned: lists(&fact.assigned),
        revoking: lists(&fact.revoking),
        away: fact.away,
        sequence: fact.sequence,
    }
    .encode_to_vec()
}

fn decode_current(value: &[u8]) -> Result<CurrentFact, UnreadableFact> {
    let value = wire::CurrentValue::decode(value)?;
    Ok(CurrentFact {
        epoch: value.epoch,
        previous_epoch: value.previous_epoch,
        assigned: partitions(value.assigned)?,
        revoking: partitions(value.revoking)?,
        away: value.away,
        sequence: value.sequence,
    })
}

fn encode_offset(fact: &OffsetFact) -> Vec<u8> {
    wire::OffsetValue {
        offset: fact.offset,
        leader_epoch: fact.leader_epoch,
        metadata: fact.metadata.clone(),
        committed_at_ms: fact.committed_at_ms,
    }
    .encode_to_vec()
}

fn decode_offset(value: &[u8]) -> Result<OffsetFact, UnreadableFact> {
    let value = wire::OffsetValue::decode(value)?;
    Ok(OffsetFact {
        offset: value.offset,
        leader_epoch: value.leader_epoch,
        metadata: value.metadata,
        committed_at_ms: value.committed_at_ms,
    })
}

fn topic_id(bytes: &[u8]) -> Result<TopicId, UnreadableFact> {
    TopicId::from_wire(bytes).ok_or(UnreadableFact::TopicId(bytes.len()))
}

fn lists(partitions: &BTreeSet<PartitionId>) -> Vec<wire::PartitionList> {
    let mut lists: Vec<(TopicId, Vec<u32>)> = Vec::new();
    for id in partitions {
        match lists.last_mut() {
            Some((topic, indexes)) if *topic == id.topic => indexes.push(id.index),
            _ => lists.push((id.topic, vec![id.index])),
        }
    }
    let list = |(topic, partitions): (TopicId, Vec<u32>)| wire::PartitionList {
        topic_id: topic.to_wire().into(),
        partitions,
    };
    lists.into_iter().map(list).collect()
}

fn partitions(lists: Vec<wire::PartitionList>) -> Result<BTreeSet<PartitionId>, UnreadableFact> {
    let mut all = BTreeSet::new();
    for list in lists {
        let topic = topic_id(&list.topic_id)?;
        all.extend(list.partitions.into_iter().map(|index| PartitionId { topic, index }));
    }
    Ok(all)
}
