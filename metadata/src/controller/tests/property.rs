//! Any sequence of commands, with processes that die, fall silent and come
//! back, controllers that change, decisions that are never committed and calls
//! that come late: the image stays sound, and a cluster left in peace heals.

use super::acts::{Act, NODES, round};
use super::checks::check_image;
use super::script::SESSION_MS;
use super::world::World;
use crate::controller::{
    AlterTopicConfig, Command, CreateTopic, MAX_LEADER_MOVES, MAX_REMEMBERED_REQUESTS, Reply,
    Requested,
};
use crate::image::Image;
use ottla_proto::{NodeId, RequestId, TopicId};
use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_the_image_sound_and_ends_well(
        rounds in vec(round(), 1..60)
    ) {
        let mut world = World::new();
        for round in &rounds {
            world.play(round);
        }
        world.all_fall_silent();
        world.heal();
    }
}

/// A silent broker is fenced by the ticks alone, even if decisions about it
/// are lost on the way.
#[test]
fn a_fencing_that_was_not_committed_is_asked_for_again() {
    let mut world = World::new();
    let gone = world.commands(&Act::Gone { node: 1, stale: false });
    let lost = world.controller.decide_batch(&world.image, gone, world.now_ms);
    assert!(!lost.records.is_empty());
    for _ in 0..2 {
        let again = world.controller.tick(&world.image, world.now_ms);
        let batch = world.controller.decide_batch(&world.image, again, world.now_ms);
        assert_eq!(batch.records, lost.records);
    }
    let again = world.controller.tick(&world.image, world.now_ms);
    world.decide_and_commit(again);
    assert!(world.image.brokers[&NodeId(1)].fenced);
    let last = world.controller.tick(&world.image, world.now_ms);
    world.decide_and_commit(last);
    assert!(world.controller.tick(&world.image, world.now_ms).is_empty());
}

/// A registration that was never committed leaves the one before it in force,
/// and a proof about that one fences it at once.
#[test]
fn a_registration_that_was_not_committed_protects_nobody() {
    let mut world = World::new();
    let again = Act::Register { node: 1, restarted: true, clean: false, stream_open: false };
    let register = world.commands(&again);
    let lost = world.controller.decide_batch(&world.image, register, world.now_ms);
    assert!(lost.replies[0].is_ok());
    let gone = world.commands(&Act::Gone { node: 1, stale: false });
    world.decide_and_commit(gone);
    assert!(world.image.brokers[&NodeId(1)].fenced);
}

/// A quorum that is slow to commit an unfencing: meanwhile the broker looks
/// fenced, and its session ends.
#[test]
fn a_broker_whose_unfencing_took_long_to_commit_is_watched() {
    let mut world = World::new();
    world.all_fall_silent();
    let beat = Act::Beat { node: 1, stale: false, behind: 0, fence: false, shutdown: false };
    let commands = world.commands(&beat);
    let slow = world.controller.decide_batch(&world.image, commands.clone(), world.now_ms);
    world.now_ms += SESSION_MS;
    assert!(world.controller.tick(&world.image, world.now_ms).is_empty());
    world.commit(&slow, &commands);
    assert!(world.controller.tick(&world.image, world.now_ms).is_empty());
    world.all_fall_silent();
}

/// Between the tick and the decision the broker was heard of.
#[test]
fn a_broker_heard_of_at_the_last_moment_is_not_fenced() {
    let mut world = World::new();
    world.now_ms += SESSION_MS;
    let mut commands = world.controller.tick(&world.image, world.now_ms);
    assert_eq!(commands.len(), usize::try_from(NODES).expect("a few"));
    let beat = Act::Beat { node: 1, stale: false, behind: 0, fence: false, shutdown: false };
    commands.splice(0..0, world.commands(&beat));
    world.decide_and_commit(commands);
    let fenced: Vec<bool> = world.image.brokers.values().map(|broker| broker.fenced).collect();
    assert_eq!(fenced, [false, true, true, true]);
}

/// However many requests there are, a bounded number is remembered: the oldest go.
#[test]
fn as_many_requests_are_remembered_as_are_allowed() {
    let mut world = World::new();
    let mut ask = |id: usize| {
        let value = id.to_string();
        let change = AlterTopicConfig {
            name: "topic-0".to_owned(),
            set: [("retention.ms".to_owned(), value)].into(),
            unset: [].into(),
            validate_only: false,
        };
        let id = RequestId(Uuid::from_u128(1_000_000 + id as u128));
        let command = Box::new(Command::AlterTopicConfig(change));
        let request = Command::Requested(Requested { id, at_ms: 0, command });
        let decision = world.controller.decide(&world.image, request, 0);
        decision.reply.expect("an option");
        for record in &decision.records {
            world.image.replay(record).expect("decided");
        }
        (decision.records.len(), world.image.requests.len())
    };
    // Those of the world's beginning are the first to go.
    for id in 1..=MAX_REMEMBERED_REQUESTS {
        assert_eq!(ask(id).0, 2, "{id}");
    }
    assert_eq!(ask(1), (0, MAX_REMEMBERED_REQUESTS), "the oldest is remembered");
    assert_eq!(ask(MAX_REMEMBERED_REQUESTS + 1), (2, MAX_REMEMBERED_REQUESTS));
    assert_eq!(ask(2), (0, MAX_REMEMBERED_REQUESTS), "the second oldest still is");
    assert_eq!(ask(1), (2, MAX_REMEMBERED_REQUESTS), "the oldest is not any more");
}

/// The size the project promises, on one image: nothing is quadratic, or this
/// would not end.
#[test]
fn ten_thousand_partitions_are_created_failed_over_and_given_back() {
    let mut world = World::new();
    let create = Command::CreateTopic(CreateTopic {
        name: "wide".to_owned(),
        topic_id: TopicId(world.new_id()),
        partitions: 10_000,
        replication_factor: 3,
        configs: [].into(),
        validate_only: false,
        placement_seed: 1,
    });
    let apply = |world: &mut World, commands: Vec<Command>| {
        let batch = world.controller.decide_batch(&world.image, commands, 0);
        check_image(&batch.image);
        world.image = batch.image;
        batch.replies
    };
    apply(&mut world, vec![create]);
    let led =
        |image: &Image| image.partitions.values().filter(|p| p.leader == Some(NodeId(1))).count();
    assert!(led(&world.image) > 2000);
    let gone = world.commands(&Act::Gone { node: 1, stale: false });
    apply(&mut world, gone);
    assert_eq!(led(&world.image), 0);

    let beat = Act::Beat { node: 1, stale: false, behind: 0, fence: false, shutdown: false };
    let commands = world.commands(&beat);
    apply(&mut world, commands);
    let proposals: Vec<Command> = world.grow_all();
    apply(&mut world, proposals);
    let replies = apply(&mut world, vec![Command::BalanceLeaders]);
    assert_eq!(replies, [Ok(Reply::Balanced { moved: MAX_LEADER_MOVES })]);
    assert_eq!(led(&world.image), MAX_LEADER_MOVES);
}
