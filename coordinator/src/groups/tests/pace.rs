//! How often members are heard, as their groups change.

use super::world::{GROUP, World};
use crate::groups::{Departure, GroupOptions};

fn world() -> World {
    let mut world = World::new(GroupOptions::default());
    world.topic("t", 4);
    world
}

/// What the node tells the member, where it coordinates many others beside this group.
fn next_heartbeat(world: &World) -> u32 {
    world.groups.next_heartbeat_ms(&GROUP.into(), 2_000, world.now)
}

/// Where a node has much to do a group at rest is heard seldom, and one that has something
/// to hand over often.
#[test]
fn only_groups_at_rest_are_heard_seldom() {
    let mut world = world();
    world.join("a", &["t"]).expect("joins");
    assert_eq!(next_heartbeat(&world), 2_000, "it has everything");
    assert_eq!(world.groups.next_heartbeat_ms(&GROUP.into(), 1, world.now), 500, "few members");
    world.join("b", &["t"]).expect("joins");
    assert_eq!(next_heartbeat(&world), 500, "`a` is to give some of it back");
    world.calm_down();
    assert_eq!(next_heartbeat(&world), 2_000);
    world.topic("t", 8);
    assert_eq!(next_heartbeat(&world), 500, "there is more to be read");
    world.calm_down();
    world.depart("b", Departure::Leave).expect("leaves");
    assert_eq!(next_heartbeat(&world), 500, "`a` is to have all");
    assert_eq!(world.groups.members(), 1);
}

/// By the time a death is known of, the others are heard often, and take over soon.
#[test]
fn who_may_be_dead_makes_its_group_be_heard_often() {
    let mut world = world();
    world.join("a", &["t"]).expect("joins");
    world.join("b", &["t"]).expect("joins");
    world.calm_down();
    let mut heard = 0;
    while world.groups.members() == 2 {
        let wait = next_heartbeat(&world);
        world.pass(wait.into());
        heard += u32::from(wait == 500);
        world.tick("b").expect("a member");
    }
    assert_eq!(world.owned("b"), [0, 1, 2, 3]);
    assert!(heard >= 4, "heard often {heard} times before");
    assert!(world.now.monotonic <= 10_000 + 500, "it knew at {}", world.now.monotonic);
    assert_eq!(next_heartbeat(&world), 2_000, "and then all is at rest again");
}
