//! Leaders by hand.

use ottla_chaos::process::{Cluster, binary, wait_until};
use std::process::Command;

/// A killed leader is replaced; when it is back in the ISR an operator gives it the
/// leadership again, and an unclean election of what is led already changes nothing.
#[tokio::test]
async fn a_leader_comes_back_by_hand() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    cluster.create_topic("orders", 1, &[]).await?;
    let first = cluster.describe("orders").await?.partitions[0].replicas[0];

    cluster.node(first).kill()?;
    wait_until("another leads", async || {
        let leader = cluster.describe("orders").await?.partitions[0].leader_id;
        anyhow::ensure!(leader.is_some_and(|leader| leader != first), "{leader:?}");
        Ok(())
    })
    .await?;
    cluster.node(first).start()?;
    cluster.wait_healthy().await?;

    let elected = elect(&cluster, &["orders", "--partition", "0"])?;
    assert!(elected.starts_with(&format!("orders-0 is now led by node {first}, ")), "{elected}");
    let again = elect(&cluster, &["orders", "--partition", "0", "--unclean"])?;
    assert_eq!(again, elected.replace("is now led", "is led already"));
    Ok(())
}

fn elect(cluster: &Cluster, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(binary()?)
        .args(["topic", "elect"])
        .args(args)
        .env("OTTLA_BOOTSTRAP", cluster.bootstrap().join(","))
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
