//! Until when members are waited for: to be heard of, and to give partitions back.
//!
//! Not remembered: whoever takes over as coordinator waits for everybody anew.

use super::facts::{Fact, GroupId, MemberId};
use super::group::{Group, Member};
use super::{GroupOptions, Millis, Now};
use std::collections::{BTreeMap, BTreeSet};

type Key = (GroupId, MemberId);

#[derive(Clone, Copy, Debug)]
struct Waiting {
    heard: Millis,
    /// While it has something to give back: since which epoch, and until when.
    revoking: Option<(u32, Millis)>,
}

impl Waiting {
    fn until(&self) -> Millis {
        self.revoking.map_or(self.heard, |(_, until)| until.min(self.heard))
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    members: BTreeMap<Key, Waiting>,
    by_time: BTreeSet<(Millis, Key)>,
}

impl Sessions {
    fn set(&mut self, key: Key, waiting: Option<Waiting>) {
        let before = match waiting {
            Some(waiting) => self.members.insert(key.clone(), waiting),
            None => self.members.remove(&key),
        };
        if let Some(before) = before {
            self.by_time.remove(&(before.until(), key.clone()));
        }
        if let Some(waiting) = waiting {
            self.by_time.insert((waiting.until(), key));
        }
    }

    /// The member is there.
    pub(super) fn heard(
        &mut self,
        group: &GroupId,
        id: &MemberId,
        now: Now,
        options: &GroupOptions,
    ) {
        let key = (group.clone(), id.clone());
        let revoking = self.members.get(&key).and_then(|waiting| waiting.revoking);
        let heard = now.monotonic + u64::from(options.session_timeout_ms);
        self.set(key, Some(Waiting { heard, revoking }));
    }

    pub(super) fn heard_of_all(
        &mut self,
        id: &GroupId,
        group: &Group,
        now: Now,
        options: &GroupOptions,
    ) {
        for (member, known) in &group.members {
            self.heard(id, member, now, options);
            self.revoking(id, member, known, now);
        }
    }

    /// Whether it gives back in time is judged from when it was told to.
    fn revoking(&mut self, group: &GroupId, id: &MemberId, member: &Member, now: Now) {
        let key = (group.clone(), id.clone());
        let Some(waiting) = self.members.get(&key).copied() else { return };
        let epoch = member.current.epoch;
        let since = |(known, _): &(u32, Millis)| *known == epoch;
        let until = now.monotonic + u64::from(member.fact.rebalance_timeout_ms);
        let revoking = (!member.current.revoking.is_empty())
            .then(|| waiting.revoking.filter(since).unwrap_or((epoch, until)));
        self.set(key, Some(Waiting { revoking, ..waiting }));
    }

    /// A fact was replayed.
    pub(super) fn follow(
        &mut self,
        id: &GroupId,
        group: &Group,
        fact: &Fact,
        now: Now,
        options: &GroupOptions,
    ) {
        match fact {
            Fact::Member(_, member, Some(_)) => self.heard(id, member, now, options),
            Fact::Member(_, member, None) => self.set((id.clone(), member.clone()), None),
            Fact::Current(_, member, Some(_)) => {
                if let Some(known) = group.members.get(member) {
                    self.revoking(id, member, known, now);
                }
            }
            Fact::Group(..) | Fact::Target(..) | Fact::Current(..) | Fact::Offset(..) => {}
        }
    }

    /// The whole group is gone.
    pub(super) fn forget(&mut self, group: &GroupId) {
        let keys: Vec<Key> = self.of(group).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.set(key, None);
        }
    }

    fn of<'a>(&'a self, group: &'a GroupId) -> impl Iterator<Item = (&'a Key, &'a Waiting)> {
        let first = (group.clone(), MemberId::from(""));
        self.members.range(first..).take_while(move |((of, _), _)| of == group)
    }

    /// Whether a member of the group will not be waited for any more at that moment, unless
    /// it is heard before.
    pub(super) fn is_one_over_by(&self, group: &GroupId, at: Millis) -> bool {
        self.of(group).any(|(_, waiting)| waiting.until() <= at)
    }

    /// Members that are waited for.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Who was waited for long enough, by group.
    pub(super) fn over(&self, now: Millis) -> BTreeMap<GroupId, Vec<MemberId>> {
        let mut over: BTreeMap<GroupId, Vec<MemberId>> = BTreeMap::new();
        for (_, (group, member)) in self.by_time.iter().take_while(|(until, _)| *until <= now) {
            over.entry(group.clone()).or_default().push(member.clone());
        }
        over
    }

    pub(super) fn next(&self) -> Option<Millis> {
        self.by_time.first().map(|(until, _)| *until)
    }
}
