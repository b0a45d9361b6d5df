//! One group: its facts, and what follows from them. Pure.

use super::assign::{Assignor, Reader, Shares, Target};
use super::facts::{
    CurrentFact, Fact, GroupFact, GroupId, MemberFact, MemberId, OffsetFact, Wanted,
};
use super::subscription::Patterns;
use super::topics::Topics;
use ottla_proto::{PartitionId, TopicId};
use std::collections::{BTreeMap, BTreeSet};

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Who it is, and what it wants.
    pub fact: MemberFact,
    /// What it is to have in the end.
    pub target: BTreeSet<PartitionId>,
    /// What it has.
    pub current: CurrentFact,
}

impl Member {
    /// It has what it is to have.
    #[must_use]
    pub fn is_settled(&self, epoch: u32) -> bool {
        let current = &self.current;
        current.epoch == epoch && current.revoking.is_empty() && current.assigned == self.target
    }
}

/// How a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// Nobody is in it.
    Empty,
    /// Some member is still to give back or to take something.
    Reconciling,
    /// Everybody has what it is to have.
    Stable,
}

/// A group of readers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Of all.
    pub fact: GroupFact,
    /// By id.
    pub members: BTreeMap<MemberId, Member>,
    /// How far it is.
    pub offsets: BTreeMap<PartitionId, OffsetFact>,
    /// Whose each partition is until it is given back.
    owners: BTreeMap<PartitionId, MemberId>,
}

impl Group {
    /// How it is.
    #[must_use]
    pub fn state(&self) -> GroupState {
        if self.members.is_empty() {
            GroupState::Empty
        } else if self.members.values().all(|member| member.is_settled(self.fact.epoch)) {
            GroupState::Stable
        } else {
            GroupState::Reconciling
        }
    }

    /// Nothing is left to be remembered of it.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whose the partition is, until it is given back.
    #[must_use]
    pub fn owner(&self, id: PartitionId) -> Option<&MemberId> {
        self.owners.get(&id)
    }

    /// The member that comes back under this name.
    pub(super) fn instance(&self, name: &str) -> Option<&MemberId> {
        let is_it =
            |(_, member): &(&MemberId, &Member)| member.fact.instance_id.as_deref() == Some(name);
        self.members.iter().find(is_it).map(|(id, _)| id)
    }

    /// The only thing that changes a group. Of what compaction has left, facts of a
    /// member come in any order.
    pub(super) fn replay(&mut self, fact: &Fact) {
        match fact {
            Fact::Group(_, fact) => self.fact = fact.clone().unwrap_or_default(),
            Fact::Member(_, id, Some(fact)) => self.member(id).fact = fact.clone(),
            Fact::Target(_, id, Some(target)) => self.member(id).target = target.clone(),
            Fact::Current(_, id, Some(current)) => {
                self.disown(id);
                self.member(id).current = current.clone();
                for partition in current.assigned.iter().chain(&current.revoking) {
                    self.owners.insert(*partition, id.clone());
                }
            }
            // All that was said of a member is taken back together.
            Fact::Member(_, id, None) | Fact::Target(_, id, None) | Fact::Current(_, id, None) => {
                self.disown(id);
                self.members.remove(id);
            }
            Fact::Offset(_, id, Some(offset)) => {
                self.offsets.insert(*id, offset.clone());
            }
            Fact::Offset(_, id, None) => {
                self.offsets.remove(id);
            }
        }
    }

    fn member(&mut self, id: &MemberId) -> &mut Member {
        self.members.entry(id.clone()).or_default()
    }

    fn disown(&mut self, id: &MemberId) {
        let Some(member) = self.members.get(id) else { return };
        for partition in member.current.assigned.iter().chain(&member.current.revoking) {
            if self.owners.get(partition) == Some(id) {
                self.owners.remove(partition);
            }
        }
    }

    /// Whether the partition came after the group had begun to read its topic, or to wait
    /// for one like it: nothing in it is older than the group's interest.
    #[must_use]
    pub fn has_appeared(&self, id: PartitionId) -> bool {
        self.fact.begun.get(&id.topic).is_some_and(|begun| id.index >= *begun)
    }

    /// The topics that a member reads, of those that there are.
    fn topics_of(&self, member: &Member, topics: &dyn Topics, patterns: &Patterns) -> Vec<TopicId> {
        patterns.matching(&member.fact.topics, member.fact.pattern.as_ref(), topics)
    }

    /// The topics that members read, and how many partitions they have now.
    pub(super) fn read_topics(
        &self,
        topics: &dyn Topics,
        patterns: &Patterns,
    ) -> BTreeMap<TopicId, u32> {
        let all = self.members.values();
        let of = |member| self.topics_of(member, topics, patterns);
        all.flat_map(of).map(|id| (id, topics.partitions(id))).collect()
    }

    /// The assignor that most members want, the first of them by name if there are
    /// several.
    fn preferred_assignor(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for member in self.members.values() {
            *votes.entry(member.fact.assignor).or_default() += 1;
        }
        let most =
            votes.iter().max_by_key(|(assignor, votes)| (**votes, std::cmp::Reverse(**assignor)));
        most.map_or_else(Assignor::default, |(assignor, _)| *assignor)
    }

    /// What the members would have from the next epoch on: what changes by that.
    pub(super) fn next_epoch(
        &self,
        id: &GroupId,
        topics: &dyn Topics,
        patterns: &Patterns,
        now_ms: u64,
    ) -> Vec<Fact> {
        let counted = self.read_topics(topics, patterns);
        let begun = self.begun(&counted, topics, patterns);
        let assignor = self.preferred_assignor();
        let target = self.assign(assignor, &counted, topics, patterns);
        let fact = GroupFact {
            epoch: self.fact.epoch.checked_add(1).expect("fewer than 2^32 changes of a group"),
            assignor,
            topics: counted,
            empty_since_ms: self.members.is_empty().then_some(now_ms),
            begun,
            wanted: self.wanted(),
        };
        let mut facts = vec![Fact::Group(id.clone(), Some(fact))];
        for (member, partitions) in target {
            if self.members[&member].target != partitions {
                facts.push(Fact::Target(id.clone(), member, Some(partitions)));
            }
        }
        facts
    }

    /// What members want. Of a group without any: what the last one did, who will be back.
    fn wanted(&self) -> Wanted {
        if self.members.is_empty() {
            return self.fact.wanted.clone();
        }
        let facts = || self.members.values().map(|member| &member.fact);
        Wanted {
            topics: facts().flat_map(|fact| fact.topics.iter().cloned()).collect(),
            patterns: facts().filter_map(|fact| fact.pattern.clone()).collect(),
        }
    }

    /// With how many partitions of each topic the group begins, or has begun. A topic that
    /// it waited for has come since, with all of its partitions. What the group does not
    /// read now is kept as long as it may go on there.
    fn begun(
        &self,
        counted: &BTreeMap<TopicId, u32>,
        topics: &dyn Topics,
        patterns: &Patterns,
    ) -> BTreeMap<TopicId, u32> {
        let GroupFact { begun, wanted, .. } = &self.fact;
        let may_go_on = |id: &TopicId| {
            counted.contains_key(id)
                || self.members.is_empty()
                || self.offsets.keys().any(|of| of.topic == *id)
        };
        let mut all = begun.clone();
        all.retain(|id, _| topics.partitions(*id) > 0 && may_go_on(id));
        if counted.keys().all(|id| all.contains_key(id)) {
            return all;
        }
        let waited_for = patterns.matching(&wanted.topics, &wanted.patterns, topics);
        for (id, count) in counted {
            let known = if waited_for.contains(id) { 0 } else { *count };
            all.entry(*id).or_insert(known);
        }
        all
    }

    fn assign(
        &self,
        assignor: Assignor,
        counted: &BTreeMap<TopicId, u32>,
        topics: &dyn Topics,
        patterns: &Patterns,
    ) -> Target {
        let reader = |member: &Member| Reader {
            rack: member.fact.rack.clone(),
            topics: self.topics_of(member, topics, patterns).into_iter().collect(),
            before: member.target.clone(),
        };
        let readers = self.members.iter().map(|(id, member)| (id.clone(), reader(member)));
        let is_in_rack = |id, rack: &str| topics.is_in_rack(id, rack);
        let shares =
            Shares { readers: readers.collect(), topics: counted, is_in_rack: &is_in_rack };
        shares.assign(assignor)
    }
}
