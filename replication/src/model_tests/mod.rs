//! Three replicas, the real controller, and everything that can go wrong between
//! them: messages lost, repeated and reordered, connections opened anew, metadata
//! late, syncs slow, machines that lose power and what they had not synced.
//!
//! One world (`world`, `happen`), one set of rules (`checks`), two explorers: chance,
//! here, and a model checker that tries everything within bounds (`exhaustive`).

mod checks;
mod disk;
mod exhaustive;
mod happen;
mod node;
mod said;
mod situations;
mod world;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;
use world::World;

/// Histories tried at every run: a second or two.
const HISTORIES: u32 = 300;

/// Wait before a refused request is repeated, in milliseconds.
const RETRY_BACKOFF: u64 = 50;

/// Things that happen in one history, at most.
const EVENTS: usize = 1000;

/// No acknowledged record is lost, logs match, what was read stays; and once all
/// are back, all replicas are equal and take a write.
#[test]
fn three_replicas_keep_what_they_acknowledged() {
    let (acknowledged, truncations) = (Cell::new(0), Cell::new(0));
    let config = Config { cases: HISTORIES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let choices = proptest::collection::vec(any::<u32>(), EVENTS / 4..EVENTS);
    let outcome = runner.run(&(any::<bool>(), choices), |(memory, choices)| {
        let mut world = World::new(memory, RETRY_BACKOFF);
        for choice in choices {
            world.happen(choice);
        }
        world.heal();
        acknowledged.set(acknowledged.get() + world.acknowledged.len());
        truncations.set(truncations.get() + world.nodes.iter().map(|n| n.truncations).sum::<u64>());
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    // A test of nothing would pass too.
    let (acknowledged, truncations) = (acknowledged.get(), truncations.get());
    assert!(acknowledged > HISTORIES as usize * 5, "{acknowledged} acknowledged");
    assert!(truncations > u64::from(HISTORIES) / 3, "{truncations} truncations");
}
