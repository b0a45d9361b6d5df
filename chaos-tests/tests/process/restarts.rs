//! What is asked before and after a node is restarted: a whole cluster is restarted by the
//! answers alone, under load, and upgraded if it began with another release.

use crate::workload::{Load, WINDOW};
use ottla_chaos::history::{Outcome, sends};
use ottla_chaos::process::{Cluster, PATIENCE, binary, wait_until};
use ottla_metadata::records::FeatureLevel;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Names the `ottla` binary of an older release, with which the cluster begins; ours if it
/// is not set.
const OLDER: &str = "OTTLA_OLDER";

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

/// Waits until the node has everything again, as the command says. What it says last counts.
fn wait_until_back(cluster: &Cluster, node: &str) -> anyhow::Result<()> {
    let patience = format!("{}s", PATIENCE.as_secs());
    let args = ["cluster", "restart-check", node, "--after", "--wait", "--timeout", &patience];
    let output = crate::plain::ottla(cluster, &args, b"")?;
    let told = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let last = told.lines().last().unwrap_or_default();
    assert!(last.starts_with(&format!("node {node} is back: ")), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_restarted_by_what_it_says_of_itself() -> anyhow::Result<()> {
    let older = std::env::var_os(OLDER).map(PathBuf::from);
    let first = older.as_deref().map_or_else(|| binary().map(Path::to_owned), |p| Ok(p.to_owned()));
    let mut cluster = Cluster::start_patient_of(&first?, 3).await?;
    let load = match older {
        Some(_) => Load::start_without_ids(&cluster).await?,
        None => Load::start(&cluster).await?,
    };
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

        cluster.node(node).runs(binary()?);
        cluster.node(node).start()?;
        wait_until_back(&cluster, &id)?;
    }
    upgrade(&cluster)?;
    load.acknowledged(BETWEEN).await?;
    for (told, _) in sends(&load.finish(cluster).await?) {
        assert_eq!(told.outcome, Outcome::Ok, "a client was told an error: {told:?}");
    }
    Ok(())
}

/// The cluster may hold what the release on all its nodes can read, and says so.
fn upgrade(cluster: &Cluster) -> anyhow::Result<()> {
    println!("before: {}", cluster.operate(&["features"])?);
    cluster.operate(&["features", "--upgrade"])?;
    let features = cluster.operate(&["features"])?;
    let newest = FeatureLevel::NEWEST.0;
    assert_eq!(features["feature_level"], newest, "{features}");
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
