//! What is asked before and after a node is restarted: a whole cluster is restarted by the
//! answers alone, under load.

use crate::workload::{Load, WINDOW};
use ottla_chaos::process::{Cluster, wait_until};
use serde_json::Value;

/// Values acknowledged between two steps, so that each step is taken under load.
const BETWEEN: u64 = 4 * WINDOW as u64;

/// The answer, also where it is "no".
fn check(cluster: &Cluster, args: &[&str]) -> anyhow::Result<(bool, Value)> {
    let args = [&["cluster", "restart-check", "--format", "json"], args].concat();
    let output = crate::plain::ottla(cluster, &args, b"")?;
    let told = serde_json::from_slice(&output.stdout);
    let why = || String::from_utf8_lossy(&output.stderr).into_owned();
    let told = told.map_err(|error| anyhow::anyhow!("{error}: {}", why()))?;
    Ok((output.status.success(), told))
}

async fn is_back(cluster: &Cluster, node: &str) -> anyhow::Result<()> {
    wait_until("the node has everything again", async || {
        let (back, told) = check(cluster, &[node, "--after"])?;
        anyhow::ensure!(back, "{told}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_restarted_by_what_it_says_of_itself() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    cluster.wait_healthy().await?;
    let load = Load::start(&cluster).await?;
    for node in [1, 2, 3] {
        load.acknowledged(BETWEEN).await?;
        let id = node.to_string();
        let (safe, told) = check(&cluster, &[&id])?;
        assert!(safe && told["safe"] == true, "{told}");

        let status = cluster.node(node).end().await?;
        assert!(status.success(), "{status}");
        let other = (node % 3 + 1).to_string();
        wait_until("another restart would cost something", async || {
            let (safe, told) = check(&cluster, &[&other])?;
            let refused = told["without_min_isr"].as_array().is_some_and(|all| !all.is_empty());
            anyhow::ensure!(!safe && refused && told["without_quorum"] == true, "{told}");
            Ok(())
        })
        .await?;
        let (back, told) = check(&cluster, &[&id, "--after"])?;
        assert!(!back, "{told}");

        cluster.node(node).start()?;
        is_back(&cluster, &id).await?;
    }
    load.finish(cluster).await?;
    Ok(())
}

/// A partition that has one copy is named: its node's restart costs it its leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_copy_is_a_cost() -> anyhow::Result<()> {
    let cluster = Cluster::start_patient(1).await?;
    cluster.create_topic("single", 1, &[]).await?;
    let (safe, told) = check(&cluster, &["1"])?;
    assert!(!safe, "{told}");
    assert_eq!(told["without_leader"], serde_json::json!(["single-0"]));
    assert_eq!(told["without_quorum"], true, "it is the only voter");
    let (back, told) = check(&cluster, &["1", "--after"])?;
    assert!(back, "{told}");
    Ok(())
}
