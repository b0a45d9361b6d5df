//! Who is to read which partition. Pure.

mod balanced;
mod range;
#[cfg(test)]
mod tests;

use super::facts::MemberId;
use ottla_proto::{PartitionId, TopicId};
use std::collections::{BTreeMap, BTreeSet};

/// How partitions are shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Assignor {
    /// As many for everybody as what they subscribe to allows. Readers get partitions
    /// with a replica in their rack where that costs no balance, and else keep what
    /// they have.
    #[default]
    Uniform,
    /// As many for everybody, and nothing moves but for that: racks count for what has
    /// to move anyway.
    Sticky,
    /// Of each topic a run of neighbours, in the order of the members' ids: equal
    /// partitions of topics with as many partitions and the same readers are read
    /// together.
    Range,
}

impl Assignor {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Uniform, Self::Sticky, Self::Range];

    /// The name in requests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Sticky => "sticky",
            Self::Range => "range",
        }
    }

    /// Whose name it is.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|assignor| assignor.name() == name)
    }
}

/// A member, as far as it matters here.
#[derive(Clone, Debug, Default)]
pub(super) struct Reader {
    pub(super) rack: Option<String>,
    /// The topics that it reads; each one exists.
    pub(super) topics: BTreeSet<TopicId>,
    /// What it was to have until now.
    pub(super) before: BTreeSet<PartitionId>,
}

/// What is to be shared out.
pub(super) struct Shares<'a> {
    pub(super) readers: BTreeMap<MemberId, Reader>,
    /// Topics that somebody reads, and how many partitions they have.
    pub(super) topics: &'a BTreeMap<TopicId, u32>,
    /// Whether a partition has a replica in this rack.
    pub(super) is_in_rack: &'a dyn Fn(PartitionId, &str) -> bool,
}

/// What each reader is to have. Every partition of every topic that somebody reads goes
/// to exactly one of its readers.
pub(super) type Target = BTreeMap<MemberId, BTreeSet<PartitionId>>;

impl Shares<'_> {
    pub(super) fn assign(&self, assignor: Assignor) -> Target {
        match assignor {
            Assignor::Uniform => balanced::assign(self, true),
            Assignor::Sticky => balanced::assign(self, false),
            Assignor::Range => range::assign(self),
        }
    }

    fn readers_of(&self, topic: TopicId) -> impl Iterator<Item = &MemberId> {
        let reads = move |(_, reader): &(&MemberId, &Reader)| reader.topics.contains(&topic);
        self.readers.iter().filter(reads).map(|(member, _)| member)
    }

    fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        let of = |(topic, count): (&TopicId, &u32)| {
            let topic = *topic;
            (0..*count).map(move |index| PartitionId { topic, index })
        };
        self.topics.iter().flat_map(of)
    }

    /// Whether reading this would stay in the reader's rack.
    fn is_near(&self, id: PartitionId, member: &MemberId) -> bool {
        let rack = self.readers.get(member).and_then(|reader| reader.rack.as_ref());
        rack.is_some_and(|rack| (self.is_in_rack)(id, rack))
    }
}
