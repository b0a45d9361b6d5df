//! Nodes come and go while records are written: none is lost, none is written
//! twice, and who has left stays out.

use crate::workload::{Load, TOPIC, WINDOW};
use ottla_chaos::process::{Cluster, wait_until};
use serde_json::Value;

/// Values acknowledged between two steps, so that each step is taken under load.
const BETWEEN: u64 = 4 * WINDOW as u64;

fn voters(answer: &Value) -> Vec<u64> {
    let list = answer["voters"].as_array().into_iter().flatten();
    list.filter_map(Value::as_u64).collect()
}

/// Three nodes become five voters; all are restarted, one by one; the fifth leaves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_come_and_go_under_load() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    let load = Load::start(&cluster).await?;
    for expected in [4, 5] {
        let id = cluster.join()?;
        anyhow::ensure!(id == expected);
        cluster.wait_healthy().await?;
        let added = cluster.operate(&["add", &id.to_string()])?;
        assert_eq!(voters(&added), (1..=id).collect::<Vec<_>>(), "{added}");
        load.acknowledged(BETWEEN).await?;
    }
    for id in 1..=5 {
        let status = cluster.node(id).stop()?;
        anyhow::ensure!(status.success(), "node {id} did not stop cleanly: {status}");
        load.acknowledged(BETWEEN).await?;
        cluster.node(id).start()?;
        cluster.wait_healthy().await?;
    }
    let refused = cluster.operate(&["remove", "1"]).expect_err("it has replicas").to_string();
    assert!(refused.contains("NODE_IN_USE") && refused.contains("move them away"), "{refused}");

    let removed = cluster.operate(&["remove", "5"])?;
    assert_eq!(voters(&removed), [1, 2, 3, 4], "{removed}");
    let mut gone = cluster.part().expect("the fifth");
    for _ in 0..2 {
        let status = gone.ended().await?;
        assert!(!status.success(), "{status}");
        assert!(gone.log()?.contains("NODE_REMOVED"), "{}", gone.log()?);
        // Started again, it says so again.
        std::fs::remove_file(cluster.dir().join("node-5/log"))?;
        gone.start()?;
    }
    load.acknowledged(BETWEEN).await?;
    let info = cluster.operate(&["info"])?;
    assert_eq!(
        (voters(&info), info["nodes"].as_array().map(Vec::len)),
        (vec![1, 2, 3, 4], Some(4))
    );
    load.finish(cluster).await?;
    Ok(())
}

/// A voter loses its disk: refused with a blank one until that is given up, then it
/// copies everything, and votes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_disk_is_replaced_under_load() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    let load = Load::start(&cluster).await?;
    load.acknowledged(BETWEEN).await?;
    let alive = cluster.operate(&["replace-disk", "3"]).expect_err("it runs").to_string();
    assert!(alive.contains("NODE_IN_USE"), "{alive}");
    cluster.node(3).kill()?;
    wait_until("it leads nothing", async || {
        let topic = cluster.describe(TOPIC).await?;
        anyhow::ensure!(topic.partitions.iter().all(|p| p.leader_id != Some(3)), "{topic:?}");
        Ok(())
    })
    .await?;
    cluster.node(3).lose_disk()?;
    cluster.node(3).start()?;
    let status = cluster.node(3).ended().await?;
    let log = cluster.nodes()[2].log()?;
    assert!(!status.success() && log.contains("ottla cluster replace-disk 3"), "{log}");

    wait_until("the disk can be given up", async || {
        let given_up = cluster.operate(&["replace-disk", "3"])?;
        assert_eq!(voters(&given_up), [1, 2], "{given_up}");
        Ok(())
    })
    .await?;
    load.acknowledged(BETWEEN).await?;
    cluster.node(3).start()?;
    cluster.wait_healthy().await?;
    wait_until("it votes again", async || {
        let info = cluster.operate(&["info"])?;
        anyhow::ensure!(voters(&info) == [1, 2, 3], "{info}");
        Ok(())
    })
    .await?;
    load.finish(cluster).await?;
    Ok(())
}
