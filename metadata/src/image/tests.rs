use super::*;
use crate::records::{
    BrokerFenced, BrokerRegistered, BrokerShutdownStarted, BrokerUnfenced, ConfigChanged,
    ConfigResource, Leadership, MetadataRecord, NodeOptions, PartitionChanged, PartitionCreated,
    ProducerIdsAllocated, Reassignment, ReassignmentChange, RequestCarriedOut, SnapshotEnded,
    TopicConfig, TopicConfigChanged, TopicCreated, TopicDeleted, TopicGrown,
    VoterDirectoryRecorded,
};
use proptest::prelude::*;
use uuid::Uuid;

const ORDERS: TopicId = TopicId(Uuid::from_u128(1));
const OTHER: TopicId = TopicId(Uuid::from_u128(2));

fn nodes(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn broker(node: u64, incarnation: u128, epoch: u64) -> BrokerRegistered {
    BrokerRegistered {
        node_id: NodeId(node),
        epoch: BrokerEpoch(epoch),
        incarnation: IncarnationId(Uuid::from_u128(incarnation)),
        directory: DirectoryId(Uuid::from_u128(9)),
        host: "localhost".to_owned(),
        port: 7401,
        rack: None,
        fenced: true,
        shutting_down: false,
        levels: Default::default(),
    }
}

fn topic(id: TopicId, name: &str, partitions: u32) -> TopicCreated {
    TopicCreated { id, name: name.to_owned(), partitions, config: TopicConfig::default() }
}

fn partition(topic: TopicId, index: u32) -> PartitionCreated {
    PartitionCreated {
        partition: PartitionId { topic, index },
        replicas: nodes(&[1, 2, 3]),
        isr: nodes(&[1, 2, 3]),
        leader: Some(NodeId(1)),
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(0),
        elr: vec![],
        last_known_elr: vec![],
        last_leader: None,
        recovering: false,
        reassignment: None,
    }
}

fn change(index: u32) -> PartitionChanged {
    PartitionChanged {
        partition: PartitionId { topic: ORDERS, index },
        isr: Some(nodes(&[2, 3])),
        leader: Some(Leadership::Node(NodeId(2))),
        leader_epoch: LeaderEpoch(1),
        partition_epoch: PartitionEpoch(1),
        elr: None,
        last_known_elr: None,
        last_leader: None,
        recovering: None,
        replicas: None,
        reassignment: None,
    }
}

fn request(id: u128) -> RequestCarriedOut {
    RequestCarriedOut {
        id: RequestId(Uuid::from_u128(id)),
        what: "create topic orders".to_owned(),
        topic: Some(ORDERS),
        added: 2,
        at_ms: 7,
        forgotten: vec![],
    }
}

/// Partition 0 is to be moved, its replicas left as they are.
fn moving(from: &[u64], to: &[u64]) -> PartitionChanged {
    let moving = Reassignment { from: nodes(from), to: nodes(to) };
    PartitionChanged { reassignment: Some(ReassignmentChange::UnderWay(moving)), ..change(0) }
}

/// Node 1 registered and fenced; `orders` with partition 0 of 2.
fn start() -> Image {
    Image::from_records(&[
        broker(1, 1, 1).into(),
        topic(ORDERS, "orders", 2).into(),
        partition(ORDERS, 0).into(),
    ])
    .expect("makes sense")
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let node_id = NodeId(1);
    let epoch = BrokerEpoch(1);
    let stale = BrokerEpoch(0);
    let nonsense: Vec<(&str, MetadataRecord)> = vec![
        ("unknown broker", BrokerFenced { node_id: NodeId(9), epoch }.into()),
        ("epoch", BrokerUnfenced { node_id, epoch: stale }.into()),
        ("already fenced", BrokerFenced { node_id, epoch }.into()),
        ("registered with epoch 1", broker(1, 2, 1).into()),
        ("registered with epoch 2", broker(1, 1, 2).into()),
        ("id", topic(ORDERS, "again", 1).into()),
        ("name `orders`", topic(OTHER, "orders", 1).into()),
        ("no partitions", topic(OTHER, "other", 0).into()),
        ("unknown topic", TopicDeleted { id: OTHER }.into()),
        ("unknown topic", TopicConfigChanged { id: OTHER, config: TopicConfig::default() }.into()),
        ("unknown topic", TopicGrown { id: OTHER, partitions: 3 }.into()),
        ("from 2 partitions to 2", TopicGrown { id: ORDERS, partitions: 2 }.into()),
        ("unknown topic", partition(OTHER, 0).into()),
        ("has 2 partitions", partition(ORDERS, 2).into()),
        ("exists already", partition(ORDERS, 0).into()),
        ("leader 1 outside", PartitionCreated { isr: vec![], ..partition(ORDERS, 1) }.into()),
        (
            "ELR {NodeId(4)} outside",
            PartitionCreated { isr: nodes(&[1]), elr: nodes(&[4]), ..partition(ORDERS, 1) }.into(),
        ),
        (
            "node 1 in two",
            PartitionCreated { isr: nodes(&[1]), elr: nodes(&[1, 2]), ..partition(ORDERS, 1) }
                .into(),
        ),
        (
            "node 2 in two",
            PartitionCreated {
                isr: nodes(&[1]),
                elr: nodes(&[2]),
                last_known_elr: nodes(&[2]),
                ..partition(ORDERS, 1)
            }
            .into(),
        ),
        (
            "a last leader 2",
            PartitionCreated { last_leader: Some(NodeId(2)), ..partition(ORDERS, 1) }.into(),
        ),
        (
            "a recovering leader with the ISR",
            PartitionCreated { recovering: true, ..partition(ORDERS, 1) }.into(),
        ),
        (
            "outside the replicas",
            PartitionCreated { isr: nodes(&[1, 4]), ..partition(ORDERS, 1) }.into(),
        ),
        ("leader 1 outside", PartitionCreated { isr: nodes(&[2]), ..partition(ORDERS, 1) }.into()),
        (
            "a node twice in the ISR",
            PartitionCreated { isr: nodes(&[1, 1]), ..partition(ORDERS, 1) }.into(),
        ),
        (
            "a node twice in the replicas",
            PartitionCreated { replicas: nodes(&[1, 1]), ..partition(ORDERS, 1) }.into(),
        ),
        ("unknown partition", change(1).into()),
        ("epoch", PartitionChanged { partition_epoch: PartitionEpoch(2), ..change(0) }.into()),
        ("epoch", PartitionChanged { leader_epoch: LeaderEpoch(0), ..change(0) }.into()),
        ("epoch", PartitionChanged { leader: None, ..change(0) }.into()),
        ("leader 2 outside", PartitionChanged { isr: Some(nodes(&[3])), ..change(0) }.into()),
        (
            "forgotten already",
            RequestCarriedOut { forgotten: vec![RequestId(Uuid::from_u128(9))], ..request(2) }
                .into(),
        ),
        (
            "left partition",
            PartitionChanged {
                replicas: Some(nodes(&[1, 2])),
                leader: None,
                leader_epoch: LeaderEpoch(0),
                ..change(0)
            }
            .into(),
        ),
        ("with the replicas", moving(&[1, 2], &[1, 3]).into()),
        ("with the replicas", moving(&[1, 2, 3], &[]).into()),
        ("with the replicas", moving(&[1, 2, 3], &[3, 2, 1]).into()),
        ("a node twice in the target", moving(&[1, 2, 3], &[1, 1]).into()),
        (
            "node 1 has options of topics",
            ConfigChanged {
                resource: ConfigResource::Node(node_id),
                topics: TopicConfig::parse([("segment.ms", "9")]).expect("an option"),
                nodes: NodeOptions::default(),
            }
            .into(),
        ),
        ("more records", SnapshotEnded { offset: MetadataOffset(2) }.into()),
    ];
    for (expected, record) in nonsense {
        let mut image = start();
        let error = image.replay(&record).expect_err("must be refused");
        assert!(error.problem.contains(expected), "{record:?}: {error}");
        assert_eq!(image, start(), "{record:?}");
    }
}

#[test]
fn options_change_in_place() {
    let mut image = start();
    let before = image.clone();
    let config = TopicConfig::parse([("retention.ms", "1")]).expect("an option");
    let changed = TopicConfigChanged { id: ORDERS, config: config.clone() };
    image.replay(&changed.into()).expect("exists");
    assert_eq!(image.topic_by_name("orders").map(|topic| &topic.config), Some(&config));
    let delta = Delta::between(&before, &image);
    assert_eq!(delta.topics.iter().map(|change| change.key).collect::<Vec<_>>(), [ORDERS]);
    assert!(delta.partitions.is_empty() && delta.brokers.is_empty());
}

/// Defaults reach every topic that has not set the option, now and later, and are
/// taken back; a topic's own options stay what they were.
#[test]
fn defaults_of_the_cluster_are_handed_down() {
    let mut image = start();
    let own = TopicConfig::parse([("retention.ms", "5")]).expect("an option");
    let (resource, nodes) = (ConfigResource::Cluster, NodeOptions::default());
    let topics = TopicConfig::parse([("retention.ms", "1"), ("segment.ms", "9")]).expect("two");
    let changed = ConfigChanged { resource, topics, nodes: nodes.clone() };
    let before = image.clone();
    image.replay(&changed.into()).expect("makes sense");
    let delta = Delta::between(&before, &image);
    assert_eq!(delta.topics.iter().map(|change| change.key).collect::<Vec<_>>(), [ORDERS]);
    assert_eq!(delta.settings.iter().map(|c| c.key).collect::<Vec<_>>(), [resource]);
    let in_force = |image: &Image, id| {
        let config = &image.topics[&id].config;
        (config.retention_ms, config.segment_ms, config.set_options().len())
    };
    assert_eq!(in_force(&image, ORDERS), (1, 9, 0));
    image.replay(&TopicConfigChanged { id: ORDERS, config: own.clone() }.into()).expect("exists");
    assert_eq!(in_force(&image, ORDERS), (5, 9, 1));
    let other = TopicCreated { config: own, ..topic(OTHER, "other", 1) };
    image.replay(&other.into()).expect("new");
    assert_eq!(in_force(&image, OTHER), (5, 9, 1));
    assert_eq!(Image::from_records(&image.to_records()).as_ref(), Ok(&image));
    let none = ConfigChanged { resource, topics: TopicConfig::default(), nodes };
    image.replay(&none.into()).expect("makes sense");
    assert_eq!(in_force(&image, OTHER), (5, 604_800_000, 1));
    assert!(image.settings.is_empty());
}

#[test]
fn a_node_follows_its_own_options_before_those_of_all() {
    let mut image = start();
    let nodes = |pairs: &[(&str, &str)]| {
        let mut options = NodeOptions::default();
        for (name, value) in pairs {
            options.set(name, value).expect("an option");
        }
        options
    };
    let topics = TopicConfig::default();
    let all = nodes(&[("replica_lag_max_ms", "7"), ("log_flush_check_ms", "8")]);
    let own = nodes(&[("replica_lag_max_ms", "5")]);
    for (resource, nodes) in
        [(ConfigResource::Cluster, all.clone()), (ConfigResource::Node(NodeId(1)), own)]
    {
        let record = ConfigChanged { resource, topics: topics.clone(), nodes };
        image.replay(&record.into()).expect("makes sense");
    }
    let both = nodes(&[("replica_lag_max_ms", "5"), ("log_flush_check_ms", "8")]);
    assert_eq!(image.node_options(NodeId(1)), both);
    assert_eq!(image.node_options(NodeId(2)), all);
}

#[test]
fn a_topic_that_has_grown_takes_further_partitions() {
    let mut image = start();
    for record in [
        partition(ORDERS, 1).into(),
        MetadataRecord::from(TopicGrown { id: ORDERS, partitions: 3 }),
        partition(ORDERS, 2).into(),
    ] {
        image.replay(&record).expect("makes sense");
    }
    assert_eq!(image.topics[&ORDERS].partitions, 3);
    assert!(image.replay(&partition(ORDERS, 3).into()).is_err());
    assert_eq!(Image::from_records(&image.to_records()), Ok(image));
}

#[test]
fn a_name_can_be_used_again_under_a_new_id() {
    let mut image = start();
    let before = image.clone();
    image.replay(&TopicDeleted { id: ORDERS }.into()).expect("exists");
    assert_eq!(image.partitions_of(ORDERS).count(), 0);
    assert!(image.topic_by_name("orders").is_none());
    image.replay(&topic(OTHER, "orders", 1).into()).expect("the name is free");
    image.replay(&partition(OTHER, 0).into()).expect("its first partition");
    assert_eq!(image.topic_by_name("orders").map(|topic| topic.id), Some(OTHER));

    let delta = Delta::between(&before, &image);
    let topics: Vec<_> =
        delta.topics.iter().map(|c| (c.key, c.before.is_some(), c.after.is_some())).collect();
    assert_eq!(topics, [(ORDERS, true, false), (OTHER, false, true)]);
    let partitions: Vec<_> =
        delta.partitions.iter().map(|c| (c.key.topic, c.after.is_some())).collect();
    assert_eq!(partitions, [(ORDERS, false), (OTHER, true)]);
    assert!(delta.brokers.is_empty());
}

#[test]
fn a_change_shows_before_and_after_and_what_came_to_nothing_does_not_show() {
    let before = start();
    let mut after = before.clone();
    let (node_id, epoch) = (NodeId(1), BrokerEpoch(1));
    after.replay(&BrokerUnfenced { node_id, epoch }.into()).expect("is fenced");
    after.replay(&change(0).into()).expect("next epochs");
    after.replay(&BrokerFenced { node_id, epoch }.into()).expect("is unfenced");
    let delta = Delta::between(&before, &after);
    assert!(delta.brokers.is_empty());
    let [change] = &delta.partitions[..] else { panic!("{delta:?}") };
    assert_eq!(change.before.as_ref().and_then(|p| p.leader), Some(NodeId(1)));
    assert_eq!(change.after.as_ref().and_then(|p| p.leader), Some(NodeId(2)));
    assert!(!delta.is_empty());
    assert!(Delta::between(&after, &after).is_empty());
}

#[test]
fn a_snapshot_keeps_every_field_and_the_offset() {
    let mut image = start();
    let (node_id, epoch) = (NodeId(1), BrokerEpoch(1));
    let directory = DirectoryId(Uuid::from_u128(5));
    for record in [
        BrokerUnfenced { node_id, epoch }.into(),
        BrokerShutdownStarted { node_id, epoch }.into(),
        change(0).into(),
        VoterDirectoryRecorded { node_id, directory }.into(),
        request(1).into(),
        RequestCarriedOut { forgotten: vec![request(1).id], ..request(2) }.into(),
        ProducerIdsAllocated { next_producer_id: 1000 }.into(),
        PartitionChanged {
            isr: Some(vec![]),
            elr: Some(nodes(&[3])),
            last_known_elr: Some(nodes(&[2])),
            last_leader: Some(Leadership::Node(NodeId(2))),
            leader: Some(Leadership::Nobody),
            recovering: Some(true),
            leader_epoch: LeaderEpoch(2),
            partition_epoch: PartitionEpoch(2),
            ..change(0)
        }
        .into(),
    ] {
        image.replay(&record).expect("makes sense");
        assert_eq!(Image::from_records(&image.to_records()).as_ref(), Ok(&image));
    }
    assert_eq!(image.offset, MetadataOffset(11));
}

#[test]
fn the_least_in_sync_replicas_are_bounded_by_the_replicas() {
    let image = start();
    assert_eq!(image.effective_min_isr(PartitionId { topic: ORDERS, index: 0 }), Some(2));
    assert_eq!(image.effective_min_isr(PartitionId { topic: ORDERS, index: 1 }), None);
}

#[test]
fn producer_ids_are_given_away_once() {
    let mut image = start();
    let taken = |next_producer_id| ProducerIdsAllocated { next_producer_id }.into();
    image.replay(&taken(1000)).expect("the first");
    let before = image.clone();
    for again in [1000, 999, -1] {
        let error = image.replay(&taken(again)).expect_err("they are taken");
        assert!(error.problem.contains("1000 are taken"), "{error}");
    }
    assert_eq!(image, before);
}

#[test]
fn a_request_is_carried_out_once() {
    let mut image = start();
    image.replay(&request(1).into()).expect("the first time");
    let error = image.replay(&request(1).into()).expect_err("the second time");
    assert!(error.problem.contains("carried out before"), "{error}");
    assert_eq!(image.requests.len(), 1);
}

proptest! {
    #[test]
    fn no_record_makes_replay_panic(record in crate::records::arbitrary::record()) {
        let mut image = start();
        let before = image.clone();
        if image.replay(&record).is_err() {
            prop_assert_eq!(image, before);
        }
    }
}
