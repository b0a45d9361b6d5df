//! Members, and the groups of a coordinator, over a network that loses what it likes.

use super::super::*;
use ottla_coordinator::groups::testing::FakeTopics;
use ottla_coordinator::groups::{
    self, Commit, Committer, Fact, GroupError, GroupOptions, Groups, Heartbeat, HeartbeatAnswer,
    MemberId, Now,
};
use ottla_proto::TopicId;
use std::collections::BTreeMap;

const GROUP: &str = "g";

/// What is on its way between a member and the coordinator.
enum Under {
    Way(Heartbeat),
    Back(Result<Told, Refused>),
}

struct Client {
    id: MemberId,
    core: Membership,
    under: Option<Under>,
    /// Of its last heartbeat.
    sequence: u64,
    /// The next record of what is read.
    positions: BTreeMap<PartitionId, u64>,
    /// What was told to stop, or is lost: no commit then.
    stopping: BTreeMap<PartitionId, bool>,
}

pub(super) struct World {
    groups: Groups,
    /// Of a node that does not know that another has taken over.
    deposed: Option<Groups>,
    /// Heartbeats that their senders have given up, and that may still come.
    delayed: Vec<Heartbeat>,
    topics: FakeTopics,
    now: Now,
    log: Vec<Fact>,
    clients: BTreeMap<u8, Client>,
    /// Of each partition the first record that nobody has seen.
    seen: BTreeMap<PartitionId, u64>,
    born: u32,
}

fn as_sent(id: &MemberId, sequence: u64, beat: Beat) -> Heartbeat {
    let wants = |wants: Subscription| (wants.topics.into_iter().collect(), wants.pattern);
    Heartbeat {
        group: GROUP.into(),
        member: id.clone(),
        epoch: beat.epoch,
        departure: beat.departure.map(|_| groups::Departure::Leave),
        subscription: beat.subscription.map(wants),
        owned: beat.held,
        rebalance_timeout_ms: 60_000,
        sequence,
        ..Heartbeat::default()
    }
}

fn as_told(answer: HeartbeatAnswer) -> Told {
    let session = GroupOptions::default().lease_ms().into();
    Told { epoch: answer.epoch, interval: 1_000, session, assigned: answer.assignment }
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self {
            groups: Groups::new(GroupOptions::default()),
            deposed: None,
            delayed: Vec::new(),
            topics: FakeTopics::default(),
            now: Now { monotonic: 0, wall_ms: 1_000_000 },
            log: Vec::new(),
            clients: BTreeMap::new(),
            seen: BTreeMap::new(),
            born: 0,
        };
        world.topic(0, 5);
        world
    }

    fn write(&mut self, facts: Vec<Fact>) {
        facts.iter().for_each(|fact| self.groups.replay(fact));
        self.groups.settle(&facts, self.now);
        self.groups.confirmed(self.now);
        self.log.extend(facts);
    }

    /// The topic has at least so many partitions from now on.
    pub(super) fn topic(&mut self, topic: u8, partitions: u32) {
        let id = TopicId(uuid::Uuid::from_u128(u128::from(topic) + 1));
        let known = self.topics.0.entry(format!("t{topic}")).or_insert((id, 0));
        known.1 = known.1.max(partitions);
        let facts = self.groups.follow_topics(&self.topics, self.now, 100);
        self.write(facts);
    }

    pub(super) fn join(&mut self, member: u8, topics: u8) {
        let names = (0..2).filter(|topic| topics & (1 << topic) != 0);
        let topics = names.map(|topic| format!("t{topic}")).collect();
        let subscription = Subscription { topics, pattern: None };
        if self.clients.contains_key(&member) {
            return self.tell(member, Event::Subscribe(subscription));
        }
        self.born += 1;
        let client = Client {
            id: format!("m{member}-{}", self.born).into(),
            core: Membership::new(subscription, false, self.now.monotonic),
            under: None,
            sequence: 0,
            positions: BTreeMap::new(),
            stopping: BTreeMap::new(),
        };
        self.clients.insert(member, client);
        self.tell(member, Event::Time);
    }

    /// Without a word.
    pub(super) fn crash(&mut self, member: u8) {
        self.clients.remove(&member);
    }

    pub(super) fn tell(&mut self, member: u8, event: Event) {
        let Some(client) = self.clients.get_mut(&member) else { return };
        for effect in client.core.on(event, self.now.monotonic) {
            match effect {
                Effect::Send(beat) => {
                    assert!(client.under.is_none(), "one at a time");
                    client.sequence += 1;
                    let beat = as_sent(&client.id, client.sequence, beat);
                    client.under = Some(Under::Way(beat));
                }
                Effect::Start(partitions) => {
                    for id in partitions {
                        let group = self.groups.get(GROUP).ok();
                        let offset = group.and_then(|group| group.offsets.get(&id));
                        let position = offset.map_or(0, |offset| offset.offset);
                        assert!(client.positions.insert(id, position).is_none(), "read twice");
                    }
                }
                Effect::Stop(partitions) => {
                    client.stopping.extend(partitions.into_iter().map(|id| (id, true)));
                }
                Effect::Lose(partitions) => {
                    client.stopping.extend(partitions.into_iter().map(|id| (id, false)));
                }
                Effect::Ended(_) => {
                    self.clients.remove(&member);
                    return;
                }
            }
        }
    }

    /// What is under way of a member gets one step further.
    pub(super) fn carry(&mut self, member: u8) {
        let Some(client) = self.clients.get_mut(&member) else { return };
        match client.under.take() {
            None => self.tell(member, Event::Time),
            Some(Under::Way(beat)) => {
                let answer = self.heartbeat(&beat);
                let client = self.clients.get_mut(&member).expect("it is here");
                client.under = Some(Under::Back(answer));
            }
            Some(Under::Back(Ok(told))) => self.tell(member, Event::Told(told)),
            Some(Under::Back(Err(refused))) => self.tell(member, Event::Refused(refused, 0)),
        }
    }

    /// What is under way of a member is lost, or comes later, and it gives up waiting.
    pub(super) fn lose(&mut self, member: u8) {
        let Some(client) = self.clients.get_mut(&member) else { return };
        let Some(under) = client.under.take() else { return };
        if let Under::Way(beat) = under {
            self.delayed.push(beat);
        }
        self.tell(member, Event::Lost { wait: 20 });
    }

    /// A heartbeat that its sender has given up comes after all.
    pub(super) fn deliver_delayed(&mut self, which: usize) {
        if !self.delayed.is_empty() {
            let beat = self.delayed.remove(which % self.delayed.len());
            if let Ok((facts, _)) = self.groups.heartbeat(&beat, &self.topics, self.now) {
                self.write(facts);
                self.groups.heard(&beat.group, &beat.member, self.now);
            }
        }
    }

    /// A member asks the node that coordinated before. What it would have to write is not
    /// committed.
    pub(super) fn ask_deposed(&mut self, member: u8) {
        let Some(client) = self.clients.get_mut(&member) else { return };
        let Some(deposed) = &mut self.deposed else { return };
        let Some(Under::Way(beat)) = &client.under else { return };
        let told = match deposed.heartbeat(beat, &self.topics, self.now) {
            Ok((facts, answer)) if facts.is_empty() && !deposed.must_confirm(self.now) => {
                deposed.heard(&beat.group, &beat.member, self.now);
                as_told(answer)
            }
            _ => return self.lose(member),
        };
        client.under = Some(Under::Back(Ok(told)));
    }

    fn heartbeat(&mut self, beat: &Heartbeat) -> Result<Told, Refused> {
        match self.groups.heartbeat(beat, &self.topics, self.now) {
            Ok((facts, answer)) => {
                self.write(facts);
                self.groups.heard(&beat.group, &beat.member, self.now);
                self.check_unmoved(&beat.member, answer.assignment.as_ref());
                Ok(as_told(answer))
            }
            Err(
                GroupError::UnknownMember(_)
                | GroupError::UnknownGroup
                | GroupError::FencedMemberEpoch { .. },
            ) => Err(Refused::PutOut),
            Err(error) => panic!("{error}: {beat:?}"),
        }
    }

    /// What a member reads and is to go on reading is never asked back.
    fn check_unmoved(&self, id: &MemberId, assignment: Option<&Partitions>) {
        let Some(client) = self.clients.values().find(|client| client.id == *id) else { return };
        let Ok(group) = self.groups.get(GROUP) else { return };
        let (Some(member), Some(assignment)) = (group.members.get(id), assignment) else { return };
        for read in client.positions.keys().filter(|id| client.core.reading.contains(id)) {
            let stays = member.target.contains(read) && member.current.assigned.contains(read);
            assert!(!stays || assignment.contains(read), "{read} stays, and was stopped");
        }
    }

    /// A member reads on where it may, and commits what it has read, if it says so.
    pub(super) fn work(&mut self, member: u8, commit: bool) {
        let Some(client) = self.clients.get_mut(&member) else { return };
        if self.now.monotonic >= client.core.lease() {
            return;
        }
        for (id, position) in &mut client.positions {
            if client.stopping.contains_key(id) {
                continue;
            }
            let seen = self.seen.entry(*id).or_default();
            assert!(*position <= *seen, "{id}: {seen} is skipped, {position} read");
            *seen = (*seen).max(*position + 1);
            *position += 1;
        }
        if commit {
            let all = client.positions.clone();
            self.commit(member, &all);
        }
    }

    fn commit(&mut self, member: u8, positions: &BTreeMap<PartitionId, u64>) {
        let client = &self.clients[&member];
        let Some(epoch) = client.core.epoch() else { return };
        let commit = |(id, position): (&PartitionId, &u64)| Commit {
            partition: *id,
            offset: *position,
            leader_epoch: None,
            metadata: String::new(),
        };
        let commits = positions.iter().map(commit).collect();
        let committer = Committer::Member(client.id.clone(), epoch);
        if let Ok(facts) = self.groups.commit(&GROUP.into(), &committer, commits, self.now) {
            self.write(facts);
        }
    }

    /// A member ends reading what it has to give back.
    pub(super) fn release(&mut self, member: u8) {
        let Some(client) = self.clients.get_mut(&member) else { return };
        let stopping = std::mem::take(&mut client.stopping);
        let kept = stopping.iter().filter(|(_, commits)| **commits).map(|(id, _)| id);
        let kept: BTreeMap<_, _> = kept.map(|id| (*id, client.positions[id])).collect();
        self.commit(member, &kept);
        let client = self.clients.get_mut(&member).expect("it is here");
        for id in stopping.keys() {
            client.positions.remove(id);
        }
        self.tell(member, Event::Released(stopping.into_keys().collect()));
    }

    pub(super) fn pass(&mut self, ms: Millis) {
        self.now.monotonic += ms;
        self.now.wall_ms += ms;
        let facts = self.groups.expire(&self.topics, self.now, 100);
        self.write(facts);
        for member in self.members() {
            self.tell(member, Event::Time);
        }
    }

    /// Another node coordinates from now on. The one before has not heard of that.
    pub(super) fn fail_over(&mut self) {
        let next = Groups::new(GroupOptions::default());
        self.deposed = Some(std::mem::replace(&mut self.groups, next));
        self.log.iter().for_each(|fact| self.groups.replay(fact));
        self.groups.begin(self.now);
    }

    /// Whether the member has all that there is.
    pub(super) fn reads_everything(&self, member: u8) -> bool {
        let all: u32 = self.topics.0.values().map(|(_, partitions)| *partitions).sum();
        self.clients.get(&member).is_some_and(|client| client.positions.len() == all as usize)
    }

    pub(super) fn members(&self) -> Vec<u8> {
        self.clients.keys().copied().collect()
    }

    /// Nobody reads what another may read.
    pub(super) fn check(&self) {
        let mut readers: BTreeMap<PartitionId, u8> = BTreeMap::new();
        for (member, client) in &self.clients {
            if self.now.monotonic < client.core.lease() {
                for id in client.positions.keys() {
                    let other = readers.insert(*id, *member);
                    assert!(other.is_none(), "{id} is read by {member} and {other:?}");
                }
            }
        }
    }

    /// Nothing gets lost any more: in the end every partition is read by one.
    pub(super) fn calm_down(&mut self) {
        for _ in 0..60 {
            self.pass(1_000);
            for member in self.members() {
                for _ in 0..8 {
                    self.carry(member);
                    self.release(member);
                    self.check();
                }
                self.work(member, true);
            }
        }
        let wanted = self.groups.get(GROUP).map_or(0, |group| {
            let wants = |client: &Client| group.members.contains_key(&client.id);
            assert!(self.clients.values().all(wants), "everybody is in it");
            group.fact.topics.values().map(|count| *count as usize).sum()
        });
        let read: usize = self.clients.values().map(|client| client.positions.len()).sum();
        assert!(self.clients.is_empty() || read == wanted, "{read} of {wanted} are read");
    }
}
