//! Leaders by hand.

use crate::plain;
use ottla_chaos::process::{Cluster, binary, ottla, wait_until};
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

/// The last in sync is away: nobody leads, and no clean election helps. An operator who has
/// given it up says so, and what it alone has is gone, nothing else; when it comes back after
/// all, it follows.
#[tokio::test]
async fn nobody_leads_until_an_operator_gives_up_what_is_lost() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    let made = ["--partitions", "1", "--replication-factor", "2"];
    let weak = ["--config", "min.insync.replicas=1"];
    ottla(&cluster.bootstrap(), &[&["topic", "create", "orders"], &made[..], &weak[..]].concat())?;
    let found = cluster.describe("orders").await?.partitions[0].clone();
    let last = found.leader_id.expect("somebody leads");
    let other = *found.replicas.iter().find(|replica| **replica != last).expect("two replicas");
    write(&cluster, "kept")?;
    cluster.node(other).kill()?;
    write(&cluster, "only the last one has it")?;
    cluster.node(last).kill()?;
    cluster.node(other).start()?;

    wait_until("nobody leads, and the other is there", async || {
        let info = cluster.operate(&["info"])?;
        let nodes = info["nodes"].as_array().expect("nodes").iter();
        let up = nodes.filter(|node| node["state"] == "active").count();
        let leader = cluster.describe("orders").await?.partitions[0].leader_id;
        anyhow::ensure!(leader.is_none() && up == 2, "leader {leader:?}, {info}");
        Ok(())
    })
    .await?;
    let clean = elect(&cluster, &["orders", "--partition", "0", "--timeout", "1s"]);
    assert!(clean.is_err(), "{clean:?}");
    let elected = elect(&cluster, &["orders", "--partition", "0", "--unclean"])?;
    assert!(elected.starts_with(&format!("orders-0 is now led by node {other}, ")), "{elected}");
    write(&cluster, "after")?;
    assert_eq!(read(&cluster)?, "kept\nafter\n");

    cluster.node(last).start()?;
    cluster.wait_healthy().await?;
    let elected = elect(&cluster, &["orders", "--partition", "0"])?;
    assert!(elected.contains(&format!("led by node {last}, ")), "{elected}");
    assert_eq!(read(&cluster)?, "kept\nafter\n", "it cut what nobody else has");
    Ok(())
}

fn write(cluster: &Cluster, value: &str) -> anyhow::Result<()> {
    let written = plain::ottla(cluster, &["produce", "orders"], format!("{value}\n").as_bytes())?;
    anyhow::ensure!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    Ok(())
}

fn read(cluster: &Cluster) -> anyhow::Result<String> {
    let all = ["consume", "orders", "--from", "start", "--until", "end"];
    let all = plain::ottla(cluster, &all, b"")?;
    anyhow::ensure!(all.status.success(), "{}", String::from_utf8_lossy(&all.stderr));
    Ok(String::from_utf8(all.stdout)?)
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
