//! Access without our client: what `grpcurl` and a generated client do.

use ottla_chaos::process::Cluster;
use ottla_proto::v1;
use ottla_proto::v1::topic_service_client::TopicServiceClient;
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
    Ok(())
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
