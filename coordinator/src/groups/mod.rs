//! The groups of one partition of `__consumer_offsets`: what members, commits and time
//! do to them (KIP-848).
//!
//! Every decision is a list of facts, decided against the groups as they are;
//! [`Groups::replay`] is the only thing that changes them. Time comes in with the
//! event. Not its job: writing the facts down, and finding out that they are.

mod assign;
mod error;
mod facts;
mod group;
mod heartbeat;
mod offsets;
mod pace;
mod reconcile;
mod sessions;
mod subscription;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod topics;

pub use assign::Assignor;
pub use error::GroupError;
pub use facts::{
    CurrentFact, Fact, FactRecord, GroupFact, GroupId, MemberFact, MemberId, OffsetFact,
    UnreadableFact, Wanted,
};
pub use group::{Group, GroupState, Member};
pub use heartbeat::{Departure, Heartbeat, HeartbeatAnswer};
pub use offsets::{Commit, Committer, MAX_COMMIT_METADATA_BYTES, MAX_OFFSET_METADATA_BYTES};
pub use topics::Topics;

use sessions::Sessions;
use std::collections::{BTreeMap, BTreeSet};
use subscription::Patterns;

/// Milliseconds since a fixed moment of this process.
pub type Millis = u64;

/// The moment of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For what lasts.
    pub monotonic: Millis,
    /// For what is written down: milliseconds since the Unix epoch.
    pub wall_ms: u64,
}

/// Bounds and times.
#[derive(Clone, Copy, Debug)]
pub struct GroupOptions {
    /// A member that is silent for so long is gone.
    pub session_timeout_ms: u32,
    /// For so long an answer relies on that nobody else coordinated. What a member is told
    /// of its session is shorter by as much.
    pub confirmation_ms: u32,
    /// When a member is to be heard again at the earliest. Also how long it may take until it
    /// learns what it has to give back, or may take.
    pub heartbeat_interval_ms: u32,
    /// Beyond so many of all its members a node tells those of groups at rest to be heard
    /// less often.
    pub heartbeats_per_second: u32,
    /// Members of a group: each change of one is written for all whose share changes.
    pub max_members: usize,
    /// Offsets that nobody reads are forgotten after that (K-13636).
    pub offsets_retention_ms: u64,
}

impl GroupOptions {
    /// What members are told: so long from when it was sent a heartbeat that is answered
    /// keeps for a member what it has, whoever coordinates by then.
    #[must_use]
    pub fn lease_ms(&self) -> u32 {
        self.session_timeout_ms.saturating_sub(self.confirmation_ms)
    }
}

impl Default for GroupOptions {
    /// As Kafka's, but for a session that is noticed sooner. An interval is half of the second
    /// in which what a dead member read is to be read again; a thousand heartbeats a second
    /// take less than a tenth of a processor.
    fn default() -> Self {
        Self {
            session_timeout_ms: 10_000,
            confirmation_ms: 2_000,
            heartbeat_interval_ms: 500,
            heartbeats_per_second: 1_000,
            max_members: 1_000,
            offsets_retention_ms: 7 * 24 * 3_600_000,
        }
    }
}

/// The groups of one partition.
#[derive(Clone, Debug)]
pub struct Groups {
    options: GroupOptions,
    groups: BTreeMap<GroupId, Group>,
    sessions: Sessions,
    patterns: Patterns,
    /// When it was certain last that nobody else coordinates.
    confirmed: Option<Millis>,
}

impl Groups {
    /// None.
    #[must_use]
    pub fn new(options: GroupOptions) -> Self {
        let (groups, sessions, patterns) = Default::default();
        Self { options, groups, sessions, patterns, confirmed: None }
    }

    /// Takes over what was decided: the only thing that changes a group.
    pub fn replay(&mut self, fact: &Fact) {
        let patterns = match fact {
            Fact::Member(_, _, Some(member)) => member.pattern.iter().collect(),
            Fact::Group(_, Some(group)) => group.wanted.patterns.iter().collect(),
            _ => Vec::new(),
        };
        for pattern in patterns {
            // One that a later release took and this one does not matches nothing.
            let _ = self.patterns.learn(pattern);
        }
        let group = self.groups.entry(fact.group().clone()).or_default();
        group.replay(fact);
        if group.is_nothing() {
            self.groups.remove(fact.group());
        }
    }

    /// All facts were replayed: from now on members are waited for.
    pub fn begin(&mut self, now: Now) {
        for (id, group) in &self.groups {
            self.sessions.heard_of_all(id, group, now, &self.options);
        }
    }

    /// Whether answers to heartbeats have to wait until something was written: another node
    /// may have begun to coordinate since that was last possible, and will give away what
    /// members have, a session after it has begun.
    #[must_use]
    pub fn must_confirm(&self, now: Now) -> bool {
        let until = |at: Millis| at + u64::from(self.options.confirmation_ms);
        self.confirmed.is_none_or(|at| now.monotonic >= until(at))
    }

    /// Something was committed that was not yet written at that moment: nobody else
    /// coordinated then.
    pub fn confirmed(&mut self, at: Now) {
        self.confirmed = self.confirmed.max(Some(at.monotonic));
    }

    /// When a member that was heard now is to be heard again, in milliseconds, where its node
    /// coordinates so many. Soon, if its group is about to have news for it: someone is still
    /// to take or to give back, or has been silent for so long that it may be dead.
    #[must_use]
    pub fn next_heartbeat_ms(&self, id: &GroupId, node_members: usize, now: Now) -> u32 {
        let shortest = self.options.heartbeat_interval_ms;
        let interval = pace::interval_ms(node_members, &self.options);
        if interval == shortest {
            return shortest;
        }
        let is_stable = |group: &Group| group.state() == GroupState::Stable;
        let may_end = now.monotonic + pace::notice_ms(interval);
        let rests = self.groups.get(id).is_some_and(is_stable)
            && !self.sessions.is_one_over_by(id, may_end);
        if rests { interval } else { shortest }
    }

    /// Members of all of them.
    #[must_use]
    pub fn members(&self) -> usize {
        self.sessions.len()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&GroupId, &Group)> {
        self.groups.iter()
    }

    /// One of them.
    ///
    /// # Errors
    /// `UnknownGroup`.
    pub fn get(&self, id: &str) -> Result<&Group, GroupError> {
        self.groups.get(id).ok_or(GroupError::UnknownGroup)
    }

    /// Topics came, grew or went: what that changes, at most about `limit` facts. None
    /// when all is done.
    #[must_use]
    pub fn follow_topics(&self, topics: &dyn Topics, now: Now, limit: usize) -> Vec<Fact> {
        let mut facts = self.forget_topics(topics, limit);
        let changed = |(_, group): &(&GroupId, &Group)| {
            !group.members.is_empty()
                && group.read_topics(topics, &self.patterns) != group.fact.topics
        };
        for (id, group) in self.groups.iter().filter(changed) {
            if facts.len() >= limit {
                break;
            }
            facts.extend(group.next_epoch(id, topics, &self.patterns, now.wall_ms));
        }
        facts
    }

    /// Time has passed: members that are gone, and what follows; at most about `limit`
    /// facts, so that many groups that lose their members at once are still written.
    #[must_use]
    pub fn expire(&self, topics: &dyn Topics, now: Now, limit: usize) -> Vec<Fact> {
        let mut facts = Vec::new();
        for (group, members) in self.sessions.over(now.monotonic) {
            if facts.len() >= limit {
                break;
            }
            if let Some(known) = self.groups.get(&group) {
                let gone = members.into_iter().filter(|m| known.members.contains_key(m));
                let gone: Vec<_> = gone.collect();
                if !gone.is_empty() {
                    facts.extend(self.without(&group, &gone, topics, now));
                }
            }
        }
        facts
    }

    /// When [`Self::expire`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        self.sessions.next()
    }

    /// After facts were replayed that were decided at this moment: whose sessions end,
    /// and who has to give back partitions from now on.
    pub fn settle(&mut self, facts: &[Fact], now: Now) {
        for fact in facts {
            let id = fact.group();
            match self.groups.get(id) {
                Some(group) => self.sessions.follow(id, group, fact, now, &self.options),
                None => self.sessions.forget(id),
            }
        }
        if facts.iter().any(|fact| matches!(fact, Fact::Member(..) | Fact::Group(_, None))) {
            self.forget_unused_patterns();
        }
    }

    /// Keeps only the patterns that members have, or had last. For whoever does not carry out what a
    /// heartbeat would have changed.
    pub fn forget_unused_patterns(&mut self) {
        if self.patterns.is_empty() {
            return;
        }
        let members = self.groups.values().flat_map(|group| group.members.values());
        let remembered = self.groups.values().flat_map(|group| &group.fact.wanted.patterns);
        let used: BTreeSet<&str> = members
            .filter_map(|member| member.fact.pattern.as_deref())
            .chain(remembered.map(String::as_str))
            .collect();
        self.patterns.keep(|pattern| used.contains(pattern));
    }
}
