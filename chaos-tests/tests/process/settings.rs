//! Options of cluster and nodes, changed through the command line while nodes run.

use crate::plain::{ottla, succeeded};
use anyhow::Context as _;
use ottla_chaos::process::{Cluster, wait_until};
use serde_json::Value;

/// What the files of the nodes say: a follower may be away for an hour, which is
/// more than this test waits for, and only errors are logged.
const FILE: &str = "replica_lag_max_ms = 3600000\nlog_level = \"error\"\n";

/// What a node logs when an option that was set in the metadata counts.
const IN_FORCE: &str = "options set in the metadata are in force";

fn json(cluster: &Cluster, args: &[&str]) -> anyhow::Result<Value> {
    let args = [args, &["--format", "json"]].concat();
    Ok(serde_json::from_slice(&succeeded(ottla(cluster, &args, b"")?)?)?)
}

fn refused(cluster: &Cluster, args: &[&str], expected: [&str; 2]) -> anyhow::Result<()> {
    let args = [&["cluster", "config"], args].concat();
    let output = ottla(cluster, &args, b"")?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{args:?}");
    assert!(expected.iter().all(|part| told.contains(part)), "{args:?}: {told}");
    Ok(())
}

/// Stops a follower where it stands and has a line acknowledged all the same.
async fn write_past_a_frozen_follower(cluster: &mut Cluster) -> anyhow::Result<u64> {
    let leader = cluster.leader("t", 0).await?;
    let frozen = leader % 3 + 1;
    cluster.node(frozen).pause()?;
    succeeded(ottla(cluster, &["produce", "t", "--timeout", "60s"], b"line\n")?)?;
    wait_until("it is known to have left the ISR", async || {
        let isr = cluster.describe("t").await?.partitions[0].isr.clone();
        anyhow::ensure!(!isr.contains(&frozen), "{isr:?}");
        Ok(())
    })
    .await?;
    Ok(frozen)
}

#[tokio::test]
async fn options_are_followed_at_once_and_after_a_restart() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient_with(3, FILE).await?;
    cluster.create_topic("t", 1, &[]).await?;
    refused(&cluster, &["--set", "replica_lag_max_ms=0"], ["INVALID_CONFIG", "1 to 31536000000"])?;
    refused(&cluster, &["--node", "2", "--set", "listen=[::]:1"], ["INVALID_CONFIG", "restart"])?;
    refused(&cluster, &["--node", "9", "--set", "log_level=info"], ["UNKNOWN_NODE", "node 9"])?;

    let lag = |cluster: &Cluster| -> anyhow::Result<Value> {
        let shown = json(cluster, &["cluster", "config", "--node", "2"])?;
        let option = &shown["options"]["replica_lag_max_ms"];
        Ok(serde_json::json!([option["value"], option["source"], option["dynamic"]]))
    };
    assert_eq!(lag(&cluster)?, serde_json::json!(["3600000", "file", true]));
    let set = json(&cluster, &["cluster", "config", "--set", "replica_lag_max_ms=500"])?;
    assert_eq!(set["set"], serde_json::json!({ "replica_lag_max_ms": "500" }));
    assert_eq!(lag(&cluster)?, serde_json::json!(["500", "cluster", true]));
    json(&cluster, &["cluster", "config", "--node", "2", "--set", "log_level=info"])?;
    wait_until("node 2 writes more than errors", async || {
        cluster.nodes()[1].log()?.contains(IN_FORCE).then_some(()).context("not yet")
    })
    .await?;
    let frozen = write_past_a_frozen_follower(&mut cluster).await?;

    // A default of topics: what it asks for cannot be had while one is frozen.
    json(&cluster, &["cluster", "config", "--set", "min.insync.replicas=3"])?;
    let described = json(&cluster, &["topic", "describe", "t"])?;
    let expected = serde_json::json!({ "value": "3", "source": "cluster" });
    assert_eq!(described["options"]["min.insync.replicas"], expected);
    let output = ottla(&cluster, &["produce", "t", "--timeout", "3s"], b"line\n")?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("min.insync.replicas"), "{told}");
    json(&cluster, &["cluster", "config", "--unset", "min.insync.replicas"])?;
    cluster.node(frozen).resume()?;
    cluster.wait_healthy().await?;

    for id in 1..=3 {
        anyhow::ensure!(cluster.node(id).stop()?.success(), "node {id} stopped badly");
        cluster.node(id).start()?;
        cluster.wait_healthy().await?;
    }
    assert_eq!(lag(&cluster)?, serde_json::json!(["500", "cluster", true]));
    write_past_a_frozen_follower(&mut cluster).await?;
    let logged = |id: usize| cluster.nodes()[id - 1].log();
    assert!(logged(2)?.contains("node stopped cleanly"), "log_level is set on node 2");
    assert!(!logged(1)?.contains(IN_FORCE), "and on no other");
    Ok(())
}
