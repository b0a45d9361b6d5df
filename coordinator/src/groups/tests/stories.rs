//! What happens to groups, one story each.

use super::world::{GROUP, World};
use crate::groups::{Committer, Departure, GroupError, GroupOptions, GroupState};
use ottla_proto::PartitionId;

fn world() -> World {
    let mut world = World::new(GroupOptions::default());
    world.topic("t", 4);
    world
}

#[test]
fn the_first_member_reads_everything() {
    let mut world = world();
    world.join("a", &["t"]).expect("joins");
    assert_eq!(world.owned("a"), [0, 1, 2, 3]);
    assert_eq!(world.groups.get(GROUP).expect("the group").state(), GroupState::Stable);
    world.check();
}

/// The second one is given what the first has given back, and nothing before.
#[test]
fn a_partition_is_given_back_before_it_is_taken() {
    let mut world = world();
    world.join("a", &["t"]).expect("joins");
    world.join("b", &["t"]).expect("joins");
    assert_eq!(world.owned("b"), [0; 0]);
    assert_eq!(world.groups.get(GROUP).expect("the group").state(), GroupState::Reconciling);
    world.tick("b").expect("a member");
    assert_eq!(world.owned("b"), [0; 0], "nothing is free yet");
    // `a` is told to give two back, and does so; it has not said so yet.
    world.tick("a").expect("a member");
    assert_eq!(world.owned("a").len(), 2);
    world.tick("b").expect("a member");
    assert_eq!(world.owned("b"), [0; 0], "not before it is known");
    world.tick("a").expect("a member");
    world.tick("b").expect("a member");
    assert_eq!(world.owned("b").len(), 2);
    assert_eq!(world.groups.get(GROUP).expect("the group").state(), GroupState::Stable);
    world.check();
}

#[test]
fn who_leaves_is_replaced_at_once() {
    let mut world = world();
    world.join("a", &["t"]).expect("joins");
    world.join("b", &["t"]).expect("joins");
    world.calm_down();
    world.depart("a", Departure::Leave).expect("leaves");
    world.tick("b").expect("a member");
    assert_eq!(world.owned("b"), [0, 1, 2, 3]);
    let error = world.depart("a", Departure::Leave).expect_err("gone");
    assert_eq!(error, GroupError::UnknownMember("a".into()));
}

#[test]
fn who_is_silent_is_put_out() {
    let mut world = world();
    world.join("a", &["t"]).expect("joins");
    world.join("b", &["t"]).expect("joins");
    world.calm_down();
    world.pass(9_999);
    world.tick("b").expect("a member");
    world.pass(1);
    world.tick("b").expect("a member");
    assert_eq!(world.owned("b"), [0, 1, 2, 3]);
    assert_eq!(world.tick("a"), Err(GroupError::UnknownMember("a".into())));
}

/// A member that goes on reading what it is to give back is put out, although it is
/// heard of all the time.
#[test]
fn who_gives_nothing_back_is_put_out() {
    let mut world = world();
    world.join("a", &["t"]).expect("joins");
    world.join("b", &["t"]).expect("joins");
    world.tick("a").expect("told to give two back");
    let all = world.members["a"].assigned.clone();
    let clings = |world: &mut World| {
        let mut owned = all.clone();
        let topic = *all.first().expect("two");
        owned.extend((0..4).map(|index| PartitionId { index, ..topic }));
        world.members.get_mut("a").expect("a member").owned = owned;
        let result = world.tick_unheard("a");
        world.tick("b").expect("a member");
        result
    };
    for _ in 0..59 {
        world.pass(5_000);
        clings(&mut world).expect("heard");
    }
    world.pass(5_000);
    assert_eq!(clings(&mut world), Err(GroupError::UnknownMember("a".into())));
    world.tick("b").expect("a member");
    assert_eq!(world.owned("b"), [0, 1, 2, 3]);
}

#[test]
fn an_answer_that_was_lost_is_given_again() {
    let mut world = world();
    world.join("a", &["t"]).expect("joins");
    world.join("b", &["t"]).expect("joins");
    world.calm_down();
    world.depart("b", Departure::Leave).expect("leaves");
    world.tick_unheard("a").expect("a member");
    world.tick("a").expect("one behind, with nothing that is not its own");
    assert_eq!(world.owned("a"), [0, 1, 2, 3]);
    world.members.get_mut("a").expect("a member").epoch = 1;
    let error = GroupError::FencedMemberEpoch { expected: world.epoch(), got: 1 };
    assert_eq!(world.tick("a"), Err(error));
    world.members.get_mut("a").expect("a member").epoch = 99;
    let error = GroupError::FencedMemberEpoch { expected: world.epoch(), got: 99 };
    assert_eq!(world.tick("a"), Err(error));
}

/// Said before it was given partition 3, and heard after that was to be given back: it does
/// not say that 3 is not read.
#[test]
fn a_heartbeat_that_was_overtaken_frees_nothing() {
    let mut world = world();
    world.join("a", &["t"]).expect("joins");
    world.join("b", &["t"]).expect("joins");
    world.calm_down();
    world.tick_delayed("a");
    world.depart("b", Departure::Leave).expect("leaves");
    world.tick("a").expect("a member");
    assert_eq!(world.owned("a"), [0, 1, 2, 3]);
    world.join("b", &["t"]).expect("joins again");
    world.deliver_delayed(0);
    world.tick("b").expect("a member");
    assert_eq!((world.owned("a").len(), world.owned("b").len()), (4, 0), "not given back yet");
    world.change_delayed("a", true).expect("joins again");
    world.change_delayed("a", false).expect("leaves");
    world.join("a", &["t"]).expect("is back");
    world.calm_down();
    let (epoch, facts) = (world.epoch(), world.log.len());
    world.deliver_delayed(0);
    world.deliver_delayed(0);
    assert_eq!((world.epoch(), world.log.len()), (epoch, facts), "neither joined nor left");
    world.check();
}

/// A static member that comes back has what it had, under whichever id, and nothing of
/// the others' moves; who comes while it is there is turned away.
#[test]
fn a_static_member_comes_back() {
    let mut world = world();
    world.join_as("a1", &["t"], Some("a")).expect("joins");
    world.join("b", &["t"]).expect("joins");
    world.calm_down();
    let (had, epoch) = (world.owned("a1"), world.epoch());
    let error = world.join_as("a2", &["t"], Some("a")).expect_err("a1 is there");
    let (instance_id, member) = ("a".to_owned(), "a1".into());
    assert_eq!(error, GroupError::UnreleasedInstance { instance_id, member });
    world.depart("a1", Departure::Pause).expect("goes for a while");
    world.tick("b").expect("a member");
    assert_eq!(world.owned("b").len(), 2, "nothing moves meanwhile");
    world.join_as("a2", &["t"], Some("a")).expect("is back");
    assert_eq!((world.owned("a2"), world.epoch()), (had, epoch));
    world.check();
}

#[test]
fn topics_grow_and_go() {
    let mut world = world();
    world.join("a", &["t", "later"]).expect("joins");
    world.topic("t", 6);
    world.tick("a").expect("a member");
    assert_eq!(world.owned("a"), [0, 1, 2, 3, 4, 5]);
    world.topic("later", 2);
    world.tick("a").expect("a member");
    assert_eq!(world.owned("a").len(), 8);
    let id = PartitionId { topic: world.topics.0["later"].0, index: 1 };
    world.commit(&Committer::Member("a".into(), world.epoch()), id, 7).expect("commits");
    world.forget_topic("later");
    world.tick("a").expect("a member");
    assert_eq!(world.owned("a"), [0, 1, 2, 3, 4, 5]);
    assert!(world.groups.get(GROUP).expect("the group").offsets.is_empty(), "gone with it");
}

/// K-20539: whoever begins at the end does not skip what was written to a partition that
/// came while nobody was there, or to a topic that was waited for.
#[test]
fn partitions_that_come_later_are_known_as_such() {
    let mut world = world();
    let appeared = |world: &World, name: &str| -> Vec<u32> {
        let (topic, count) = world.topics.0[name];
        let group = world.groups.get(GROUP).expect("the group");
        (0..count)
            .filter(|index| group.has_appeared(PartitionId { topic, index: *index }))
            .collect()
    };
    world.join("a", &["t", "later"]).expect("joins");
    assert_eq!(appeared(&world, "t"), [0; 0], "the group begins with it");
    world.topic("t", 5);
    assert_eq!(appeared(&world, "t"), [4]);
    world.depart("a", Departure::Leave).expect("leaves");
    world.topic("t", 6);
    world.topic("later", 2);
    world.topic("other", 2);
    world.groups = world.taken_over_compacted();
    world.join("a", &["t", "later", "other"]).expect("is back");
    assert_eq!(appeared(&world, "t"), [4, 5]);
    assert_eq!(appeared(&world, "later"), [0, 1], "it was waited for");
    assert_eq!(appeared(&world, "other"), [0; 0], "nobody wanted it before");
    // Deleted and created again while nobody is there: all of it is new.
    world.depart("a", Departure::Leave).expect("leaves");
    world.forget_topic("t");
    world.topic("t", 3);
    world.join("b", &["t"]).expect("joins");
    assert_eq!(appeared(&world, "t"), [0, 1, 2]);
}

/// The same of topics that match a pattern, while another coordinator takes over.
#[test]
fn topics_that_begin_to_match_are_known_as_such() {
    let mut world = world();
    let beat = |member: &str, epoch| crate::groups::Heartbeat {
        group: GROUP.into(),
        member: member.into(),
        epoch,
        subscription: (epoch == 0).then(|| (Default::default(), Some("t.*".to_owned()))),
        ..Default::default()
    };
    let answer = world.send(&beat("a", 0)).expect("joins");
    let leaves =
        crate::groups::Heartbeat { departure: Some(Departure::Leave), ..beat("a", answer.epoch) };
    world.send(&leaves).expect("leaves");
    assert!(!world.groups.patterns.is_empty(), "it is waited for what matches");
    world.groups = world.taken_over_compacted();
    let t2 = world.topic("t2", 2);
    world.send(&beat("b", 0)).expect("joins");
    let group = world.groups.get(GROUP).expect("the group");
    let t = world.topics.0["t"].0;
    assert!(group.has_appeared(PartitionId { topic: t2, index: 0 }));
    assert!(!group.has_appeared(PartitionId { topic: t, index: 0 }));
}

/// Who cannot write has to be believed by nobody: another may coordinate since it last
/// could. What it tells members keeps them for less than the other one waits for them.
#[test]
fn leases_need_a_confirmation() {
    let mut world = world();
    assert!(world.groups.must_confirm(world.now), "nothing was written yet");
    world.join("a", &["t"]).expect("joins");
    world.groups.confirmed(world.now);
    let options = GroupOptions::default();
    world.now.monotonic += u64::from(options.confirmation_ms) - 1;
    assert!(!world.groups.must_confirm(world.now));
    let last = world.now.monotonic;
    world.now.monotonic += 1;
    assert!(world.groups.must_confirm(world.now));
    // Another takes over as soon as it can, and hears nothing of `a`.
    let mut other = world.taken_over();
    let taken_over = crate::groups::Now { monotonic: 1, ..world.now };
    other.begin(taken_over);
    let gives_away = other.next_deadline().expect("`a` is waited for");
    assert!(last + u64::from(options.lease_ms()) < gives_away);
    assert!(other.must_confirm(taken_over), "a new coordinator has written nothing");
    let before = other.clone();
    other.replay(&crate::groups::Fact::nothing());
    assert_eq!(other.iter().count(), before.iter().count());
}

#[test]
fn only_who_may_commits() {
    let mut world = world();
    let id = PartitionId { topic: world.topics.0["t"].0, index: 0 };
    world.commit(&Committer::Anybody, id, 1).expect("nobody is in it");
    world.join("a", &["t"]).expect("joins");
    let error = world.commit(&Committer::Anybody, id, 2).expect_err("there are members");
    assert_eq!(error, GroupError::NotEmpty { members: 1 });
    let epoch = world.epoch();
    let error = world.commit(&Committer::Member("a".into(), epoch + 1), id, 2).expect_err("epoch");
    assert_eq!(error, GroupError::StaleMemberEpoch { expected: epoch, got: epoch + 1 });
    let error = world.commit(&Committer::Member("x".into(), epoch), id, 2).expect_err("unknown");
    assert_eq!(error, GroupError::UnknownMember("x".into()));
    world.commit(&Committer::Member("a".into(), epoch), id, 2).expect("a member");
    assert_eq!(world.groups.get(GROUP).expect("the group").offsets[&id].offset, 2);
    let error = world.groups.delete(&GROUP.into()).expect_err("there are members");
    assert_eq!(error, GroupError::NotEmpty { members: 1 });
    world.depart("a", Departure::Leave).expect("leaves");
    let facts = world.groups.delete(&GROUP.into()).expect("empty");
    world.write(facts);
    assert_eq!(world.groups.get(GROUP), Err(GroupError::UnknownGroup));
}

/// K-13636: not while somebody reads the topic, and not before the group was empty for
/// the whole time.
#[test]
fn old_offsets_are_forgotten() {
    let mut world = world();
    let id = PartitionId { topic: world.topics.0["t"].0, index: 0 };
    let retention = GroupOptions::default().offsets_retention_ms;
    world.join("a", &["t"]).expect("joins");
    world.commit(&Committer::Member("a".into(), world.epoch()), id, 2).expect("commits");
    world.now.wall_ms += retention;
    assert_eq!(world.groups.forget_old_offsets(world.now, 100), []);
    world.depart("a", Departure::Leave).expect("leaves");
    assert_eq!(world.groups.forget_old_offsets(world.now, 100), []);
    world.now.wall_ms += retention;
    let facts = world.groups.forget_old_offsets(world.now, 100);
    world.write(facts);
    assert_eq!(world.groups.get(GROUP), Err(GroupError::UnknownGroup));
}

/// A turn is one batch: no commit is larger than what leaves room for others.
#[test]
fn metadata_of_a_commit_is_bounded() {
    let world = world();
    let topic = world.topics.0["t"].0;
    let commit = |(partition, bytes): (u32, usize)| crate::groups::Commit {
        partition: PartitionId { topic, index: partition },
        offset: 1,
        leader_epoch: None,
        metadata: "m".repeat(bytes),
    };
    let commit = |sizes: &[usize]| {
        let commits = (0..).zip(sizes.iter().copied()).map(commit).collect();
        world.groups.commit(&GROUP.into(), &Committer::Anybody, commits, world.now)
    };
    assert_eq!(commit(&[4096; 64]).expect("just fits").len(), 65);
    let refused = |got, limit, with| Err(GroupError::MetadataTooLarge { got, limit, with });
    assert_eq!(commit(&[1, 4097]), refused(4097, 4096, "an offset"));
    assert_eq!(commit(&[4096; 65]), refused(65 * 4096, 256 * 1024, "a commit"));
}

/// Groups that lose all their members at once are told of in parts that can be written.
#[test]
fn many_groups_expire_step_by_step() {
    let mut world = world();
    for group in 0..10 {
        let beat = crate::groups::Heartbeat {
            group: format!("g{group}").into(),
            member: "a".into(),
            subscription: Some((["t".to_owned()].into(), None)),
            ..Default::default()
        };
        world.send(&beat).expect("joins");
    }
    world.now.monotonic += 60_000;
    let mut steps = 0;
    while world.groups.next_deadline().is_some_and(|at| at <= world.now.monotonic) {
        let facts = world.groups.expire(&world.topics, world.now, 5);
        assert!((5..12).contains(&facts.len()), "{} facts", facts.len());
        world.write(facts);
        steps += 1;
    }
    assert!(steps >= 5, "{steps} steps");
    assert!(world.groups.iter().all(|(_, group)| group.members.is_empty()));
}

#[test]
fn what_is_wrong_changes_nothing() {
    let mut world = world();
    let before = world.groups.clone();
    let pattern = |text: &str| crate::groups::Heartbeat {
        group: GROUP.into(),
        member: "a".into(),
        subscription: Some((Default::default(), Some(text.to_owned()))),
        ..Default::default()
    };
    let error = world.send(&pattern("(")).expect_err("no pattern");
    assert!(matches!(error, GroupError::InvalidPattern { .. }), "{error:?}");
    let joins = crate::groups::Heartbeat { subscription: None, ..pattern("") };
    assert!(matches!(world.send(&joins), Err(GroupError::Invalid(_))));
    let stays = crate::groups::Heartbeat { epoch: 3, ..joins };
    assert_eq!(world.send(&stays), Err(GroupError::UnknownMember("a".into())));
    let stays = crate::groups::Heartbeat { epoch: 3, ..pattern("never.*") };
    assert_eq!(world.send(&stays), Err(GroupError::UnknownMember("a".into())));
    assert!(world.groups.patterns.is_empty(), "kept for nobody");
    assert_eq!(world.groups.iter().count(), before.iter().count());
    assert_eq!(world.log, []);
    world.send(&pattern("t|u.*")).expect("a pattern");
    assert_eq!(world.groups.get(GROUP).expect("the group").fact.topics.len(), 1);
    world.topic("u2", 3);
    assert_eq!(world.groups.get(GROUP).expect("the group").fact.topics.len(), 2);
}

/// A member too many is turned away, and the others notice nothing.
#[test]
fn a_full_group_takes_nobody() {
    let mut world = World::new(GroupOptions { max_members: 2, ..GroupOptions::default() });
    world.topic("t", 4);
    world.join("a", &["t"]).expect("joins");
    world.join("b", &["t"]).expect("joins");
    world.calm_down();
    let (epoch, facts) = (world.epoch(), world.log.len());
    assert_eq!(world.join("c", &["t"]), Err(GroupError::Full { limit: 2 }));
    assert_eq!((world.epoch(), world.log.len()), (epoch, facts));
    world.depart("a", Departure::Leave).expect("leaves");
    world.join("c", &["t"]).expect("there is room");
    world.calm_down();
    assert_eq!((world.owned("b").len(), world.owned("c").len()), (2, 2));
}
