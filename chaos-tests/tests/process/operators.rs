//! What operators ask for: carried out once, and seen from every node.

use ottla_chaos::process::{Cluster, binary, wait_until};
use ottla_proto::ApiError;
use ottla_proto::v1::cluster_service_client::ClusterServiceClient;
use ottla_proto::v1::topic_service_client::TopicServiceClient;
use ottla_proto::v1::{self, ErrorReason};
use std::process::Command;
use std::time::Duration;
use tonic::Request;

const CREATIONS: usize = 50;

/// A node that has answered `create` makes every other list the topic. The
/// controller is frozen while it is asked: another decides, nobody gets an
/// error, and what the frozen one was asked has no effect when it wakes. A
/// node that is left alone refuses to answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_are_told_the_truth() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(3).await?;
    for round in 0..CREATIONS {
        let name = format!("topic-{round}");
        create(&cluster, 1 + round as u64 % 3, &name, &[]).await?;
        let seen = list(&cluster, 1 + (round as u64 + 1) % 3, Duration::from_secs(30)).await?;
        assert!(seen.contains(&name), "round {round}");
    }

    let frozen = controller(&cluster).await?;
    let asked = 1 + frozen % 3;
    cluster.node(frozen).pause()?;
    let first = create(&cluster, asked, "orders", &[7; 16]).await?;
    cluster.node(frozen).resume()?;
    cluster.wait_healthy().await?;
    let again = create(&cluster, frozen, "orders", &[7; 16]).await?;
    assert_eq!(first.topic_id, again.topic_id);

    let alone = asked;
    let others = (1..=3).filter(|id| *id != alone);
    for id in others.clone() {
        cluster.node(id).pause()?;
    }
    let refused = list(&cluster, alone, Duration::from_secs(2)).await.expect_err("no majority");
    assert_eq!(refused.reason, ErrorReason::ControllerNotAvailable, "{refused}");
    let health = Command::new(binary()?)
        .args(["cluster", "health", "--timeout", "2s", "--bootstrap"])
        .arg(cluster.node(alone).address())
        .output()?;
    let told = String::from_utf8(health.stdout)?;
    assert!(!health.status.success() && told.contains("no active controller"), "{told}");
    for id in others {
        cluster.node(id).resume()?;
    }
    cluster.wait_healthy().await
}

async fn create(
    cluster: &Cluster,
    node: u64,
    name: &str,
    request_id: &[u8],
) -> anyhow::Result<v1::TopicMetadata> {
    let mut client = TopicServiceClient::new(cluster.nodes()[node as usize - 1].channel()?);
    let request = v1::CreateTopicRequest {
        name: name.to_owned(),
        partitions: 1,
        replication_factor: 1,
        request_id: request_id.to_vec().into(),
        ..v1::CreateTopicRequest::default()
    };
    Ok(client.create_topic(request).await?.into_inner().topic.unwrap_or_default())
}

async fn list(cluster: &Cluster, node: u64, within: Duration) -> Result<Vec<String>, ApiError> {
    let channel = cluster.nodes()[node as usize - 1].channel().expect("an address");
    let mut request = Request::new(v1::ListTopicsRequest {});
    request.set_timeout(within);
    let answer = TopicServiceClient::new(channel).list_topics(request).await;
    let topics = answer.map_err(|status| ApiError::from_status(&status))?.into_inner().topics;
    Ok(topics.into_iter().map(|topic| topic.name).collect())
}

/// The node that all agree is the controller.
async fn controller(cluster: &Cluster) -> anyhow::Result<u64> {
    let mut found = 0;
    wait_until("there is a controller", async || {
        let mut client = ClusterServiceClient::new(cluster.nodes()[0].channel()?);
        let info = client.get_cluster_info(v1::GetClusterInfoRequest { local: false }).await?;
        found = info.into_inner().controller_id.unwrap_or_default();
        anyhow::ensure!(found != 0, "none yet");
        Ok(())
    })
    .await?;
    Ok(found)
}
