//! Three nodes, the real controller, and a network that loses and reorders.

use super::disk::Record;
use super::node::{LAG_MAX, Node, Process};
use super::said::{Call, Message, Said};
use crate::core::{Acks, AlterOutcome, Millis, RequestId};
use crate::manager::view;
use ottla_metadata::controller::{
    AlterPartition, AlterTopicConfig, Command, Controller, ControllerOptions, CreateTopic,
    Heartbeat, PartitionAlteration, RegisterBroker, Reply,
};
use ottla_metadata::image::Image;
use ottla_metadata::records::FeatureLevels;
use ottla_proto::{
    ApiError, BrokerEpoch, IncarnationId, LeaderEpoch, MetadataOffset, NodeId, Offset, PartitionId,
    TopicId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) const NODES: u64 = 3;

/// Messages on their way at most; the oldest is lost. Reordering among more than
/// this shows nothing new.
const NETWORK: usize = 40;

/// Rounds in which everything happens that can, after which nothing may be left
/// to do. A few dozen are enough.
const HEALING_ROUNDS: usize = 400;

#[derive(Clone)]
pub(super) struct World {
    controller: Controller,
    pub(super) images: Vec<Arc<Image>>,
    pub(super) partition: PartitionId,
    pub(super) nodes: Vec<Node>,
    pub(super) network: Vec<Message>,
    pub(super) now: Millis,
    pub(super) last_request: RequestId,
    /// What anybody ever saw below a watermark.
    pub(super) committed: Vec<Record>,
    /// Every acknowledged record and where it is.
    pub(super) acknowledged: BTreeMap<RequestId, Offset>,
    /// Who has led each epoch, in which life.
    pub(super) led: BTreeMap<LeaderEpoch, (NodeId, BrokerEpoch)>,
    last_incarnation: u128,
    /// What is acknowledged is on stable storage, or only in page caches.
    pub(super) memory: bool,
    /// Nodes that may lack acknowledged records because they stopped without order,
    /// and have not been in an ISR of two since. With page caches only one at a
    /// time: two of them are as many as an acknowledgement needs.
    pub(super) robbed: BTreeSet<usize>,
    /// Registrations of processes that stopped in order, by node.
    pub(super) stopped: BTreeMap<usize, BrokerEpoch>,
    /// The smallest min.insync.replicas there ever was.
    pub(super) least_min_isr: usize,
}

impl World {
    /// Three replicas in sync of a topic with a minimum of two, just started.
    pub(super) fn new(memory: bool, retry_backoff: Millis) -> Self {
        let options = ControllerOptions {
            cluster_id: "c".to_owned(),
            session_timeout_ms: 1000,
            levels: FeatureLevels::SUPPORTED,
        };
        let image = Image::default();
        let mut world = Self {
            controller: Controller::activate(options, &image, 0),
            images: vec![Arc::new(image)],
            partition: PartitionId { topic: TopicId(uuid::Uuid::from_u128(7)), index: 0 },
            nodes: (1..=NODES).map(|id| Node::new(id, retry_backoff)).collect(),
            network: Vec::new(),
            now: 0,
            last_request: 0,
            committed: Vec::new(),
            acknowledged: BTreeMap::new(),
            led: BTreeMap::new(),
            last_incarnation: 0,
            memory,
            robbed: BTreeSet::new(),
            stopped: BTreeMap::new(),
            least_min_isr: 2,
        };
        let registered: Vec<_> = (0..3).map(|index| (index, world.register(index))).collect();
        (0..3).for_each(|index| world.unfence(index));
        let topic = world.partition.topic;
        world
            .submit(Command::CreateTopic(CreateTopic {
                name: "t".to_owned(),
                topic_id: topic,
                partitions: 1,
                replication_factor: 3,
                configs: durability(memory),
                validate_only: false,
                placement_seed: 0,
            }))
            .expect("a topic");
        for (index, (broker_epoch, incarnation)) in registered {
            world.start(index, broker_epoch, incarnation);
        }
        world
    }

    pub(super) fn image(&self) -> &Arc<Image> {
        self.images.last().expect("there is always one")
    }

    fn submit(&mut self, command: Command) -> Result<Reply, ApiError> {
        let mut image = Image::clone(self.image());
        let decision = self.controller.decide(&image, command, 0);
        for record in &decision.records {
            image.replay(record).expect("the controller's own record");
        }
        if !decision.records.is_empty() {
            self.images.push(Arc::new(image));
        }
        decision.reply
    }

    fn register(&mut self, index: usize) -> (BrokerEpoch, IncarnationId) {
        self.last_incarnation += 1;
        let incarnation = IncarnationId(uuid::Uuid::from_u128(self.last_incarnation));
        let stopped = self.stopped.remove(&index);
        let reply = self.submit(Command::RegisterBroker(RegisterBroker {
            cluster_id: "c".to_owned(),
            node_id: self.nodes[index].id,
            incarnation,
            directory: ottla_proto::DirectoryId(uuid::Uuid::from_u128(100 + index as u128)),
            host: "h".to_owned(),
            port: 1,
            rack: None,
            levels: FeatureLevels::SUPPORTED,
            previous_broker_epoch: stopped,
            previous_stream_open: false,
        }));
        match reply {
            Ok(Reply::Registered { broker_epoch, .. }) => (broker_epoch, incarnation),
            other => panic!("not registered: {other:?}"),
        }
    }

    fn start(&mut self, index: usize, broker_epoch: BrokerEpoch, incarnation: IncarnationId) {
        let image = Arc::clone(self.image());
        let (at, now) = (self.images.len() - 1, self.now);
        let view = self.view(&image);
        self.nodes[index].start(broker_epoch, incarnation, at, view, now);
    }

    pub(super) fn view(&self, image: &Image) -> crate::core::View {
        let id = self.partition;
        view(image, &image.topics[&id.topic], id, &image.partitions[&id], LAG_MAX)
    }

    pub(super) fn unfence(&mut self, index: usize) {
        self.heartbeat(index, false);
    }

    pub(super) fn heartbeat(&mut self, index: usize, want_fence: bool) {
        let node_id = self.nodes[index].id;
        let Some(broker) = self.image().brokers.get(&node_id) else { return };
        let (broker_epoch, metadata_offset) = (broker.epoch, MetadataOffset(u64::MAX));
        let heartbeat =
            Heartbeat { node_id, broker_epoch, metadata_offset, want_fence, want_shutdown: false };
        // Whatever it says: a heartbeat may be refused.
        let _ = self.submit(Command::Heartbeat(heartbeat));
    }

    pub(super) fn produce(&mut self, index: usize, all: bool) {
        self.last_request += 1;
        let acks = if all { Acks::All } else { Acks::Leader };
        let (id, now) = (self.last_request, self.now);
        self.nodes[index].produce(id, acks, now + 30_000, now);
    }

    /// Another min.insync.replicas. Whatever it is, who may lead has everything
    /// that is acknowledged.
    pub(super) fn configure(&mut self, min_isr: u32) {
        self.least_min_isr = self.least_min_isr.min(min_isr as usize);
        let set = [("min.insync.replicas".to_owned(), min_isr.to_string())].into();
        let (name, unset) = ("t".to_owned(), BTreeSet::new());
        let change = AlterTopicConfig { name, set, unset, validate_only: false };
        self.submit(Command::AlterTopicConfig(change)).expect("within the bounds");
    }

    /// The process dies and the machine loses power; the controller finds out.
    pub(super) fn crash(&mut self, index: usize, kept: usize, noticed: bool) {
        if let Some(process) = &self.nodes[index].process {
            let (node_id, broker_epoch) = (self.nodes[index].id, process.broker_epoch);
            if self.memory && self.robbed.iter().any(|robbed| *robbed != index) {
                self.nodes[index].stop();
                self.stopped.insert(index, broker_epoch);
            } else {
                self.nodes[index].crash(kept);
                self.robbed.insert(index);
            }
            if noticed {
                let _ = self.submit(Command::BrokerGone { node_id, broker_epoch });
            }
        }
    }

    pub(super) fn restart(&mut self, index: usize) {
        if self.nodes[index].process.is_none() {
            let (broker_epoch, incarnation) = self.register(index);
            self.start(index, broker_epoch, incarnation);
        }
    }

    pub(super) fn deliver(&mut self, which: usize) {
        let message = self.network.remove(which);
        if message.to == NodeId(0) {
            return self.decide(message);
        }
        let now = self.now;
        self.nodes[index_of(message.to)].hear(message.said, now);
    }

    /// A proposal that is lost, or its answer, ends as "unknown", as a call that
    /// times out.
    pub(super) fn lost(&mut self, message: &Message) {
        let (caller, call) = match message.said {
            Said::Propose { call, awaited: true, .. } => (message.from, call),
            Said::Answered { call, .. } => (message.to, call),
            _ => return,
        };
        let now = self.now;
        self.nodes[index_of(caller)].hear_answer(call, AlterOutcome::Unknown, now);
    }

    fn decide(&mut self, message: Message) {
        let Said::Propose { call, isr, awaited } = message.said else {
            panic!("only proposals go to the controller: {message:?}");
        };
        let Call { broker_epoch, leader_epoch, partition_epoch } = call;
        let proposal = PartitionAlteration {
            partition: self.partition,
            leader_epoch,
            partition_epoch,
            new_isr: isr,
            recovered: true,
        };
        let (node_id, partitions) = (message.from, vec![proposal]);
        let reply = self.submit(Command::AlterPartition(AlterPartition {
            node_id,
            broker_epoch,
            partitions,
        }));
        let outcome = match reply {
            Ok(Reply::Altered(mut outcomes)) => {
                crate::alter::outcome_of(outcomes.pop().expect("one outcome").result)
            }
            Ok(other) => panic!("not an answer to a proposal: {other:?}"),
            Err(_) => AlterOutcome::Unknown,
        };
        if awaited {
            let said = Said::Answered { call, outcome };
            self.network.push(Message { from: message.to, to: message.from, said });
        }
    }

    pub(super) fn collect(&mut self) {
        for index in 0..3 {
            let said = std::mem::take(&mut self.nodes[index].outbox);
            self.network.extend(said);
            for (id, offset) in std::mem::take(&mut self.nodes[index].acknowledged) {
                self.acknowledged.insert(id, offset);
            }
        }
        while self.network.len() > NETWORK {
            let lost = self.network.remove(0);
            self.lost(&lost);
        }
    }

    /// Everybody is back, nothing is lost any more: in the end all replicas are
    /// in the ISR and equal, and take a write.
    pub(super) fn heal(&mut self) {
        for index in 0..3 {
            self.restart(index);
            self.unfence(index);
            let now = self.now;
            self.nodes[index].reconnect(now);
        }
        for round in 0..HEALING_ROUNDS {
            self.round();
            if self.is_healthy() {
                break;
            }
            assert!(round + 1 < HEALING_ROUNDS, "it does not heal: {}", self.describe());
        }
        let before = self.acknowledged.len();
        let leader = self.partition().leader.expect("a leader");
        self.produce(index_of(leader), true);
        (0..10).for_each(|_| self.round());
        assert_eq!(self.acknowledged.len(), before + 1, "no write: {}", self.describe());
        let logs: Vec<&Vec<Record>> = self.nodes.iter().map(|node| &node.disk.log).collect();
        assert!(logs.iter().all(|log| *log == logs[0]), "replicas differ: {logs:?}");
    }

    pub(super) fn is_healthy(&self) -> bool {
        let partition = self.partition();
        let end = self.nodes[0].disk.log.len() as u64;
        let knows = |p: &Process| p.replica.status().can_commit;
        partition.isr.len() == 3
            && self.nodes.iter().any(|node| node.process.as_ref().is_some_and(knows))
            && self.nodes.iter().all(|node| {
                node.process.as_ref().is_some_and(|p| {
                    let status = p.replica.status();
                    status.high_watermark == end && status.log_end == end
                })
            })
    }

    pub(super) fn describe(&self) -> String {
        let nodes = self.nodes.iter().map(|node| {
            let process =
                node.process.as_ref().map(|p| (p.broker_epoch, p.incarnation, &p.replica));
            format!("\n{}: log {:?} {process:#?}", node.id, node.disk.log)
        });
        let partition = &self.image().partitions[&self.partition];
        format!("{partition:?}, {:?}{}", self.network, nodes.collect::<String>())
    }
}

pub(super) fn index_of(node: NodeId) -> usize {
    usize::try_from(node.0).expect("small") - 1
}

fn durability(memory: bool) -> BTreeMap<String, String> {
    let value = if memory { "memory" } else { "disk" };
    BTreeMap::from([("durability".to_owned(), value.to_owned())])
}
