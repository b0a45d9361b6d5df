//! Runs the stories of `controller/scripts`: lines with `>` are what happens,
//! the lines below are the records and the answer that must come of it.
//!
//! `NAME=VALUE` arguments that are left out mean the ordinary thing: the
//! current epoch, all metadata applied, the first directory.

use super::tell::{leader, list};
use crate::controller::{
    AlterConfig, AlterPartition, AlterTopicConfig, CancelReassignment, Command, Controller,
    ControllerOptions, CreateTopic, ElectLeader, Election, GrowTopic, Heartbeat,
    PartitionAlteration, Reassign, RegisterBroker, ReportOffline, Requested,
};
use crate::image::Image;
use crate::records::{
    ConfigResource, FeatureLevel, FeatureLevels, MetadataRecord, PartitionCreated, TopicConfig,
    TopicCreated,
};
use ottla_proto::{
    BrokerEpoch, DirectoryId, IncarnationId, LeaderEpoch, MetadataOffset, NodeId, PartitionEpoch,
    PartitionId, RequestId, TopicId,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use uuid::Uuid;

pub(super) const CLUSTER: &str = "ottla-test";
pub(super) const SESSION_MS: u64 = 1000;

pub(super) fn options(levels: FeatureLevels) -> ControllerOptions {
    ControllerOptions { cluster_id: CLUSTER.to_owned(), session_timeout_ms: SESSION_MS, levels }
}

/// Runs a script and checks its expected output.
///
/// # Panics
/// With the whole actual script, if anything differs.
pub(super) fn run(name: &str, script: &str) {
    let mut stage = Stage::new();
    let mut actual = String::new();
    for line in script.lines() {
        if line.starts_with('#') || line.is_empty() {
            writeln!(actual, "{line}").expect("into memory");
        } else if let Some(step) = line.strip_prefix("> ") {
            writeln!(actual, "{line}").expect("into memory");
            stage.step(step, &mut actual);
        }
    }
    assert!(actual == script, "{name} went differently:\n-----\n{actual}-----");
}

pub(super) struct Stage {
    pub(super) image: Image,
    controller: Controller,
    now_ms: u64,
    topics_made: u128,
    /// Of the release that decides, and of nodes that do not say otherwise.
    levels: FeatureLevels,
}

/// One step: its words, and its `name=value` arguments.
struct Step<'a> {
    words: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Step<'a> {
    fn parse(line: &'a str) -> Self {
        let (named, words): (Vec<_>, Vec<_>) =
            line.split_whitespace().partition(|word| word.contains('='));
        let named = named.iter().filter_map(|word| word.split_once('=')).collect();
        Self { words, named }
    }

    fn word(&self, index: usize) -> &'a str {
        self.words.get(index).unwrap_or_else(|| panic!("{:?} is too short", self.words))
    }

    fn node(&self) -> NodeId {
        NodeId(self.word(1).parse().expect("a node"))
    }

    fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        let value = self.named.get(name)?;
        Some(value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
    }

    fn nodes(&self, name: &str) -> Option<Vec<NodeId>> {
        let list = self.named.get(name)?;
        Some(
            list.split(',')
                .filter(|n| !n.is_empty())
                .map(|n| NodeId(n.parse().expect("a node")))
                .collect(),
        )
    }
}

impl Stage {
    fn new() -> Self {
        let image = Image::default();
        // Most stories are about what every cluster can do.
        let levels = FeatureLevels::default();
        let controller = Controller::activate(options(levels), &image, 0);
        Self { image, controller, now_ms: 0, topics_made: 0, levels }
    }

    fn step(&mut self, line: &str, out: &mut String) {
        let step = Step::parse(line);
        match step.word(0) {
            // Nodes that have registered and are unfenced.
            "cluster" => {
                for node in step.word(1).split(',') {
                    let quiet = &mut String::new();
                    self.step(&format!("register {node}"), quiet);
                    self.step(&format!("beat {node}"), quiet);
                }
            }
            "given" => self.given(&step),
            "wait" => self.now_ms += step.word(1).parse::<u64>().expect("milliseconds"),
            // Another release: `release 1..2`.
            "release" => {
                self.levels = levels(step.word(1));
                self.new_controller();
            }
            "new-controller" => self.new_controller(),
            "show" => self.show(&step, out),
            "tick" => {
                let commands = self.controller.tick(&self.image, self.now_ms);
                self.decide(commands, out);
            }
            _ => {
                let command = self.requested(&step);
                self.decide(vec![command], out);
            }
        }
    }

    fn new_controller(&mut self) {
        self.controller = Controller::activate(options(self.levels), &self.image, self.now_ms);
    }

    /// A topic of one partition in this state, as if it had come to be so.
    fn given(&mut self, step: &Step<'_>) {
        let name = step.word(1).to_owned();
        let id = self.new_topic_id();
        let replicas = step.nodes("replicas").expect("replicas");
        let leader = match step.named.get("leader") {
            Some(&"none") => None,
            _ => step.number("leader").map(NodeId).or(replicas.first().copied()),
        };
        let partition = PartitionCreated {
            partition: PartitionId { topic: id, index: 0 },
            isr: step.nodes("isr").unwrap_or_else(|| replicas.clone()),
            elr: step.nodes("elr").unwrap_or_default(),
            last_known_elr: step.nodes("once").unwrap_or_default(),
            last_leader: None,
            recovering: step.has("recovering"),
            reassignment: None,
            leader,
            replicas,
            leader_epoch: LeaderEpoch(step.number("leader-epoch").unwrap_or(0)),
            partition_epoch: PartitionEpoch(step.number("partition-epoch").unwrap_or(0)),
        };
        let known = ["replicas", "isr", "elr", "once", "leader", "leader-epoch", "partition-epoch"];
        let options = step.named.iter().filter(|(name, _)| !known.contains(name));
        let config = TopicConfig::parse(options).expect("options");
        let topic = TopicCreated { id, name, partitions: 1, config };
        for record in [MetadataRecord::from(topic), partition.into()] {
            self.image.replay(&record).expect("a state that can be");
        }
    }

    fn new_topic_id(&mut self) -> TopicId {
        self.topics_made += 1;
        TopicId(Uuid::from_u128(self.topics_made))
    }

    fn decide(&mut self, commands: Vec<Command>, out: &mut String) {
        let batch = self.controller.decide_batch(&self.image, commands, self.now_ms);
        for record in &batch.records {
            let line = self.describe(record);
            self.image.replay(record).expect("a decided record");
            writeln!(out, "{line}").expect("into memory");
        }
        assert_eq!(self.image, batch.image);
        assert_eq!(Image::from_records(&self.image.to_records()).as_ref(), Ok(&self.image));
        for reply in &batch.replies {
            let line = self.answer(reply);
            writeln!(out, "= {line}").expect("into memory");
        }
    }

    /// `request=N`: the command goes under this id.
    fn requested(&mut self, step: &Step<'_>) -> Command {
        let command = self.command(step);
        let Some(id) = step.number("request") else { return command };
        let (id, at_ms) = (RequestId(Uuid::from_u128(id)), self.now_ms);
        Command::Requested(Requested { id, at_ms, command: Box::new(command) })
    }

    fn epoch_of(&self, node: NodeId) -> BrokerEpoch {
        self.image.brokers.get(&node).map_or(BrokerEpoch(0), |broker| broker.epoch)
    }

    fn command(&mut self, step: &Step<'_>) -> Command {
        let epoch = |node| step.number("epoch").map_or_else(|| self.epoch_of(node), BrokerEpoch);
        match step.word(0) {
            "register" => Command::RegisterBroker(register(step, self.levels)),
            "beat" => Command::Heartbeat(Heartbeat {
                node_id: step.node(),
                broker_epoch: epoch(step.node()),
                metadata_offset: step.number("at").map_or(self.image.offset, MetadataOffset),
                want_fence: step.has("fence"),
                want_shutdown: step.has("shutdown"),
            }),
            "gone" => {
                Command::BrokerGone { node_id: step.node(), broker_epoch: epoch(step.node()) }
            }
            "create" => Command::CreateTopic(self.create(step)),
            "delete" => Command::DeleteTopic { name: step.word(1).to_owned() },
            "configure" => Command::AlterTopicConfig(configure(step)),
            "set" => Command::AlterConfig(settings(step)),
            "grow" => Command::GrowTopic(GrowTopic {
                name: step.word(1).to_owned(),
                partitions: step.number("partitions").expect("partitions"),
                validate_only: step.has("validate-only"),
                placement_seed: step.number("seed").unwrap_or(0),
            }),
            // reassign orders 0:1,2,3 1:2,3,4
            "reassign" => Command::Reassign(Reassign {
                topic: step.word(1).to_owned(),
                partitions: step.words[2..].iter().filter_map(|word| assignment(word)).collect(),
                validate_only: step.has("validate-only"),
            }),
            "cancel" => Command::CancelReassignment(CancelReassignment {
                topic: step.word(1).to_owned(),
                partitions: step.words[2..].iter().map(|i| i.parse().expect("index")).collect(),
            }),
            "alter" => Command::AlterPartition(AlterPartition {
                node_id: step.node(),
                broker_epoch: epoch(step.node()),
                partitions: vec![self.alteration(step)],
            }),
            "elect" => {
                let (topic, index) = step.word(1).rsplit_once('-').expect("topic-index");
                let unclean = step.has("unclean");
                Command::ElectLeader(ElectLeader {
                    topic: topic.to_owned(),
                    partition: index.parse().expect("an index"),
                    election: if unclean { Election::Unclean } else { Election::Preferred },
                })
            }
            "offline" => Command::ReportOffline(ReportOffline {
                node_id: step.node(),
                broker_epoch: epoch(step.node()),
                partitions: step.words[2..].iter().map(|word| self.partition_id(word)).collect(),
            }),
            "producer-ids" => Command::AllocateProducerIds {
                node_id: step.node(),
                broker_epoch: epoch(step.node()),
            },
            "voter" => {
                Command::RecordVoterDirectory { node_id: step.node(), directory: directory(step) }
            }
            "retire" => Command::RetireDirectory { node_id: step.node() },
            "remove" => Command::RemoveNode { node_id: step.node() },
            "drain" => Command::Drain { node_id: step.node() },
            "undrain" => Command::CancelDrain { node_id: step.node() },
            "finalise" => Command::FinaliseLevel { level: step.number("level").map(FeatureLevel) },
            "balance" => Command::BalanceLeaders,
            other => panic!("there is no step `{other}`"),
        }
    }

    fn create(&mut self, step: &Step<'_>) -> CreateTopic {
        let known = ["partitions", "rf", "seed", "request"];
        let configs = step.named.iter().filter(|(name, _)| !known.contains(name));
        CreateTopic {
            name: step.words.get(1).map_or(String::new(), |name| (*name).replace('%', " ")),
            topic_id: self.new_topic_id(),
            partitions: step.number("partitions").unwrap_or(0),
            replication_factor: step.number("rf").unwrap_or(0),
            configs: configs.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            validate_only: step.has("validate-only"),
            placement_seed: step.number("seed").unwrap_or(0),
        }
    }

    fn partition_id(&self, word: &str) -> PartitionId {
        let (name, index) = word.rsplit_once('-').expect("topic-index");
        let unknown = TopicId(Uuid::from_u128(u128::MAX));
        let topic = self.image.topic_by_name(name).map_or(unknown, |topic| topic.id);
        PartitionId { topic, index: index.parse().expect("an index") }
    }

    fn alteration(&self, step: &Step<'_>) -> PartitionAlteration {
        let PartitionId { topic, index } = self.partition_id(step.word(2));
        let now = self.image.partition(topic, index);
        let member = |text: &str| match text.split_once('@') {
            Some((node, epoch)) => {
                (NodeId(node.parse().unwrap()), BrokerEpoch(epoch.parse().unwrap()))
            }
            None => {
                let node = NodeId(text.parse().expect("a node"));
                (node, self.epoch_of(node))
            }
        };
        let leader_epoch = step.number("leader-epoch").map(LeaderEpoch);
        let partition_epoch = step.number("partition-epoch").map(PartitionEpoch);
        PartitionAlteration {
            partition: PartitionId { topic, index },
            leader_epoch: leader_epoch.or(now.map(|p| p.leader_epoch)).unwrap_or_default(),
            partition_epoch: partition_epoch.or(now.map(|p| p.partition_epoch)).unwrap_or_default(),
            recovered: !step.has("recovering"),
            new_isr: step.named["isr"].split(',').filter(|m| !m.is_empty()).map(member).collect(),
        }
    }

    fn show(&self, step: &Step<'_>, out: &mut String) {
        let (name, index) = step.word(1).rsplit_once('-').expect("topic-index");
        let topic = self.image.topic_by_name(name).expect("a topic").id;
        let index = index.parse().expect("an index");
        let p = self.image.partition(topic, index).expect("a partition");
        let mut line = format!("replicas {} isr {}", list(&p.replicas), list(&p.isr));
        if let Some(moving) = &p.reassignment {
            write!(line, " from {} to {}", list(&moving.from), list(&moving.to)).expect("memory");
        }
        for (what, nodes) in [("elr", &p.elr), ("once", &p.last_known_elr)] {
            if !nodes.is_empty() {
                write!(line, " {what} {}", list(nodes)).expect("into memory");
            }
        }
        write!(line, " leader {}", leader(p.leader)).expect("into memory");
        line += if p.recovering { " recovering" } else { "" };
        writeln!(out, "{line}").expect("into memory");
    }
}

/// `configure NAME k=v unset=k,k`.
fn configure(step: &Step<'_>) -> AlterTopicConfig {
    let set = step.named.iter().filter(|(name, _)| !["unset", "request"].contains(name));
    let unset = step.named.get("unset").map_or("", |names| names);
    AlterTopicConfig {
        name: step.word(1).to_owned(),
        set: set.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        unset: unset.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        validate_only: step.has("validate-only"),
    }
}

/// `set cluster k=v unset=k,k`, `set N k=v`.
fn settings(step: &Step<'_>) -> AlterConfig {
    let AlterTopicConfig { set, unset, validate_only, name } = configure(step);
    let resource = match &name[..] {
        "cluster" => ConfigResource::Cluster,
        node => ConfigResource::Node(NodeId(node.parse().expect("a node"))),
    };
    AlterConfig { resource, set, unset, validate_only }
}

/// `MIN..MAX`.
fn levels(range: &str) -> FeatureLevels {
    let (min, max) = range.split_once("..").expect("a range");
    let level = |text: &str| FeatureLevel(text.parse().expect("a level"));
    FeatureLevels { min: level(min), max: level(max) }
}

fn register(step: &Step<'_>, release: FeatureLevels) -> RegisterBroker {
    RegisterBroker {
        cluster_id: (*step.named.get("cluster").unwrap_or(&CLUSTER)).to_owned(),
        node_id: step.node(),
        incarnation: IncarnationId(Uuid::from_u128(step.number("process").unwrap_or(1))),
        directory: directory(step),
        host: (*step.named.get("host").unwrap_or(&"localhost")).to_owned(),
        port: step.number("port").unwrap_or(7401),
        rack: step.named.get("rack").map(|rack| (*rack).to_owned()),
        levels: step.named.get("levels").map_or(release, |range| levels(range)),
        previous_broker_epoch: step.number("previous").map(BrokerEpoch),
        previous_stream_open: step.has("stream-open"),
    }
}

/// `INDEX:NODE,NODE`.
fn assignment(word: &str) -> Option<(u32, Vec<NodeId>)> {
    let (index, nodes) = word.split_once(':')?;
    let nodes = nodes.split(',').filter(|n| !n.is_empty());
    let nodes = nodes.map(|n| NodeId(n.parse().expect("a node"))).collect();
    Some((index.parse().expect("an index"), nodes))
}

fn directory(step: &Step<'_>) -> DirectoryId {
    DirectoryId(Uuid::from_u128(step.number("directory").unwrap_or(1)))
}
