//! A node is emptied and leaves, while records are written.

use crate::workload::{Load, TOPIC, WINDOW};
use ottla_chaos::process::{Cluster, wait_until};
use serde_json::Value;

/// Values acknowledged between two steps, so that each step is taken under load.
const BETWEEN: u64 = 4 * WINDOW as u64;

/// Four nodes, of which one, a founding voter and the active controller, is drained and
/// removed. Everything acknowledged is on every replica of the nodes that stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_is_drained_and_removed_under_load() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    let fourth = cluster.join()?;
    cluster.wait_healthy().await?;
    let load = Load::start(&cluster).await?;
    load.acknowledged(BETWEEN).await?;
    let leaves = cluster.operate(&["info"])?["controller"].as_u64().expect("there is one");
    let id = leaves.to_string();

    let refused = cluster.operate(&["remove", &id]).expect_err("it has replicas").to_string();
    assert!(refused.contains(&format!("ottla cluster drain {id}")), "{refused}");
    let drained = cluster.operate(&["drain", &id])?;
    assert_eq!((&drained["drained"], &drained["replicas"]), (&true.into(), &0.into()), "{drained}");
    let topic = cluster.describe(TOPIC).await?;
    assert!(topic.partitions.iter().all(|p| !p.replicas.contains(&leaves)), "{topic:?}");
    assert!(topic.partitions.iter().all(|p| p.replicas.contains(&fourth)), "{topic:?}");
    load.acknowledged(BETWEEN).await?;

    let removed = cluster.operate(&["remove", &id])?;
    assert_eq!(removed["removed"], true, "{removed}");
    let status = cluster.node(leaves).ended().await?;
    assert!(!status.success(), "{status}");
    cluster.leaves(leaves);
    load.acknowledged(BETWEEN).await?;
    wait_until("only the others are left", async || {
        let info = cluster.operate(&["info"])?;
        let nodes = info["nodes"].as_array().into_iter().flatten();
        let nodes: Vec<u64> = nodes.filter_map(|node| node["node"].as_u64()).collect();
        anyhow::ensure!(nodes.len() == 3 && !nodes.contains(&leaves), "{info}");
        Ok(())
    })
    .await?;
    load.finish(cluster).await?;
    Ok(())
}

/// A node dies for good: its vote and its disk are given up, its replicas move, and
/// then it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_removed_by_force_and_drained() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    cluster.join()?;
    cluster.wait_healthy().await?;
    let load = Load::start(&cluster).await?;
    load.acknowledged(BETWEEN).await?;
    let dead = cluster.leader(TOPIC, 0).await?;
    let id = dead.to_string();
    let alive = cluster.operate(&["remove", &id, "--force"]).expect_err("it lives").to_string();
    assert!(alive.contains("NODE_IN_USE"), "{alive}");
    cluster.node(dead).kill()?;
    cluster.leaves(dead);
    let mut forced = Value::Null;
    wait_until("its vote is given up", async || {
        forced = cluster.operate(&["remove", &id, "--force"])?;
        Ok(())
    })
    .await?;
    assert_eq!(forced["removed"], false, "{forced}");
    assert!(forced["remaining_replicas"].as_u64() > Some(0), "{forced}");
    load.acknowledged(BETWEEN).await?;
    let drained = cluster.operate(&["drain", &id])?;
    assert_eq!(drained["drained"], true, "{drained}");
    let removed = cluster.operate(&["remove", &id])?;
    assert_eq!(removed["removed"], true, "{removed}");
    let topic = cluster.describe(TOPIC).await?;
    assert!(topic.partitions.iter().all(|p| !p.replicas.contains(&dead)), "{topic:?}");
    load.finish(cluster).await?;
    Ok(())
}
