//! Whatever members do, in whatever order, with whatever answers lost.

use super::world::{GROUP, World};
use crate::groups::{Departure, GroupError, GroupOptions};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Act {
    Join(u8, u8),
    Tick(u8),
    TickUnheard(u8),
    TickDelayed(u8),
    ChangeDelayed(u8, bool),
    DeliverDelayed(usize),
    Leave(u8),
    Pause(u8),
    Pass(u16),
    Topic(u8, u32),
    ForgetTopic(u8),
}

fn acts() -> impl Strategy<Value = Act> {
    let member = 0_u8..6;
    prop_oneof![
        3 => (member.clone(), 1_u8..4).prop_map(|(m, topics)| Act::Join(m, topics)),
        8 => member.clone().prop_map(Act::Tick),
        2 => member.clone().prop_map(Act::TickUnheard),
        2 => member.clone().prop_map(Act::TickDelayed),
        1 => (member.clone(), any::<bool>()).prop_map(|(m, joins)| Act::ChangeDelayed(m, joins)),
        4 => any::<usize>().prop_map(Act::DeliverDelayed),
        1 => member.clone().prop_map(Act::Leave),
        1 => member.prop_map(Act::Pause),
        2 => (0_u16..6_000).prop_map(Act::Pass),
        1 => (0_u8..2, 1_u32..9).prop_map(|(t, n)| Act::Topic(t, n)),
        1 => (0_u8..2).prop_map(Act::ForgetTopic),
    ]
}

fn act(world: &mut World, act: &Act) -> Result<(), GroupError> {
    let name = |member: u8| format!("m{member}");
    let known = |world: &World, member: u8| world.members.contains_key(name(member).as_str());
    match *act {
        Act::Join(member, topics) => {
            // Members 4 and 5 are static, under another id each time.
            let (id, instance) = match member {
                4.. => (format!("m{member}-{}", world.log.len()), Some(name(member))),
                _ => (name(member), None),
            };
            let names = ["t0", "t1"].iter().enumerate().filter(|(n, _)| topics & (1 << n) != 0);
            let names: Vec<&str> = names.map(|(_, name)| *name).collect();
            world.join_as(&id, &names, instance.as_deref())
        }
        Act::Tick(member) if known(world, member) => world.tick(&name(member)),
        Act::TickUnheard(member) if known(world, member) => world.tick_unheard(&name(member)),
        Act::TickDelayed(member) if known(world, member) => {
            world.tick_delayed(&name(member));
            Ok(())
        }
        Act::ChangeDelayed(member, joins) if known(world, member) => {
            world.change_delayed(&name(member), joins)
        }
        Act::DeliverDelayed(which) => {
            world.deliver_delayed(which);
            Ok(())
        }
        Act::Leave(member) if known(world, member) => world.depart(&name(member), Departure::Leave),
        Act::Pause(member) => {
            let prefix = format!("m{member}-");
            let statics = world.members.keys().find(|id| id.starts_with(&prefix)).cloned();
            statics.map_or(Ok(()), |id| world.depart(&id, Departure::Pause))
        }
        Act::Pass(ms) => {
            world.pass(u64::from(ms));
            Ok(())
        }
        Act::Topic(topic, partitions) => {
            let name = format!("t{topic}");
            let has = world.topics.0.get(&name).map_or(0, |(_, count)| *count);
            world.topic(&name, has.max(partitions));
            Ok(())
        }
        Act::ForgetTopic(topic) => {
            world.forget_topic(&format!("t{topic}"));
            Ok(())
        }
        Act::Tick(_)
        | Act::TickUnheard(_)
        | Act::TickDelayed(_)
        | Act::ChangeDelayed(..)
        | Act::Leave(_) => Ok(()),
    }
}

proptest! {
    #[test]
    fn nobody_reads_what_is_anothers(acts in prop::collection::vec(acts(), 1..120)) {
        let mut world = World::new(GroupOptions::default());
        world.topic("t0", 5);
        for one in &acts {
            match act(&mut world, one) {
                Ok(()) => {}
                Err(GroupError::UnknownMember(member)) => {
                    // It was put out: it stops reading, and may join again.
                    world.members.remove(&member);
                }
                Err(GroupError::FencedMemberEpoch { .. }) => {
                    if let Act::Tick(member) | Act::TickUnheard(member) = one {
                        world.join_again(&format!("m{member}")).expect("joins again");
                    }
                }
                Err(GroupError::UnreleasedInstance { .. } | GroupError::UnknownGroup) => {}
                Err(error) => prop_assert!(false, "{error:?} after {one:?}"),
            }
            world.check();
        }
        let facts: Vec<_> = world.groups.iter().map(|(id, group)| (id.clone(), group.clone())).collect();
        for other in [world.taken_over(), world.taken_over_compacted()] {
            let same: Vec<_> = other.iter().map(|(id, group)| (id.clone(), group.clone())).collect();
            prop_assert_eq!(&same, &facts, "another coordinator sees another group");
        }
        let lives = |member: &crate::groups::MemberId| {
            world.groups.get(GROUP).is_ok_and(|group| group.members.contains_key(member))
        };
        let gone: Vec<_> = world.members.keys().filter(|m| !lives(m)).cloned().collect();
        gone.iter().for_each(|member| drop(world.members.remove(member)));
        // Static members that are away hold on to theirs.
        if world.groups.get(GROUP).is_ok_and(|g| g.members.len() == world.members.len()) {
            world.calm_down();
            world.check();
            let group = world.groups.get(GROUP).expect("the group");
            prop_assert!(group.members.values().all(|m| m.is_settled(group.fact.epoch)));
        }
    }
}
