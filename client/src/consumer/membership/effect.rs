//! What happens to a member, and what it does.

use super::{Millis, Partitions};

/// What the member wants to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::consumer) struct Subscription {
    /// Topics by name.
    pub(in crate::consumer) topics: Vec<String>,
    /// And those whose whole name matches this.
    pub(in crate::consumer) pattern: Option<String>,
}

/// What happens.
#[derive(Clone, Debug)]
pub(in crate::consumer) enum Event {
    /// A deadline has come.
    Time,
    /// The coordinator has answered.
    Told(Told),
    /// No answer came, and none will: the next heartbeat after so long.
    Lost {
        /// The wait.
        wait: Millis,
    },
    /// The coordinator has refused, and nothing has changed there.
    Refused(Refused, Millis),
    /// Of these nothing is read any more, and what was to be committed is.
    Released(Partitions),
    /// Something else is wanted.
    Subscribe(Subscription),
    /// The application wants to go.
    Leave,
    /// The application has not asked for records for too long.
    Absent,
    /// It asks again.
    Present,
}

/// An answer to a heartbeat.
#[derive(Clone, Debug)]
pub(in crate::consumer) struct Told {
    pub(in crate::consumer) epoch: u32,
    /// When the next heartbeat is due.
    pub(in crate::consumer) interval: Millis,
    /// For so long, from when it was asked, what it has is nobody else's.
    pub(in crate::consumer) session: Millis,
    /// What to read; `None`: what was told last.
    pub(in crate::consumer) assigned: Option<Partitions>,
}

/// Why the coordinator refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consumer) enum Refused {
    /// The group does not know the member, or not at this epoch.
    PutOut,
    /// Another member has the name, and has not left.
    NameTaken,
    /// Nothing that time would change.
    ForGood,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::consumer) enum Effect {
    /// Say this to the coordinator. There is never more than one unanswered.
    Send(Beat),
    /// These may be read.
    Start(Partitions),
    /// These are to be given back: commit, end reading, then [`Event::Released`].
    Stop(Partitions),
    /// These are another's perhaps: end reading, then [`Event::Released`]. Also said of
    /// what is being given back.
    Lose(Partitions),
    /// It is over; [`Effect::Lose`] came before.
    Ended(End),
}

/// A heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::consumer) struct Beat {
    /// 0 joins.
    pub(in crate::consumer) epoch: u32,
    pub(in crate::consumer) departure: Option<Departure>,
    /// What is held, if that is to be said.
    pub(in crate::consumer) held: Option<Partitions>,
    /// What is wanted, if that is to be said.
    pub(in crate::consumer) subscription: Option<Subscription>,
}

/// How a member goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consumer) enum Departure {
    /// For good.
    Leave,
    /// It comes back under its name.
    Pause,
}

/// Why it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consumer) enum End {
    /// It has left.
    Left,
    /// The coordinator's last refusal says why.
    Refused,
}
