//! Any sequence of commands, with processes that die, fall silent and come
//! back, controllers that change, decisions that are never committed and calls
//! that come late: the image stays sound, and a cluster left in peace heals.

use super::script::{CLUSTER, SESSION_MS, options};
use crate::controller::{
    AlterPartition, BatchDecision, Command, Controller, CreateTopic, Heartbeat, MAX_LEADER_MOVES,
    PartitionAlteration, RegisterBroker, Reply,
};
use crate::image::{Change, Delta, Image, Partition};
use crate::records::MetadataRecord;
use imbl::OrdMap;
use ottla_proto::{
    BrokerEpoch, DirectoryId, IncarnationId, LeaderEpoch, MetadataOffset, NodeId, PartitionEpoch,
    PartitionId, TopicId,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::BTreeSet;
use std::sync::Arc;
use uuid::Uuid;

const NODES: u64 = 4;

/// Something that happens, told without knowing the image it happens to.
#[derive(Clone, Debug)]
enum Act {
    Register { node: u64, restarted: bool, clean: bool, stream_open: bool },
    Beat { node: u64, stale: bool, behind: u64, fence: bool, shutdown: bool },
    Gone { node: u64, stale: bool },
    Tick,
    Create { name: u8, partitions: u32, factor: u32, seed: u64 },
    Delete { name: u8 },
    Alter { of: Index, by_leader: bool, node: u64, members: u8, leader_skew: i8, skew: i8 },
    Balance,
    Voter { node: u64, directory: u128, replace: bool },
}

/// A batch, and what is around it.
#[derive(Clone, Debug)]
struct Round {
    acts: Vec<Act>,
    wait_ms: u64,
    committed: bool,
    new_controller: bool,
}

fn skew() -> impl Strategy<Value = i8> {
    prop_oneof![8 => Just(0), 1 => Just(-1), 1 => Just(1)]
}

fn act() -> impl Strategy<Value = Act> {
    let node = || 1..=NODES;
    let rarely = || prop::bool::weighted(0.1);
    let register = (node(), any::<(bool, bool, bool)>()).prop_map(
        |(node, (restarted, clean, stream_open))| Act::Register {
            node,
            restarted,
            clean,
            stream_open,
        },
    );
    let beat = (node(), rarely(), 0u64..3, rarely(), rarely()).prop_map(
        |(node, stale, behind, fence, shutdown)| Act::Beat { node, stale, behind, fence, shutdown },
    );
    let create =
        (0u8..3, 0u32..4, 0u32..5, any::<u64>()).prop_map(|(name, partitions, factor, seed)| {
            Act::Create { name, partitions, factor, seed }
        });
    let mostly = prop::bool::weighted(0.9);
    let alter = (any::<Index>(), mostly, node(), any::<u8>(), skew(), skew()).prop_map(
        |(of, by_leader, node, members, leader_skew, skew)| Act::Alter {
            of,
            by_leader,
            node,
            members,
            leader_skew,
            skew,
        },
    );
    prop_oneof![
        3 => register,
        8 => beat,
        2 => (node(), rarely()).prop_map(|(node, stale)| Act::Gone { node, stale }),
        2 => Just(Act::Tick),
        2 => create,
        1 => (0u8..3).prop_map(|name| Act::Delete { name }),
        8 => alter,
        1 => Just(Act::Balance),
        1 => (node(), 1u128..3, any::<bool>())
            .prop_map(|(node, directory, replace)| Act::Voter { node, directory, replace }),
    ]
}

fn round() -> impl Strategy<Value = Round> {
    (vec(act(), 1..5), 0..SESSION_MS / 2, prop::bool::weighted(0.9), prop::bool::weighted(0.05))
        .prop_map(|(acts, wait_ms, committed, new_controller)| Round {
            acts,
            wait_ms,
            committed,
            new_controller,
        })
}

struct World {
    image: Image,
    controller: Controller,
    now_ms: u64,
    ids: u128,
    deleted: BTreeSet<TopicId>,
}

impl World {
    fn new() -> Self {
        let image = Image::default();
        let controller = Controller::activate(options(), &image, 0);
        let mut world = Self { image, controller, now_ms: 0, ids: 0, deleted: BTreeSet::new() };
        // Begin with something that can go wrong.
        world.revive_all();
        for name in 0..2 {
            let create = Act::Create { name, partitions: 3, factor: 3, seed: name.into() };
            let commands = world.commands(&create);
            world.decide_and_commit(commands);
        }
        world
    }

    fn new_id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    fn epoch_of(&self, node: NodeId, stale: bool) -> BrokerEpoch {
        let epoch = self.image.brokers.get(&node).map_or(0, |broker| broker.epoch.0);
        BrokerEpoch(if stale { epoch.saturating_sub(1) } else { epoch })
    }

    fn play(&mut self, round: &Round) {
        self.now_ms += round.wait_ms;
        if round.new_controller {
            self.controller = Controller::activate(options(), &self.image, self.now_ms);
        }
        let commands: Vec<Command> = round.acts.iter().flat_map(|act| self.commands(act)).collect();
        let twin = self.controller.clone().decide_batch(&self.image, commands.clone(), self.now_ms);
        let batch = self.controller.decide_batch(&self.image, commands.clone(), self.now_ms);
        assert_eq!(batch, twin, "the same question, the same answer");
        assert_eq!(batch.expected_offset, self.image.offset);
        assert_eq!(batch.replies.len(), commands.len());
        // What was not committed did not happen. The controller remembers
        // having heard of the brokers all the same.
        if round.committed {
            self.commit(&batch, &commands);
        }
    }

    fn decide_and_commit(&mut self, commands: Vec<Command>) -> BatchDecision {
        let batch = self.controller.decide_batch(&self.image, commands.clone(), self.now_ms);
        self.commit(&batch, &commands);
        batch
    }

    fn commit(&mut self, batch: &BatchDecision, commands: &[Command]) {
        let before = self.image.clone();
        let may_grow = commands.iter().any(|c| matches!(c, Command::AlterPartition(_)));
        for record in &batch.records {
            check_record(&self.image, record, may_grow);
            self.image.replay(record).expect("a decided record");
            let snapshot = self.image.to_records();
            assert_eq!(Image::from_records(&snapshot).as_ref(), Ok(&self.image));
        }
        assert_eq!(self.image, batch.image);
        check_image(&self.image);
        check_progress(&before, &self.image);
        check_delta(&before, &self.image);
        for change in Delta::between(&before, &self.image).topics {
            match change.after {
                None => assert!(self.deleted.insert(change.key), "deleted twice"),
                Some(_) => assert!(!self.deleted.contains(&change.key), "back from the dead"),
            }
        }
    }

    fn commands(&mut self, act: &Act) -> Vec<Command> {
        let command = match *act {
            Act::Register { node, restarted, clean, stream_open } => {
                self.register(NodeId(node), restarted, clean, stream_open)
            }
            Act::Beat { node, stale, behind, fence, shutdown } => Command::Heartbeat(Heartbeat {
                node_id: NodeId(node),
                broker_epoch: self.epoch_of(NodeId(node), stale),
                metadata_offset: MetadataOffset(self.image.offset.0.saturating_sub(behind)),
                want_fence: fence,
                want_shutdown: shutdown,
            }),
            Act::Gone { node, stale } => Command::BrokerGone {
                node_id: NodeId(node),
                broker_epoch: self.epoch_of(NodeId(node), stale),
            },
            Act::Tick => return self.controller.tick(self.now_ms),
            Act::Create { name, partitions, factor, seed } => Command::CreateTopic(CreateTopic {
                name: format!("topic-{name}"),
                topic_id: TopicId(self.new_id()),
                partitions,
                replication_factor: factor,
                configs: [].into(),
                validate_only: false,
                placement_seed: seed,
            }),
            Act::Delete { name } => Command::DeleteTopic { name: format!("topic-{name}") },
            Act::Alter { of, by_leader, node, members, leader_skew, skew } => {
                return self.alter(of, by_leader, node, members, leader_skew, skew);
            }
            Act::Balance => Command::BalanceLeaders,
            Act::Voter { node, directory, replace } => Command::RecordVoterDirectory {
                node_id: NodeId(node),
                directory: DirectoryId(Uuid::from_u128(directory)),
                replace,
            },
        };
        vec![command]
    }

    fn register(&mut self, node: NodeId, restarted: bool, clean: bool, open: bool) -> Command {
        let known = self.image.brokers.get(&node).map(Arc::clone);
        let same = known.as_ref().filter(|_| !restarted).map(|broker| broker.incarnation);
        let recorded = self.image.voter_directories.get(&node).copied();
        Command::RegisterBroker(RegisterBroker {
            cluster_id: CLUSTER.to_owned(),
            node_id: node,
            incarnation: same.unwrap_or_else(|| IncarnationId(self.new_id())),
            directory: recorded.unwrap_or(DirectoryId(Uuid::from_u128(1))),
            host: "localhost".to_owned(),
            port: 7401,
            rack: Some(format!("rack-{}", node.0 % 2)),
            previous_broker_epoch: known.filter(|_| clean).map(|broker| broker.epoch),
            previous_stream_open: open,
        })
    }

    fn alter(
        &self,
        of: Index,
        by_leader: bool,
        node: u64,
        members: u8,
        leader_skew: i8,
        skew: i8,
    ) -> Vec<Command> {
        if self.image.partitions.is_empty() {
            return Vec::new();
        }
        let nth = of.index(self.image.partitions.len());
        let (&id, partition) = self.image.partitions.iter().nth(nth).expect("within");
        let caller = partition.leader.filter(|_| by_leader).unwrap_or(NodeId(node));
        let new_isr = (1..=NODES)
            .map(NodeId)
            .filter(|&n| members & (1 << n.0) != 0 || (by_leader && n == caller))
            .filter(|n| !by_leader || partition.replicas.contains(n))
            .map(|n| (n, self.epoch_of(n, false)))
            .collect();
        vec![Command::AlterPartition(AlterPartition {
            node_id: caller,
            broker_epoch: self.epoch_of(caller, false),
            partitions: vec![PartitionAlteration {
                partition: id,
                leader_epoch: LeaderEpoch(
                    partition.leader_epoch.0.saturating_add_signed(leader_skew.into()),
                ),
                partition_epoch: PartitionEpoch(
                    partition.partition_epoch.0.saturating_add_signed(skew.into()),
                ),
                new_isr,
            }],
        })]
    }

    /// Every node starts anew and is well.
    fn revive_all(&mut self) {
        for node in (1..=NODES).map(NodeId) {
            let command = self.register(node, true, false, false);
            let batch = self.decide_and_commit(vec![command]);
            assert!(matches!(batch.replies[..], [Ok(Reply::Registered { .. })]), "{batch:?}");
        }
        for node in 1..=NODES {
            let beat = Act::Beat { node, stale: false, behind: 0, fence: false, shutdown: false };
            let commands = self.commands(&beat);
            self.decide_and_commit(commands);
        }
    }

    /// Left in peace, everything is led by its preferred replica again, with
    /// all replicas in sync.
    fn heal(&mut self) {
        self.revive_all();
        for nth in 0..self.image.partitions.len() {
            let (_, partition) = self.image.partitions.iter().nth(nth).expect("within");
            let leader = partition.leader.expect("every node is active");
            let commands = self.image.partitions.iter().nth(nth).map(|(&id, p)| {
                let members = p.replicas.iter().map(|&n| (n, self.epoch_of(n, false)));
                Command::AlterPartition(AlterPartition {
                    node_id: leader,
                    broker_epoch: self.epoch_of(leader, false),
                    partitions: vec![PartitionAlteration {
                        partition: id,
                        leader_epoch: p.leader_epoch,
                        partition_epoch: p.partition_epoch,
                        new_isr: members.collect(),
                    }],
                })
            });
            self.decide_and_commit(commands.into_iter().collect());
        }
        self.decide_and_commit(vec![Command::BalanceLeaders]);
        for (id, partition) in &self.image.partitions {
            assert_eq!(partition.isr, partition.replicas, "{id}");
            assert_eq!(partition.leader, Some(partition.replicas[0]), "{id}");
        }
    }
}

/// The invariants of the whole image, said once more and on their own.
fn check_image(image: &Image) {
    for (id, Partition { replicas, isr, leader, .. }) in
        image.partitions.iter().map(|(id, partition)| (id, &**partition))
    {
        assert!(image.topics.contains_key(&id.topic), "{id} without a topic");
        assert!(!isr.is_empty(), "{id}: nobody has the data");
        assert!(isr.iter().all(|node| replicas.contains(node)), "{id}: {isr:?} of {replicas:?}");
        let away = isr.iter().filter(|&&node| !image.is_active(node)).count();
        assert!(away == 0 || isr.len() == 1, "{id}: inactive members in {isr:?}");
        match leader {
            Some(node) => {
                assert!(isr.contains(node), "{id}: {node} leads outside of {isr:?}");
                assert!(!image.brokers[node].fenced, "{id}: {node} leads and is fenced");
            }
            None => assert_eq!(away, 1, "{id}: {isr:?} could lead"),
        }
    }
    for topic in image.topics.values() {
        assert_eq!(image.topic_ids.get(&topic.name), Some(&topic.id));
        assert_eq!(image.partitions_of(topic.id).count(), topic.partitions as usize);
    }
    assert_eq!(image.topic_ids.len(), image.topics.len());
    for broker in image.brokers.values() {
        assert!(broker.epoch.0 <= image.offset.0, "an epoch that was not reached yet");
    }
}

/// Only a member of the ISR is ever elected, and nobody joins an ISR unless a
/// leader proposed it.
fn check_record(image: &Image, record: &MetadataRecord, may_grow: bool) {
    let MetadataRecord::PartitionChanged(change) = record else { return };
    let before = &image.partitions[&change.partition];
    let isr = change.isr.as_ref().unwrap_or(&before.isr);
    assert!(may_grow || isr.iter().all(|node| before.isr.contains(node)), "{change:?}");
    if let Some(Some(leader)) = change.leader.map(Option::<NodeId>::from) {
        assert!(before.isr.contains(&leader) || may_grow, "{before:?} {change:?}");
    }
}

fn check_progress(before: &Image, after: &Image) {
    for (id, old) in &before.partitions {
        let Some(new) = after.partitions.get(id) else { continue };
        assert!(new.partition_epoch >= old.partition_epoch && new.leader_epoch >= old.leader_epoch);
        assert_eq!(new.partition_epoch == old.partition_epoch, new == old, "{id}");
        assert!(new.leader == old.leader || new.leader_epoch > old.leader_epoch, "{id}");
    }
    for (node, old) in &before.brokers {
        let new = &after.brokers[node];
        assert!(new.epoch >= old.epoch);
        assert!(new.epoch > old.epoch || new.incarnation == old.incarnation, "{old:?} {new:?}");
    }
}

fn check_delta(before: &Image, after: &Image) {
    let delta = Delta::between(before, after);
    assert_eq!(applied(&before.brokers, &delta.brokers), after.brokers);
    assert_eq!(applied(&before.topics, &delta.topics), after.topics);
    assert_eq!(applied(&before.partitions, &delta.partitions), after.partitions);
}

fn applied<K: Ord + Copy, V: Eq + std::fmt::Debug>(
    map: &OrdMap<K, Arc<V>>,
    changes: &[Change<K, V>],
) -> OrdMap<K, Arc<V>> {
    let mut map = map.clone();
    for change in changes {
        assert_ne!(change.before, change.after);
        assert_eq!(map.get(&change.key), change.before.as_ref());
        match &change.after {
            Some(value) => map.insert(change.key, Arc::clone(value)),
            None => map.remove(&change.key),
        };
    }
    map
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_the_image_sound_and_a_quiet_cluster_heals(
        rounds in vec(round(), 1..60)
    ) {
        let mut world = World::new();
        for round in &rounds {
            world.play(round);
        }
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
        let again = world.controller.tick(world.now_ms);
        let batch = world.controller.decide_batch(&world.image, again, world.now_ms);
        assert_eq!(batch.records, lost.records);
    }
    let again = world.controller.tick(world.now_ms);
    world.decide_and_commit(again);
    assert!(world.image.brokers[&NodeId(1)].fenced);
    let last = world.controller.tick(world.now_ms);
    world.decide_and_commit(last);
    assert!(world.controller.tick(world.now_ms).is_empty());
}

/// Between the tick and the decision the broker was heard of.
#[test]
fn a_broker_heard_of_at_the_last_moment_is_not_fenced() {
    let mut world = World::new();
    world.now_ms += SESSION_MS;
    let mut commands = world.controller.tick(world.now_ms);
    assert_eq!(commands.len(), usize::try_from(NODES).expect("a few"));
    let beat = Act::Beat { node: 1, stale: false, behind: 0, fence: false, shutdown: false };
    commands.splice(0..0, world.commands(&beat));
    world.decide_and_commit(commands);
    let fenced: Vec<bool> = world.image.brokers.values().map(|broker| broker.fenced).collect();
    assert_eq!(fenced, [false, true, true, true]);
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
    let proposals: Vec<Command> = grow_all(&world);
    apply(&mut world, proposals);
    let replies = apply(&mut world, vec![Command::BalanceLeaders]);
    assert_eq!(replies, [Ok(Reply::Balanced { moved: MAX_LEADER_MOVES })]);
    assert_eq!(led(&world.image), MAX_LEADER_MOVES);
}

/// Every leader finds all its replicas caught up at the same moment.
fn grow_all(world: &World) -> Vec<Command> {
    let alteration = |id: PartitionId, partition: &Partition| PartitionAlteration {
        partition: id,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        new_isr: partition.replicas.iter().map(|&n| (n, world.epoch_of(n, false))).collect(),
    };
    (1..=NODES)
        .map(NodeId)
        .map(|leader| {
            let led = world.image.partitions.iter().filter(|(_, p)| p.leader == Some(leader));
            Command::AlterPartition(AlterPartition {
                node_id: leader,
                broker_epoch: world.epoch_of(leader, false),
                partitions: led.map(|(&id, p)| alteration(id, p)).collect(),
            })
        })
        .collect()
}
