//! Strategies for property tests: any record, whether or not it makes sense.

use super::*;
use ottla_proto::{
    BrokerEpoch, DirectoryId, IncarnationId, LeaderEpoch, MetadataOffset, NodeId, PartitionEpoch,
    PartitionId, TopicId,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use uuid::Uuid;

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn node() -> impl Strategy<Value = NodeId> {
    any::<u64>().prop_map(NodeId)
}

fn epoch() -> impl Strategy<Value = BrokerEpoch> {
    any::<u64>().prop_map(BrokerEpoch)
}

fn partition_id() -> impl Strategy<Value = PartitionId> {
    (uuid(), any::<u32>()).prop_map(|(topic, index)| PartitionId { topic: TopicId(topic), index })
}

fn options() -> impl Strategy<Value = TopicConfig> {
    let durability = prop_oneof![Just(Durability::Disk), Just(Durability::Memory)];
    (
        option::of(1..=u32::MAX),
        option::of(durability),
        option::of(MIN_MAX_MESSAGE_BYTES..=1 << 23),
        option::of(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES),
    )
        .prop_map(|(min_insync_replicas, durability, max_message_bytes, segment_bytes)| {
            TopicConfig::try_from(TopicOptions {
                min_insync_replicas,
                durability,
                max_message_bytes,
                segment_bytes,
            })
            .expect("drawn within the bounds")
        })
}

fn registration() -> impl Strategy<Value = MetadataRecord> {
    let identity = (node(), epoch(), uuid(), uuid());
    let rest = (".*", any::<u16>(), option::of(".*"), any::<(bool, bool)>());
    (identity, rest).prop_map(|((node_id, epoch, incarnation, directory), rest)| {
        let (host, port, rack, (fenced, shutting_down)) = rest;
        MetadataRecord::from(BrokerRegistered {
            node_id,
            epoch,
            incarnation: IncarnationId(incarnation),
            directory: DirectoryId(directory),
            host,
            port,
            rack,
            fenced,
            shutting_down,
        })
    })
}

fn partition_created() -> impl Strategy<Value = MetadataRecord> {
    (partition_id(), vec(node(), 0..5), vec(node(), 0..5), option::of(node()), any::<(u32, u32)>())
        .prop_map(|(partition, replicas, isr, leader, epochs)| {
            MetadataRecord::from(PartitionCreated {
                partition,
                replicas,
                isr,
                leader,
                leader_epoch: LeaderEpoch(epochs.0),
                partition_epoch: PartitionEpoch(epochs.1),
            })
        })
}

fn partition_changed() -> impl Strategy<Value = MetadataRecord> {
    let leader = prop_oneof![Just(Leadership::Nobody), node().prop_map(Leadership::Node)];
    let isr = option::of(vec(node(), 0..5));
    (partition_id(), isr, option::of(leader), any::<(u32, u32)>()).prop_map(
        |(partition, isr, leader, epochs)| {
            MetadataRecord::from(PartitionChanged {
                partition,
                isr,
                leader,
                leader_epoch: LeaderEpoch(epochs.0),
                partition_epoch: PartitionEpoch(epochs.1),
            })
        },
    )
}

/// Any record.
pub(crate) fn record() -> impl Strategy<Value = MetadataRecord> {
    prop_oneof![
        registration(),
        (node(), epoch()).prop_map(|(node_id, epoch)| BrokerFenced { node_id, epoch }.into()),
        (node(), epoch()).prop_map(|(node_id, epoch)| BrokerUnfenced { node_id, epoch }.into()),
        (node(), epoch())
            .prop_map(|(node_id, epoch)| BrokerShutdownStarted { node_id, epoch }.into()),
        (uuid(), ".*", any::<u32>(), options()).prop_map(|(id, name, partitions, config)| {
            TopicCreated { id: TopicId(id), name, partitions, config }.into()
        }),
        uuid().prop_map(|id| TopicDeleted { id: TopicId(id) }.into()),
        partition_created(),
        partition_changed(),
        (node(), uuid()).prop_map(|(node_id, directory)| {
            VoterDirectoryRecorded { node_id, directory: DirectoryId(directory) }.into()
        }),
        any::<u64>().prop_map(|offset| SnapshotEnded { offset: MetadataOffset(offset) }.into()),
    ]
}
