//! Fewer in-sync replicas than `min.insync.replicas`.

use ottla_chaos::process::{Cluster, wait_until};
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, v1};
use tonic::Status;

/// With `min.insync.replicas=3` and a node gone, acks=all is refused by name
/// and writes nothing, acks=1 is accepted but not visible; when the node is
/// back everything works again without anybody's help.
#[tokio::test]
async fn min_isr_refuses_by_name_and_recovers_by_itself() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    cluster.create_topic("strict", 1, &[("min.insync.replicas", "3")]).await?;
    let leader = cluster.leader("strict", 0).await?;
    produce(&cluster, leader, v1::Acks::All, "first").await?;

    let victim = (1..=3).find(|id| *id != leader).expect("three nodes");
    cluster.node(victim).kill()?;
    wait_until("the dead node has left the ISR", async || {
        let isr = cluster.describe("strict").await?.partitions[0].isr.clone();
        anyhow::ensure!(!isr.contains(&victim), "ISR {isr:?}");
        Ok(())
    })
    .await?;
    // The controller may have moved the leadership meanwhile.
    let leader = cluster.leader("strict", 0).await?;

    let end = end_offset(&cluster, leader).await?;
    let refused = produce(&cluster, leader, v1::Acks::All, "refused").await.expect_err("refused");
    let error = ApiError::from_status(&refused);
    assert_eq!(error.reason, ErrorReason::NotEnoughReplicas, "{error}");
    assert!(error.is_retriable() && !error.is_indefinite(), "{error}");
    let expected = "strict-0 has 2 in-sync replicas, acks=all needs 3 (min.insync.replicas)";
    assert!(error.message.contains(expected), "{error}");

    let accepted = produce(&cluster, leader, v1::Acks::Leader, "one").await?;
    assert_eq!(accepted.base_offset, Some(end), "the refused record took no offset");

    cluster.node(victim).start()?;
    cluster.wait_healthy().await?;
    wait_until("acks=all is accepted again", async || {
        produce(&cluster, leader, v1::Acks::All, "last").await?;
        Ok(())
    })
    .await?;
    let values = read_all(&cluster, leader).await?;
    assert_eq!(values, ["first", "one", "last"]);
    Ok(())
}

async fn produce(
    cluster: &Cluster,
    node: u64,
    acks: v1::Acks,
    value: &str,
) -> Result<v1::ProduceResponse, Status> {
    let record = v1::Record { value: Some(value.to_owned().into()), ..Default::default() };
    let request = v1::ProduceRequest {
        topic: "strict".to_owned(),
        acks: acks.into(),
        payload: Some(v1::produce_request::Payload::Records(v1::RecordSet {
            records: vec![record],
        })),
        ..Default::default()
    };
    let mut client =
        cluster.log_client(node).map_err(|error| Status::internal(error.to_string()))?;
    Ok(client.produce(request).await?.into_inner())
}

async fn end_offset(cluster: &Cluster, node: u64) -> anyhow::Result<u64> {
    let request = v1::ListOffsetsRequest {
        topic: "strict".to_owned(),
        position: v1::OffsetPosition::Latest.into(),
        ..Default::default()
    };
    Ok(cluster.log_client(node)?.list_offsets(request).await?.into_inner().offset)
}

async fn read_all(cluster: &Cluster, node: u64) -> anyhow::Result<Vec<String>> {
    let request = v1::FetchRequest { topic: "strict".to_owned(), ..Default::default() };
    let fetched = cluster.log_client(node)?.fetch(request).await?.into_inner();
    let Some(v1::fetch_response::Payload::Records(set)) = fetched.payload else {
        anyhow::bail!("records were asked for");
    };
    set.records
        .into_iter()
        .map(|record| Ok(String::from_utf8(record.value.unwrap_or_default().to_vec())?))
        .collect()
}
