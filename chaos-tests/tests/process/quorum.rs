//! The metadata quorum loses its majority: nothing is decided until it is back, and
//! nothing that was acknowledged before is lost.

use crate::workload::{Load, WINDOW};
use ottla_chaos::process::{Cluster, wait_until};
use ottla_proto::v1;
use ottla_proto::v1::cluster_service_client::ClusterServiceClient;
use ottla_proto::v1::topic_service_client::TopicServiceClient;
use std::time::Duration;

/// How long a change waits for a controller that there is not: longer than any
/// election takes.
const HOPELESS: Duration = Duration::from_secs(2);

/// The active controller, as this node sees it.
async fn controller(cluster: &Cluster, node: u64) -> anyhow::Result<Option<u64>> {
    let channel = cluster.nodes()[node as usize - 1].channel()?;
    let mut client = ClusterServiceClient::new(channel);
    let answer = client.get_cluster_info(v1::GetClusterInfoRequest { local: true }).await?;
    Ok(answer.into_inner().controller_id)
}

async fn create(cluster: &Cluster, node: u64, name: &str) -> Result<(), tonic::Status> {
    let channel = cluster.nodes()[node as usize - 1].channel().expect("an address");
    let request = v1::CreateTopicRequest {
        name: name.to_owned(),
        partitions: 1,
        replication_factor: 3,
        ..Default::default()
    };
    let mut request = tonic::Request::new(request);
    request.set_timeout(HOPELESS);
    TopicServiceClient::new(channel).create_topic(request).await.map(drop)
}

/// The controller is cut off: the two others stand still, their connections stay
/// open, as behind a network that drops everything. It stops being the controller by
/// itself, refuses what it is asked, and is one of three again afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_without_a_majority_steps_down() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(3).await?;
    create(&cluster, 1, "before").await?;
    let cut_off = controller(&cluster, 1).await?.expect("a healthy cluster has one");
    let others: Vec<u64> = (1..=3).filter(|node| *node != cut_off).collect();
    for node in &others {
        cluster.node(*node).pause()?;
    }
    wait_until("the controller has stepped down", async || {
        let known = controller(&cluster, cut_off).await?;
        anyhow::ensure!(known.is_none(), "node {known:?} is the controller");
        Ok(())
    })
    .await?;
    let refused = create(&cluster, cut_off, "meanwhile").await.expect_err("there is no majority");
    assert_ne!(refused.code(), tonic::Code::Unknown, "{refused}");
    for node in &others {
        cluster.node(*node).resume()?;
    }
    cluster.wait_healthy().await?;
    create(&cluster, cut_off, "after").await?;
    // What was refused was not done, before or since, as any node sees it.
    for name in ["before", "after"] {
        cluster.describe(name).await?;
    }
    cluster.describe("meanwhile").await.expect_err("it was refused");
    Ok(())
}

/// Two of three nodes are killed under load. No change of metadata is accepted, no
/// write acknowledged that only one replica has; when they are back all goes on, with
/// everything that was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_that_was_lost_comes_back_with_everything() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let load = Load::start(&cluster).await?;
    let mut created = Vec::new();
    for round in 0..2 {
        load.acknowledged(4 * WINDOW as u64).await?;
        let name = format!("before-{round}");
        create(&cluster, 1, &name).await?;
        created.push(name);
        // The controller is among the dead, then among the living.
        let active = controller(&cluster, 1).await?.expect("a healthy cluster has one");
        let survivor = if round == 0 { active % 3 + 1 } else { active };
        let dead: Vec<u64> = (1..=3).filter(|node| *node != survivor).collect();
        for node in &dead {
            cluster.node(*node).kill()?;
        }
        let lonely = format!("lonely-{round}");
        let refused = create(&cluster, survivor, &lonely).await.expect_err("no majority");
        println!("without a majority: {refused}");
        for node in &dead {
            cluster.node(*node).start()?;
        }
        cluster.wait_healthy().await?;
        load.acknowledged(4 * WINDOW as u64).await?;
    }
    for name in &created {
        cluster.describe(name).await?;
    }
    load.finish(cluster).await?;
    Ok(())
}
