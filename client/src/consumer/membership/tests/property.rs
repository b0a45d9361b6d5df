//! Whatever members do and whatever gets lost: nobody reads what another reads, nothing is
//! skipped, what does not move is not stopped, and in the end everything is read.

use super::super::Event;
use super::world::World;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Act {
    Join(u8, u8),
    Carry(u8),
    Lose(u8),
    DeliverDelayed(usize),
    AskDeposed(u8),
    Work(u8, bool),
    Release(u8),
    Leave(u8),
    Absent(u8),
    Present(u8),
    Crash(u8),
    Pass(u64),
    Grow(u8, u32),
    FailOver,
}

fn acts() -> impl Strategy<Value = Act> {
    let m = 0_u8..5;
    prop_oneof![
        3 => (m.clone(), 1_u8..4).prop_map(|(m, topics)| Act::Join(m, topics)),
        16 => m.clone().prop_map(Act::Carry),
        3 => m.clone().prop_map(Act::Lose),
        2 => any::<usize>().prop_map(Act::DeliverDelayed),
        8 => m.clone().prop_map(Act::AskDeposed),
        8 => (m.clone(), any::<bool>()).prop_map(|(m, commit)| Act::Work(m, commit)),
        4 => m.clone().prop_map(Act::Release),
        1 => m.clone().prop_map(Act::Leave),
        1 => m.clone().prop_map(Act::Absent),
        1 => m.clone().prop_map(Act::Present),
        1 => m.prop_map(Act::Crash),
        6 => (0_u64..3_000).prop_map(Act::Pass),
        1 => (0_u8..2, 1_u32..9).prop_map(|(topic, count)| Act::Grow(topic, count)),
        1 => Just(Act::FailOver),
    ]
}

fn act(world: &mut World, act: Act) {
    match act {
        Act::Join(member, topics) => world.join(member, topics),
        Act::Carry(member) => world.carry(member),
        Act::Lose(member) => world.lose(member),
        Act::DeliverDelayed(which) => world.deliver_delayed(which),
        Act::AskDeposed(member) => world.ask_deposed(member),
        Act::Work(member, commit) => world.work(member, commit),
        Act::Release(member) => world.release(member),
        Act::Leave(member) => world.tell(member, Event::Leave),
        Act::Absent(member) => world.tell(member, Event::Absent),
        Act::Present(member) => world.tell(member, Event::Present),
        Act::Crash(member) => world.crash(member),
        Act::Pass(ms) => world.pass(ms),
        Act::Grow(topic, count) => world.topic(topic, count),
        Act::FailOver => world.fail_over(),
    }
}

proptest! {
    #[test]
    fn partitions_have_one_reader_and_no_record_is_skipped(
        acts in prop::collection::vec(acts(), 1..200),
    ) {
        let mut world = World::new();
        for one in acts {
            act(&mut world, one);
            world.check();
        }
        for member in world.members() {
            world.tell(member, Event::Present);
        }
        world.calm_down();
    }
}

/// One member reaches only the node that was deposed, another joins where the group is now:
/// the first has stopped by the time the second is given what it read.
#[test]
fn a_deposed_coordinator_extends_no_lease() {
    let mut world = World::new();
    world.join(0, 1);
    for _ in 0..4 {
        world.carry(0);
    }
    world.fail_over();
    world.join(1, 1);
    let mut looks = 0;
    while !world.reads_everything(1) {
        world.pass(500);
        world.ask_deposed(0);
        world.carry(0);
        for _ in 0..2 {
            world.carry(1);
        }
        world.check();
        looks += 1;
        assert!(looks < 60, "half a minute later nobody has taken over");
    }
    assert!(looks > 18, "not before its session is over");
}
