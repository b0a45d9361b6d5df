//! Decisions written in parts, cut anywhere: whoever is the controller then finishes
//! them, and nothing is forgotten.

use super::acts::Act;
use super::checks::check_image;
use super::script::{SESSION_MS, options};
use super::world::World;
use crate::controller::parts::MAX_TOGETHER;
use crate::controller::{Command, Controller, CreateTopic};
use crate::image::{Image, Partition};
use crate::records::{FeatureLevels, MetadataRecord};
use ottla_proto::{NodeId, PartitionId, TopicId};

const ONE: NodeId = NodeId(1);

fn beat(shutdown: bool) -> Act {
    Act::Beat { node: 1, stale: false, behind: 0, fence: false, shutdown }
}

/// The image after the first records only, and after what the next controller makes of
/// that before anything else.
fn cut(image: &Image, records: &[MetadataRecord], at: usize) -> (Controller, Image) {
    let mut cut = image.clone();
    for record in &records[..at] {
        cut.replay(record).expect("decided in this order");
    }
    let levels = FeatureLevels::SUPPORTED;
    let mut next = Controller::activate(options(levels), &cut, SESSION_MS);
    let settled = next.decide_batch(&cut, vec![Command::Settle], SESSION_MS).image;
    (next, settled)
}

/// What matters of a partition, however many steps it took.
fn outcome(image: &Image) -> Vec<(PartitionId, Partition)> {
    let without_epochs = |partition: &Partition| Partition {
        leader_epoch: Default::default(),
        partition_epoch: Default::default(),
        ..partition.clone()
    };
    image.partitions.iter().map(|(id, partition)| (*id, without_epochs(partition))).collect()
}

/// A broker is fenced, comes back, and leaves in order: wherever the entry ends, the
/// next controller does the rest.
#[test]
fn what_follows_from_a_broker_can_be_cut_anywhere() {
    let mut world = World::new();
    let fence = Act::Gone { node: 1, stale: false };
    let mut cuts = 0;
    for act in [fence, beat(false), beat(true)] {
        let before = world.image.clone();
        let commands = world.commands(&act);
        let whole = world.decide_and_commit(commands);
        assert!(!whole.records.is_empty(), "{act:?}");
        for at in 1..whole.records.len() {
            let (_, settled) = cut(&before, &whole.records, at);
            check_image(&settled);
            assert_eq!(outcome(&settled), outcome(&world.image), "{act:?} cut at {at}");
            cuts += 1;
        }
        let grown = world.grow_all();
        world.decide_and_commit(grown);
    }
    assert!(cuts > 6, "{cuts}");
    let nothing = world.decide_and_commit(vec![Command::Settle]);
    assert!(nothing.records.is_empty(), "{:?}", nothing.records);
}

/// A process that left nothing in order registers, and more partitions than fit one
/// entry may have lost something with it. The registration comes last: a controller
/// that dies before leaves a process that registers again, and loses nothing by that.
#[test]
fn a_large_loss_is_not_forgotten_when_it_is_cut() {
    let mut world = World::new();
    let create = Command::CreateTopic(CreateTopic {
        name: "wide".to_owned(),
        topic_id: TopicId(world.new_id()),
        partitions: u32::try_from(MAX_TOGETHER).expect("a few thousand") + 1,
        replication_factor: 4,
        configs: [("durability", "memory"), ("min.insync.replicas", "4")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        validate_only: false,
        placement_seed: 1,
    });
    let apply = |world: &mut World, command: Command| {
        let batch = world.controller.decide_batch(&world.image, vec![command], 0);
        assert!(batch.replies[0].is_ok(), "{:?}", batch.replies[0]);
        let before = std::mem::replace(&mut world.image, batch.image);
        (before, batch.records)
    };
    apply(&mut world, create);
    let register = world.register(ONE, true, false, false);
    let (before, records) = apply(&mut world, register.clone());
    assert!(matches!(records.last(), Some(MetadataRecord::BrokerRegistered(_))));
    assert!(matches!(records.first(), Some(MetadataRecord::BrokerFenced(_))));
    let lost = |image: &Image| {
        image.partitions.values().filter(|p| p.last_known_elr.contains(&ONE)).count()
    };
    assert!(lost(&world.image) > MAX_TOGETHER, "it may lack records of all of them");
    for at in [1, 2, records.len() / 2, records.len() - 1] {
        let (mut next, settled) = cut(&before, &records, at);
        let again = next.decide_batch(&settled, vec![register.clone()], SESSION_MS);
        assert!(again.replies[0].is_ok(), "{:?}", again.replies[0]);
        assert!(outcome(&again.image) == outcome(&world.image), "cut at {at}");
        check_image(&again.image);
    }
}
