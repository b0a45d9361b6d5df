use super::arbitrary::record;
use super::*;
use ottla_proto::{LeaderEpoch, NodeId, PartitionEpoch, PartitionId, RequestId, TopicId};
use proptest::prelude::*;
use uuid::Uuid;

fn sample() -> MetadataRecord {
    PartitionChanged {
        partition: PartitionId { topic: TopicId(Uuid::from_u128(7)), index: 3 },
        isr: Some(vec![NodeId(1), NodeId(2)]),
        leader: Some(Leadership::Node(NodeId(2))),
        leader_epoch: LeaderEpoch(5),
        partition_epoch: PartitionEpoch(9),
        elr: None,
        last_known_elr: None,
        last_leader: None,
        recovering: None,
        replicas: None,
        reassignment: None,
    }
    .into()
}

proptest! {
    #[test]
    fn every_record_survives_its_encoding(record in record()) {
        prop_assert_eq!(MetadataRecord::decode(&record.encode()), Ok(record.clone()));
        // And inside another message, as the quorum's entries carry it.
        let nested = rmp_serde::to_vec_named(&vec![&record, &record]).expect("into memory");
        let back: Vec<MetadataRecord> = rmp_serde::from_slice(&nested).expect("just written");
        prop_assert_eq!(back, vec![record.clone(), record]);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = MetadataRecord::decode(&bytes);
        bytes.insert(0, RECORD_VERSION);
        let _ = MetadataRecord::decode(&bytes);
    }

    #[test]
    fn a_record_cut_short_is_refused(record in record(), cut in any::<prop::sample::Index>()) {
        let bytes = record.encode();
        prop_assert!(MetadataRecord::decode(&bytes[..cut.index(bytes.len())]).is_err());
    }
}

#[test]
fn the_encoding_is_what_older_logs_hold() {
    // Version, {"PartitionChanged": {"partition": {"topic": 16 bytes, "index": 3}, ...}}.
    let expected = b"\x01\x81\xb0PartitionChanged\x85\xa9partition\x82\xa5topic\xc4\x10\
        \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07\xa5index\x03\xa3isr\x92\x01\x02\
        \xa6leader\x81\xa4Node\x02\xacleader_epoch\x05\xafpartition_epoch\x09";
    assert_eq!(sample().encode(), expected);
    assert_eq!(MetadataRecord::decode(expected), Ok(sample()));
}

/// A release without eligible replicas would ignore them, and end up with another
/// image: it has to refuse them.
#[test]
fn eligible_replicas_take_a_version_of_their_own() {
    let MetadataRecord::PartitionChanged(plain) = sample() else { panic!("it is a change") };
    let (nodes, node) = (vec![NodeId(1)], NodeId(1));
    let with_elr = [
        PartitionChanged { elr: Some(vec![]), ..plain.clone() },
        PartitionChanged { last_known_elr: Some(nodes.clone()), ..plain.clone() },
        PartitionChanged { last_leader: Some(Leadership::Nobody), ..plain.clone() },
        PartitionChanged { recovering: Some(false), ..plain.clone() },
        PartitionChanged { isr: Some(vec![]), ..plain },
    ];
    let first = PartitionCreated {
        partition: PartitionId { topic: TopicId(Uuid::from_u128(7)), index: 3 },
        replicas: nodes.clone(),
        isr: nodes.clone(),
        elr: vec![],
        last_known_elr: vec![],
        last_leader: None,
        recovering: false,
        reassignment: None,
        leader: Some(node),
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(0),
    };
    assert_eq!(MetadataRecord::from(first.clone()).encode()[0], 1);
    let created = [
        PartitionCreated { isr: vec![], ..first.clone() },
        PartitionCreated { elr: nodes.clone(), ..first.clone() },
        PartitionCreated { last_known_elr: nodes, ..first.clone() },
        PartitionCreated { last_leader: Some(node), ..first.clone() },
        PartitionCreated { recovering: true, ..first },
    ];
    let changed = with_elr.into_iter().map(MetadataRecord::from);
    for record in changed.chain(created.into_iter().map(MetadataRecord::from)) {
        assert_eq!(record.encode()[0], 2, "{record:?}");
    }
}

/// A release that does not remember requests would carry them out twice.
#[test]
fn remembered_requests_take_a_version_of_their_own() {
    let record = MetadataRecord::from(RequestCarriedOut {
        id: RequestId(Uuid::from_u128(1)),
        what: "create topic orders".to_owned(),
        topic: None,
        added: 0,
        at_ms: 0,
        forgotten: vec![],
    });
    assert_eq!(record.encode()[0], 4);
}

/// A release without them would give topics other options.
#[test]
fn options_of_cluster_and_nodes_take_a_version_of_their_own() {
    let (resource, topics) = (ConfigResource::Cluster, TopicConfig::default());
    let nodes = NodeOptions { replica_lag_max_ms: Some(5), ..NodeOptions::default() };
    let record = MetadataRecord::from(ConfigChanged { resource, topics, nodes });
    assert_eq!((record.encode()[0], record.level()), (8, FeatureLevel(2)));
    // As people write them: an option whose type changes keeps its old records.
    let text = String::from_utf8_lossy(&record.encode()).into_owned();
    assert!(
        text.contains("replica_lag_max_ms\u{fffd}5") || text.contains("replica_lag_max_ms\u{a1}5"),
        "{text:?}"
    );
}

/// A release that does not know which are taken would give them away twice.
#[test]
fn producer_ids_take_a_version_of_their_own() {
    let record = MetadataRecord::from(ProducerIdsAllocated { next_producer_id: 1000 });
    assert_eq!((record.encode()[0], record.level()), (9, FeatureLevel(2)));
}

#[test]
fn a_topic_that_grows_takes_a_version_of_its_own() {
    let grown = TopicGrown { id: TopicId(Uuid::from_u128(7)), partitions: 9 };
    assert_eq!(MetadataRecord::from(grown).encode()[0], 3);
}

/// A release without them would complete nothing, and miss who the replicas are.
#[test]
fn reassignments_take_a_version_of_their_own() {
    let MetadataRecord::PartitionChanged(plain) = sample() else { panic!("it is a change") };
    let moving = Reassignment { from: vec![NodeId(1)], to: vec![NodeId(2)] };
    let changes = [
        PartitionChanged { replicas: Some(vec![NodeId(1)]), ..plain.clone() },
        PartitionChanged { reassignment: Some(ReassignmentChange::Ended), ..plain.clone() },
        // Beside what takes an earlier version.
        PartitionChanged {
            reassignment: Some(ReassignmentChange::UnderWay(moving)),
            elr: Some(vec![]),
            ..plain
        },
    ];
    for record in changes.map(MetadataRecord::from) {
        assert_eq!(record.encode()[0], 5, "{record:?}");
    }
}

#[test]
fn a_record_of_another_version_is_refused() {
    let mut bytes = sample().encode();
    for found in [0, RECORD_VERSION + 1] {
        bytes[0] = found;
        let error = DecodeError::UnknownVersion { found };
        assert_eq!(MetadataRecord::decode(&bytes), Err(error));
    }
    assert_eq!(MetadataRecord::decode(&[]), Err(DecodeError::Empty));
}

#[test]
fn a_record_of_an_unknown_kind_is_refused() {
    let bytes = b"\x01\x81\xa7Unknown\x80";
    assert!(matches!(MetadataRecord::decode(bytes), Err(DecodeError::Malformed(_))));
}

#[test]
fn a_field_added_later_is_ignored_and_bytes_after_a_record_are_not() {
    let mut bytes = b"\x01\x81\xacTopicDeleted\x82\xa2id\xc4\x10".to_vec();
    bytes.extend([0; 16]);
    bytes.extend(b"\xa5added\x01");
    let deleted = TopicDeleted { id: TopicId(Uuid::from_u128(0)) };
    assert_eq!(MetadataRecord::decode(&bytes), Ok(deleted.into()));
    bytes.push(0);
    assert_eq!(MetadataRecord::decode(&bytes), Err(DecodeError::TrailingBytes(1)));
}

#[test]
fn options_out_of_bounds_are_refused_from_disk_too() {
    let options = TopicOptions { segment_bytes: Some(1), ..TopicOptions::default() };
    let bytes = rmp_serde::to_vec_named(&options).expect("into memory");
    assert!(rmp_serde::from_slice::<TopicConfig>(&bytes).is_err());
}

#[test]
fn options_are_stored_as_they_always_were_and_an_unknown_one_is_refused() {
    let options = TopicConfig::parse([("durability", "memory"), ("segment.bytes", "4096")]);
    let bytes = rmp_serde::to_vec_named(&options.expect("known")).expect("into memory");
    assert_eq!(bytes, b"\x82\xaadurability\xa6memory\xadsegment_bytes\xcd\x10\0");
    // Only some nodes would know it: they would end up with different images.
    let newer = b"\x81\xaadurabilitx\xa6memory";
    assert!(rmp_serde::from_slice::<TopicConfig>(newer).is_err());
}
