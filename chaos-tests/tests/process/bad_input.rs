//! Wrong requests: each gets its own typed error, and changes nothing.

use bytes::{Bytes, BytesMut};
use ottla_chaos::process::Cluster;
use ottla_commitlog::format::{
    BatchOptions, NewRecord, ProducerSequence, RecordHeader, ValidBatch, encode_batch,
};
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::v1::produce_request::Payload;
use ottla_proto::v1::producer_service_client::ProducerServiceClient;
use ottla_proto::v1::topic_service_client::TopicServiceClient;
use ottla_proto::{ApiError, v1};
use tonic::Status;

#[tokio::test]
async fn bad_input_gets_a_typed_error_and_changes_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::start_patient(1).await?;
    cluster.create_topic("good", 2, &[("max.message.bytes", "65536")]).await?;
    let before = (topics(&cluster).await?, end(&cluster).await?);

    for (what, request, expected) in bad_topics() {
        let mut client = TopicServiceClient::new(cluster.nodes()[0].channel()?);
        let answer = client.create_topic(request).await;
        expect(what, answer.map(drop), expected);
    }
    let mut client = TopicServiceClient::new(cluster.nodes()[0].channel()?);
    let gone = v1::DeleteTopicRequest { name: "nowhere".to_owned(), ..Default::default() };
    expect("delete an unknown topic", client.delete_topic(gone).await.map(drop), R::UnknownTopic);
    for (what, request, expected) in bad_writes() {
        let answer = cluster.log_client(1)?.produce(request).await;
        expect(what, answer.map(drop), expected);
    }
    for (what, request, expected) in bad_reads() {
        let answer = cluster.log_client(1)?.fetch(request).await;
        expect(what, answer.map(drop), expected);
    }

    assert_eq!((topics(&cluster).await?, end(&cluster).await?), before, "nothing changed");
    // And the node still works.
    cluster.log_client(1)?.produce(write("good", 0, Some(records("fine")))).await?;
    Ok(())
}

/// Who writes under another's producer id, or under its own in a wrong way, is told so.
#[tokio::test]
async fn a_stolen_producer_id_gets_a_typed_error_and_changes_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::start_patient(1).await?;
    cluster.create_topic("good", 1, &[]).await?;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut client = ProducerServiceClient::new(cluster.nodes()[0].channel()?);
        let answer = client.init_producer_id(v1::InitProducerIdRequest {}).await?.into_inner();
        assert_eq!(answer.producer_epoch, 0);
        ids.push(answer.producer_id);
    }
    assert_ne!(ids[0], ids[1]);
    let send = async |epoch, base_sequence| {
        let sequence = ProducerSequence { id: ids[0], epoch, base_sequence };
        let answer = cluster.log_client(1)?.produce(write("good", 0, Some(one(sequence)))).await;
        anyhow::Ok(answer.map(|answer| answer.into_inner().base_offset))
    };
    // Its owner has come to epoch 1 and sequence 2.
    for (sequence, offset) in [(0, 0), (1, 1), (0, 0)] {
        assert_eq!(send(1, sequence).await??, Some(offset));
    }
    let wrong = [
        ("an older epoch", 0, 2, R::InvalidProducerEpoch),
        ("a sequence too far", 1, 3, R::OutOfOrderSequence),
        ("a newer epoch, not from its beginning", 2, 1, R::OutOfOrderSequence),
    ];
    for (what, epoch, sequence, reason) in wrong {
        expect(what, send(epoch, sequence).await?.map(drop), reason);
    }
    assert_eq!(end(&cluster).await?, 2, "nothing changed");
    assert_eq!(send(1, 2).await??, Some(2), "and its owner goes on");
    Ok(())
}

/// A batch of one record of an idempotent producer.
fn one(sequence: ProducerSequence) -> Payload {
    let record = NewRecord { value: Some(Bytes::from_static(b"value")), ..NewRecord::default() };
    let options = BatchOptions { producer: Some(sequence), ..BatchOptions::default() };
    let batch = encode_batch(&[record], &options).expect("a small batch");
    Payload::RecordBatch(batch.freeze())
}

fn expect(what: &str, answer: Result<(), Status>, reason: R) {
    let status = answer.expect_err(what);
    let error = ApiError::from_status(&status);
    assert_eq!(error.reason, reason, "{what}: {status:?}");
    assert!(!error.is_indefinite(), "{what}: {error}");
    assert!(!error.message.is_empty(), "{what}");
}

fn bad_topics() -> Vec<(&'static str, v1::CreateTopicRequest, R)> {
    let named = |name: &str| v1::CreateTopicRequest { name: name.to_owned(), ..Default::default() };
    let configured = |key: &str, value: &str| v1::CreateTopicRequest {
        configs: [(key.to_owned(), value.to_owned())].into(),
        ..named("new")
    };
    vec![
        ("no name", named(""), R::InvalidTopicName),
        ("a name with a slash", named("a/b"), R::InvalidTopicName),
        ("a name that is a path", named(".."), R::InvalidTopicName),
        ("a long name", named(&"x".repeat(250)), R::InvalidTopicName),
        ("a name twice", named("good"), R::TopicAlreadyExists),
        (
            "more replicas than nodes",
            v1::CreateTopicRequest { replication_factor: 2, ..named("new") },
            R::InvalidReplicationFactor,
        ),
        (
            "too many partitions",
            v1::CreateTopicRequest { partitions: u32::MAX, ..named("new") },
            R::InvalidPartitions,
        ),
        ("an unknown option", configured("color", "red"), R::InvalidConfig),
        ("an option without sense", configured("durability", "maybe"), R::InvalidConfig),
        ("min ISR above the factor", configured("min.insync.replicas", "2"), R::InvalidConfig),
    ]
}

fn bad_writes() -> Vec<(&'static str, v1::ProduceRequest, R)> {
    let record = NewRecord {
        key: None,
        value: Some(Bytes::from_static(b"value")),
        headers: Vec::new(),
        timestamp_ms: 0,
    };
    let batch = encode_batch(&[record], &BatchOptions::default()).expect("a small batch");
    let mut corrupt = batch.to_vec();
    *corrupt.last_mut().expect("not empty") ^= 1;
    let truncated = batch[..batch.len() - 1].to_vec();
    let twice = [&batch[..], &batch[..]].concat();
    let raw = |bytes: Vec<u8>| write("good", 0, Some(Payload::RecordBatch(bytes.into())));
    vec![
        ("an unknown topic", write("nowhere", 0, Some(records("x"))), R::UnknownTopic),
        ("a partition out of range", write("good", 2, Some(records("x"))), R::UnknownPartition),
        (
            "unknown acks",
            v1::ProduceRequest { acks: 7, ..write("good", 0, Some(records("x"))) },
            R::InvalidAcks,
        ),
        ("no payload", write("good", 0, None), R::InvalidRequest),
        (
            "no records",
            write("good", 0, Some(Payload::Records(v1::RecordSet::default()))),
            R::InvalidRequest,
        ),
        (
            "an oversized record",
            write("good", 0, Some(records(&"x".repeat(65_536)))),
            R::RecordTooLarge,
        ),
        (
            "a record larger than any topic allows",
            write("good", 0, Some(records(&"x".repeat(9 * 1024 * 1024)))),
            R::RecordTooLarge,
        ),
        ("a flipped bit", raw(corrupt), R::CorruptBatch),
        ("a truncated batch", raw(truncated), R::CorruptBatch),
        ("two batches in one", raw(twice), R::CorruptBatch),
        ("more headers than there are", raw(with_header(|h| h[0] = 4)), R::CorruptBatch),
        ("fewer headers than there are", raw(with_header(|h| h[0] = 0)), R::CorruptBatch),
        ("fewer than no headers", raw(with_header(|h| h[0] = 1)), R::CorruptBatch),
        ("a header without a name", raw(with_header(|h| h[1] = 1)), R::CorruptBatch),
        ("a header's name beyond its record", raw(with_header(|h| h[1] = 126)), R::CorruptBatch),
        ("a header's value beyond its record", raw(with_header(|h| h[3] = 126)), R::CorruptBatch),
        ("no batch at all", raw(Vec::new()), R::CorruptBatch),
        ("noise", raw(vec![0xff; 200]), R::CorruptBatch),
    ]
}

/// A batch of one record with one header, of which `spoil` changes the bytes: number of
/// headers, length of the name, name, length of the value, value. Its checksum is right.
fn with_header(spoil: impl Fn(&mut [u8])) -> Vec<u8> {
    let (name, value) = (Bytes::from_static(b"n"), Some(Bytes::from_static(b"v")));
    let headers = vec![RecordHeader { name, value }];
    let record = NewRecord { headers, ..NewRecord::default() };
    let mut batch = encode_batch(&[record], &BatchOptions::default()).expect("small").to_vec();
    let header = batch.len() - 5..;
    assert_eq!(batch[header.clone()], [2, 2, b'n', 2, b'v'], "lengths are doubled (zigzag)");
    spoil(&mut batch[header]);
    let checksum = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    batch
}

/// Only what was spoilt is wrong with it.
#[test]
fn a_batch_with_a_header_is_valid_unless_spoilt() {
    let valid = |bytes: Vec<u8>| ValidBatch::new(BytesMut::from(&*bytes), 1000).is_ok();
    assert!(valid(with_header(|_| {})));
    assert!(!valid(with_header(|header| header[0] = 4)));
}

fn bad_reads() -> Vec<(&'static str, v1::FetchRequest, R)> {
    let read = |topic: &str, partition, offset| v1::FetchRequest {
        topic: topic.to_owned(),
        partition,
        offset,
        ..Default::default()
    };
    vec![
        ("an unknown topic", read("nowhere", 0, 0), R::UnknownTopic),
        ("a partition out of range", read("good", 9, 0), R::UnknownPartition),
        ("an offset beyond the end", read("good", 0, 1_000), R::OffsetOutOfRange),
        (
            "an unknown format",
            v1::FetchRequest { format: 9, ..read("good", 0, 0) },
            R::InvalidRequest,
        ),
    ]
}

fn records(value: &str) -> Payload {
    let record = v1::Record { value: Some(value.to_owned().into()), ..Default::default() };
    Payload::Records(v1::RecordSet { records: vec![record] })
}

fn write(topic: &str, partition: u32, payload: Option<Payload>) -> v1::ProduceRequest {
    v1::ProduceRequest { topic: topic.to_owned(), partition, payload, ..Default::default() }
}

async fn topics(cluster: &Cluster) -> anyhow::Result<Vec<v1::TopicSummary>> {
    let mut client = TopicServiceClient::new(cluster.nodes()[0].channel()?);
    Ok(client.list_topics(v1::ListTopicsRequest {}).await?.into_inner().topics)
}

async fn end(cluster: &Cluster) -> anyhow::Result<u64> {
    let request = v1::ListOffsetsRequest {
        topic: "good".to_owned(),
        position: v1::OffsetPosition::Latest.into(),
        ..Default::default()
    };
    Ok(cluster.log_client(1)?.list_offsets(request).await?.into_inner().offset)
}
