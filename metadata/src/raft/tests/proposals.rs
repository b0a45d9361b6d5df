//! What one command decides goes into one entry of the metadata log, all of it or
//! nothing. At the scale that a cluster is made for it must fit with room to spare: a
//! command that did not would be refused each time it is made.

use crate::controller::{
    AlterPartition, BatchDecision, Command, Controller, ControllerOptions, CreateTopic, Heartbeat,
    MAX_PARTITIONS_PER_TOPIC, PartitionAlteration, RegisterBroker, Reply,
};
use crate::image::Image;
use crate::raft::proposal::{PROPOSAL_BYTES, encoded_bytes};
use crate::records::FeatureLevels;
use ottla_proto::{BrokerEpoch, DirectoryId, IncarnationId, NodeId, TopicId};

/// The entry has room for so many times what is proposed here.
const ROOM: usize = 3;

const BROKERS: u64 = 5;

struct World {
    controller: Controller,
    image: Image,
}

impl World {
    fn decide(&mut self, command: Command) -> BatchDecision {
        let mut decided = self.controller.decide_batch(&self.image, vec![command], 0);
        let size = encoded_bytes(&decided.records);
        let count = decided.records.len();
        assert!(ROOM * size <= PROPOSAL_BYTES, "{count} records are {size} bytes");
        self.image = decided.image.clone();
        assert!(decided.replies.remove(0).is_ok());
        decided
    }

    /// A new process of a broker, with nothing that was said in order.
    fn join(&mut self, node: u64) {
        self.decide(Command::RegisterBroker(RegisterBroker {
            cluster_id: "c".to_owned(),
            node_id: NodeId(node),
            incarnation: IncarnationId::random(),
            directory: DirectoryId(uuid::Uuid::from_u128(node.into())),
            host: "localhost".to_owned(),
            port: 7401,
            rack: None,
            levels: FeatureLevels::SUPPORTED,
            previous_broker_epoch: None,
            previous_stream_open: false,
        }));
        self.decide(Command::Heartbeat(Heartbeat {
            node_id: NodeId(node),
            broker_epoch: self.epoch(node),
            metadata_offset: self.image.offset,
            want_fence: false,
            want_shutdown: false,
        }));
        assert!(self.image.is_active(NodeId(node)));
    }

    fn epoch(&self, node: u64) -> BrokerEpoch {
        self.image.brokers[&NodeId(node)].epoch
    }

    /// A leader takes all replicas back into the ISRs of all that it leads.
    fn grow_all(&mut self, node: u64) -> usize {
        let members = |image: &Image, replicas: &[NodeId]| {
            replicas.iter().map(|id| (*id, image.brokers[id].epoch)).collect()
        };
        let led = self.image.partitions.iter().filter(|(_, p)| p.leader == Some(NodeId(node)));
        let partitions: Vec<PartitionAlteration> = led
            .map(|(id, partition)| PartitionAlteration {
                partition: *id,
                leader_epoch: partition.leader_epoch,
                partition_epoch: partition.partition_epoch,
                new_isr: members(&self.image, &partition.replicas),
                recovered: false,
            })
            .collect();
        let (count, broker_epoch) = (partitions.len(), self.epoch(node));
        let request = AlterPartition { node_id: NodeId(node), broker_epoch, partitions };
        let decided = self.decide(Command::AlterPartition(request));
        assert_eq!(decided.records.len(), count, "one fact for each partition");
        count
    }
}

/// Ten thousand partitions with a replica on each of five brokers: their creation, the
/// fencing of a broker, its return, all ISRs proposed in one call by each leader, and
/// the deletion are one proposal each.
#[test]
fn what_concerns_ten_thousand_partitions_is_one_proposal() {
    let options = ControllerOptions {
        cluster_id: "c".to_owned(),
        session_timeout_ms: 1000,
        levels: FeatureLevels::SUPPORTED,
    };
    let image = Image::default();
    let mut world = World { controller: Controller::activate(options, &image, 0), image };
    (1..=BROKERS).for_each(|node| world.join(node));
    let all = MAX_PARTITIONS_PER_TOPIC as usize;
    let created = world.decide(Command::CreateTopic(CreateTopic {
        name: "wide".to_owned(),
        topic_id: TopicId(uuid::Uuid::from_u128(1)),
        partitions: MAX_PARTITIONS_PER_TOPIC,
        replication_factor: BROKERS as u32,
        configs: [].into(),
        validate_only: false,
        placement_seed: 7,
    }));
    assert_eq!(created.records.len(), all + 1);
    let gone = Command::BrokerGone { node_id: NodeId(1), broker_epoch: world.epoch(1) };
    assert_eq!(world.decide(gone).records.len(), all + 1, "the fence, and each partition");
    world.join(1);
    let grown: usize = (1..=BROKERS).map(|node| world.grow_all(node)).sum();
    assert_eq!(grown, all);
    assert!(world.image.partitions.values().all(|p| p.isr.len() == p.replicas.len()));
    let moved = world.controller.decide_batch(&world.image, vec![Command::BalanceLeaders], 0);
    let most = crate::controller::MAX_LEADER_MOVES;
    assert_eq!(moved.replies, [Ok(Reply::Balanced { moved: most })]);
    assert_eq!(moved.records.len(), most);
    let deleted = world.decide(Command::DeleteTopic { name: "wide".to_owned() });
    assert_eq!(deleted.records.len(), 1);
    assert!(world.image.partitions.is_empty());
}
