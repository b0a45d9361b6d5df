//! Disks of real file systems that lose power and fill up. Needs root, as `in_a_world`
//! says.

use crate::network::in_a_world;
use crate::workload::{Load, TOPIC, WINDOW};
use anyhow::Context as _;
use ottla_chaos::process::{Cluster, ottla, wait_until};

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
