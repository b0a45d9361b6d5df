//! A cluster that acts happen to: turns them into commands that fit its image,
//! commits what is decided, and checks every step.

use super::acts::{Act, NODES, Round};
use super::checks::{check_delta, check_drained, check_image, check_progress, check_record};
use super::script::{CLUSTER, SESSION_MS, options};
use crate::controller::{
    AlterConfig, AlterPartition, AlterTopicConfig, BatchDecision, CancelReassignment, Command,
    Controller, CreateTopic, ElectLeader, Election, GrowTopic, Heartbeat, PartitionAlteration,
    Reassign, RegisterBroker, Reply, ReportOffline, Requested,
};
use crate::image::{Delta, Image, Partition};
use crate::records::{ConfigResource, FeatureLevels, MetadataRecord};
use ottla_proto::{
    BrokerEpoch, DirectoryId, IncarnationId, LeaderEpoch, MetadataOffset, NodeId, PartitionEpoch,
    PartitionId, RequestId, TopicId,
};
use proptest::sample::Index;
use std::collections::BTreeSet;
use std::sync::Arc;
use uuid::Uuid;

pub(super) struct World {
    pub(super) image: Image,
    pub(super) controller: Controller,
    pub(super) now_ms: u64,
    ids: u128,
    deleted: BTreeSet<TopicId>,
    /// What operators asked for, sent again at will.
    requests: Vec<Command>,
    carried_out: BTreeSet<RequestId>,
}

impl World {
    pub(super) fn new() -> Self {
        let image = Image::default();
        let controller = Controller::activate(options(FeatureLevels::SUPPORTED), &image, 0);
        let mut world = Self {
            image,
            controller,
            now_ms: 0,
            ids: 0,
            deleted: BTreeSet::new(),
            requests: Vec::new(),
            carried_out: BTreeSet::new(),
        };
        // Begin with something that can go wrong.
        world.revive_all();
        for name in 0..2 {
            let create = Act::Create { name, partitions: 3, factor: 3, seed: name.into() };
            let commands = world.commands(&create);
            world.decide_and_commit(commands);
        }
        world
    }

    pub(super) fn new_id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    pub(super) fn epoch_of(&self, node: NodeId, stale: bool) -> BrokerEpoch {
        let epoch = self.image.brokers.get(&node).map_or(0, |broker| broker.epoch.0);
        BrokerEpoch(if stale { epoch.saturating_sub(1) } else { epoch })
    }

    pub(super) fn play(&mut self, round: &Round) {
        self.now_ms += round.wait_ms;
        if round.new_controller {
            self.controller =
                Controller::activate(options(FeatureLevels::SUPPORTED), &self.image, self.now_ms);
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

    pub(super) fn decide_and_commit(&mut self, commands: Vec<Command>) -> BatchDecision {
        let batch = self.controller.decide_batch(&self.image, commands.clone(), self.now_ms);
        self.commit(&batch, &commands);
        batch
    }

    pub(super) fn commit(&mut self, batch: &BatchDecision, commands: &[Command]) {
        let before = self.image.clone();
        let may_grow = commands.iter().any(|c| matches!(c, Command::AlterPartition(_)));
        for record in &batch.records {
            check_record(&self.image, record, may_grow);
            check_drained(&self.image, record);
            if let MetadataRecord::RequestCarriedOut(done) = record {
                assert!(self.carried_out.insert(done.id), "carried out twice: {done:?}");
            }
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

    pub(super) fn commands(&mut self, act: &Act) -> Vec<Command> {
        let command = match *act {
            Act::Reassign { of, ref to } => return self.reassign(of, to),
            Act::Cancel { name, index } => Command::CancelReassignment(CancelReassignment {
                topic: format!("topic-{name}"),
                partitions: index.into_iter().collect(),
            }),
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
            Act::Tick => return self.controller.tick(&self.image, self.now_ms),
            Act::Create { name, partitions, factor, seed } => Command::CreateTopic(CreateTopic {
                name: format!("topic-{name}"),
                topic_id: TopicId(self.new_id()),
                partitions,
                replication_factor: factor,
                configs: [].into(),
                validate_only: false,
                placement_seed: seed,
            }),
            Act::Configure { name, option, value } => {
                Command::AlterTopicConfig(configure(name, option, value))
            }
            Act::Set { node, option, value } => {
                let AlterTopicConfig { set, unset, .. } = configure(0, option, value);
                let node = node.map(|node| ConfigResource::Node(NodeId(node)));
                let resource = node.unwrap_or(ConfigResource::Cluster);
                Command::AlterConfig(AlterConfig { resource, set, unset, validate_only: false })
            }
            Act::Grow { name, partitions, seed } => Command::GrowTopic(GrowTopic {
                name: format!("topic-{name}"),
                partitions,
                validate_only: false,
                placement_seed: seed,
            }),
            Act::Delete { name } => Command::DeleteTopic { name: format!("topic-{name}") },
            Act::Again(of) => {
                let known = &self.requests;
                return known.get(of.index(known.len().max(1))).cloned().into_iter().collect();
            }
            Act::Alter { of, by_leader, node, members, leader_skew, skew } => {
                return self.alter(of, by_leader, node, members, leader_skew, skew);
            }
            Act::Balance => Command::BalanceLeaders,
            Act::Elect { name, index, unclean } => Command::ElectLeader(ElectLeader {
                topic: format!("topic-{name}"),
                partition: index,
                election: if unclean { Election::Unclean } else { Election::Preferred },
            }),
            Act::Offline { node, stale, of, count } => {
                let known = self.image.partitions.len();
                let from = if known == 0 { 0 } else { of.index(known) };
                let some = self.image.partitions.keys().skip(from).take(count).copied();
                Command::ReportOffline(ReportOffline {
                    node_id: NodeId(node),
                    broker_epoch: self.epoch_of(NodeId(node), stale),
                    partitions: some.collect(),
                })
            }
            Act::ProducerIds { node, stale } => Command::AllocateProducerIds {
                node_id: NodeId(node),
                broker_epoch: self.epoch_of(NodeId(node), stale),
            },
            Act::Voter { node, directory } => Command::RecordVoterDirectory {
                node_id: NodeId(node),
                directory: self::directory(node, directory),
            },
            Act::Retire { node } => Command::RetireDirectory { node_id: NodeId(node) },
            Act::Drain { node, cancel: false } => Command::Drain { node_id: NodeId(node) },
            Act::Drain { node, cancel: true } => Command::CancelDrain { node_id: NodeId(node) },
            Act::Remove { node } => Command::RemoveNode { node_id: NodeId(node) },
        };
        let of_an_operator = matches!(
            act,
            Act::Create { .. }
                | Act::Configure { .. }
                | Act::Set { .. }
                | Act::Grow { .. }
                | Act::Delete { .. }
                | Act::Elect { .. }
                | Act::Drain { .. }
        );
        vec![if of_an_operator { self.request(command) } else { command }]
    }

    fn request(&mut self, command: Command) -> Command {
        let (id, at_ms) = (RequestId(self.new_id()), self.now_ms);
        let request = Command::Requested(Requested { id, at_ms, command: Box::new(command) });
        self.requests.push(request.clone());
        request
    }

    pub(super) fn register(
        &mut self,
        node: NodeId,
        restarted: bool,
        clean: bool,
        open: bool,
    ) -> Command {
        let known = self.image.brokers.get(&node).map(Arc::clone);
        let same = known.as_ref().filter(|_| !restarted).map(|broker| broker.incarnation);
        let recorded = self.image.voter_directories.get(&node).copied();
        Command::RegisterBroker(RegisterBroker {
            cluster_id: CLUSTER.to_owned(),
            node_id: node,
            incarnation: same.unwrap_or_else(|| IncarnationId(self.new_id())),
            directory: recorded.unwrap_or_else(|| self.blank_directory(node)),
            host: "localhost".to_owned(),
            port: 7401,
            rack: Some(format!("rack-{}", node.0 % 2)),
            levels: FeatureLevels::SUPPORTED,
            previous_broker_epoch: known.filter(|_| clean).map(|broker| broker.epoch),
            previous_stream_open: open,
        })
    }

    /// A directory that was never given up.
    fn blank_directory(&self, node: NodeId) -> DirectoryId {
        let mut all = (1..).map(|nth| directory(node.0, nth));
        let retired = &self.image.retired_directories;
        all.find(|id| !retired.contains_key(id)).expect("a few are retired")
    }

    fn reassign(&self, of: Index, to: &[u64]) -> Vec<Command> {
        if self.image.partitions.is_empty() {
            return Vec::new();
        }
        let (id, _) = self
            .image
            .partitions
            .iter()
            .nth(of.index(self.image.partitions.len()))
            .expect("within");
        vec![Command::Reassign(Reassign {
            topic: self.image.topics[&id.topic].name.clone(),
            partitions: vec![(id.index, to.iter().copied().map(NodeId).collect())],
            validate_only: false,
        })]
    }

    pub(super) fn alter(
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
                recovered: members & 1 == 0,
            }],
        })]
    }

    /// Nobody sends anything any more, and the controller notices by itself,
    /// whatever it decided in vain before.
    pub(super) fn all_fall_silent(&mut self) {
        self.now_ms += SESSION_MS;
        let commands = self.controller.tick(&self.image, self.now_ms);
        self.decide_and_commit(commands);
        for broker in self.image.brokers.values() {
            assert!(broker.fenced, "{broker:?}");
        }
    }

    /// Every node starts anew and is well.
    pub(super) fn revive_all(&mut self) {
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
    pub(super) fn heal(&mut self) {
        self.revive_all();
        for (id, partition) in &self.image.partitions {
            // Only where every complete copy came back blank.
            let nobody = partition.elr.is_empty() && partition.last_leader.is_none();
            assert!(partition.leader.is_some() || nobody, "{id}: every node is active");
        }
        let unclean = (0..3).map(|name| {
            Command::AlterTopicConfig(configure(
                name,
                "unclean.leader.election.enable",
                Some("true"),
            ))
        });
        self.decide_and_commit(unclean.collect());
        for (id, partition) in &self.image.partitions {
            assert!(partition.leader.is_some(), "{id}: somebody may lead");
        }
        // Twice: reassignments that are complete give their partitions new leaders.
        for _ in 0..2 {
            let proposals = self.grow_all();
            self.decide_and_commit(proposals);
        }
        self.decide_and_commit(vec![Command::BalanceLeaders]);
        for (id, partition) in &self.image.partitions {
            assert_eq!(partition.reassignment, None, "{id}");
            assert_eq!(partition.isr, partition.replicas, "{id}");
            assert_eq!(partition.leader, Some(partition.replicas[0]), "{id}");
        }
        self.finish_drains();
    }

    /// Nodes that are being emptied are empty in the end, where there is room.
    fn finish_drains(&mut self) {
        let image = self.image.clone();
        let others = image.brokers.keys().filter(|node| !image.draining.contains(*node)).count();
        let waits = |partition: &Partition| {
            partition.target().len() <= others
                && partition.replicas.iter().any(|node| image.draining.contains(node))
        };
        for _ in 0..=image.partitions.len() {
            let commands = self.controller.tick(&self.image, self.now_ms);
            self.decide_and_commit(commands);
            let proposals = self.grow_all();
            self.decide_and_commit(proposals);
        }
        for (id, partition) in &self.image.partitions {
            assert!(!waits(partition), "{id}: {partition:?}, drained {:?}", image.draining);
        }
    }

    /// Every leader finds all its replicas caught up at the same moment.
    pub(super) fn grow_all(&self) -> Vec<Command> {
        let alteration = |id: PartitionId, partition: &Partition| PartitionAlteration {
            partition: id,
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            recovered: true,
            new_isr: partition.replicas.iter().map(|&n| (n, self.epoch_of(n, false))).collect(),
        };
        (1..=NODES)
            .map(NodeId)
            .map(|leader| {
                let led = self.image.partitions.iter().filter(|(_, p)| p.leader == Some(leader));
                Command::AlterPartition(AlterPartition {
                    node_id: leader,
                    broker_epoch: self.epoch_of(leader, false),
                    partitions: led.map(|(&id, p)| alteration(id, p)).collect(),
                })
            })
            .collect()
    }
}

/// The directories of a node, as often as it gets another.
fn directory(node: u64, nth: u128) -> DirectoryId {
    DirectoryId(Uuid::from_u128(u128::from(node) * 1_000_000 + nth))
}

fn configure(name: u8, option: &str, value: Option<&str>) -> AlterTopicConfig {
    AlterTopicConfig {
        name: format!("topic-{name}"),
        set: value.map(|value| (option.to_owned(), value.to_owned())).into_iter().collect(),
        unset: if value.is_none() { [option.to_owned()].into() } else { [].into() },
        validate_only: false,
    }
}
