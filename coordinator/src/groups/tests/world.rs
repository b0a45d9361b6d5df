//! A group, its members as clients are, and topics.

use crate::groups::testing::FakeTopics;
use crate::groups::{
    Assignor, Commit, Committer, Departure, Fact, GroupError, GroupOptions, Groups, Heartbeat,
    HeartbeatAnswer, MemberId, Now,
};
use ottla_proto::{PartitionId, TopicId};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const GROUP: &str = "g";

/// What a member believes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Believes {
    pub(super) epoch: u32,
    /// What it reads.
    pub(super) owned: BTreeSet<PartitionId>,
    /// What it was told to read.
    pub(super) assigned: BTreeSet<PartitionId>,
    topics: BTreeSet<String>,
    instance_id: Option<String>,
}

pub(super) struct World {
    pub(super) groups: Groups,
    pub(super) topics: FakeTopics,
    pub(super) members: BTreeMap<MemberId, Believes>,
    pub(super) now: Now,
    /// Everything that was ever written down.
    pub(super) log: Vec<Fact>,
    /// Of each member's last heartbeat.
    sequences: BTreeMap<MemberId, u64>,
    /// Heartbeats that their senders have given up, and that may still come.
    delayed: Vec<Heartbeat>,
    next_topic: u128,
}

impl World {
    pub(super) fn new(options: GroupOptions) -> Self {
        Self {
            groups: Groups::new(options),
            topics: FakeTopics::default(),
            members: BTreeMap::new(),
            now: Now { monotonic: 0, wall_ms: 1_000_000 },
            log: Vec::new(),
            sequences: BTreeMap::new(),
            delayed: Vec::new(),
            next_topic: 1,
        }
    }

    pub(super) fn topic(&mut self, name: &str, partitions: u32) -> TopicId {
        let next = self.next_topic;
        let new = || TopicId(uuid::Uuid::from_u128(next));
        let id = self.topics.0.get(name).map_or_else(new, |(id, _)| *id);
        self.next_topic += 1;
        self.topics.0.insert(name.to_owned(), (id, partitions));
        let facts = self.groups.follow_topics(&self.topics, self.now, 100);
        self.write(facts);
        id
    }

    pub(super) fn forget_topic(&mut self, name: &str) {
        self.topics.0.remove(name);
        let facts = self.groups.follow_topics(&self.topics, self.now, 100);
        self.write(facts);
    }

    /// Written, committed, taken over.
    pub(super) fn write(&mut self, facts: Vec<Fact>) {
        for fact in &facts {
            let (key, value) = fact.encode();
            assert_eq!(&Fact::decode(&key, value.as_deref()).expect("readable"), fact);
            self.groups.replay(fact);
        }
        self.groups.settle(&facts, self.now);
        self.log.extend(facts);
    }

    pub(super) fn send(&mut self, beat: &Heartbeat) -> Result<HeartbeatAnswer, GroupError> {
        let (facts, answer) = self.groups.heartbeat(beat, &self.topics, self.now)?;
        self.write(facts);
        self.groups.heard(&beat.group, &beat.member, self.now);
        Ok(answer)
    }

    /// The member's next one.
    fn beat(&mut self, member: &str, epoch: u32) -> Heartbeat {
        let sequence = self.sequences.entry(member.into()).or_default();
        *sequence += 1;
        let (group, member, sequence) = (GROUP.into(), member.into(), *sequence);
        Heartbeat { group, member, epoch, sequence, ..Heartbeat::default() }
    }

    fn join_beat(
        &mut self,
        member: &str,
        topics: &BTreeSet<String>,
        instance_id: Option<&str>,
    ) -> Heartbeat {
        Heartbeat {
            subscription: Some((topics.clone(), None)),
            instance_id: instance_id.map(str::to_owned),
            assignor: Some(Assignor::Sticky),
            ..self.beat(member, 0)
        }
    }

    /// One that says what the member reads.
    fn tick_beat(&mut self, member: &str) -> Heartbeat {
        let Believes { epoch, owned, .. } = self.members[member].clone();
        Heartbeat { owned: Some(owned), ..self.beat(member, epoch) }
    }

    pub(super) fn join(&mut self, member: &str, topics: &[&str]) -> Result<(), GroupError> {
        self.join_as(member, topics, None)
    }

    pub(super) fn join_as(
        &mut self,
        member: &str,
        topics: &[&str],
        instance_id: Option<&str>,
    ) -> Result<(), GroupError> {
        let topics: BTreeSet<String> = topics.iter().map(|name| (*name).to_owned()).collect();
        let beat = self.join_beat(member, &topics, instance_id);
        let instance_id = instance_id.map(str::to_owned);
        let answer = self.send(&beat)?;
        let believes = Believes { topics, instance_id, ..Believes::default() };
        self.members.insert(member.into(), believes);
        self.told(member, answer);
        Ok(())
    }

    /// It was put out, or has missed too much: it stops reading, and joins again.
    pub(super) fn join_again(&mut self, member: &str) -> Result<(), GroupError> {
        let Believes { topics, instance_id, .. } = self.members.remove(member).expect("a member");
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        self.join_as(member, &topics, instance_id.as_deref())
    }

    /// A heartbeat that says what the member reads.
    pub(super) fn tick(&mut self, member: &str) -> Result<(), GroupError> {
        let beat = self.tick_beat(member);
        let answer = self.send(&beat)?;
        self.told(member, answer);
        Ok(())
    }

    /// The same, and the answer is lost.
    pub(super) fn tick_unheard(&mut self, member: &str) -> Result<(), GroupError> {
        let beat = self.tick_beat(member);
        self.send(&beat).map(drop)
    }

    /// The same, but it does not come, and its sender does not wait for long.
    pub(super) fn tick_delayed(&mut self, member: &str) {
        let beat = self.tick_beat(member);
        self.delayed.push(beat);
    }

    /// The same of a join, or a farewell, of a member that reads nothing any more; said
    /// again it is heard at once.
    pub(super) fn change_delayed(&mut self, member: &str, joins: bool) -> Result<(), GroupError> {
        let Believes { epoch, topics, instance_id, .. } = self.members[member].clone();
        let beat = if joins {
            self.join_beat(member, &topics, instance_id.as_deref())
        } else {
            Heartbeat { departure: Some(Departure::Leave), ..self.beat(member, epoch) }
        };
        self.delayed.push(beat);
        if joins { self.join_again(member) } else { self.depart(member, Departure::Leave) }
    }

    /// One of those that were given up comes after all; nobody hears the answer.
    pub(super) fn deliver_delayed(&mut self, which: usize) {
        if !self.delayed.is_empty() {
            let beat = self.delayed.remove(which % self.delayed.len());
            let group = self.groups.get(GROUP).ok();
            if group.is_none_or(|group| !group.members.contains_key(&beat.member)) {
                // It was put out, and its lease is over: a join makes it a new member.
                self.members.remove(&beat.member);
            }
            drop(self.send(&beat));
        }
    }

    /// It gives up at once what it is not to read, and reads what it may.
    fn told(&mut self, member: &str, answer: HeartbeatAnswer) {
        let believes = self.members.get_mut(member).expect("a member");
        believes.epoch = answer.epoch;
        if let Some(assigned) = answer.assignment {
            believes.assigned = assigned;
        }
        believes.owned = believes.assigned.clone();
    }

    pub(super) fn depart(&mut self, member: &str, how: Departure) -> Result<(), GroupError> {
        let beat = Heartbeat { departure: Some(how), ..self.beat(member, 0) };
        self.send(&beat)?;
        self.members.remove(member);
        Ok(())
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now.monotonic += ms;
        self.now.wall_ms += ms;
        let facts = self.groups.expire(&self.topics, self.now, 100);
        self.write(facts);
    }

    /// Heartbeats of all until nothing changes any more.
    pub(super) fn calm_down(&mut self) {
        for _ in 0..10 {
            let (written, believed) = (self.log.len(), self.members.clone());
            for member in self.members.keys().cloned().collect::<Vec<_>>() {
                match self.tick(&member) {
                    Err(GroupError::FencedMemberEpoch { .. }) => self.join_again(&member),
                    other => other,
                }
                .expect("a member");
            }
            if self.log.len() == written && self.members == believed {
                return;
            }
        }
        panic!("no rest: {:?}", self.groups.get(GROUP));
    }

    pub(super) fn commit(
        &mut self,
        committer: &Committer,
        partition: PartitionId,
        offset: u64,
    ) -> Result<(), GroupError> {
        let commit =
            Commit { partition, offset, leader_epoch: Some(3), metadata: "mine".to_owned() };
        let facts = self.groups.commit(&GROUP.into(), committer, vec![commit], self.now)?;
        self.write(facts);
        Ok(())
    }

    pub(super) fn owned(&self, member: &str) -> Vec<u32> {
        self.members[member].owned.iter().map(|id| id.index).collect()
    }

    pub(super) fn epoch(&self) -> u32 {
        self.groups.get(GROUP).expect("the group").fact.epoch
    }

    /// What another coordinator would make of what is written down.
    pub(super) fn taken_over(&self) -> Groups {
        let mut groups = Groups::new(GroupOptions::default());
        self.log.iter().for_each(|fact| groups.replay(fact));
        groups
    }

    /// The same after compaction: of each key the last fact, in the order in which
    /// those were written.
    pub(super) fn taken_over_compacted(&self) -> Groups {
        let mut last: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for (at, fact) in self.log.iter().enumerate() {
            last.insert(fact.encode().0, at);
        }
        let kept: BTreeSet<usize> = last.into_values().collect();
        let mut groups = Groups::new(GroupOptions::default());
        kept.into_iter().for_each(|at| groups.replay(&self.log[at]));
        groups
    }

    /// Nobody reads what is another's, as members see it and as the group does.
    pub(super) fn check(&self) {
        let mut readers: BTreeMap<PartitionId, &MemberId> = BTreeMap::new();
        for (member, believes) in &self.members {
            let lives = |group: &&crate::groups::Group| group.members.contains_key(member);
            if self.groups.get(GROUP).ok().filter(lives).is_none() {
                continue; // it has been put out, and will be told
            }
            for id in &believes.owned {
                let other = readers.insert(*id, member);
                assert!(other.is_none(), "{id} is read by {other:?} and {member}");
            }
        }
        for (_, group) in self.groups.iter() {
            let wants: usize = group.members.values().map(|member| member.target.len()).sum();
            let exist: usize = group.fact.topics.values().map(|count| *count as usize).sum();
            if !group.members.is_empty() {
                assert_eq!(wants, exist, "every partition is somebody's in the end");
            }
            for member in group.members.values() {
                assert!(member.current.epoch <= group.fact.epoch);
                assert!(member.current.assigned.is_disjoint(&member.current.revoking));
            }
        }
    }
}
