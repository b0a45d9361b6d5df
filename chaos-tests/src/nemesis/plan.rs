//! What a run does to its nodes, from a seed: windows of a few seconds with none, one or
//! some faults at a time, on nodes that are chosen by what they do. Pure.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::fmt;
use std::mem::discriminant;
use std::time::Duration;

/// Shortest and longest window. A session takes a second, catching up some more.
const WINDOW_MS: (u64, u64) = (2_000, 8_000);

/// Of a hundred windows, those without a fault.
const CALM_PERCENT: u32 = 25;

/// Most faults at the same time.
const TOGETHER: usize = 3;

/// A node, by what it does when a fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The leader of this partition of the topic that is judged strictest.
    Leader(u32),
    /// A replica of it that does not lead.
    Follower(u32),
    /// The active controller.
    Controller,
    /// Any: the remainder by the number of nodes.
    Any(u64),
}

/// Something that is done to nodes, until the window ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; started again when the window ends.
    Kill(Who),
    /// SIGSTOP; SIGCONT when the window ends.
    Pause(Who),
    /// SIGTERM, and started again at once.
    Restart(Who),
    /// All nodes, one after the other, as soon as the one before is back.
    RollingRestart,
    /// The machine loses power, and what was not synced; it is back when the window
    /// ends.
    PowerLoss(Who),
    /// All of them, at the same moment.
    PowerLossOfAll,
    /// Nothing gets to it or from it, clients included.
    Isolate(Who),
    /// It hears no other node. It is heard, and clients reach it.
    Deaf(Who),
    /// No other node hears it. It hears all, and clients reach it.
    Mute(Who),
    /// Two halves that do not hear each other.
    Halves(Who),
    /// The same, but for one node that hears both and is heard by both.
    Bridge(Who),
    /// Packets from and to it take so long, and up to as much longer.
    Slow(Who, Duration),
    /// Of a thousand packets between nodes, so many are lost.
    Lossy(u16),
    /// So many bytes a second between it and each other node.
    Narrow(Who, u64),
    /// Its disk has no room left.
    FullDisk(Who),
    /// A bit changes in a segment that it finished, while it is down for a moment. Not
    /// one of the nodes by role: it is always the same one, since copies on two bad
    /// disks are more than the promise covers.
    BitRot,
    /// It loses its disk, and is given an empty one.
    Wipe(Who),
    /// A partition's replicas go to other nodes.
    Reassign(u32),
    /// A node more comes, or one that came is drained and goes.
    Members,
    /// A topic is created, written to by nobody, or deleted.
    Topics,
    /// A partition's leader is to be the first of its replicas again.
    Elect(u32),
}

/// Faults that last as long as each other. None: calm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// What happens.
    pub faults: Vec<Fault>,
    /// How long.
    pub lasts: Duration,
}

/// What a world allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// Nodes on loopback: processes, and what operators do.
    Processes,
    /// Hosts and disks too.
    World,
}

impl Fault {
    /// Its kind.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::Pause(_) => "pause",
            Self::Restart(_) => "restart",
            Self::RollingRestart => "rolling restart",
            Self::PowerLoss(_) => "power loss",
            Self::PowerLossOfAll => "power loss of all",
            Self::Isolate(_) => "isolate",
            Self::Deaf(_) => "deaf",
            Self::Mute(_) => "mute",
            Self::Halves(_) => "halves",
            Self::Bridge(_) => "bridge",
            Self::Slow(..) => "slow",
            Self::Lossy(_) => "lossy",
            Self::Narrow(..) => "narrow",
            Self::FullDisk(_) => "full disk",
            Self::BitRot => "bit rot",
            Self::Wipe(_) => "wipe",
            Self::Reassign(_) => "reassign",
            Self::Members => "members",
            Self::Topics => "topics",
            Self::Elect(_) => "elect",
        }
    }

    /// Whether it takes a copy of records away for good, until it was made again.
    #[must_use]
    pub fn costs_a_copy(self) -> bool {
        matches!(self, Self::BitRot | Self::Wipe(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// The windows of a seed, without end. `partitions` are those that roles are taken from.
pub fn windows(seed: u64, means: Means, partitions: u32) -> impl Iterator<Item = Window> {
    let mut rng = StdRng::seed_from_u64(seed);
    std::iter::from_fn(move || {
        let lasts = Duration::from_millis(rng.random_range(WINDOW_MS.0..=WINDOW_MS.1));
        let calm = rng.random_range(0..100) < CALM_PERCENT;
        let count = if calm { 0 } else { rng.random_range(1..=TOGETHER) };
        let mut faults: Vec<Fault> = Vec::new();
        while faults.len() < count {
            let fault = fault(&mut rng, means, partitions);
            let twice = |other: &Fault| {
                discriminant(other) == discriminant(&fault)
                    || other.costs_a_copy() && fault.costs_a_copy()
            };
            if !faults.iter().any(twice) {
                faults.push(fault);
            }
        }
        // While all copies are there.
        faults.sort_by_key(|fault| !fault.costs_a_copy());
        Some(Window { faults, lasts })
    })
}

fn who(rng: &mut StdRng, partitions: u32) -> Who {
    match rng.random_range(0..10) {
        0..4 => Who::Leader(rng.random_range(0..partitions)),
        4..6 => Who::Follower(rng.random_range(0..partitions)),
        6..8 => Who::Controller,
        _ => Who::Any(rng.random_range(0..u64::from(u16::MAX))),
    }
}

fn fault(rng: &mut StdRng, means: Means, partitions: u32) -> Fault {
    let who = who(rng, partitions);
    let partition = rng.random_range(0..partitions);
    let kinds = match means {
        Means::Processes => 13,
        Means::World => 29,
    };
    match rng.random_range(0..kinds) {
        0..3 => Fault::Kill(who),
        3..5 => Fault::Pause(who),
        5 => Fault::Restart(who),
        6 => Fault::RollingRestart,
        7 => Fault::Wipe(who),
        8..10 => Fault::Reassign(partition),
        10 => Fault::Members,
        11 => Fault::Topics,
        12 => Fault::Elect(partition),
        13..15 => Fault::PowerLoss(who),
        15 => Fault::PowerLossOfAll,
        16..18 => Fault::Isolate(who),
        18 => Fault::Deaf(who),
        19..21 => Fault::Mute(who),
        21 => Fault::Halves(who),
        22 => Fault::Bridge(who),
        23 => Fault::Slow(who, Duration::from_millis(rng.random_range(10..=300))),
        24..26 => Fault::Lossy(rng.random_range(10..=150)),
        26 => Fault::Narrow(who, 1 << rng.random_range(14..=18)),
        27 => Fault::FullDisk(who),
        _ => Fault::BitRot,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn plan(seed: u64, means: Means) -> Vec<Window> {
        windows(seed, means, 4).take(2_000).collect()
    }

    #[test]
    fn a_seed_is_one_plan() {
        assert_eq!(plan(7, Means::World), plan(7, Means::World));
        assert_ne!(plan(7, Means::World), plan(8, Means::World));
    }

    #[test]
    fn a_quarter_is_calm_and_no_kind_comes_twice_in_a_window_and_one_copy_is_lost_at_most() {
        let plan = plan(1, Means::World);
        let calm = plan.iter().filter(|window| window.faults.is_empty()).count();
        assert!((400..600).contains(&calm), "{calm} of {}", plan.len());
        for window in &plan {
            let kinds: HashSet<_> = window.faults.iter().map(discriminant).collect();
            assert_eq!(kinds.len(), window.faults.len(), "{window:?}");
            let later = window.faults.iter().skip(1);
            assert_eq!(later.filter(|fault| fault.costs_a_copy()).count(), 0, "{window:?}");
        }
    }

    #[test]
    fn all_kinds_occur_and_on_loopback_only_what_it_can_do() {
        let kinds = |means| -> HashSet<_> {
            let plan = plan(1, means);
            plan.iter().flat_map(|window| &window.faults).map(discriminant).collect()
        };
        assert_eq!(kinds(Means::World).len(), 21);
        let on_loopback = kinds(Means::Processes);
        assert_eq!(on_loopback.len(), 9);
        for only_in_a_world in [Fault::PowerLossOfAll, Fault::BitRot, Fault::Lossy(1)] {
            assert!(!on_loopback.contains(&discriminant(&only_in_a_world)));
        }
    }
}
