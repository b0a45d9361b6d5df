//! Failures of other systems, by the number they have in our list of them, each as a plan
//! that is written out instead of drawn. What a plan waits for must come about, or the
//! run is bad: nobody is to believe in a scenario that never happened. Pure.
//!
//! Beside them the load writes and reads as always, and the checker judges.

use super::plan::{Fault, Window};
use super::story::{Op, Sign, Step, Story, Who};
use std::time::Duration;

/// How long anything that is waited for may take, in milliseconds: elections, returns to
/// an ISR, moves take some hundreds.
const SOON: u64 = 20_000;

/// A plan with a name.
#[derive(Debug)]
pub struct Scenario {
    /// By which it is asked for.
    pub name: &'static str,
    /// Nodes at the beginning.
    pub nodes: u64,
    /// After how many milliseconds behind its leader a follower leaves the ISR.
    pub lag_ms: u64,
    steps: fn() -> Vec<Step>,
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    scenario("01_leader_alone_is_isolated_and_killed", 5, 400, alone_and_killed),
    scenario("02_last_in_sync_loses_power", 5, 400, alone_and_loses_power),
    scenario("03_one_loses_its_unsynced_tail", 3, 10_000, one_loses_its_tail),
    scenario("04_all_lose_power_staggered", 3, 10_000, all_staggered),
    scenario("05_fast_elections", 5, 1_500, fast_elections),
    scenario("06_restart_then_election", 4, 1_500, restart_then_election),
    scenario("07_isr_grows_then_election", 4, 400, isr_grows_then_election),
    scenario("08_late_alter_partition", 5, 400, late_alter_partition),
    scenario("09_follower_rebooted_while_heard", 3, 1_500, rebooted_follower),
    scenario("10_removed_and_added", 4, 1_500, removed_and_added),
    scenario("11_stopped_while_isr_grows", 4, 1_500, stopped_while_isr_grows),
    scenario("16_topic_deleted_and_created_anew", 3, 1_500, deleted_and_created),
    scenario("26_mixed_acks", 3, 1_500, mixed_acks),
    scenario("28_no_fault", 3, 1_500, || vec![Step::For(5_000)]),
];

const fn scenario(
    name: &'static str,
    nodes: u64,
    lag_ms: u64,
    steps: fn() -> Vec<Step>,
) -> Scenario {
    Scenario { name, nodes, lag_ms, steps }
}

impl Scenario {
    /// The one of a name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// Its only window.
    #[must_use]
    pub fn plan(&self) -> Vec<Window> {
        // A partition that is just being created has whoever was there first.
        let mut steps = vec![Step::Await(Sign::Whole, SOON)];
        steps.extend((self.steps)());
        let story = Story { name: self.name, partition: 0, steps };
        vec![Window { fault: Fault::Story(story), lasts: Duration::from_millis(500) }]
    }
}

/// The followers do not hear the leader any more, until it is alone in the ISR.
fn leader_is_left_alone() -> Vec<Step> {
    vec![
        Step::Cut(Who::Leader, Who::First),
        Step::Cut(Who::Leader, Who::Second),
        Step::Await(Sign::Alone, SOON),
        Step::For(200),
    ]
}

fn alone_and_killed() -> Vec<Step> {
    let mut steps = leader_is_left_alone();
    steps.extend([
        Step::Isolate(Who::Leader),
        Step::For(300),
        Step::Kill(Who::Leader),
        Step::Join,
        // One of those that left last is eligible, and has all that was committed.
        Step::Await(Sign::Moved, SOON),
        Step::Await(Sign::Acknowledged, SOON),
        Step::Start(Who::Leader),
        Step::Await(Sign::In(Who::Leader), SOON),
    ]);
    steps
}

fn alone_and_loses_power() -> Vec<Step> {
    let mut steps = leader_is_left_alone();
    steps.extend([
        Step::PowerLoss(Who::Leader, 1),
        Step::Join,
        Step::Await(Sign::Moved, SOON),
        Step::Start(Who::Leader),
        Step::Await(Sign::In(Who::Leader), SOON),
    ]);
    steps
}

fn one_loses_its_tail() -> Vec<Step> {
    vec![
        Step::SlowDisks(300),
        Step::Await(Sign::Acknowledged, SOON),
        Step::PowerLoss(Who::First, 1),
        Step::Start(Who::First),
        Step::Await(Sign::In(Who::First), SOON),
        Step::Await(Sign::Acknowledged, SOON),
        Step::PowerLoss(Who::Leader, 2),
        Step::Await(Sign::Moved, SOON),
        Step::Start(Who::Leader),
        Step::Await(Sign::In(Who::Leader), SOON),
    ]
}

fn all_staggered() -> Vec<Step> {
    vec![
        Step::Await(Sign::Acknowledged, SOON),
        Step::PowerLoss(Who::First, 1),
        Step::For(150),
        Step::PowerLoss(Who::Leader, 2),
        Step::For(150),
        Step::PowerLoss(Who::Second, 3),
        Step::For(150),
        Step::Start(Who::First),
        Step::For(100),
        Step::Start(Who::Leader),
        Step::For(400),
        Step::Start(Who::Second),
        Step::Await(Sign::Acknowledged, SOON),
    ]
}

fn fast_elections() -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..4 {
        steps.extend([
            Step::Kill(Who::NewLeader),
            Step::Await(Sign::Moved, SOON),
            Step::Start(Who::Hit),
            Step::Isolate(Who::NewLeader),
            Step::Await(Sign::Moved, SOON),
            Step::Start(Who::Hit),
        ]);
    }
    steps.push(Step::Await(Sign::Acknowledged, SOON));
    steps
}

fn restart_then_election() -> Vec<Step> {
    vec![
        Step::Kill(Who::First),
        Step::Await(Sign::Out(Who::First), SOON),
        Step::Start(Who::First),
        Step::Await(Sign::In(Who::First), SOON),
        Step::Slow(Who::Leader, Who::First, 100),
        Step::Await(Sign::Acknowledged, SOON),
        Step::Kill(Who::Leader),
        Step::Await(Sign::Moved, SOON),
        Step::Kill(Who::NewLeader),
        Step::Start(Who::Leader),
        Step::Await(Sign::Moved, SOON),
        Step::Await(Sign::Acknowledged, SOON),
    ]
}

fn isr_grows_then_election() -> Vec<Step> {
    vec![
        Step::Cut(Who::Leader, Who::First),
        Step::Await(Sign::Out(Who::First), SOON),
        Step::Kill(Who::Leader),
        Step::Join,
        // The new leader knows less of what is committed than there is.
        Step::Await(Sign::Moved, SOON),
        Step::Await(Sign::In(Who::First), SOON),
        Step::Kill(Who::NewLeader),
        Step::Start(Who::Leader),
        Step::Await(Sign::Moved, SOON),
        Step::Await(Sign::Acknowledged, SOON),
    ]
}

fn late_alter_partition() -> Vec<Step> {
    vec![
        Step::Kill(Who::First),
        Step::Await(Sign::Out(Who::First), SOON),
        Step::Slow(Who::Leader, Who::Controller, 600),
        Step::Start(Who::First),
        Step::Await(Sign::In(Who::First), SOON),
        Step::Cut(Who::Leader, Who::First),
        Step::For(300),
        Step::Kill(Who::Leader),
        Step::Pause(Who::Second),
        Step::For(1_500),
        Step::GoOn,
        Step::Start(Who::Leader),
        Step::Await(Sign::Acknowledged, SOON),
    ]
}

fn rebooted_follower() -> Vec<Step> {
    let mut steps = vec![Step::Slow(Who::Leader, Who::First, 150)];
    for seed in 0..3 {
        // What its earlier life has asked for and acknowledged is still on the way.
        steps.extend([
            Step::Await(Sign::Acknowledged, SOON),
            Step::PowerLoss(Who::First, seed),
            Step::Start(Who::First),
            Step::For(700),
        ]);
    }
    steps.extend([
        Step::Await(Sign::In(Who::First), SOON),
        Step::Kill(Who::Leader),
        Step::Await(Sign::Moved, SOON),
        Step::Start(Who::Leader),
        Step::Await(Sign::Acknowledged, SOON),
    ]);
    steps
}

fn removed_and_added() -> Vec<Step> {
    vec![
        // It hears of both at once, when it goes on.
        Step::Pause(Who::First),
        Step::Operate(Op::Move([Who::Leader, Who::Second, Who::Other])),
        Step::Operate(Op::Move([Who::Leader, Who::Second, Who::First])),
        Step::GoOn,
        Step::Await(Sign::In(Who::First), SOON),
        Step::Kill(Who::Leader),
        Step::Await(Sign::Moved, SOON),
        Step::Start(Who::Leader),
        Step::Await(Sign::Acknowledged, SOON),
    ]
}

fn stopped_while_isr_grows() -> Vec<Step> {
    vec![
        Step::Kill(Who::First),
        Step::Await(Sign::Out(Who::First), SOON),
        Step::Start(Who::First),
        Step::For(150),
        Step::Stop(Who::First),
        Step::Await(Sign::Out(Who::First), SOON),
        Step::Await(Sign::Acknowledged, SOON),
        Step::Start(Who::First),
        Step::Await(Sign::In(Who::First), SOON),
        Step::Stop(Who::Leader),
        Step::Await(Sign::Moved, SOON),
        Step::Start(Who::Leader),
        Step::Await(Sign::In(Who::Leader), SOON),
    ]
}

fn deleted_and_created() -> Vec<Step> {
    vec![
        Step::Operate(Op::Create("again")),
        Step::Operate(Op::Whole("again")),
        Step::Kill(Who::First),
        Step::Await(Sign::Out(Who::First), SOON),
        Step::Operate(Op::Delete("again")),
        Step::Operate(Op::Create("again")),
        Step::Start(Who::First),
        Step::Operate(Op::Whole("again")),
    ]
}

fn mixed_acks() -> Vec<Step> {
    vec![
        Step::Isolate(Who::Leader),
        Step::Await(Sign::Moved, SOON),
        Step::Start(Who::Leader),
        Step::For(500),
        Step::PowerLoss(Who::NewLeader, 1),
        Step::Await(Sign::Moved, SOON),
        Step::Start(Who::Hit),
        Step::For(1_000),
        Step::PowerLossOfAll(2),
        Step::Start(Who::Leader),
        Step::Start(Who::First),
        Step::Start(Who::Second),
        Step::Await(Sign::Acknowledged, SOON),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_has_a_name_of_its_own_and_waits_for_something() {
        let names: BTreeSet<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        for scenario in SCENARIOS {
            assert!(Scenario::find(scenario.name).is_some());
            let waits = |step: &Step| matches!(step, Step::Await(..) | Step::Operate(_));
            let steps = (scenario.steps)();
            assert!(scenario.name == "28_no_fault" || steps.iter().any(waits), "{}", scenario.name);
        }
    }
}
