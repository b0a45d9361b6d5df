//! One member of a group, as it sees itself (KIP-848): what it says to the coordinator,
//! what it may read, what it has to give back first.
//!
//! A function of events: [`Membership::on`] takes what happened and when, and says what is
//! to be done. No clock, no chance, no network. Not its job: reading, committing, finding
//! the coordinator.
//!
//! ```text
//!            join answered             told to read less
//!  Joining ───────────────▶ Member ──────────────────────▶ Member, giving back
//!   ▲  ▲                     │ │ ▲                               │
//!   │  │ nothing is read     │ │ └───────────────────────────────┘ released, and said so
//!   │  └──────────── Fenced ◀┘ │   the group does not know it any more
//!   │ it asks again            │
//!   └──────── Idle ◀── Leaving ◀─  the application wants to go, or asks for nothing
//!                        └──▶ Ended
//! ```
//!
//! What it was given it *holds* until it hears that reading has ended there
//! ([`Event::Released`]), whatever it was told meanwhile. So it never says that it holds
//! less than it reads, and nobody else is given a partition too soon (K-16147).

mod effect;
#[cfg(test)]
mod tests;

pub(super) use effect::{Beat, Departure, Effect, End, Event, Refused, Subscription, Told};

use ottla_proto::PartitionId;
use std::collections::BTreeSet;

/// Milliseconds since a fixed moment of this process.
pub(super) type Millis = u64;

/// Partitions of topics.
pub(super) type Partitions = BTreeSet<PartitionId>;

/// How long the name of a static member may be another's before that is the answer: the
/// session of one that died without a word (10 s), begun anew by a coordinator or two.
const NAME_PATIENCE_MS: Millis = 30_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Is not known to the group, and says that it wants to be.
    Joining,
    /// The group knows it, at this epoch.
    Member { epoch: u32 },
    /// The group has put it out: it joins again once nothing is read any more.
    Fenced,
    /// It goes: once nothing is read any more it says so.
    Leaving { epoch: u32, then: Then },
    /// It has gone until the application asks for records again.
    Idle,
    /// Nothing follows any more.
    Ended,
}

/// What comes after having left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    End,
    Idle,
    Join,
}

/// A heartbeat that was not answered yet.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Millis,
    goodbye: bool,
}

/// A member of a group.
#[derive(Clone, Debug)]
pub(super) struct Membership {
    phase: Phase,
    subscription: Subscription,
    is_static: bool,
    /// What it was told to read last.
    assigned: Partitions,
    /// What is read.
    reading: Partitions,
    /// What it was given, and is giving back.
    releasing: Partitions,
    /// The group may believe something else of what is held.
    say_held: bool,
    /// The group may not know yet what is wanted.
    say_subscription: bool,
    /// The group may know the member.
    may_be_known: bool,
    /// Something is to be said as soon as an answer is here.
    hurry: bool,
    sent: Option<Sent>,
    due: Millis,
    /// Until when nobody else is given what is held.
    lease: Millis,
    /// Since when another has its name.
    name_taken: Option<Millis>,
}

impl Membership {
    /// One that joins with the first event.
    pub(super) fn new(subscription: Subscription, is_static: bool, now: Millis) -> Self {
        Self {
            phase: Phase::Joining,
            subscription,
            is_static,
            assigned: Partitions::new(),
            reading: Partitions::new(),
            releasing: Partitions::new(),
            say_held: true,
            say_subscription: true,
            may_be_known: false,
            hurry: false,
            sent: None,
            due: now,
            lease: now,
            name_taken: None,
        }
    }

    /// When [`Event::Time`] is to be told next, if nothing else happens.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        (self.sent.is_none() && self.wants_to_speak()).then_some(self.due)
    }

    /// Until when records may be handed out. Later others may have been given the
    /// partitions, until an answer says that they were not.
    pub(super) fn lease(&self) -> Millis {
        self.lease
    }

    /// For commits: the epoch, while the group knows the member.
    pub(super) fn epoch(&self) -> Option<u32> {
        match self.phase {
            Phase::Member { epoch } | Phase::Leaving { epoch, .. } if epoch > 0 => Some(epoch),
            _ => None,
        }
    }

    /// What happened: what is to be done.
    pub(super) fn on(&mut self, event: Event, now: Millis) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Time => {}
            Event::Told(told) => self.told(told, now, &mut effects),
            Event::Lost { wait } => {
                // Whether it was heard nobody knows: next time everything is said.
                self.sent = None;
                (self.say_held, self.say_subscription) = (true, true);
                self.due = now + wait;
            }
            Event::Refused(refused, wait) => self.refused(refused, wait, now, &mut effects),
            Event::Released(partitions) => self.released(&partitions, now, &mut effects),
            Event::Subscribe(subscription) => {
                self.say_subscription |= self.subscription != subscription;
                self.subscription = subscription;
                if self.say_subscription {
                    self.soon(now);
                }
            }
            Event::Leave => self.leave(Then::End, now, &mut effects),
            Event::Absent => self.leave(Then::Idle, now, &mut effects),
            Event::Present => match &mut self.phase {
                Phase::Idle => self.join(now),
                Phase::Leaving { then: then @ Then::Idle, .. } => *then = Then::Join,
                _ => {}
            },
        }
        if self.next_deadline().is_some_and(|due| due <= now) {
            effects.push(Effect::Send(self.beat(now)));
        }
        assert!(self.reading.is_disjoint(&self.releasing), "read, and being given back");
        effects
    }

    fn soon(&mut self, now: Millis) {
        (self.due, self.hurry) = (now, true);
    }

    fn wants_to_speak(&self) -> bool {
        match self.phase {
            Phase::Joining | Phase::Member { .. } => true,
            Phase::Leaving { .. } => self.may_be_known && self.holds_nothing(),
            Phase::Fenced | Phase::Idle | Phase::Ended => false,
        }
    }

    fn holds_nothing(&self) -> bool {
        self.reading.is_empty() && self.releasing.is_empty()
    }

    /// The heartbeat to be sent now.
    fn beat(&mut self, now: Millis) -> Beat {
        let (epoch, goodbye) = match self.phase {
            Phase::Member { epoch } => (epoch, false),
            Phase::Leaving { epoch, .. } => (epoch, true),
            _ => (0, false),
        };
        let departure = goodbye.then_some(match self.is_static {
            true => Departure::Pause,
            false => Departure::Leave,
        });
        self.sent = Some(Sent { at: now, goodbye });
        self.may_be_known = true;
        self.hurry = false;
        let joins = epoch == 0;
        let says_held = std::mem::take(&mut self.say_held) || joins;
        let says_subscription = std::mem::take(&mut self.say_subscription) || joins;
        Beat {
            epoch,
            departure,
            held: says_held.then(|| self.reading.union(&self.releasing).copied().collect()),
            subscription: says_subscription.then(|| self.subscription.clone()),
        }
    }

    fn told(&mut self, told: Told, now: Millis, effects: &mut Vec<Effect>) {
        let Some(sent) = self.sent.take() else { return };
        match &mut self.phase {
            Phase::Leaving { then, .. } if sent.goodbye => {
                let then = *then;
                return self.gone(then, now, effects);
            }
            // It was said before it wanted to go.
            Phase::Leaving { epoch, .. } => *epoch = told.epoch,
            phase @ (Phase::Joining | Phase::Member { .. }) => {
                *phase = Phase::Member { epoch: told.epoch };
                self.due = if self.hurry { now } else { sent.at + told.interval };
                self.name_taken = None;
                if let Some(assigned) = told.assigned {
                    self.assigned = assigned;
                    self.follow(effects);
                }
            }
            Phase::Fenced | Phase::Idle | Phase::Ended => return,
        }
        // The coordinator counts from when it heard of it, which is later.
        self.lease = sent.at + told.session;
    }

    /// Stops what is not to be read, starts what is.
    fn follow(&mut self, effects: &mut Vec<Effect>) {
        let stop: Partitions = self.reading.difference(&self.assigned).copied().collect();
        if !stop.is_empty() {
            self.reading.retain(|id| !stop.contains(id));
            self.releasing.extend(&stop);
            effects.push(Effect::Stop(stop));
        }
        let is_new = |id: &&PartitionId| !self.reading.contains(id) && !self.releasing.contains(id);
        let start: Partitions = self.assigned.iter().filter(is_new).copied().collect();
        if !start.is_empty() {
            self.reading.extend(&start);
            self.say_held = true;
            effects.push(Effect::Start(start));
        }
    }

    fn released(&mut self, partitions: &Partitions, now: Millis, effects: &mut Vec<Effect>) {
        let before = self.releasing.len();
        self.releasing.retain(|id| !partitions.contains(id));
        if self.releasing.len() == before {
            return;
        }
        match self.phase {
            Phase::Member { .. } => {
                self.say_held = true;
                self.soon(now);
                // It may be its own again.
                self.follow(effects);
            }
            Phase::Leaving { then, .. } if !self.may_be_known => {
                if self.holds_nothing() {
                    self.gone(then, now, effects);
                }
            }
            Phase::Leaving { .. } => self.due = now,
            Phase::Fenced if self.releasing.is_empty() => self.join(self.due),
            Phase::Joining | Phase::Fenced | Phase::Idle | Phase::Ended => {}
        }
    }

    fn refused(&mut self, refused: Refused, wait: Millis, now: Millis, effects: &mut Vec<Effect>) {
        if self.sent.take().is_none() {
            return;
        }
        self.due = now + wait;
        if let Phase::Leaving { then, .. } = self.phase {
            // Whom the group does not know has left.
            self.may_be_known = false;
            self.lose_everything(effects);
            if then == Then::End || self.holds_nothing() {
                self.gone(then, now, effects);
            }
            return;
        }
        match refused {
            Refused::PutOut => {
                self.may_be_known = false;
                self.lose_everything(effects);
                if self.holds_nothing() {
                    self.join(now + wait);
                } else {
                    self.phase = Phase::Fenced;
                }
            }
            Refused::NameTaken => {
                let since = *self.name_taken.get_or_insert(now);
                if now - since >= NAME_PATIENCE_MS {
                    self.end(End::Refused, effects);
                }
            }
            Refused::ForGood => self.end(End::Refused, effects),
        }
    }

    /// Nothing of it is its own any more: reading ends, and nothing is committed.
    fn lose_everything(&mut self, effects: &mut Vec<Effect>) {
        self.lease = 0;
        self.assigned.clear();
        self.releasing.append(&mut self.reading);
        if !self.releasing.is_empty() {
            effects.push(Effect::Lose(self.releasing.clone()));
        }
    }

    fn join(&mut self, at: Millis) {
        self.phase = Phase::Joining;
        self.due = at;
    }

    fn leave(&mut self, then: Then, now: Millis, effects: &mut Vec<Effect>) {
        let epoch = match self.phase {
            Phase::Member { epoch } => epoch,
            // The join may be heard: who has joined has to leave.
            Phase::Joining if self.may_be_known => 0,
            Phase::Leaving { epoch, .. } => epoch,
            Phase::Joining | Phase::Fenced | Phase::Idle | Phase::Ended => {
                return match then {
                    Then::End => self.end(End::Left, effects),
                    Then::Idle | Then::Join if self.phase == Phase::Joining => {
                        self.phase = Phase::Idle;
                    }
                    Then::Idle | Then::Join => {}
                };
            }
        };
        self.phase = Phase::Leaving { epoch, then };
        self.due = now;
        self.assigned.clear();
        if then == Then::Idle {
            // Nobody is there to give anything back in good order.
            self.lose_everything(effects);
        } else {
            self.follow(effects);
        }
    }

    fn gone(&mut self, then: Then, now: Millis, effects: &mut Vec<Effect>) {
        self.may_be_known = false;
        match then {
            Then::End => self.end(End::Left, effects),
            Then::Idle => self.phase = Phase::Idle,
            Then::Join => self.join(now),
        }
    }

    fn end(&mut self, end: End, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Ended {
            return;
        }
        self.lose_everything(effects);
        self.phase = Phase::Ended;
        effects.push(Effect::Ended(end));
    }
}
