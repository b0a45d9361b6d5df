//! What is done to the nodes, from a seed: one fault after the other, a quarter of the
//! time none. Pure.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::fmt;
use std::time::Duration;

/// Shortest and longest window, in milliseconds: an election takes some hundreds, a
/// session a thousand.
const WINDOW_MS: (u64, u64) = (300, 4_000);

/// One fault, while its window lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None.
    Calm,
    /// The process is gone, and comes back when the window ends.
    Kill {
        /// Which node.
        node: u64,
    },
    /// The same, and what its disk had not synced is gone too, as `seed` draws.
    PowerLoss {
        /// Which node.
        node: u64,
        /// Of the disk's losses.
        seed: u64,
    },
    /// All nodes lose power at once.
    PowerLossOfAll {
        /// Of the disks' losses.
        seed: u64,
    },
    /// Nothing gets to or from a node, clients included, until the window ends; then
    /// what was on the way arrives.
    Isolate {
        /// Which node.
        node: u64,
    },
    /// Two nodes do not hear each other.
    Cut {
        /// One of them.
        one: u64,
        /// The other.
        other: u64,
    },
    /// Every message may take so many milliseconds.
    Slow {
        /// At most.
        latency_ms: u64,
    },
}

/// A fault and how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// The windows of a seed.
#[must_use]
pub fn plan(seed: u64, nodes: u64, windows: usize) -> Vec<Window> {
    let mut rng = StdRng::seed_from_u64(seed);
    let window = |_| {
        let lasts = Duration::from_millis(rng.random_range(WINDOW_MS.0..=WINDOW_MS.1));
        let node = rng.random_range(1..=nodes);
        let other = (node + rng.random_range(1..nodes) - 1) % nodes + 1;
        let fault = match rng.random_range(0..16) {
            0..4 => Fault::Calm,
            4..7 => Fault::Kill { node },
            7..9 => Fault::PowerLoss { node, seed: rng.random() },
            9..10 => Fault::PowerLossOfAll { seed: rng.random() },
            10..13 => Fault::Isolate { node },
            13..15 => Fault::Cut { one: node, other },
            _ => Fault::Slow { latency_ms: rng.random_range(10..=200) },
        };
        Window { fault, lasts }
    };
    (0..windows).map(window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_plan_and_all_faults_occur() {
        assert_eq!(plan(7, 3, 50), plan(7, 3, 50));
        assert_ne!(plan(7, 3, 50), plan(8, 3, 50));
        let all = plan(1, 3, 500);
        let some = |wanted: fn(&Fault) -> bool| all.iter().any(|window| wanted(&window.fault));
        assert!(some(|fault| *fault == Fault::Calm));
        assert!(some(|fault| matches!(fault, Fault::Kill { .. })));
        assert!(some(|fault| matches!(fault, Fault::PowerLoss { .. })));
        assert!(some(|fault| matches!(fault, Fault::PowerLossOfAll { .. })));
        assert!(some(|fault| matches!(fault, Fault::Isolate { .. })));
        assert!(some(|fault| matches!(fault, Fault::Slow { .. })));
        for window in all {
            if let Fault::Cut { one, other } = window.fault {
                assert!(one != other && (1..=3).contains(&other), "{window}");
            }
        }
    }
}
