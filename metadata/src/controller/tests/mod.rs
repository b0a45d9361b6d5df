//! Stories with known endings (`scripts`), and any story at all (`property`).

mod acts;
mod checks;
mod members;
mod parts;
mod placement;
mod property;
mod script;
mod tell;
mod world;

macro_rules! stories {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            let file = concat!(stringify!($name), ".txt");
            script::run(file, include_str!(concat!("../scripts/", stringify!($name), ".txt")));
        })*
    };
}

stories!(
    registration,
    heartbeat,
    controlled_shutdown,
    fencing,
    alter_partition,
    topics,
    growth,
    reassignment,
    reassignment_cancelled,
    reassignment_eligible,
    voters,
    removal,
    balance,
    controller_change,
    offline_replicas,
    eligible,
    elections,
    elect_by_hand,
    power_loss,
    requests,
    requests_to_move,
    level_of_a_new_cluster,
    upgrade,
    drain,
    drain_and_restarts,
    drain_cancelled,
    drain_refused,
    drain_racks,
    drain_steps,
    drain_needs_its_level,
    settings,
    producer_ids,
    producer_ids_need_their_level,
);
