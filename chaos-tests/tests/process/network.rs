//! Networks that fail in part: nodes on hosts of their own, whose lines are cut in one
//! direction or lose packets. Needs root, as `in_a_world` says.

use crate::workload::{Load, TOPIC, WINDOW};
use ottla_chaos::process::world::{World, address};
use ottla_chaos::process::{Cluster, binary, wait_until};
use std::sync::Arc;
use std::time::Duration;

/// Values acknowledged between two steps, so that each step is taken under load.
const BETWEEN: u64 = 4 * WINDOW as u64;

/// Runs a test in a world of its own, where this process may make one. Who may not is
/// told so, and sees what loopback allows in all other tests.
pub(crate) fn in_a_world<F>(test: impl FnOnce(Arc<World>) -> F + Send) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    binary()?;
    if !World::is_allowed() {
        println!("not tried: only root may make networks and disks");
        return Ok(());
    }
    let world = World::new(1)?;
    world.run(|| test(Arc::clone(&world)))
}

/// Waits until a partition is led by another node than this one.
async fn replaced(cluster: &Cluster, partition: u32, old: u64) -> anyhow::Result<()> {
    wait_until("another node leads", async || {
        let leader = cluster.leader(TOPIC, partition).await?;
        anyhow::ensure!(leader != old, "node {old} leads still");
        Ok(())
    })
    .await
}

/// Nobody hears the leader any more, and it hears everybody: it cannot tell from what
/// it is sent that it has been replaced. The others go on.
#[test]
fn a_leader_that_nobody_hears_is_replaced() -> anyhow::Result<()> {
    in_a_world(async |world| {
        let cluster = Cluster::start_in(&world, 3, "").await?;
        let load = Load::start(&cluster).await?;
        load.acknowledged(BETWEEN).await?;
        let leader = cluster.leader(TOPIC, 0).await?;
        for other in (1..=3).filter(|id| *id != leader) {
            world.line(address(leader), address(other), |line| line.cut = true);
        }
        replaced(&cluster, 0, leader).await?;
        load.acknowledged(BETWEEN).await?;
        world.heal();
        cluster.wait_healthy().await?;
        load.acknowledged(BETWEEN).await?;
        load.finish(cluster).await?;
        Ok(())
    })
}

/// Two nodes do not hear each other, a third hears both: whoever leads, records reach
/// two replicas, and nobody believes two leaders.
#[test]
fn a_bridge_between_two_that_are_parted_is_enough() -> anyhow::Result<()> {
    in_a_world(async |world| {
        let cluster = Cluster::start_in(&world, 3, "").await?;
        let load = Load::start(&cluster).await?;
        for (one, other) in [(1, 2), (2, 3), (3, 1)] {
            for (from, to) in [(one, other), (other, one)] {
                world.line(address(from), address(to), |line| line.cut = true);
            }
            load.acknowledged(BETWEEN).await?;
            world.heal();
            cluster.wait_healthy().await?;
        }
        load.finish(cluster).await?;
        Ok(())
    })
}

/// One packet of twenty is lost, between all nodes, and each takes ten milliseconds:
/// slower, and no less right.
#[test]
fn five_of_a_hundred_packets_are_lost() -> anyhow::Result<()> {
    in_a_world(async |world| {
        let cluster = Cluster::start_in(&world, 3, "").await?;
        let load = Load::start(&cluster).await?;
        for from in 1..=3 {
            for to in 1..=3 {
                world.line(address(from), address(to), |line| {
                    line.loss_per_mille = 50;
                    line.latency = Duration::from_millis(10);
                });
            }
        }
        // Many times what is outstanding: hundreds of packets get lost.
        load.acknowledged(20 * BETWEEN).await?;
        world.heal();
        load.finish(cluster).await?;
        Ok(())
    })
}
