//! A member joins, stays, takes and gives back, leaves.

use super::assign::Assignor;
use super::error::GroupError;
use super::facts::{CurrentFact, Fact, GroupId, MemberFact, MemberId};
use super::group::{Group, Member};
use super::topics::Topics;
use super::{Groups, Now, reconcile};
use ottla_proto::PartitionId;
use std::collections::BTreeSet;

/// How long a member may take to give partitions back if it does not say: Kafka's
/// `max.poll.interval.ms`.
const REBALANCE_TIMEOUT_MS: u32 = 300_000;

/// How a member goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// For good.
    Leave,
    /// It will be back under its instance id, and keeps its partitions meanwhile.
    Pause,
}

/// What a member says.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat {
    /// Its group.
    pub group: GroupId,
    /// Who it is.
    pub member: MemberId,
    /// The epoch it was told last; 0 to join.
    pub epoch: u32,
    /// It goes.
    pub departure: Option<Departure>,
    /// Joining: a static member's name.
    pub instance_id: Option<String>,
    /// Joining: where it runs.
    pub rack: Option<String>,
    /// For people.
    pub client_id: String,
    /// 0: the default. Joining only.
    pub rebalance_timeout_ms: u32,
    /// What it wants to read, if that is new: names, and a pattern.
    pub subscription: Option<(BTreeSet<String>, Option<String>)>,
    /// The assignor it wants, if that is new.
    pub assignor: Option<Assignor>,
    /// What it reads, if it says so.
    pub owned: Option<BTreeSet<PartitionId>>,
    /// Grows with each heartbeat of the member; 0: not said.
    pub sequence: u64,
}

/// What it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    /// For its next heartbeat.
    pub epoch: u32,
    /// What it is to read, unless that is what it was told last.
    pub assignment: Option<BTreeSet<PartitionId>>,
}

impl Groups {
    /// Decides what a heartbeat changes. The member counts as heard once the facts are
    /// [replayed](Self::replay) and [`Self::heard`] was told.
    ///
    /// # Errors
    /// See [`GroupError`]; nothing changes.
    pub fn heartbeat(
        &mut self,
        beat: &Heartbeat,
        topics: &dyn Topics,
        now: Now,
    ) -> Result<(Vec<Fact>, HeartbeatAnswer), GroupError> {
        let Some((_, Some(pattern))) = &beat.subscription else {
            return self.decide(beat, topics, now);
        };
        let is_new = self.patterns.learn(pattern)?;
        let decided = self.decide(beat, topics, now);
        if decided.is_err() && is_new {
            self.patterns.forget(pattern);
        }
        decided
    }

    /// With its pattern known.
    fn decide(
        &self,
        beat: &Heartbeat,
        topics: &dyn Topics,
        now: Now,
    ) -> Result<(Vec<Fact>, HeartbeatAnswer), GroupError> {
        if let Some(departure) = beat.departure {
            return Ok((self.depart(beat, departure, topics, now)?, HeartbeatAnswer::default()));
        }
        let none = Group::default();
        let group = self.groups.get(&beat.group).unwrap_or(&none);
        let known = admit(group, beat)?;
        let fact = self.member_fact(group, beat, known)?;
        let mut draft = Draft::new(beat, group);
        draft.member(beat, known, fact);
        draft.topics(self, topics, now);
        draft.current(beat);
        let before = group.members.get(&beat.member).map(|member| &member.current.assigned);
        let (facts, member) = draft.end();
        let assigned = &member.assigned;
        let news = beat.epoch != member.epoch
            || before != Some(assigned)
            || beat.owned.as_ref().is_some_and(|owned| owned != assigned);
        let assignment = news.then(|| assigned.clone());
        Ok((facts, HeartbeatAnswer { epoch: member.epoch, assignment }))
    }

    /// The member was heard, whether that changed anything or not.
    pub fn heard(&mut self, group: &GroupId, member: &MemberId, now: Now) {
        let lives = self.groups.get(group).is_some_and(|g| g.members.contains_key(member));
        if lives {
            self.sessions.heard(group, member, now, &self.options);
        }
    }

    fn member_fact(
        &self,
        group: &Group,
        beat: &Heartbeat,
        known: Known<'_>,
    ) -> Result<MemberFact, GroupError> {
        let mut fact = match known {
            Known::Here(member) if beat.epoch > 0 => member.fact.clone(),
            Known::Here(_) | Known::Back(_) | Known::New => self.joining(group, beat, known)?,
        };
        if let Some((names, pattern)) = &beat.subscription {
            (fact.topics, fact.pattern) = (names.clone(), pattern.clone());
        }
        fact.assignor = beat.assignor.unwrap_or(fact.assignor);
        Ok(fact)
    }

    fn joining(
        &self,
        group: &Group,
        beat: &Heartbeat,
        known: Known<'_>,
    ) -> Result<MemberFact, GroupError> {
        if beat.subscription.is_none() {
            let what = "a member that joins says what it subscribes to";
            return Err(GroupError::Invalid(what.to_owned()));
        }
        if beat.owned.as_ref().is_some_and(|owned| !owned.is_empty()) {
            let what = "a member that joins owns nothing yet";
            return Err(GroupError::Invalid(what.to_owned()));
        }
        let limit = self.options.max_members;
        if matches!(known, Known::New) && group.members.len() >= limit {
            return Err(GroupError::Full { limit });
        }
        let rebalance_timeout_ms = match beat.rebalance_timeout_ms {
            0 => REBALANCE_TIMEOUT_MS,
            timeout => timeout,
        };
        Ok(MemberFact {
            instance_id: beat.instance_id.clone(),
            rack: beat.rack.clone(),
            client_id: beat.client_id.clone(),
            rebalance_timeout_ms,
            ..MemberFact::default()
        })
    }

    fn depart(
        &self,
        beat: &Heartbeat,
        departure: Departure,
        topics: &dyn Topics,
        now: Now,
    ) -> Result<Vec<Fact>, GroupError> {
        let group = self.get(&beat.group)?;
        let unknown = || GroupError::UnknownMember(beat.member.clone());
        let member = group.members.get(&beat.member).ok_or_else(unknown)?;
        check_sequence(member, beat)?;
        if departure == Departure::Leave {
            return Ok(self.without(&beat.group, std::slice::from_ref(&beat.member), topics, now));
        }
        if member.fact.instance_id.is_none() {
            let what = "only a member with an instance id can be back later: leave instead";
            return Err(GroupError::Invalid(what.to_owned()));
        }
        let sequence = beat.sequence.max(member.current.sequence);
        let current = CurrentFact { away: true, sequence, ..member.current.clone() };
        Ok(vec![Fact::Current(beat.group.clone(), beat.member.clone(), Some(current))])
    }

    /// The group without these members.
    pub(super) fn without(
        &self,
        id: &GroupId,
        gone: &[MemberId],
        topics: &dyn Topics,
        now: Now,
    ) -> Vec<Fact> {
        let mut draft = self.groups[id].clone();
        let mut facts = Vec::new();
        for member in gone {
            facts.extend(removal(id, member));
        }
        facts.iter().for_each(|fact| draft.replay(fact));
        facts.extend(draft.next_epoch(id, topics, &self.patterns, now.wall_ms));
        facts
    }
}

/// A member and all that was said of it.
fn removal(group: &GroupId, member: &MemberId) -> [Fact; 3] {
    [
        Fact::Current(group.clone(), member.clone(), None),
        Fact::Target(group.clone(), member.clone(), None),
        Fact::Member(group.clone(), member.clone(), None),
    ]
}

/// Whom the group knows the sender as.
#[derive(Clone, Copy)]
enum Known<'a> {
    New,
    Here(&'a Member),
    /// A static member that was away, under the id it had then.
    Back(&'a MemberId),
}

/// Whether the sender may speak for the member it says it is.
fn admit<'a>(group: &'a Group, beat: &Heartbeat) -> Result<Known<'a>, GroupError> {
    if let Some(member) = group.members.get(&beat.member) {
        check_sequence(member, beat)?;
        check_epoch(member, beat)?;
        return Ok(Known::Here(member));
    }
    if beat.epoch > 0 {
        return Err(match beat.instance_id.as_deref().and_then(|name| group.instance(name)) {
            Some(_) => {
                let instance_id = beat.instance_id.clone().unwrap_or_default();
                GroupError::FencedInstance { instance_id }
            }
            None => GroupError::UnknownMember(beat.member.clone()),
        });
    }
    let Some(instance_id) = &beat.instance_id else { return Ok(Known::New) };
    match group.instance(instance_id) {
        None => Ok(Known::New),
        Some(id) if group.members[id].current.away => Ok(Known::Back(id)),
        Some(id) => {
            let (instance_id, member) = (instance_id.clone(), id.clone());
            Err(GroupError::UnreleasedInstance { instance_id, member })
        }
    }
}

/// What the member has was told to it in answer to a heartbeat. One that it had sent before
/// does not know of it, and may have been delayed for as long as it likes: what it says of
/// what is read, a join or a farewell would free partitions that are read.
fn check_sequence(member: &Member, beat: &Heartbeat) -> Result<(), GroupError> {
    match (member.current.sequence, beat.sequence) {
        (_, 0) => Ok(()),
        (last, got) if got > last => Ok(()),
        (last, got) => Err(GroupError::Overtaken { last, got }),
    }
}

/// A member may be one answer behind, if it has nothing that is not its own. (Kafka
/// counts what it is to give back as not its own, and puts out who has missed two
/// answers; nobody else may have it yet.)
fn check_epoch(member: &Member, beat: &Heartbeat) -> Result<(), GroupError> {
    let CurrentFact { epoch, previous_epoch, assigned, revoking, .. } = &member.current;
    let is_its_own = |id: &PartitionId| assigned.contains(id) || revoking.contains(id);
    let missed_an_answer = beat.epoch == *previous_epoch
        && beat.owned.as_ref().is_some_and(|owned| owned.iter().all(is_its_own));
    if beat.epoch == 0 || beat.epoch == *epoch || missed_an_answer {
        return Ok(());
    }
    Err(GroupError::FencedMemberEpoch { expected: *epoch, got: beat.epoch })
}

/// What a heartbeat makes of a group. The group is copied only if it changes.
struct Draft<'a> {
    id: &'a GroupId,
    member: &'a MemberId,
    before: &'a Group,
    changed: Option<Group>,
    facts: Vec<Fact>,
}

impl<'a> Draft<'a> {
    fn new(beat: &'a Heartbeat, before: &'a Group) -> Self {
        Self { id: &beat.group, member: &beat.member, before, changed: None, facts: Vec::new() }
    }

    fn group(&self) -> &Group {
        self.changed.as_ref().unwrap_or(self.before)
    }

    fn add(&mut self, facts: impl IntoIterator<Item = Fact>) {
        for fact in facts {
            self.changed.get_or_insert_with(|| self.before.clone()).replay(&fact);
            self.facts.push(fact);
        }
    }

    /// Who it is, and what it wants. A static member that is back has what it had,
    /// under its new id, and nothing of it moves.
    fn member(&mut self, beat: &Heartbeat, known: Known<'_>, fact: MemberFact) {
        let (id, member) = (self.id.clone(), self.member.clone());
        if let Known::Back(old) = known {
            let target = self.before.members[old].target.clone();
            self.add(removal(&id, old));
            self.add([Fact::Member(id.clone(), member.clone(), Some(fact))]);
            return self.add([Fact::Target(id, member, Some(target))]);
        }
        let known = match known {
            Known::Here(member) => Some(member),
            Known::New | Known::Back(_) => None,
        };
        if known.is_none_or(|known| known.fact != fact) {
            self.add([Fact::Member(id.clone(), member.clone(), Some(fact))]);
        }
        // Who joins again begins anew: it reads nothing.
        if known.is_some() && beat.epoch == 0 {
            let anew = CurrentFact { sequence: beat.sequence, ..CurrentFact::default() };
            self.add([Fact::Current(id, member, Some(anew))]);
        }
    }

    /// Everybody's share, if members, what they want, or the topics changed.
    fn topics(&mut self, groups: &Groups, topics: &dyn Topics, now: Now) {
        let group = self.group();
        let wants = |group: &Group| -> Vec<_> {
            let wants = |(id, member): (&MemberId, &Member)| {
                let MemberFact { instance_id, rack, topics, pattern, assignor, .. } = &member.fact;
                // A static member is the same under whichever id.
                let who = instance_id.clone().unwrap_or_else(|| id.to_string());
                (who, rack.clone(), topics.clone(), pattern.clone(), *assignor)
            };
            let mut all: Vec<_> = group.members.iter().map(wants).collect();
            all.sort();
            all
        };
        let same = self.changed.is_none() || wants(group) == wants(self.before);
        if !same || group.read_topics(topics, &groups.patterns) != group.fact.topics {
            let facts = group.next_epoch(self.id, topics, &groups.patterns, now.wall_ms);
            self.add(facts);
        }
    }

    /// The member's next step.
    fn current(&mut self, beat: &Heartbeat) {
        let group = self.group();
        let member = &group.members[self.member];
        let joins = BTreeSet::new();
        let owned = if beat.epoch == 0 { Some(&joins) } else { beat.owned.as_ref() };
        let is_free = |id| group.owner(id).is_none_or(|owner| owner == self.member);
        let next = reconcile::step(member, group.fact.epoch, owned, is_free);
        if next != member.current {
            let next = CurrentFact { sequence: beat.sequence.max(next.sequence), ..next };
            self.add([Fact::Current(self.id.clone(), self.member.clone(), Some(next))]);
        }
    }

    fn end(self) -> (Vec<Fact>, CurrentFact) {
        let current = self.group().members[self.member].current.clone();
        (self.facts, current)
    }
}
