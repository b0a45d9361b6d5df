//! As many partitions for each reader as what they subscribe to allows, and as few
//! moves as that takes.
//!
//! Everybody keeps what it has. What nobody has goes to whoever has least. Then
//! partitions go from who has more to who has less by two or more, until nothing is
//! left to gain; each such move lowers the sum of the squared loads, so it ends.

use super::{Shares, Target};
use crate::groups::facts::MemberId;
use ottla_proto::{PartitionId, TopicId};
use std::collections::{BTreeMap, BTreeSet};

/// `racks_first`: what has been kept moves too, if it can be read in a reader's own
/// rack at no cost for the balance.
pub(super) fn assign(shares: &Shares<'_>, racks_first: bool) -> Target {
    let mut draft = Draft::keeping_what_is_there(shares);
    draft.hand_out();
    draft.level();
    // Each swap brings one more near its reader, so this ends.
    while racks_first && draft.bring_near() {}
    draft.target
}

struct Draft<'a> {
    shares: &'a Shares<'a>,
    readers: BTreeMap<TopicId, Vec<MemberId>>,
    target: Target,
    owner: BTreeMap<PartitionId, MemberId>,
}

impl<'a> Draft<'a> {
    fn keeping_what_is_there(shares: &'a Shares<'a>) -> Self {
        let readers =
            shares.topics.keys().map(|id| (*id, shares.readers_of(*id).cloned().collect()));
        let mut draft = Self {
            shares,
            readers: readers.collect(),
            target: Target::new(),
            owner: BTreeMap::new(),
        };
        for (member, reader) in &shares.readers {
            draft.target.insert(member.clone(), BTreeSet::new());
            for id in &reader.before {
                let exists = shares.topics.get(&id.topic).is_some_and(|count| id.index < *count);
                if exists && reader.topics.contains(&id.topic) && !draft.owner.contains_key(id) {
                    draft.give(*id, member.clone());
                }
            }
        }
        draft
    }

    fn load(&self, member: &MemberId) -> usize {
        self.target[member].len()
    }

    fn give(&mut self, id: PartitionId, to: MemberId) {
        if let Some(from) = self.owner.insert(id, to.clone()) {
            self.target.get_mut(&from).expect("a reader").remove(&id);
        }
        self.target.get_mut(&to).expect("a reader").insert(id);
    }

    /// Of a topic's readers the one with the least, near ones first among equals.
    fn least(&self, id: PartitionId) -> Option<&MemberId> {
        let rank = |member: &&MemberId| (self.load(member), !self.shares.is_near(id, member));
        self.readers.get(&id.topic)?.iter().min_by_key(rank)
    }

    /// Topics with few readers first: they have no choice.
    fn hand_out(&mut self) {
        let unowned = |id: &PartitionId| !self.owner.contains_key(id);
        let mut left: Vec<_> = self.shares.partitions().filter(unowned).collect();
        left.sort_by_key(|id| self.readers[&id.topic].len());
        for id in left {
            if let Some(member) = self.least(id).cloned() {
                self.give(id, member);
            }
        }
    }

    fn level(&mut self) {
        loop {
            let mut moved = false;
            let mut members: Vec<_> = self.target.keys().cloned().collect();
            members.sort_by_key(|member| std::cmp::Reverse(self.load(member)));
            for from in members {
                moved |= self.relieve(&from);
            }
            if !moved {
                return;
            }
        }
    }

    /// Takes one partition from a reader that has too many, a far one rather than a near
    /// one. One at a time: the next one is missed less by who has most then.
    fn relieve(&mut self, from: &MemberId) -> bool {
        let mut given: Vec<_> = self.target[from].iter().copied().collect();
        given.sort_by_key(|id| self.shares.is_near(*id, from));
        for id in given {
            let Some(to) = self.least(id).cloned() else { continue };
            if self.load(&to) + 2 <= self.load(from) {
                self.give(id, to);
                return true;
            }
        }
        false
    }

    /// Swaps a partition that is far from its reader for one of a reader to whom it is
    /// near, unless the other becomes far by that. Both are of one topic: whoever could
    /// be given the one could be given the other, and the balance holds. Returns whether
    /// there was any.
    fn bring_near(&mut self) -> bool {
        let mut swapped = false;
        for id in self.shares.partitions() {
            let Some(owner) = self.owner.get(&id).cloned() else { continue };
            if self.shares.is_near(id, &owner) {
                continue;
            }
            let near = self.readers[&id.topic].iter().filter(|m| self.shares.is_near(id, m));
            let swap = near.filter_map(|other| {
                let fits = |theirs: &&PartitionId| {
                    theirs.topic == id.topic && self.may_take(&owner, **theirs, other)
                };
                Some((other.clone(), *self.target[other].iter().find(fits)?))
            });
            if let Some((other, theirs)) = { swap }.next() {
                self.give(id, other);
                self.give(theirs, owner);
                swapped = true;
            }
        }
        swapped
    }

    /// No partition becomes far if this reader takes over one of another that reads the
    /// same topic.
    fn may_take(&self, reader: &MemberId, id: PartitionId, from: &MemberId) -> bool {
        self.shares.is_near(id, reader) || !self.shares.is_near(id, from)
    }
}
