//! The promise: every acknowledged record at its offset, on every replica,
//! whoever is killed or frozen meanwhile.

use crate::workload::{Load, PARTITIONS, TOPIC, WINDOW, acknowledged};
use ottla_chaos::history::sends;
use ottla_chaos::process::Cluster;
use rand::RngExt;

const KILLS: u32 = 10;
const PAUSES: u32 = 3;
const RESTARTS: u32 = 4;

/// Kills the leader of some partition, waits until writes go on, and starts it again;
/// ten times.
async fn kill_leaders(cluster: &mut Cluster, load: &Load) -> anyhow::Result<()> {
    for round in 0..KILLS {
        let (partition, leader) = some_leader(cluster, load).await?;
        println!("kill {round}: node {leader}, leader of partition {partition}");
        cluster.node(leader).kill()?;
        // Writes go on without it, also to the partitions it led.
        cluster.leader(TOPIC, partition).await?;
        load.acknowledged(4 * WINDOW as u64).await?;
        cluster.node(leader).start()?;
        cluster.wait_healthy().await?;
    }
    Ok(())
}

/// Four partitions, four producers with acks=all and unique values; the leader
/// of some partition is killed ten times at random moments and restarted. Then
/// every acknowledged value is at its offset, for a consumer and in the files
/// of every replica, and nothing is there twice or out of order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_killed_ten_times() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let load = Load::start(&cluster).await?;
    kill_leaders(&mut cluster, &load).await?;
    load.finish(cluster).await?;
    Ok(())
}

/// The same with producers that send again what may have been written, as producers
/// do: every value is acknowledged, and there once, in order, on every replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_killed_and_every_record_written_once() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let load = Load::start_retrying(&cluster).await?;
    kill_leaders(&mut cluster, &load).await?;
    let told = load.finish(cluster).await?;
    assert_eq!(acknowledged(&told).count(), sends(&told).count(), "errors at a client");
    Ok(())
}

/// A planned restart: the leader finishes what it was given, hands over and goes.
/// No producer gets an error, definite or not, and nothing is written twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_restarted_as_planned() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    let load = Load::start(&cluster).await?;
    for round in 0..RESTARTS {
        let (partition, leader) = some_leader(&cluster, &load).await?;
        println!("restart {round}: node {leader}, leader of partition {partition}");
        let status = cluster.node(leader).stop()?;
        anyhow::ensure!(status.success(), "node {leader} did not stop cleanly: {status}");
        load.acknowledged(4 * WINDOW as u64).await?;
        cluster.node(leader).start()?;
        cluster.wait_healthy().await?;
    }
    let told = load.finish(cluster).await?;
    assert_eq!(acknowledged(&told).count(), sends(&told).count(), "errors at a client");
    Ok(())
}

/// A frozen leader is replaced; when it wakes it still believes that it leads,
/// and nothing it then says may count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_frozen_and_woken() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let load = Load::start(&cluster).await?;
    for round in 0..PAUSES {
        let (partition, leader) = some_leader(&cluster, &load).await?;
        println!("pause {round}: node {leader}, leader of partition {partition}");
        cluster.node(leader).pause()?;
        cluster.leader(TOPIC, partition).await?;
        load.acknowledged(4 * WINDOW as u64).await?;
        cluster.node(leader).resume()?;
        cluster.wait_healthy().await?;
    }
    load.finish(cluster).await?;
    Ok(())
}

/// A random partition and its leader, after a random number of writes.
async fn some_leader(cluster: &Cluster, load: &Load) -> anyhow::Result<(u32, u64)> {
    let (partition, more) =
        (rand::rng().random_range(0..PARTITIONS), rand::rng().random_range(200..1_500));
    load.acknowledged(more).await?;
    Ok((partition, cluster.leader(TOPIC, partition).await?))
}
