//! Every history within bounds: stateright drives the world of the random walk, so the
//! production replicas and the production controller, and looks at the same rules.
//!
//! What keeps it small: an operation on a log is carried out at once, and a sync is one
//! event; nodes read the newest metadata only; no time passes unless it is said. The
//! random walk does without these.

use super::checks::RULES;
use super::happen::Action;
use super::node::{LAG_MAX, Node};
use super::said::Said;
use super::situations::Situation;
use super::world::{NODES, World};
use crate::core::RoleKind;
use ottla_proto::NodeId;
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// Records that a leader pushes at once: all there are.
const PUSH: usize = 8;

/// The rule that the core and the controller assert themselves.
const ASSERTIONS: &str = "no assertion fails";

/// How much may happen in one history, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Faults {
    writes: u8,
    crashes: u8,
    fences: u8,
    reconnects: u8,
    /// Messages that arrive twice.
    repeats: u8,
    /// Proposals of which the leader does not learn what became.
    give_ups: u8,
    /// Requests that are sent again after a refusal.
    retries: u8,
    /// Times that a follower which is behind counts as stuck.
    lags: u8,
}

/// A model: where it begins, and what may go wrong from there.
#[derive(Clone)]
struct Bounds {
    situation: Situation,
    faults: Faults,
    /// Events in a history: fewer once one is found that breaks a rule.
    shortest: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct State {
    world: World,
    left: Faults,
    /// What has happened so far. Not a part of the state: it is reached by the shortest
    /// history first.
    events: usize,
    /// The rule that is broken here.
    broken: Option<&'static str>,
}

impl State {
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, into: &mut H) {
        (self.left, self.broken, self.world.digest()).hash(into);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let world = self.situation.world();
        vec![State { world, left: self.faults, events: 0, broken: None }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.events >= self.shortest.load(Relaxed) {
            return;
        }
        for node in 0..state.world.nodes.len() {
            state.offer_node(node, actions);
        }
        for (which, message) in state.world.network.iter().enumerate() {
            actions.push(Action::Deliver(which));
            let call =
                matches!(message.said, Said::Propose { awaited: true, .. } | Said::Answered { .. });
            if call && state.left.give_ups > 0 {
                actions.push(Action::Lose(which));
            } else if !call && state.left.repeats > 0 {
                actions.push(Action::Repeat(which));
            }
        }
        let due = |node: &Node| {
            let deadline = node.process.as_ref().and_then(|p| p.replica.next_deadline());
            deadline.is_some_and(|due| due <= state.world.now)
        };
        if state.left.retries > 0 && state.world.nodes.iter().any(due) {
            actions.push(Action::Pass(0));
        }
        if state.left.lags > 0 {
            actions.push(Action::Pass(LAG_MAX));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = last.clone();
        next.left.spend(&action);
        next.events += 1;
        let happened = catch_unwind(AssertUnwindSafe(|| next.world.happen_at_once(action)));
        next.broken = match happened {
            Ok(()) => RULES.iter().find(|r| (r.holds)(&next.world).is_err()).map(|r| r.name),
            Err(_) => Some(ASSERTIONS),
        };
        if next.broken.is_some() {
            self.shortest.fetch_min(next.events, Relaxed);
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let holds = Property::always("every rule holds", |_, state: &State| state.broken.is_none());
        vec![holds]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.world.network.len() <= NETWORK
    }
}

impl Faults {
    fn spend(&mut self, action: &Action) {
        let kind = match action {
            Action::Produce { .. } => &mut self.writes,
            Action::Crash { .. } => &mut self.crashes,
            Action::Fence(_) => &mut self.fences,
            Action::Reconnect(_) => &mut self.reconnects,
            Action::Repeat(_) => &mut self.repeats,
            Action::Lose(_) => &mut self.give_ups,
            Action::Pass(0) => &mut self.retries,
            Action::Pass(_) => &mut self.lags,
            _ => return,
        };
        *kind -= 1;
    }
}

impl State {
    fn offer_node(&self, node: usize, actions: &mut Vec<Action>) {
        let (world, left) = (&self.world, &self.left);
        let broker = &world.image().brokers[&world.nodes[node].id];
        let Some(process) = &world.nodes[node].process else {
            return actions.push(Action::Restart(node));
        };
        if process.image + 1 < world.images.len() {
            actions.push(Action::Tell { node, newest: true });
        }
        if world.nodes[node].owes_sync() {
            actions.push(Action::Sync(node));
        }
        let status = process.replica.status();
        if status.role == RoleKind::Leader && left.writes > 0 {
            actions.push(Action::Produce { node, all: true });
        }
        let followers = (1..=NODES).map(NodeId).filter(|to| world.nodes[node].has_news(*to));
        actions.extend(followers.map(|to| Action::Push { from: node, to, most: PUSH }));
        if left.crashes > 0 {
            for noticed in [true, false] {
                actions.push(Action::Crash { node, kept: 0, noticed });
            }
        }
        if broker.fenced {
            actions.push(Action::Unfence(node));
        } else if left.fences > 0 {
            actions.push(Action::Fence(node));
        }
        if status.role == RoleKind::Follower && left.reconnects > 0 {
            actions.push(Action::Reconnect(node));
        }
    }
}

impl World {
    /// One thing happens, and what a disk does for it is done at once.
    pub(super) fn happen_at_once(&mut self, action: Action) {
        if let Action::Sync(node) = action {
            self.act(Action::Sync(node));
        }
        self.act(action);
        let now = self.now;
        while self.nodes.iter_mut().any(|node| node.run_op(now)) {}
        self.collect();
        self.observe();
    }

    /// What the future of the world depends on, and the past that rules look at.
    /// Messages on their way have no order. Sessions at the controller do not matter:
    /// whoever is fenced here is fenced by proof or by wish.
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let newest = self.images.len() - 1;
        self.nodes.iter().for_each(|node| node.hash_into(newest, &mut hasher));
        let mut messages: Vec<u64> = self.network.iter().map(hash_of).collect();
        messages.sort_unstable();
        messages.hash(&mut hasher);
        self.partition().hash(&mut hasher);
        for broker in self.image().brokers.values() {
            (broker.epoch, broker.fenced, broker.shutting_down).hash(&mut hasher);
        }
        (self.now, &self.committed, &self.acknowledged, &self.led).hash(&mut hasher);
        (self.last_request, &self.robbed, &self.stopped).hash(&mut hasher);
        hasher.finish()
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Explores in the order of length, so that what breaks a rule first is as short as can
/// be.
fn explore(situation: Situation, faults: Faults, events: usize) {
    let begun = Instant::now();
    let shortest = Arc::new(AtomicUsize::new(events));
    let bounds = Bounds { situation, faults, shortest };
    let checker = bounds.checker().finish_when(HasDiscoveries::Any).spawn_bfs().join();
    let (states, took) = (checker.unique_state_count(), begun.elapsed());
    eprintln!("{situation:?}: {states} states within {events} events, {took:.1?}");
    if let Some((_, path)) = checker.discoveries().into_iter().next() {
        let State { world, broken, .. } = path.last_state().clone();
        let rule = broken.expect("this is what was looked for");
        let actions = path.into_actions();
        let events = actions.len();
        panic!("{rule} is broken after {events} events: {actions:#?}{}", world.describe());
    }
}

/// One of each fault, and no more.
const ONE: Faults = Faults {
    writes: 1,
    crashes: 1,
    fences: 1,
    reconnects: 1,
    repeats: 0,
    give_ups: 1,
    retries: 1,
    lags: 1,
};

const TWO_WRITES: Faults = Faults { writes: 2, ..ONE };

/// Messages on their way at once.
const NETWORK: usize = 4;

/// Events from each situation, in the tests that always run.
const SHORT: usize = 5;

/// And in [`longer_histories`]. Another one takes three to four times as long, and as
/// much memory.
const LONG: usize = 6;

macro_rules! situations {
    ($($name:ident: $situation:ident, $faults:expr;)*) => {
        $(#[test]
        fn $name() {
            explore(Situation::$situation, $faults, SHORT);
        })*

        #[test]
        #[ignore = "two minutes of a processor, and two gigabytes"]
        fn longer_histories() {
            $(explore(Situation::$situation, $faults, LONG);)*
        }
    };
}

situations! {
    all_are_in_sync: Healthy, TWO_WRITES;
    a_record_is_on_its_way_to_be_committed: Written, ONE;
    one_is_behind: OneBehind, ONE;
    one_is_joining: Joining, ONE;
    another_is_elected: Elected, ONE;
    logs_have_diverged: Diverged, TWO_WRITES;
    one_has_restarted: Restarted, ONE;
}
