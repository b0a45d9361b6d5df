//! Partitions that move to other nodes while they are used.

use crate::workload::{Load, PARTITIONS, TOPIC, WINDOW};
use anyhow::Context as _;
use ottla_chaos::process::{Cluster, binary, wait_until};
use ottla_proto::{TopicId, v1};
use serde_json::Value;
use std::process::Command;

const NODES: u64 = 4;

/// Four nodes; every partition leaves the node that leads it for the one it is not
/// on, three times over, while producers write. In the middle of each move a node is
/// killed and started again: the leader of a partition, the one it moves to, and the
/// one that is to lose it. In the end every partition is where it was to be, nowhere
/// else, and everything acknowledged is on every replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_move_under_load_and_nodes_die() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(NODES).await?;
    let load = Load::start(&cluster).await?;
    for round in 0..3 {
        load.acknowledged(4 * WINDOW as u64).await?;
        let before = cluster.describe(TOPIC).await?;
        let plan: Vec<Vec<u64>> = before.partitions.iter().map(away_from_leader).collect();
        let moved = reassign(&cluster, &plan)?;
        println!("round {round}: {moved}");
        let killed = victim(&before.partitions[0], &plan[0], round)?;
        cluster.node(killed).kill()?;
        load.acknowledged(WINDOW as u64).await?;
        cluster.node(killed).start()?;
        // Whoever has just started may not know yet that they have begun.
        wait_until("the moves are complete", async || {
            let status = status(&cluster)?;
            anyhow::ensure!(status["reassignments"] == serde_json::json!([]), "{status}");
            let now = replicas(&cluster.describe(TOPIC).await?);
            anyhow::ensure!(now == plan, "{now:?} instead of {plan:?}");
            Ok(())
        })
        .await?;
        let after = cluster.describe(TOPIC).await?;
        wait_until("logs are deleted where they are no more", async || no_strays(&cluster, &after))
            .await?;
        cluster.wait_healthy().await?;
    }
    load.finish(cluster).await?;
    Ok(())
}

/// A move to a node that is down waits for it, says so, and can be taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_to_a_dead_node_waits_and_is_cancelled() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(NODES).await?;
    let load = Load::start(&cluster).await?;
    let before = cluster.describe(TOPIC).await?;
    let plan: Vec<Vec<u64>> = before.partitions.iter().map(away_from_leader).collect();
    let to = plan[0][0];
    cluster.node(to).kill()?;
    cluster.leader(TOPIC, 0).await?;
    reassign(&cluster, &plan[..1])?;
    load.acknowledged(2 * WINDOW as u64).await?;
    wait_until("the leader says how far behind the dead node is", async || {
        let status = status(&cluster)?;
        let moving = &status["reassignments"][0];
        anyhow::ensure!(moving["partition"] == 0 && moving["adding"][0]["node"] == to, "{status}");
        let behind = moving["adding"][0]["behind_offsets"].as_u64();
        anyhow::ensure!(behind.is_some_and(|offsets| offsets > 0), "{status}");
        Ok(())
    })
    .await?;
    let cancelled = topic(&cluster, &["reassign", TOPIC, "--cancel"])?;
    assert!(cancelled.starts_with("load-0 cancelled: replicas "), "{cancelled}");
    let after = cluster.describe(TOPIC).await?;
    assert_eq!(after.partitions[0].replicas, before.partitions[0].replicas);
    assert_eq!(topic(&cluster, &["reassign", TOPIC, "--cancel"])?, "nothing to do\n");
    cluster.node(to).start()?;
    load.finish(cluster).await?;
    Ok(())
}

/// The node that has no replica first, then all but the leader.
fn away_from_leader(partition: &v1::PartitionMetadata) -> Vec<u64> {
    let new = (1..=NODES).find(|node| !partition.replicas.contains(node));
    let stay = partition.replicas.iter().copied().filter(|node| Some(*node) != partition.leader_id);
    new.into_iter().chain(stay).collect()
}

fn replicas(topic: &v1::TopicMetadata) -> Vec<Vec<u64>> {
    topic.partitions.iter().map(|partition| partition.replicas.clone()).collect()
}

fn victim(before: &v1::PartitionMetadata, to: &[u64], round: u32) -> anyhow::Result<u64> {
    match round {
        0 => before.leader_id.context("a leader"),
        1 => Ok(to[0]),
        _ => before.replicas.iter().copied().find(|node| !to.contains(node)).context("one leaves"),
    }
}

fn reassign(cluster: &Cluster, plan: &[Vec<u64>]) -> anyhow::Result<String> {
    let mut args = vec!["reassign".to_owned(), TOPIC.to_owned()];
    for (partition, replicas) in plan.iter().enumerate() {
        let replicas = replicas.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        args.extend(["--partition".to_owned(), partition.to_string()]);
        args.extend(["--replicas".to_owned(), replicas]);
    }
    topic(cluster, &args)
}

fn status(cluster: &Cluster) -> anyhow::Result<Value> {
    let args = ["reassign", TOPIC, "--status", "--format", "json"];
    Ok(serde_json::from_str(&topic(cluster, &args)?)?)
}

/// `ottla topic …`: what it prints.
fn topic<S: AsRef<std::ffi::OsStr>>(cluster: &Cluster, args: &[S]) -> anyhow::Result<String> {
    let output = Command::new(binary()?)
        .arg("topic")
        .args(args)
        .env("OTTLA_BOOTSTRAP", cluster.bootstrap().join(","))
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn no_strays(cluster: &Cluster, topic: &v1::TopicMetadata) -> anyhow::Result<()> {
    let id = TopicId::from_wire(&topic.topic_id).context("a topic id")?;
    anyhow::ensure!(topic.partitions.len() == PARTITIONS as usize);
    for node in cluster.nodes() {
        for partition in &topic.partitions {
            let dir =
                node.data_dir().join("partitions").join(format!("{id}-{}", partition.partition));
            let wanted = partition.replicas.contains(&node.id());
            anyhow::ensure!(dir.exists() == wanted, "{} on node {}", dir.display(), node.id());
        }
    }
    Ok(())
}
