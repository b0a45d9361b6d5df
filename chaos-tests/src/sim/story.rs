//! Faults that belong together: each hurts the nodes of one partition in an order in
//! which others lost data, at times that the seed draws. Pure.
//!
//! They are what a plan's single faults hit too seldom: a node is gone in the very
//! moment in which another has not heard yet, twice in a row, with disks behind.

use rand::RngExt;
use rand::rngs::StdRng;
use std::fmt;

/// Who is hit. The first four as they were when the story began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Led the partition.
    Leader,
    /// Its first follower.
    First,
    /// Its other one.
    Second,
    /// The active controller.
    Controller,
    /// Who leads now.
    NewLeader,
    /// Who was hit last.
    Hit,
    /// Somebody without a replica of it.
    Other,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// A writer of the partition is told that its record is safe.
    Acknowledged,
    /// Who led is in sync with itself only.
    Alone,
    /// Somebody leads, and not who was hit last.
    Moved,
    /// This one is not in the ISR.
    Out(Who),
    /// This one is.
    In(Who),
    /// All replicas are.
    Whole,
}

/// What operators are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The partition is to have these replicas.
    Move([Who; 3]),
    /// A topic of three replicas comes into being.
    Create(&'static str),
    /// It goes.
    Delete(&'static str),
    /// All its replicas are in sync.
    Whole(&'static str),
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The process is gone.
    Kill(Who),
    /// It stops in order.
    Stop(Who),
    /// The process is gone, and what was not synced.
    PowerLoss(Who, u64),
    /// The same, of all nodes at once.
    PowerLossOfAll(u64),
    /// It is there again, whatever it was gone by.
    Start(Who),
    /// It stands still.
    Pause(Who),
    /// Whoever stands still goes on.
    GoOn,
    /// The two do not hear each other any more.
    Cut(Who, Who),
    /// Nobody hears it any more, nor it anybody.
    Isolate(Who),
    /// All that was cut is whole again. Who is isolated stays so.
    Join,
    /// Each message between the two takes so many milliseconds.
    Slow(Who, Who, u64),
    /// Every write and sync of all nodes may take so many milliseconds.
    SlowDisks(u64),
    /// So many milliseconds pass.
    For(u64),
    /// Until it is seen, or so many milliseconds have passed.
    Until(Sign, u64),
    /// The same, and it must be seen: else there is no such story.
    Await(Sign, u64),
    /// Operators do it. They must succeed.
    Operate(Op),
}

/// What happens to the nodes of a partition, one step after the other.
#[derive(Clone, PartialEq, Eq)]
pub struct Story {
    /// For the history.
    pub name: &'static str,
    /// Whose nodes.
    pub partition: u32,
    /// In order. What is still wrong after the last stays so while the window lasts.
    pub steps: Vec<Step>,
}

impl fmt::Debug for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (partition {}): {:?}", self.name, self.partition, self.steps)
    }
}

/// How many kinds there are.
pub(super) const KINDS: usize = 6;

/// Draws one.
pub(super) fn story(rng: &mut StdRng, partition: u32) -> Story {
    let (name, steps) = match rng.random_range(0..KINDS) {
        0 => ("alone, then gone", alone_then_gone(rng)),
        1 => ("joins unheard", join_unheard(rng)),
        2 => ("leaves unheard", leave_unheard(rng)),
        3 => ("leaders in a row", leaders_in_a_row(rng)),
        4 => ("followers lose what was not synced", followers_lose(rng)),
        _ => ("all lose power, the leader is back first", leader_is_back_first(rng)),
    };
    Story { name, partition, steps }
}

/// In one of the ways in which a node can be gone.
fn gone(rng: &mut StdRng, who: Who) -> Step {
    match rng.random_range(0..5) {
        0..2 => Step::Kill(who),
        2..4 => Step::PowerLoss(who, rng.random()),
        _ => Step::Isolate(who),
    }
}

/// The followers are cut off until the leader is alone in its ISR; then it is lost.
fn alone_then_gone(rng: &mut StdRng) -> Vec<Step> {
    vec![
        Step::Cut(Who::Leader, Who::First),
        Step::Cut(Who::Leader, Who::Second),
        Step::Until(Sign::Alone, 2_000),
        Step::For(rng.random_range(0..300)),
        Step::Join,
        gone(rng, Who::Leader),
    ]
}

/// A follower comes back. Its leader hears late, or never, that it is in the ISR again,
/// loses sight of it, and is gone; the other follower stands still, so that who came
/// back leads.
fn join_unheard(rng: &mut StdRng) -> Vec<Step> {
    let mut steps = vec![
        Step::Kill(Who::First),
        Step::Until(Sign::Out(Who::First), 2_000),
        Step::Slow(Who::Leader, Who::Controller, rng.random_range(100..800)),
        Step::Start(Who::First),
        Step::Until(Sign::In(Who::First), 3_000),
        Step::Cut(Who::Leader, Who::First),
        Step::For(rng.random_range(20..400)),
        gone(rng, Who::Leader),
    ];
    if rng.random_ratio(2, 3) {
        steps.push(Step::Pause(Who::Second));
    }
    steps.push(Step::For(rng.random_range(300..1_500)));
    steps.extend([Step::GoOn, Step::Start(Who::Leader)]);
    steps
}

/// A follower is cut off from its leader for so long that it is to leave the ISR, and
/// the leader from who has to agree; then the leader is gone.
fn leave_unheard(rng: &mut StdRng) -> Vec<Step> {
    let mut steps =
        vec![Step::Cut(Who::Leader, Who::First), Step::Cut(Who::Leader, Who::Controller)];
    steps.push(Step::For(rng.random_range(300..1_800)));
    steps.push(gone(rng, Who::Leader));
    if rng.random_bool(0.5) {
        steps.push(Step::Pause(Who::Second));
    }
    steps.push(Step::For(rng.random_range(300..1_500)));
    steps.extend([Step::GoOn, Step::Start(Who::Leader)]);
    steps
}

/// One follower is late to know what is committed, the other lacks what the first has;
/// the leader is gone, and the next one too before they agree again.
fn leaders_in_a_row(rng: &mut StdRng) -> Vec<Step> {
    let late = rng.random_range(20..250);
    vec![
        Step::Slow(Who::Leader, Who::First, late),
        Step::For(3 * late),
        Step::Cut(Who::Leader, Who::Second),
        Step::For(rng.random_range(late..=4 * late)),
        gone(rng, Who::Leader),
        Step::Slow(Who::First, Who::Second, rng.random_range(20..300)),
        Step::Until(Sign::Moved, 2_000),
        Step::For(rng.random_range(0..600)),
        gone(rng, Who::NewLeader),
        Step::Join,
        Step::Start(Who::Leader),
        Step::For(rng.random_range(300..1_500)),
    ]
}

/// With slow disks: the leader is gone once a record is safe, then its followers lose
/// power before they have caught up with their disks.
fn followers_lose(rng: &mut StdRng) -> Vec<Step> {
    vec![
        Step::SlowDisks(rng.random_range(100..2_000)),
        Step::For(rng.random_range(0..500)),
        Step::Until(Sign::Acknowledged, 3_000),
        gone(rng, Who::Leader),
        Step::For(rng.random_range(0..600)),
        Step::PowerLoss(Who::First, rng.random()),
        Step::PowerLoss(Who::Second, rng.random()),
        Step::SlowDisks(20),
        Step::For(rng.random_range(0..300)),
        Step::Start(Who::First),
        Step::Start(Who::Second),
        Step::For(rng.random_range(300..2_000)),
    ]
}

/// With slow disks, everybody loses power once a record is safe; who led is back first.
fn leader_is_back_first(rng: &mut StdRng) -> Vec<Step> {
    vec![
        Step::SlowDisks(rng.random_range(100..2_000)),
        Step::For(rng.random_range(0..500)),
        Step::Until(Sign::Acknowledged, 3_000),
        Step::PowerLossOfAll(rng.random()),
        Step::SlowDisks(20),
        Step::Start(Who::Leader),
        Step::For(rng.random_range(0..500)),
        Step::Start(if rng.random_bool(0.5) { Who::First } else { Who::Second }),
        Step::For(rng.random_range(300..1_500)),
    ]
}
