//! Where the model checker begins: histories that are dangerous already, so that few
//! more events show whether the rules hold. Each is made of events like any other.

use super::happen::Action;
use super::said::Said;
use super::world::{World, index_of};

/// Rounds after which nothing is left to do.
const QUIET: u32 = 6;

/// Records that are pushed at once: all there are.
const ALL: usize = 8;

/// The beginning of a history, of the *leader* and two followers, the *second* and the
/// *third*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Situation {
    /// All are in sync and idle.
    Healthy,
    /// A record is on all. On the leader and the third it is not on stable storage yet;
    /// the second has acknowledged it.
    Written,
    /// The third is back, still fenced, and lacks the record that the two others have
    /// committed meanwhile.
    OneBehind,
    /// The third has caught up, and the proposal to add it is on its way.
    Joining,
    /// The third lacks a record that the two others have committed; and then the leader
    /// has lost power. The second is elected, and does not know it yet. What was
    /// committed is beyond the watermark that it knows.
    Elected,
    /// The leader is fenced, and has a record that nobody else has, and that is on its
    /// way to the third, which follows the second already.
    Diverged,
    /// The third has lost power and is back, before its leader has heard of either.
    Restarted,
}

impl Situation {
    pub(super) fn world(self) -> World {
        // Refused requests are repeated at once: no time passes but on purpose.
        let mut world = World::new(false, 0);
        world.act(Action::Rounds(QUIET));
        let order: Vec<usize> = world.partition().replicas.iter().map(|n| index_of(*n)).collect();
        let [leader, second, third] = order[..] else { panic!("three replicas") };
        match self {
            Self::Healthy => {}
            Self::Written => world.write(leader, &[second, third], &[second]),
            Self::OneBehind => world.leave_behind(leader, second, third),
            Self::Joining => {
                world.leave_behind(leader, second, third);
                world.play([Action::Unfence(third), Action::Tell { node: leader, newest: true }]);
                world.catch_up(leader, third);
            }
            Self::Elected => {
                world.play([crash(third, true), Action::Rounds(QUIET)]);
                world.write(leader, &[second], &[leader, second]);
                assert_eq!(world.acknowledged.len(), 1, "committed: {}", world.describe());
                world.play([crash(leader, true), Action::Restart(third)]);
            }
            Self::Diverged => world.diverge(leader, second, third),
            Self::Restarted => world.play([crash(third, false), Action::Restart(third)]),
        }
        world
    }
}

fn crash(node: usize, noticed: bool) -> Action {
    Action::Crash { node, kept: 0, noticed }
}

impl World {
    fn play<const N: usize>(&mut self, actions: [Action; N]) {
        for action in actions {
            self.happen_at_once(action);
        }
    }

    fn deliver_all(&mut self) {
        while !self.network.is_empty() {
            self.play([Action::Deliver(0)]);
        }
    }

    /// A record, on stable storage of some.
    fn write(&mut self, leader: usize, to: &[usize], synced: &[usize]) {
        self.play([Action::Produce { node: leader, all: true }]);
        for follower in to {
            self.play([Action::Push { from: leader, to: self.nodes[*follower].id, most: ALL }]);
        }
        self.deliver_all();
        for node in synced {
            self.play([Action::Sync(*node)]);
        }
        self.deliver_all();
    }

    fn leave_behind(&mut self, leader: usize, second: usize, third: usize) {
        self.play([crash(third, true), Action::Rounds(QUIET)]);
        self.write(leader, &[second], &[leader, second]);
        self.play([Action::Rounds(QUIET), Action::Restart(third)]);
    }

    /// Until the leader proposes the follower.
    fn catch_up(&mut self, leader: usize, follower: usize) {
        self.deliver_all();
        self.play([Action::Push { from: leader, to: self.nodes[follower].id, most: ALL }]);
        self.deliver_all();
        self.play([Action::Sync(follower), Action::Deliver(0)]);
        let proposed =
            matches!(self.network[..], [ref m] if matches!(m.said, Said::Propose { .. }));
        assert!(proposed, "the leader proposes: {}", self.describe());
    }

    fn diverge(&mut self, leader: usize, second: usize, third: usize) {
        self.write(leader, &[second, third], &[leader, second, third]);
        self.play([Action::Rounds(QUIET), Action::Produce { node: leader, all: true }]);
        self.play([Action::Push { from: leader, to: self.nodes[third].id, most: ALL }]);
        let late = self.network.remove(0);
        self.play([Action::Fence(leader)]);
        for node in [second, third] {
            self.play([Action::Tell { node, newest: true }]);
        }
        self.deliver_all();
        self.network.push(late);
    }
}
