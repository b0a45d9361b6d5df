//! Three nodes, the real controller, and a network that loses and reorders.

use super::node::{Message, Node, Record, Said};
use crate::core::{Acks, AlterOutcome, Event, Millis, RequestId};
use crate::manager::view;
use ottla_metadata::controller::{
    AlterPartition, AlterTopicConfig, Command, Controller, ControllerOptions, CreateTopic,
    Heartbeat, PartitionAlteration, RegisterBroker, Reply,
};
use ottla_metadata::image::Image;
use ottla_proto::{
    ApiError, BrokerEpoch, IncarnationId, MetadataOffset, NodeId, Offset, PartitionId, TopicId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const NODES: u64 = 3;

/// Messages on their way at most; the oldest is lost. Reordering among more than
/// this shows nothing new.
const NETWORK: usize = 40;

/// Rounds in which everything happens that can, after which nothing may be left
/// to do. A few dozen are enough.
const HEALING_ROUNDS: usize = 400;

pub(super) struct World {
    controller: Controller,
    images: Vec<Arc<Image>>,
    partition: PartitionId,
    pub(super) nodes: Vec<Node>,
    network: Vec<Message>,
    now: Millis,
    last_request: RequestId,
    /// What anybody ever saw below a watermark.
    committed: Vec<Record>,
    /// Every acknowledged record and where it is.
    pub(super) acknowledged: BTreeMap<RequestId, Offset>,
    last_incarnation: u128,
    /// What is acknowledged is on stable storage, or only in page caches.
    memory: bool,
    /// Nodes that may lack acknowledged records because they stopped without order,
    /// and have not been in an ISR of two since. With page caches only one at a
    /// time: two of them are as many as an acknowledgement needs.
    robbed: BTreeSet<usize>,
    /// Registrations of processes that stopped in order, by node.
    stopped: BTreeMap<usize, BrokerEpoch>,
}

impl World {
    pub(super) fn new(memory: bool) -> Self {
        let options = ControllerOptions { cluster_id: "c".to_owned(), session_timeout_ms: 1000 };
        let image = Image::default();
        let mut world = Self {
            controller: Controller::activate(options, &image, 0),
            images: vec![Arc::new(image)],
            partition: PartitionId { topic: TopicId(uuid::Uuid::from_u128(7)), index: 0 },
            nodes: (1..=NODES).map(Node::new).collect(),
            network: Vec::new(),
            now: 0,
            last_request: 0,
            committed: Vec::new(),
            acknowledged: BTreeMap::new(),
            last_incarnation: 0,
            memory,
            robbed: BTreeSet::new(),
            stopped: BTreeMap::new(),
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

    fn image(&self) -> &Arc<Image> {
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

    fn view(&self, image: &Image) -> crate::core::View {
        let id = self.partition;
        view(image, &image.topics[&id.topic], id, &image.partitions[&id])
    }

    fn unfence(&mut self, index: usize) {
        self.heartbeat(index, false);
    }

    fn heartbeat(&mut self, index: usize, want_fence: bool) {
        let node_id = self.nodes[index].id;
        let Some(broker) = self.image().brokers.get(&node_id) else { return };
        let (broker_epoch, metadata_offset) = (broker.epoch, MetadataOffset(u64::MAX));
        let heartbeat =
            Heartbeat { node_id, broker_epoch, metadata_offset, want_fence, want_shutdown: false };
        // Whatever it says: a heartbeat may be refused.
        let _ = self.submit(Command::Heartbeat(heartbeat));
    }

    /// One thing happens, as the number says.
    pub(super) fn happen(&mut self, choice: u32) {
        let (what, which) = (choice % 64, choice / 64);
        let index = (which % 3) as usize;
        let more = which / 3;
        let now = self.now;
        match what {
            0..=2 => self.tell(index, more.is_multiple_of(2)),
            3..=8 => drop(self.nodes[index].run_op(now)),
            9..=13 => drop(self.nodes[index].sync(now)),
            14..=18 => {
                let to = NodeId(u64::from(more) % NODES + 1);
                self.nodes[index].push(to, 1 + (more / 3 % 4) as usize);
            }
            19..=27 => self.deliver(which as usize),
            28 => self.lose(which as usize),
            29..=36 => self.produce(self.target(index, more), !more.is_multiple_of(4)),
            37 => self.pass([1, 60, 3_000, 11_000][(more % 4) as usize]),
            38 => self.crash(index, (more % 4) as usize),
            39..=43 => self.restart(index),
            44 => self.heartbeat(index, true),
            45..=50 => self.unfence_running(index),
            51 => self.nodes[index].reconnect(now),
            52 if !self.memory => self.configure(1 + more % 3),
            _ => (0..more % 4).for_each(|_| self.round()),
        }
        self.collect();
        self.check();
    }

    fn tell(&mut self, index: usize, newest: bool) {
        let last = self.images.len() - 1;
        let Some(process) = &mut self.nodes[index].process else { return };
        if process.image < last {
            process.image = if newest { last } else { process.image + 1 };
            let image = Arc::clone(&self.images[process.image]);
            let (view, now) = (self.view(&image), self.now);
            self.nodes[index].step(Event::Metadata(view), &[], now);
        }
    }

    /// Mostly the leader, as clients know it.
    fn target(&self, index: usize, draw: u32) -> usize {
        let leader = self.image().partitions[&self.partition].leader;
        let known = leader.filter(|_| !draw.is_multiple_of(5));
        known.map_or(index, |leader| usize::try_from(leader.0).expect("small") - 1)
    }

    fn produce(&mut self, index: usize, all: bool) {
        self.last_request += 1;
        let acks = if all { Acks::All } else { Acks::Leader };
        let (id, now) = (self.last_request, self.now);
        self.nodes[index].produce(id, acks, now + 30_000, now);
    }

    fn pass(&mut self, millis: Millis) {
        self.now += millis;
        for index in 0..3 {
            let now = self.now;
            let due = self.nodes[index].process.as_ref().and_then(|p| p.replica.next_deadline());
            if due.is_some_and(|due| due <= now) {
                self.nodes[index].step(Event::Tick, &[], now);
            }
        }
    }

    /// Another min.insync.replicas. Whatever it is, who may lead has everything
    /// that is acknowledged.
    fn configure(&mut self, min_isr: u32) {
        let set = [("min.insync.replicas".to_owned(), min_isr.to_string())].into();
        let (name, unset) = ("t".to_owned(), BTreeSet::new());
        let change = AlterTopicConfig { name, set, unset, validate_only: false };
        self.submit(Command::AlterTopicConfig(change)).expect("within the bounds");
    }

    /// The process dies and the machine loses power; the controller finds out.
    fn crash(&mut self, index: usize, kept: usize) {
        if let Some(process) = &self.nodes[index].process {
            let (node_id, broker_epoch) = (self.nodes[index].id, process.broker_epoch);
            if self.memory && self.robbed.iter().any(|robbed| *robbed != index) {
                self.nodes[index].stop();
                self.stopped.insert(index, broker_epoch);
            } else {
                self.nodes[index].crash(kept);
                self.robbed.insert(index);
            }
            // Half of the time only the next registration tells.
            if kept.is_multiple_of(2) {
                let _ = self.submit(Command::BrokerGone { node_id, broker_epoch });
            }
        }
    }

    fn restart(&mut self, index: usize) {
        if self.nodes[index].process.is_none() {
            let (broker_epoch, incarnation) = self.register(index);
            self.start(index, broker_epoch, incarnation);
        }
    }

    fn unfence_running(&mut self, index: usize) {
        if self.nodes[index].process.is_some() {
            self.unfence(index);
        }
    }

    fn deliver(&mut self, which: usize) {
        if self.network.is_empty() {
            return;
        }
        let message = self.network.remove(which % self.network.len());
        if message.to == NodeId(0) {
            return self.decide(message);
        }
        let now = self.now;
        let index = usize::try_from(message.to.0).expect("small") - 1;
        self.nodes[index].hear(message.said, now);
    }

    fn lose(&mut self, which: usize) {
        if !self.network.is_empty() {
            let lost = self.network.remove(which % self.network.len());
            self.lost(&lost);
        }
    }

    /// A proposal that is lost ends as "unknown", as a call that times out.
    fn lost(&mut self, message: &Message) {
        if let Said::Propose { leader_epoch, partition_epoch, .. } = message.said {
            let outcome = AlterOutcome::Unknown;
            let event = Event::AlterAnswered { leader_epoch, partition_epoch, outcome };
            let (index, now) = (usize::try_from(message.from.0).expect("small") - 1, self.now);
            self.nodes[index].step(event, &[], now);
        }
    }

    fn decide(&mut self, message: Message) {
        let Said::Propose { broker_epoch, leader_epoch, partition_epoch, isr } = message.said
        else {
            panic!("only proposals go to the controller: {message:?}");
        };
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
        let index = usize::try_from(node_id.0).expect("small") - 1;
        // A later process of the node knows nothing of the call.
        let same =
            self.nodes[index].process.as_ref().is_some_and(|p| p.broker_epoch == broker_epoch);
        if same {
            let event = Event::AlterAnswered { leader_epoch, partition_epoch, outcome };
            let now = self.now;
            self.nodes[index].step(event, &[], now);
        }
    }

    fn collect(&mut self) {
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

    /// Everything happens once that can.
    fn round(&mut self) {
        self.pass(100);
        for index in 0..3 {
            self.tell(index, true);
            let now = self.now;
            while self.nodes[index].run_op(now) || self.nodes[index].sync(now) {}
            for to in 1..=NODES {
                self.nodes[index].push(NodeId(to), 8);
            }
        }
        self.collect();
        for _ in 0..self.network.len() {
            self.deliver(0);
            self.collect();
            self.check();
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
        let leader = self.image().partitions[&self.partition].leader.expect("a leader");
        self.produce(usize::try_from(leader.0).expect("small") - 1, true);
        (0..10).for_each(|_| self.round());
        assert_eq!(self.acknowledged.len(), before + 1, "no write: {}", self.describe());
        let logs: Vec<&Vec<Record>> = self.nodes.iter().map(|node| &node.disk.log).collect();
        assert!(logs.iter().all(|log| *log == logs[0]), "replicas differ: {logs:?}");
    }

    fn is_healthy(&self) -> bool {
        let partition = &self.image().partitions[&self.partition];
        let end = self.nodes[0].disk.log.len() as u64;
        partition.isr.len() == 3
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

    fn check(&mut self) {
        self.check_acknowledged();
        let image = Arc::clone(self.image());
        let isr = &image.partitions[&self.partition].isr;
        self.robbed.retain(|index| {
            let node = &self.nodes[*index];
            let current = image.brokers[&node.id].epoch;
            let back = node.process.as_ref().is_some_and(|p| p.broker_epoch == current);
            !(back && isr.len() >= 2 && isr.contains(&node.id))
        });
        self.check_matching();
        self.check_reads();
    }

    /// Every member of the ISR, and everybody eligible beside it, has every
    /// acknowledged record, on stable storage where that was promised: whoever of
    /// them leads next, nothing is lost.
    fn check_acknowledged(&self) {
        let partition = &self.image().partitions[&self.partition];
        let candidates = || partition.isr.iter().chain(&partition.elr);
        for (index, node) in self.nodes.iter().enumerate() {
            // Who has just lost power is found out when it registers.
            let unnoticed = self.memory && self.robbed.contains(&index) && node.process.is_none();
            if unnoticed || !candidates().any(|id| *id == node.id) {
                continue;
            }
            for (&id, &offset) in &self.acknowledged {
                let at = usize::try_from(offset).expect("small");
                let found = node.disk.log.get(at).map(|(_, id)| *id);
                assert!(
                    found == Some(id) && (self.memory || at < node.disk.synced),
                    "request {id} at {offset} is not on node {}, which may lead: {}",
                    node.id,
                    self.describe()
                );
            }
        }
    }

    /// Two logs that have the same epoch at the same offset are equal up to it.
    fn check_matching(&self) {
        for left in &self.nodes {
            for right in self.nodes.iter().filter(|right| right.id > left.id) {
                let (left, right) = (&left.disk.log, &right.disk.log);
                let both = left.len().min(right.len());
                let last = (0..both).rev().find(|&at| left[at].0 == right[at].0);
                if let Some(last) = last {
                    assert_eq!(left[..=last], right[..=last], "{}", self.describe());
                }
            }
        }
    }

    /// What was ever below anybody's watermark never changes.
    fn check_reads(&mut self) {
        for node in &self.nodes {
            let Some(process) = &node.process else { continue };
            let visible = usize::try_from(process.replica.status().high_watermark).expect("small");
            let visible = &node.disk.log[..visible.min(node.disk.log.len())];
            let both = visible.len().min(self.committed.len());
            assert_eq!(visible[..both], self.committed[..both], "{}", self.describe());
            if visible.len() > self.committed.len() {
                self.committed = visible.to_vec();
            }
        }
    }
}

fn durability(memory: bool) -> BTreeMap<String, String> {
    let value = if memory { "memory" } else { "disk" };
    BTreeMap::from([("durability".to_owned(), value.to_owned())])
}
