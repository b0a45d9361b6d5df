//! What goes next to a follower, and when: credit, turns, limits.
//!
//! A function of what is told: what is ready, how large what was read is, what time
//! it is. No clock, no lock, no I/O. [`crate::serve`] reads and sends as it says.
//!
//! Not its job: what is committed, and what a follower may be sent
//! ([`crate::core`]'s).

mod bucket;
mod schedule;

pub(crate) use bucket::{Bucket, Micros};
#[cfg(test)]
use schedule::Grant;
pub(crate) use schedule::{CATCH_UP_TURN_BYTES, Schedule};

/// Why a follower is sent something, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Traffic {
    /// What is committed waits for it, and it reads what was appended last, from memory.
    Live,
    /// The same, but what it needs next is on the disk only. As urgent, for
    /// it holds back what is committed; but nobody waits for that disk with it.
    Lagging,
    /// It is to come back into the ISR, and nobody waits for it yet.
    CatchUp,
    /// A reassignment adds it.
    Moving,
}

impl Traffic {
    pub(crate) const ALL: [Self; 4] = [Self::Live, Self::Lagging, Self::CatchUp, Self::Moving];

    /// Writers wait for whom it goes to: never limited, and first.
    pub(crate) fn in_sync(self) -> bool {
        matches!(self, Self::Live | Self::Lagging)
    }

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Live => 0,
            Self::Lagging => 1,
            Self::CatchUp => 2,
            Self::Moving => 3,
        }
    }
}

#[cfg(test)]
mod tests;
