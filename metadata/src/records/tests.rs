use super::arbitrary::record;
use super::*;
use ottla_proto::{LeaderEpoch, NodeId, PartitionEpoch, PartitionId, TopicId};
use proptest::prelude::*;
use uuid::Uuid;

fn sample() -> MetadataRecord {
    PartitionChanged {
        partition: PartitionId { topic: TopicId(Uuid::from_u128(7)), index: 3 },
        isr: Some(vec![NodeId(1), NodeId(2)]),
        leader: Some(Leadership::Node(NodeId(2))),
        leader_epoch: LeaderEpoch(5),
        partition_epoch: PartitionEpoch(9),
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
}

#[test]
fn a_record_of_another_version_is_refused() {
    let mut bytes = sample().encode();
    bytes[0] = RECORD_VERSION + 1;
    let error = DecodeError::UnknownVersion { found: RECORD_VERSION + 1 };
    assert_eq!(MetadataRecord::decode(&bytes), Err(error));
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

mod config {
    use super::super::*;

    fn error(name: &str, value: &str) -> String {
        TopicConfig::parse([(name, value)]).expect_err("must be refused").to_string()
    }

    #[test]
    fn defaults_stand_where_nothing_was_set() {
        let config = TopicConfig::parse(std::iter::empty::<(&str, &str)>()).expect("no options");
        assert_eq!(config, TopicConfig::default());
        assert_eq!(config.min_insync_replicas, 2);
        assert_eq!(config.durability, Durability::Disk);
        assert_eq!(config.max_message_bytes, 1024 * 1024);
        assert_eq!(config.segment_bytes, 1024 * 1024 * 1024);
        assert!(config.set_options().is_empty());
    }

    #[test]
    fn only_what_was_set_is_stored_even_if_it_is_the_default() {
        let config =
            TopicConfig::parse([("durability", "memory"), ("min.insync.replicas", "2")]).unwrap();
        assert_eq!(config.durability, Durability::Memory);
        let set = config.set_options();
        assert_eq!(set.len(), 2);
        assert_eq!(TopicConfig::parse(&set), Ok(config));
    }

    #[test]
    fn a_topic_of_one_replica_needs_one() {
        let config = TopicConfig::default();
        assert_eq!([1, 2, 3].map(|replicas| config.effective_min_isr(replicas)), [1, 2, 2]);
    }

    #[test]
    fn every_refusal_names_the_option_and_what_it_takes() {
        assert!(error("retention.ms", "1").starts_with("unknown topic option `retention.ms`"));
        assert_eq!(
            error("min.insync.replicas", "two"),
            "`two` is not a value for min.insync.replicas: expected a whole number"
        );
        assert_eq!(
            error("min.insync.replicas", "0"),
            "`0` is not a value for min.insync.replicas: expected 1 to 4294967295"
        );
        assert_eq!(
            error("durability", "Disk"),
            "`Disk` is not a value for durability: expected disk or memory"
        );
        assert_eq!(
            error("max.message.bytes", "8388609"),
            "`8388609` is not a value for max.message.bytes: expected 100 to 8388608"
        );
        assert_eq!(
            error("segment.bytes", "4095"),
            "`4095` is not a value for segment.bytes: expected 4096 to 2147483647"
        );
        assert!(error("segment.bytes", "-1").contains("a whole number"));
    }
}
