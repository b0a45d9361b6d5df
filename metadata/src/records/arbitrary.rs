//! Strategies for property tests: any record, whether or not it makes sense.

use super::*;
use ottla_proto::{
    BrokerEpoch, DirectoryId, IncarnationId, LeaderEpoch, MetadataOffset, NodeId, PartitionEpoch,
    PartitionId, RequestId, TopicId,
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
    let policy = prop_oneof![
        Just(CleanupPolicy::Delete),
        Just(CleanupPolicy::Compact),
        Just(CleanupPolicy::CompactDelete)
    ];
    let stamps = prop_oneof![Just(TimestampType::CreateTime), Just(TimestampType::LogAppendTime)];
    let long = || option::of(1 << 16..=i64::MAX.cast_unsigned());
    let bound = || option::of(UNLIMITED..=i64::MAX);
    let words =
        (option::of(durability), option::of(policy), option::of(stamps), option::of(any::<bool>()));
    let sizes = (
        option::of(1..=u32::MAX),
        option::of(MIN_MAX_MESSAGE_BYTES..=MAX_MAX_MESSAGE_BYTES),
        option::of(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES),
        option::of(0..=i32::MAX.cast_unsigned()),
        option::of((0..=1000_u16).prop_map(Ratio::from_permille)),
    );
    let times = (long(), long(), long(), long(), long(), bound(), bound());
    (words, sizes, times).prop_map(|(words, sizes, times)| {
        TopicConfig::try_from(TopicOptions {
            durability: words.0,
            cleanup_policy: words.1,
            message_timestamp_type: words.2,
            min_insync_replicas: sizes.0,
            max_message_bytes: sizes.1,
            segment_bytes: sizes.2,
            index_interval_bytes: sizes.3,
            min_cleanable_dirty_ratio: sizes.4,
            delete_retention_ms: times.0,
            flush_messages: times.1,
            flush_ms: times.2,
            max_compaction_lag_ms: times.3,
            min_compaction_lag_ms: None,
            segment_ms: times.4,
            unclean_leader_election_enable: words.3,
            retention_bytes: times.5,
            retention_ms: times.6,
        })
        .expect("drawn within the bounds")
    })
}

fn registration() -> impl Strategy<Value = MetadataRecord> {
    let identity = (node(), epoch(), uuid(), uuid());
    let rest = (".*", any::<u16>(), option::of(".*"), any::<(bool, bool)>());
    let levels = (level(), level()).prop_map(|(min, max)| FeatureLevels { min, max });
    (identity, rest, levels).prop_map(|((node_id, epoch, incarnation, directory), rest, levels)| {
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
            levels,
        })
    })
}

fn level() -> impl Strategy<Value = FeatureLevel> {
    any::<u16>().prop_map(FeatureLevel)
}

fn node_settings() -> impl Strategy<Value = NodeOptions> {
    let ms = || option::of(1..=MAX_NODE_MS);
    let memory = || option::of(1..=MAX_NODE_MEMORY_BYTES);
    let hot = option::of(0..=MAX_NODE_MEMORY_BYTES);
    let levels = prop_oneof![Just("warn"), Just("off"), Just("info,ottla_node::run=trace")];
    let large = 8 * 1024 * 1024..=256 * 1024 * 1024_u64;
    let times = (ms(), ms(), ms(), ms(), option::of(0..=MAX_NODE_MS));
    let sizes = (hot, memory(), option::of(1..=i64::MAX.cast_unsigned()), option::of(large));
    (times, sizes, option::of(levels)).prop_map(|(times, (hot, keys, speed, in_flight), level)| {
        let mut options = NodeOptions {
            catch_up_bytes_per_second: speed,
            disk_alert_free_bytes: speed,
            disk_refuse_free_bytes: speed.map(|_| 0),
            hot_tail_bytes: hot,
            log_cleaner_backoff_ms: times.0,
            log_cleaner_bytes_per_second: speed,
            log_cleaner_key_map_bytes: keys,
            log_flush_check_ms: times.1,
            log_level: None,
            log_retention_check_ms: times.2,
            max_in_flight_produce_bytes: in_flight,
            reassignment_bytes_per_second: speed.map(|_| 0),
            replica_lag_max_ms: times.3,
            shutdown_timeout_ms: times.4,
        };
        if let Some(level) = level {
            options.set("log_level", level).expect("a filter");
        }
        options
    })
}

fn settings() -> impl Strategy<Value = MetadataRecord> {
    let resource =
        prop_oneof![Just(ConfigResource::Cluster), node().prop_map(ConfigResource::Node)];
    (resource, options(), node_settings()).prop_map(|(resource, topics, nodes)| {
        MetadataRecord::from(ConfigChanged { resource, topics, nodes })
    })
}

fn nodes() -> impl Strategy<Value = Vec<NodeId>> {
    vec(node(), 0..5)
}

fn leadership() -> impl Strategy<Value = Leadership> {
    prop_oneof![Just(Leadership::Nobody), node().prop_map(Leadership::Node)]
}

fn reassignment() -> impl Strategy<Value = Reassignment> {
    (nodes(), nodes()).prop_map(|(from, to)| Reassignment { from, to })
}

fn partition_created() -> impl Strategy<Value = MetadataRecord> {
    let lists = (nodes(), nodes(), nodes(), nodes());
    let leaders = (option::of(node()), option::of(node()), any::<bool>());
    (partition_id(), lists, leaders, any::<(u32, u32)>(), option::of(reassignment())).prop_map(
        |(partition, lists, leaders, epochs, reassignment)| {
            MetadataRecord::from(PartitionCreated {
                partition,
                replicas: lists.0,
                isr: lists.1,
                elr: lists.2,
                last_known_elr: lists.3,
                leader: leaders.0,
                last_leader: leaders.1,
                recovering: leaders.2,
                reassignment,
                leader_epoch: LeaderEpoch(epochs.0),
                partition_epoch: PartitionEpoch(epochs.1),
            })
        },
    )
}

fn partition_changed() -> impl Strategy<Value = MetadataRecord> {
    let lists = (option::of(nodes()), option::of(nodes()), option::of(nodes()));
    let leaders = (option::of(leadership()), option::of(leadership()), option::of(any::<bool>()));
    let change = prop_oneof![
        Just(ReassignmentChange::Ended),
        reassignment().prop_map(ReassignmentChange::UnderWay)
    ];
    let moves = (option::of(nodes()), option::of(change));
    (partition_id(), lists, leaders, any::<(u32, u32)>(), moves).prop_map(
        |(partition, lists, leaders, epochs, moves)| {
            MetadataRecord::from(PartitionChanged {
                partition,
                isr: lists.0,
                elr: lists.1,
                last_known_elr: lists.2,
                leader: leaders.0,
                last_leader: leaders.1,
                recovering: leaders.2,
                replicas: moves.0,
                reassignment: moves.1,
                leader_epoch: LeaderEpoch(epochs.0),
                partition_epoch: PartitionEpoch(epochs.1),
            })
        },
    )
}

fn request() -> impl Strategy<Value = MetadataRecord> {
    let forgotten = vec(uuid().prop_map(RequestId), 0..5);
    (uuid(), ".*", option::of(uuid().prop_map(TopicId)), any::<(u32, u64)>(), forgotten).prop_map(
        |(id, what, topic, (added, at_ms), forgotten)| {
            RequestCarriedOut { id: RequestId(id), what, topic, added, at_ms, forgotten }.into()
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
        (node(), epoch(), vec(partition_id(), 0..5)).prop_map(|(node_id, epoch, partitions)| {
            ReplicasOffline { node_id, epoch, partitions }.into()
        }),
        (uuid(), ".*", any::<u32>(), options()).prop_map(|(id, name, partitions, config)| {
            TopicCreated { id: TopicId(id), name, partitions, config }.into()
        }),
        (uuid(), options())
            .prop_map(|(id, config)| TopicConfigChanged { id: TopicId(id), config }.into()),
        settings(),
        (uuid(), any::<u32>()).prop_map(|(id, partitions)| TopicGrown {
            id: TopicId(id),
            partitions
        }
        .into()),
        uuid().prop_map(|id| TopicDeleted { id: TopicId(id) }.into()),
        partition_created(),
        partition_changed(),
        (node(), uuid()).prop_map(|(node_id, directory)| {
            VoterDirectoryRecorded { node_id, directory: DirectoryId(directory) }.into()
        }),
        (node(), uuid()).prop_map(|(node_id, directory)| {
            DirectoryRetired { node_id, directory: DirectoryId(directory) }.into()
        }),
        (node(), epoch()).prop_map(|(node_id, epoch)| BrokerUnregistered { node_id, epoch }.into()),
        request(),
        (node(), any::<bool>()).prop_map(|(node_id, draining)| BrokerDraining {
            node_id,
            draining
        }
        .into()),
        any::<i64>().prop_map(|next_producer_id| ProducerIdsAllocated { next_producer_id }.into()),
        level().prop_map(|level| FeatureLevelFinalised { level }.into()),
        any::<u64>().prop_map(|offset| SnapshotEnded { offset: MetadataOffset(offset) }.into()),
    ]
}
