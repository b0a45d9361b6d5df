//! The consumer of the client library in groups: members come, go and die, and so do
//! nodes, while records are written.

use crate::readers::{Readers, Writer};
use ottla_chaos::process::{Cluster, wait_until};
use std::time::Duration;

const TOPIC: &str = "orders";

/// One, three and fifty members share two hundred partitions. They join, leave, die
/// without a word. Nobody owns what another owns, every record comes at least once and in
/// order, and who keeps a partition is never interrupted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_join_leave_and_crash() -> anyhow::Result<()> {
    let cluster = Cluster::start_patient(3).await?;
    cluster.create_topic(TOPIC, 200, &[]).await?;
    let writer = Writer::start(&cluster, TOPIC, 200, Duration::from_millis(500)).await?;
    let mut readers = Readers::new(&cluster, "billing", TOPIC, 200);
    readers.join(1)?;
    readers.settled("one member has everything").await?;
    readers.progressed("records come").await?;

    readers.join(2)?;
    readers.settled("three members share").await?;
    readers.leave(1).await?;
    readers.settled("two share what the third had").await?;

    readers.join(48)?;
    readers.settled("fifty members share").await?;
    readers.crash(3);
    readers.settled("others read what three dead members had").await?;
    readers.leave(10).await?;
    readers.settled("others read what ten had").await?;
    readers.progressed("records come").await?;

    let written = writer.finish().await?;
    readers.caught_up(&written).await?;
    readers.finish().await?;
    Ok(())
}

/// Every node is stopped and started in turn under a producer and a group: nothing is
/// lost, nothing is skipped, nobody is put out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_is_restarted_under_a_group() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    cluster.create_topic(TOPIC, 12, &[]).await?;
    let writer = Writer::start(&cluster, TOPIC, 12, Duration::from_millis(20)).await?;
    let mut readers = Readers::new(&cluster, "billing", TOPIC, 12);
    readers.join(3)?;
    readers.settled("three members share").await?;
    let moves = readers.moves();
    for node in 1..=3 {
        cluster.node(node).stop()?;
        readers.progressed("records come from two nodes").await?;
        cluster.node(node).start()?;
        cluster.wait_healthy().await?;
        readers.progressed("records come from three nodes").await?;
    }
    assert_eq!(readers.moves(), moves, "no partition moves because nodes restart");
    let written = writer.finish().await?;
    readers.caught_up(&written).await?;
    readers.finish().await?;
    Ok(())
}

/// B1 rows 35 and 36: coordinators are killed under commits and in the middle of
/// rebalances. What was acknowledged as committed is never behind it afterwards, and each
/// partition has one owner at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coordinators_die_under_commits_and_rebalances() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    cluster.create_topic(TOPIC, 12, &[]).await?;
    let writer = Writer::start(&cluster, TOPIC, 12, Duration::from_millis(20)).await?;
    let mut readers = Readers::new(&cluster, "billing", TOPIC, 12);
    readers.commits_each_batch();
    readers.join(2)?;
    readers.settled("two members share").await?;
    for round in 0..3 {
        readers.progressed("offsets are committed").await?;
        let coordinator = readers.coordinator(&cluster).await?;
        readers.join(1)?;
        cluster.node(coordinator).kill()?;
        readers.settled("a member has come while the coordinator died").await?;
        readers.check_commits(&cluster).await?;
        cluster.node(coordinator).start()?;
        wait_until("the cluster is whole", async || cluster.wait_healthy().await).await?;
        if round > 0 {
            readers.leave(1).await?;
        }
    }
    let written = writer.finish().await?;
    readers.caught_up(&written).await?;
    readers.check_commits(&cluster).await?;
    readers.finish().await?;
    Ok(())
}
