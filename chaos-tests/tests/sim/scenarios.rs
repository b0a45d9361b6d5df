//! Failures of other systems by name, in whole simulated clusters: a test for each, so
//! that each can be asked for.

use super::sim;
use ottla_chaos::sim::SCENARIOS;

macro_rules! scenarios {
    ($($test:ident $name:literal)*) => {
        $(#[test]
        fn $test() {
            let (good, said) = sim(&["--scenario", $name, "--seed", "1"]);
            assert!(good, "{said}");
            println!("{said}");
        })*

        #[test]
        fn each_has_a_test() {
            let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            assert_eq!(names, [$($name),*]);
        }
    };
}

scenarios! {
    scenario_01 "01_leader_alone_is_isolated_and_killed"
    scenario_02 "02_last_in_sync_loses_power"
    scenario_03 "03_one_loses_its_unsynced_tail"
    scenario_04 "04_all_lose_power_staggered"
    scenario_05 "05_fast_elections"
    scenario_06 "06_restart_then_election"
    scenario_07 "07_isr_grows_then_election"
    scenario_08 "08_late_alter_partition"
    scenario_09 "09_follower_rebooted_while_heard"
    scenario_10 "10_removed_and_added"
    scenario_11 "11_stopped_while_isr_grows"
    scenario_16 "16_topic_deleted_and_created_anew"
    scenario_26 "26_mixed_acks"
    scenario_28 "28_no_fault"
}
