//! What is done to the nodes, from a seed: one fault after the other, a quarter of the
//! time none. Pure.

use super::story::{self, Story};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use std::fmt;
use std::time::Duration;

/// Shortest and longest window, in milliseconds: an election takes some hundreds, a
/// session a thousand.
const WINDOW_MS: (u64, u64) = (300, 4_000);

/// Most that a wall clock is wrong: an hour. Producers are forgotten after a day and
/// records after a week, both by wall clocks, and neither is to happen.
const SKEW_MS: i64 = 3_600_000;

/// How far behind a follower may be before it leaves the ISR (`replica_lag_max_ms`): less
/// than a session, so that it leaves while everybody knows that it is alive; within a
/// window; longer than any.
const LAG_MS: [u64; 3] = [400, 1_500, 10_000];

/// Who is hit, found when the fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// This node.
    Node(u64),
    /// Who leads this partition.
    Leader(u32),
    /// A follower of it, in the ISR if there is one.
    Follower(u32),
    /// Who is left in its ISR: the leader, once there is nobody else.
    LastInSync(u32),
    /// The active controller.
    Controller,
}

/// One fault, while its window lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None.
    Calm,
    /// The process is gone, and comes back when the window ends.
    Kill {
        /// Which node.
        who: Target,
    },
    /// It stops in order, and comes back when the window ends.
    Stop {
        /// Which node.
        who: Target,
    },
    /// The process is gone, and what its disk had not synced is gone too, as `seed` draws.
    PowerLoss {
        /// Which node.
        who: Target,
        /// Of the disk's losses.
        seed: u64,
    },
    /// All nodes lose power, one after the other.
    PowerLossOfAll {
        /// Of the disks' losses.
        seed: u64,
        /// Between two of them; 0: at once.
        apart_ms: u64,
    },
    /// All nodes lose power in the moment in which a writer of this partition is told
    /// that its record is safe.
    PowerLossAfterAcknowledgement {
        /// Which partition.
        partition: u32,
        /// Of the disks' losses.
        seed: u64,
    },
    /// A node stands still, as after SIGSTOP: its host takes what others send, and it goes
    /// on when the window ends.
    Pause {
        /// Which node.
        who: Target,
    },
    /// Nothing gets to or from a node, clients included, until the window ends; then
    /// what was on the way arrives.
    Isolate {
        /// Which node.
        who: Target,
    },
    /// Two nodes do not hear each other.
    Cut {
        /// One of them.
        one: u64,
        /// The other.
        other: u64,
    },
    /// No node hears this one, while it hears all.
    Mute {
        /// Which node.
        who: Target,
    },
    /// This node hears no other, while all hear it.
    Deaf {
        /// Which node.
        who: Target,
    },
    /// The nodes whose bits are set do not hear the others. Clients reach all.
    Split {
        /// Bit 0 is node 1.
        side: u64,
    },
    /// Every connection of a node breaks, again and again.
    Resets {
        /// Which node.
        who: Target,
        /// How often.
        every_ms: u64,
    },
    /// Every message may take so many milliseconds.
    Slow {
        /// At most.
        latency_ms: u64,
    },
    /// Every write and sync may take so many milliseconds.
    SlowDisks {
        /// At most.
        ms: u64,
    },
    /// Calls to a node's disk fail. An operator starts it again afterwards.
    DiskErrors {
        /// Which node.
        who: Target,
        /// One call in so many.
        one_in: u64,
        /// Of which.
        seed: u64,
    },
    /// A node's disk has no space, until the window ends.
    FullDisk {
        /// Which node.
        who: Target,
    },
    /// A node's wall clock is wrong, and put right when the window ends.
    Clock {
        /// Which node.
        who: Target,
        /// How far it is ahead, or behind (negative).
        ahead_ms: i64,
    },
    /// A further node joins, for good.
    Join,
    /// The node that joined last is drained and removed, if there are enough others.
    Leave,
    /// Several, one after the other.
    Story(Story),
}

impl Fault {
    /// Who is hit, if it is one.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        match self {
            Self::Kill { who }
            | Self::Stop { who }
            | Self::PowerLoss { who, .. }
            | Self::Pause { who }
            | Self::Isolate { who }
            | Self::Mute { who }
            | Self::Deaf { who }
            | Self::Resets { who, .. }
            | Self::DiskErrors { who, .. }
            | Self::FullDisk { who }
            | Self::Clock { who, .. } => Some(*who),
            _ => None,
        }
    }

    /// What kind it is, for a history.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Kill { .. } => "kill",
            Self::Stop { .. } => "planned restart",
            Self::PowerLoss { .. } => "power loss",
            Self::PowerLossOfAll { .. } => "power loss of all",
            Self::PowerLossAfterAcknowledgement { .. } => "power loss after an acknowledgement",
            Self::Pause { .. } => "paused",
            Self::Isolate { .. } => "isolated",
            Self::Cut { .. } => "cut",
            Self::Mute { .. } => "cut, outwards",
            Self::Deaf { .. } => "cut, inwards",
            Self::Split { .. } => "split",
            Self::Resets { .. } => "connections reset",
            Self::Slow { .. } => "slow network",
            Self::SlowDisks { .. } => "slow disks",
            Self::DiskErrors { .. } => "disk errors",
            Self::FullDisk { .. } => "full disk",
            Self::Clock { .. } => "clock skew",
            Self::Join => "node joins",
            Self::Leave => "node leaves",
            Self::Story(story) => story.name,
        }
    }
}

/// A fault and how long it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// What happens.
    pub fault: Fault,
    /// In simulated time.
    pub lasts: Duration,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s: {:?}", self.lasts.as_secs_f64(), self.fault)
    }
}

/// How many nodes a seed draws.
#[must_use]
pub(super) fn nodes(seed: u64) -> u64 {
    // Apart from the plan, so that a plan for three can be tried on five.
    StdRng::seed_from_u64(seed ^ u64::MAX).random_range(3..=5)
}

/// After how many milliseconds behind its leader a follower leaves the ISR.
#[must_use]
pub(super) fn lag_ms(seed: u64) -> u64 {
    // Apart from the plan, as above.
    let mut rng = StdRng::seed_from_u64(!seed.rotate_left(16));
    *LAG_MS.choose(&mut rng).expect("there are some")
}

/// The windows of a seed.
#[must_use]
pub fn plan(seed: u64, nodes: u64, partitions: u32, windows: usize) -> Vec<Window> {
    let mut rng = StdRng::seed_from_u64(seed);
    let window = |_| {
        let lasts = Duration::from_millis(rng.random_range(WINDOW_MS.0..=WINDOW_MS.1));
        Window { fault: fault(&mut rng, nodes, partitions), lasts }
    };
    (0..windows).map(window).collect()
}

fn target(rng: &mut StdRng, nodes: u64, partitions: u32) -> Target {
    let partition = rng.random_range(0..partitions);
    match rng.random_range(0..9) {
        0..3 => Target::Node(rng.random_range(1..=nodes)),
        3..5 => Target::Leader(partition),
        5..7 => Target::Follower(partition),
        7 => Target::LastInSync(partition),
        _ => Target::Controller,
    }
}

fn fault(rng: &mut StdRng, nodes: u64, partitions: u32) -> Fault {
    let who = target(rng, nodes, partitions);
    let one = rng.random_range(1..=nodes);
    let other = (one + rng.random_range(1..nodes) - 1) % nodes + 1;
    let (partition, seed) = (rng.random_range(0..partitions), rng.random());
    match rng.random_range(0..42) {
        0..9 => Fault::Calm,
        9..12 => Fault::Kill { who },
        12..15 => Fault::PowerLoss { who, seed },
        15 => Fault::PowerLossOfAll { seed, apart_ms: rng.random_range(0..=300) },
        16 => Fault::PowerLossAfterAcknowledgement { partition, seed },
        17..19 => Fault::Isolate { who },
        19 => Fault::Cut { one, other },
        20 => Fault::Mute { who },
        21 => Fault::Deaf { who },
        22 => Fault::Split { side: rng.random_range(1..(1 << nodes) - 1) },
        23 => Fault::Resets { who, every_ms: rng.random_range(50..=1_000) },
        24 => Fault::Slow { latency_ms: rng.random_range(10..=200) },
        25 => Fault::SlowDisks { ms: rng.random_range(20..=500) },
        26..28 => Fault::DiskErrors { who, one_in: rng.random_range(1..=200), seed },
        28 => Fault::FullDisk { who },
        29 => Fault::Clock { who, ahead_ms: rng.random_range(-SKEW_MS..=SKEW_MS) },
        30 => Fault::Join,
        31 => Fault::Leave,
        32..34 => Fault::Pause { who },
        34..36 => Fault::Stop { who },
        _ => Fault::Story(story::story(rng, partition)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_is_one_plan_and_all_faults_occur() {
        assert_eq!(plan(7, 3, 3, 50), plan(7, 3, 3, 50));
        assert_ne!(plan(7, 3, 3, 50), plan(8, 3, 3, 50));
        let all = plan(1, 3, 3, 2_000);
        let names: BTreeSet<_> = all.iter().map(|window| window.fault.name()).collect();
        assert_eq!(names.len(), 20 + story::KINDS, "{names:?}");
        for window in all {
            match window.fault {
                Fault::Cut { one, other } => {
                    assert!(one != other && (1..=3).contains(&other), "{window}");
                }
                Fault::Split { side } => assert!((1..7).contains(&side), "{window}"),
                _ => {}
            }
        }
    }
}
