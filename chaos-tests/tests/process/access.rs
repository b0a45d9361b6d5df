//! Access without our client: what `grpcurl` and a generated client do.

use anyhow::Context as _;
use ottla_chaos::process::Cluster;
use ottla_proto::ApiError;
use ottla_proto::v1::topic_service_client::TopicServiceClient;
use ottla_proto::v1::{self, ErrorReason as R};
use prost::Message as _;
use tokio::sync::mpsc;
use tonic_reflection::pb::v1alpha::ServerReflectionRequest;
use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse;

/// Reflection lists the services; a plain generated client creates a topic,
/// produces friendly records with null, empty and repeated parts, and fetches
/// exactly them.
#[tokio::test]
async fn a_generated_client_creates_produces_and_fetches() -> anyhow::Result<()> {
    let cluster = Cluster::start_patient(1).await?;

    let listed = services(&cluster).await?;
    for service in ["LogService", "MetadataService", "TopicService", "ClusterService"] {
        assert!(listed.contains(&format!("ottla.v1.{service}")), "{listed:?}");
    }
    assert!(listed.contains(&"grpc.health.v1.Health".to_owned()), "{listed:?}");

    let mut topics = TopicServiceClient::new(cluster.nodes()[0].channel()?);
    let create = v1::CreateTopicRequest { name: "orders".to_owned(), ..Default::default() };
    let created = topics.create_topic(create).await?.into_inner().topic.expect("the topic");
    assert_eq!((created.partitions.len(), created.partitions[0].replicas.len()), (1, 1));

    let sent = [
        v1::Record {
            key: Some("k".into()),
            value: Some("v".into()),
            headers: vec![header("a", Some("1")), header("a", None), header("b", Some(""))],
            timestamp_ms: Some(1_700_000_000_123),
        },
        v1::Record { key: None, value: Some("".into()), ..Default::default() },
        v1::Record { key: Some("".into()), value: None, ..Default::default() },
    ];
    let mut log = cluster.log_client(1)?;
    let produced = log
        .produce(v1::ProduceRequest {
            topic: "orders".to_owned(),
            payload: Some(v1::produce_request::Payload::Records(v1::RecordSet {
                records: sent.to_vec(),
            })),
            ..Default::default()
        })
        .await?
        .into_inner();
    assert_eq!((produced.base_offset, produced.record_count), (Some(0), 3));

    let fetched = log
        .fetch(v1::FetchRequest { topic: "orders".to_owned(), offset: 1, ..Default::default() })
        .await?
        .into_inner();
    assert_eq!((fetched.high_watermark, fetched.next_offset), (3, 3));
    assert_eq!(offsets(&fetched), [1, 2], "a fetch may begin inside a batch");

    let fetched = log
        .fetch(v1::FetchRequest { topic: "orders".to_owned(), ..Default::default() })
        .await?
        .into_inner();
    let Some(v1::fetch_response::Payload::Records(set)) = fetched.payload else {
        panic!("records were asked for");
    };
    for (sent, found) in sent.iter().zip(&set.records) {
        assert_eq!(
            (&sent.key, &sent.value, &sent.headers),
            (&found.key, &found.value, &found.headers)
        );
    }
    assert_eq!(set.records[0].timestamp_ms, 1_700_000_000_123);
    nothing_is_sent_without_credit(&cluster).await?;
    a_stream_that_begins_wrong_says_so(&cluster).await
}

/// A reader is sent as much as it has said that it takes, in records and in bytes; what
/// comes in one piece may overdraw the bytes, and is paid back first.
async fn nothing_is_sent_without_credit(cluster: &Cluster) -> anyhow::Result<()> {
    let mut consumed = Consumed::open(cluster, Some(start(0)), 1, 1_000).await?;
    // Credit for one of three: had it been sent more, what comes next would not be one.
    assert_eq!(consumed.next().await?.0, [0]);
    consumed.allow(1, 0).await?;
    assert_eq!(consumed.next().await?.0, [1]);

    let mut consumed = Consumed::open(cluster, Some(start(0)), 1, 1).await?;
    let (offsets, bytes) = consumed.next().await?;
    assert_eq!(offsets, [0], "the first record, however large");
    // All that was overdrawn, and one byte.
    consumed.allow(2, bytes).await?;
    assert_eq!(consumed.next().await?.0, [1, 2]);
    Ok(())
}

async fn a_stream_that_begins_wrong_says_so(cluster: &Cluster) -> anyhow::Result<()> {
    for (what, start, reason) in [
        ("no start", None, R::InvalidRequest),
        ("beyond the end", Some(start(4)), R::OffsetOutOfRange),
        (
            "no such partition",
            Some(v1::ConsumeStart { partition: 7, ..start(0) }),
            R::UnknownPartition,
        ),
        ("no such format", Some(v1::ConsumeStart { format: 9, ..start(0) }), R::InvalidRequest),
    ] {
        let mut consumed = Consumed::open(cluster, start, 1, 1_000).await?;
        let status = consumed.answers.message().await.expect_err(what);
        let error = ApiError::from_status(&status);
        assert_eq!((error.reason, error.is_indefinite()), (reason, false), "{what}: {error}");
    }
    Ok(())
}

fn start(offset: u64) -> v1::ConsumeStart {
    v1::ConsumeStart { topic: "orders".to_owned(), offset, ..Default::default() }
}

/// A stream of records, and the way to say how many more may come.
struct Consumed {
    requests: mpsc::Sender<v1::ConsumeRequest>,
    answers: tonic::Streaming<v1::ConsumeResponse>,
}

impl Consumed {
    async fn open(
        cluster: &Cluster,
        start: Option<v1::ConsumeStart>,
        add_credit_records: u64,
        add_credit_bytes: u64,
    ) -> anyhow::Result<Self> {
        let (requests, mut coming) = mpsc::channel(4);
        requests.send(v1::ConsumeRequest { start, add_credit_records, add_credit_bytes }).await?;
        let coming = futures::stream::poll_fn(move |context| coming.poll_recv(context));
        let answers = cluster.log_client(1)?.consume(coming).await?.into_inner();
        Ok(Self { requests, answers })
    }

    async fn allow(&self, records: u64, bytes: u64) -> anyhow::Result<()> {
        let more = v1::ConsumeRequest {
            start: None,
            add_credit_records: records,
            add_credit_bytes: bytes,
        };
        Ok(self.requests.send(more).await?)
    }

    /// The offsets of what comes next in one message, and its bytes.
    async fn next(&mut self) -> anyhow::Result<(Vec<u64>, u64)> {
        let answer = self.answers.message().await?.context("the stream goes on")?;
        let Some(v1::consume_response::Payload::Records(set)) = answer.payload else {
            anyhow::bail!("records were asked for");
        };
        let bytes = set.encoded_len() as u64;
        Ok((set.records.iter().map(|record| record.offset).collect(), bytes))
    }
}

fn header(name: &str, value: Option<&str>) -> v1::Header {
    v1::Header { name: name.to_owned().into(), value: value.map(|value| value.to_owned().into()) }
}

fn offsets(fetched: &v1::FetchResponse) -> Vec<u64> {
    match &fetched.payload {
        Some(v1::fetch_response::Payload::Records(set)) => {
            set.records.iter().map(|record| record.offset).collect()
        }
        _ => Vec::new(),
    }
}

async fn services(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let mut client = ServerReflectionClient::new(cluster.nodes()[0].channel()?);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers =
        client.server_reflection_info(futures::stream::iter([request])).await?.into_inner();
    let answer = answers.message().await?.and_then(|answer| answer.message_response);
    let Some(MessageResponse::ListServicesResponse(list)) = answer else {
        panic!("not a list of services: {answer:?}");
    };
    Ok(list.service.into_iter().map(|service| service.name).collect())
}
