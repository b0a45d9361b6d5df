//! `/metrics` of a cluster that loses a node and gets it back, and the probes.

use crate::plain::{produce, record};
use ottla_chaos::process::{Cluster, wait_until};
use ottla_proto::v1;
use std::collections::BTreeSet;
use std::path::Path;

/// Sum over all nodes that run.
async fn sum(cluster: &Cluster, name: &str) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for node in cluster.nodes().iter().filter(|node| node.is_running()) {
        let text = node.get("/metrics").await?;
        let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let values: Vec<f64> = values.map(str::parse).collect::<Result<_, _>>()?;
        anyhow::ensure!(values.len() == 1, "{name} is {values:?} in\n{text}");
        sum += values[0];
    }
    Ok(sum)
}

async fn sums_are(cluster: &Cluster, expected: &[(&str, f64)]) -> anyhow::Result<()> {
    for (name, expected) in expected {
        let sum = sum(cluster, name).await?;
        anyhow::ensure!(sum == *expected, "{name} is {sum}, expected {expected}");
    }
    Ok(())
}

/// What an operator is told while a node is gone is true of the cluster as a whole, and
/// is gone with the trouble.
#[tokio::test]
async fn figures_tell_what_is_wrong_and_that_it_is_over() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    cluster.create_topic("strict", 2, &[("min.insync.replicas", "3")]).await?;
    cluster.create_topic("plain", 2, &[]).await?;
    let leader = cluster.leader("strict", 0).await?;
    let sent = || record(v1::Record { value: Some("x".into()), ..Default::default() });
    produce(&cluster, leader, "strict", sent()).await?;
    let good = [
        ("ottla_controller_active", 1.0),
        ("ottla_controller_known", 3.0),
        ("ottla_broker_fenced", 0.0),
        ("ottla_brokers_active", 3.0),
        ("ottla_brokers_fenced", 0.0),
        ("ottla_partitions_led", 4.0),
        ("ottla_partitions_hosted", 12.0),
        ("ottla_partitions_under_replicated", 0.0),
        ("ottla_partitions_under_min_isr", 0.0),
        ("ottla_partitions_leaderless", 0.0),
        ("ottla_raft_failed", 0.0),
        ("ottla_produce_seconds_count", 1.0),
    ];
    wait_until("nothing is wrong", async || sums_are(&cluster, &good).await).await?;
    assert!(sum(&cluster, "ottla_process_resident_bytes").await? > 3e6);
    assert!(sum(&cluster, "ottla_process_open_files").await? > 30.0);

    let victim = (1..=3).find(|id| *id != leader).expect("three nodes");
    cluster.node(victim).kill()?;
    let bad = [
        ("ottla_controller_active", 1.0),
        ("ottla_brokers_fenced", 1.0),
        ("ottla_partitions_led", 4.0),
        ("ottla_partitions_under_replicated", 4.0),
        ("ottla_partitions_under_min_isr", 2.0),
    ];
    wait_until("the figures tell it", async || sums_are(&cluster, &bad).await).await?;
    let leader = cluster.leader("strict", 0).await?;
    produce(&cluster, leader, "strict", sent()).await.expect_err("too few in sync");
    let refused = r#"ottla_request_errors_total{kind="produce",reason="NOT_ENOUGH_REPLICAS"} 1"#;
    let told = cluster.nodes()[leader as usize - 1].get("/metrics").await?;
    assert!(told.contains(refused), "no {refused} in\n{told}");
    assert!(sum(&cluster, "ottla_isr_shrinks_total").await? >= 4.0);

    cluster.node(victim).start()?;
    cluster.wait_healthy().await?;
    // The process that was killed has forgotten what it had counted.
    wait_until("it is over", async || sums_are(&cluster, &good[..11]).await).await?;
    assert!(sum(&cluster, "ottla_isr_expands_total").await? >= 4.0);
    Ok(())
}

/// Every figure that an alert or a dashboard asks for is told, and what is public has as
/// many lines whatever is in the cluster.
#[tokio::test]
async fn what_is_deployed_asks_for_figures_that_there_are() -> anyhow::Result<()> {
    let cluster = Cluster::start_patient(1).await?;
    let node = &cluster.nodes()[0];
    for probe in ["/livez", "/readyz", "/startupz"] {
        node.get(probe).await?;
    }
    let public = node.get("/public_metrics").await?.lines().count();
    cluster.create_topic("t", 30, &[]).await?;
    assert_eq!(node.get("/public_metrics").await?.lines().count(), public);

    let told = node.get("/metrics").await?;
    let told: BTreeSet<&str> =
        told.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let mut asked = 0;
    for file in ["alerts/ottla.rules.yml", "grafana/dashboards/ottla.json"] {
        let text = std::fs::read_to_string(deploy.join(file))?;
        for name in names(&text) {
            let base = ["_total", "_bucket", "_count", "_sum", "_info"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            assert!(told.contains(base), "{file} asks for {name}; there are {told:?}");
            asked += 1;
        }
    }
    assert!(asked > 40, "only {asked} found: were they looked for in the right way?");
    Ok(())
}

/// The names of figures in a text.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(move |c| !is_part(c));
    words.filter(|word| word.starts_with("ottla_") && word.len() > "ottla_".len())
}
