//! Disks of real file systems that lose power and fill up. Needs root, as `in_a_world`
//! says.

use crate::network::in_a_world;
use crate::plain::{self, fetch, produce, record};
use crate::workload::{Load, TOPIC, WINDOW};
use anyhow::Context as _;
use ottla_chaos::process::{Cluster, ottla, wait_until};
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{ApiError, v1};
use serde_json::Value;
use tonic::Status;

const MIB: u64 = 1024 * 1024;

/// Values acknowledged between two steps, so that each step is taken under load.
const BETWEEN: u64 = 4 * WINDOW as u64;

/// Scenario 33: every node loses power at the same moment, and with it whatever its
/// kernel had not written. What was acknowledged had been synced.
#[test]
fn all_nodes_lose_power_at_once() -> anyhow::Result<()> {
    in_a_world(async |world| {
        let mut cluster = Cluster::start_in(&world, 3, "").await?;
        let load = Load::start(&cluster).await?;
        for _ in 0..3 {
            load.acknowledged(BETWEEN).await?;
            for id in 1..=3 {
                cluster.node(id).lose_power()?;
            }
            for id in 1..=3 {
                cluster.node(id).regain_power()?;
            }
            cluster.wait_healthy().await?;
        }
        load.acknowledged(BETWEEN).await?;
        load.finish(cluster).await?;
        Ok(())
    })
}

/// A leader's disk is full: others lead instead, or its writes are refused; once there
/// is room again it is as good as before, without a restart.
#[test]
fn a_full_disk_heals() -> anyhow::Result<()> {
    in_a_world(async |world| {
        let mut cluster = Cluster::start_in(&world, 3, "").await?;
        let load = Load::start(&cluster).await?;
        load.acknowledged(BETWEEN).await?;
        let leader = cluster.leader(TOPIC, 0).await?;
        cluster.node(leader).disk()?.fill()?;
        load.acknowledged(BETWEEN).await?;
        cluster.node(leader).disk()?.free()?;
        cluster.wait_healthy().await?;
        load.acknowledged(BETWEEN).await?;
        load.finish(cluster).await?;
        Ok(())
    })
}

/// Where there is no room, there is none for metadata either: the node falls silent in
/// the quorum, and takes part again as soon as there is, without a restart.
#[test]
fn a_disk_without_room_for_metadata_heals() -> anyhow::Result<()> {
    in_a_world(async |world| {
        let mut cluster = Cluster::start_in(&world, 3, "").await?;
        let load = Load::start(&cluster).await?;
        let info = cluster.operate(&["info"])?;
        let controller = info["controller"].as_u64().context("there is one")?;
        for full in [controller, controller % 3 + 1] {
            cluster.node(full).disk()?.fill()?;
            for number in 0..20 {
                let name = format!("while-node-{full}-is-full-{number}");
                let create = ["topic", "create", &name, "--replication-factor", "2"];
                wait_until("a topic can be created", async || {
                    ottla(&cluster.bootstrap(), &create)?;
                    Ok(())
                })
                .await?;
            }
            cluster.node(full).disk()?.free()?;
            cluster.wait_healthy().await?;
        }
        load.acknowledged(BETWEEN).await?;
        load.finish(cluster).await?;
        Ok(())
    })
}

/// One record to partition 0, with acks=all.
async fn one(cluster: &Cluster, leader: u64) -> anyhow::Result<v1::ProduceResponse> {
    let value = v1::Record { value: Some(vec![7; 1000].into()), ..Default::default() };
    produce(cluster, leader, "room", record(value)).await
}

/// What `ottla cluster disk` says of a node's directory, and whether it exits with 0.
fn shown(cluster: &Cluster, node: u64) -> anyhow::Result<(Value, bool)> {
    let output = plain::ottla(cluster, &["cluster", "disk", "--format", "json"], b"")?;
    let shown: Value = serde_json::from_slice(&output.stdout)?;
    let directory = &shown["nodes"][node as usize - 1]["data_directories"][0];
    Ok((directory.clone(), output.status.success()))
}

async fn is_shown(cluster: &Cluster, node: u64, state: &str) -> anyhow::Result<Value> {
    let mut directory = Value::Null;
    wait_until("the node has looked at its disk", async || {
        (directory, _) = shown(cluster, node)?;
        anyhow::ensure!(directory["state"] == state, "expected {state}: {directory}");
        Ok(())
    })
    .await?;
    Ok(directory)
}

/// With less room than the thresholds a leader refuses clients by name while everything
/// else goes on; as a follower it copies down to half of that. With room it takes part
/// again, without a restart. (The disks have a GiB: 5 % are 51 MiB.)
#[test]
fn little_room_refuses_writes_and_nothing_else() -> anyhow::Result<()> {
    in_a_world(async |world| {
        let mut cluster = Cluster::start_in(&world, 3, "replica_lag_max_ms = 2000\n").await?;
        cluster.create_topic("room", 1, &[]).await?;
        let leader = cluster.leader("room", 0).await?;
        one(&cluster, leader).await?;
        let (directory, is_well) = shown(&cluster, leader)?;
        assert!(is_well && directory["state"] == "online", "{directory}");

        cluster.node(leader).disk()?.leave(100 * MIB)?;
        is_shown(&cluster, leader, "low").await?;
        one(&cluster, leader).await?;

        cluster.node(leader).disk()?.leave(40 * MIB)?;
        let directory = is_shown(&cluster, leader, "refuses-writes").await?;
        assert!(directory["free_bytes"].as_u64() < directory["refuse_free_bytes"].as_u64());
        assert!(directory["log_bytes"].as_u64() > Some(2000), "{directory}");
        assert!(!shown(&cluster, leader)?.1, "it exits with 1");
        let error = one(&cluster, leader).await.expect_err("too little room");
        let error = ApiError::from_status(error.downcast_ref::<Status>().context("a status")?);
        assert_eq!((error.reason, error.is_indefinite()), (R::DiskFull, false), "{error}");
        let data_dir = cluster.nodes()[leader as usize - 1].data_dir();
        assert_eq!(error.metadata["directory"], data_dir.display().to_string());
        assert_eq!(fetch(&cluster, leader, "room", 0).await?.len(), 2);
        is_administered(&cluster, leader, "writes-are-refused").await?;

        // It follows where others lead; below half of the threshold no more.
        let mut follower = cluster.describe("room").await?.partitions[0].isr.clone();
        follower.retain(|node| *node != leader);
        cluster.node(leader).disk()?.free()?;
        is_shown(&cluster, leader, "online").await?;
        one(&cluster, leader).await?;
        cluster.node(follower[0]).disk()?.leave(20 * MIB)?;
        is_shown(&cluster, follower[0], "refuses-copies").await?;
        one(&cluster, leader).await.context("acknowledged by two")?;
        is_administered(&cluster, follower[0], "copies-are-refused").await?;
        let isr = cluster.describe("room").await?.partitions[0].isr.clone();
        assert!(!isr.contains(&follower[0]), "{isr:?}");
        cluster.node(follower[0]).disk()?.free()?;
        cluster.wait_healthy().await?;
        one(&cluster, leader).await?;
        assert!(shown(&cluster, leader)?.1, "there is enough room everywhere");
        Ok(())
    })
}

/// The process lives and says what is wrong; topics come and go; groups commit.
async fn is_administered(cluster: &Cluster, node: u64, name: &str) -> anyhow::Result<()> {
    let process = &cluster.nodes()[node as usize - 1];
    process.get("/livez").await?;
    let ready = process.get("/readyz").await?;
    assert!(ready.contains("too little room"), "{ready}");
    let refuses =
        format!("ottla_disk_refuses_writes{{directory=\"{}\"}} 1", process.data_dir().display());
    let told = process.get("/metrics").await?;
    assert!(told.contains(&refuses), "no {refuses} in\n{told}");
    // All of them by way of this node, on a replica of its own each.
    let through = [process.address()];
    ottla(&through, &["topic", "create", name, "--replication-factor", "3"])?;
    ottla(&through, &["topic", "alter", name, "--config", "retention.ms=1000"])?;
    ottla(&through, &["topic", "delete", name])?;
    ottla(&through, &["group", "seek", name, "room", "--to", "start"])?;
    Ok(())
}
