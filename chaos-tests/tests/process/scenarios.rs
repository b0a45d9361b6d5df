//! What went wrong in other systems, tried on real processes. Numbers are those of the
//! table in docs/testing.md. Needs root where `in_a_world` says so.

use crate::network::in_a_world;
use crate::workload::{Load, PARTITIONS, TOPIC, WINDOW};
use anyhow::Context as _;
use ottla_chaos::process::world::address;
use ottla_chaos::process::{Cluster, finished_segments, flip_a_bit, ottla, wait_until};
use std::fs;
use std::path::{Path, PathBuf};

/// Values acknowledged between two steps, so that each step is taken under load.
const BETWEEN: u64 = 4 * WINDOW as u64;

async fn controller(cluster: &Cluster) -> anyhow::Result<u64> {
    cluster.operate(&["info"])?["controller"].as_u64().context("there is a controller")
}

/// Scenario 27: a leader stands still while a follower is killed; when both are back
/// another is killed while a fourth node joins and gets a vote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_and_killed_and_killed_while_members_change() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let load = Load::start(&cluster).await?;
    load.acknowledged(BETWEEN).await?;
    let leader = cluster.leader(TOPIC, 0).await?;
    let follower = leader % 3 + 1;
    cluster.node(leader).pause()?;
    cluster.node(follower).kill()?;
    cluster.node(leader).resume()?;
    load.acknowledged(BETWEEN).await?;
    cluster.node(follower).start()?;
    cluster.wait_healthy().await?;

    let fourth = cluster.join()?;
    let killed = cluster.leader(TOPIC, 1).await?;
    cluster.node(killed).kill()?;
    load.acknowledged(BETWEEN).await?;
    cluster.node(killed).start()?;
    cluster.wait_healthy().await?;
    wait_until("the fourth node has a vote", async || {
        cluster.operate(&["add", &fourth.to_string()])?;
        Ok(())
    })
    .await?;
    load.finish(cluster).await?;
    Ok(())
}

/// Scenario 29: all nodes are killed at the same moment, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_are_killed_at_once() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let load = Load::start(&cluster).await?;
    for _ in 0..3 {
        load.acknowledged(BETWEEN).await?;
        for id in 1..=3 {
            cluster.node(id).kill()?;
        }
        for id in 1..=3 {
            cluster.node(id).start()?;
        }
        cluster.wait_healthy().await?;
    }
    load.finish(cluster).await?;
    Ok(())
}

/// Scenario 30: a bit changes in a finished segment of every partition that a node
/// leads. Nobody is handed the wrong record, and everybody gets the right one: another
/// replica leads instead. With a new disk the node is whole again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_a_minority_is_nobody_elses_loss() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    let mut load = Load::start(&cluster).await?;
    ottla(&cluster.bootstrap(), &["topic", "alter", TOPIC, "--config", "segment.bytes=4096"])?;
    load.acknowledged(8 * BETWEEN).await?;
    load.end().await?;
    cluster.wait_healthy().await?;
    let damaged = cluster.leader(TOPIC, 0).await?;
    // Only what is read from the disk can be wrong.
    cluster.node(damaged).stop()?;
    let segments = finished_segments(&cluster.nodes()[damaged as usize - 1])?;
    assert!(segments.len() >= PARTITIONS as usize, "{segments:?}");
    for segment in &segments {
        println!("{}", flip_a_bit(segment, 100 << 16)?);
    }
    cluster.node(damaged).start()?;
    cluster.wait_healthy().await?;
    wait_until("the damaged node leads again", async || {
        ottla(&cluster.bootstrap(), &["topic", "elect", TOPIC, "--partition", "0"])?;
        let leader = cluster.leader(TOPIC, 0).await?;
        anyhow::ensure!(leader == damaged, "node {leader} leads");
        Ok(())
    })
    .await?;
    load.consume_all().await?;
    assert_ne!(cluster.leader(TOPIC, 0).await?, damaged, "it cannot read what it leads");

    cluster.node(damaged).kill()?;
    wait_until("the disk can be given up", async || {
        cluster.operate(&["replace-disk", &damaged.to_string()])?;
        Ok(())
    })
    .await?;
    cluster.node(damaged).lose_disk()?;
    cluster.node(damaged).start()?;
    load.read_back(cluster).await
}

/// Scenario 31: on one node everything is damaged that can be made again: indexes,
/// checkpoints, snapshots of producers and of the metadata, the applied image. The node
/// makes it again, and deletes no log for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_be_made_again_is_damaged_on_a_minority() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    let load = Load::start(&cluster).await?;
    ottla(&cluster.bootstrap(), &["topic", "alter", TOPIC, "--config", "segment.bytes=4096"])?;
    load.acknowledged(8 * BETWEEN).await?;
    let damaged = cluster.leader(TOPIC, 0).await?;
    cluster.node(damaged).kill()?;
    let mut files = Vec::new();
    all_files(&cluster.nodes()[damaged as usize - 1].data_dir(), &mut files)?;
    files.retain(|file| can_be_made_again(file));
    assert!(files.iter().any(|file| file.extension().is_some_and(|e| e == "snapshot")));
    assert!(
        files.iter().any(|file| file.components().any(|part| part.as_os_str() == "image.sled"))
    );
    for (file, chance) in files.iter().zip(1_u64..) {
        if fs::metadata(file)?.len() > 0 {
            flip_a_bit(file, chance << 16)?;
        }
    }
    load.acknowledged(BETWEEN).await?;
    cluster.node(damaged).start()?;
    cluster.wait_healthy().await?;
    load.acknowledged(BETWEEN).await?;
    load.finish(cluster).await?;
    Ok(())
}

fn all_files(dir: &Path, into: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { all_files(&path, into)? } else { into.push(path) }
    }
    Ok(())
}

/// See docs/formats.md: what is missing or doubtful of these never keeps a node from
/// starting.
fn can_be_made_again(file: &Path) -> bool {
    let derived = ["index", "timeindex", "snapshot"];
    let in_image = file.components().any(|part| part.as_os_str() == "image.sled");
    in_image
        || file.ends_with("metadata/snapshot")
        || file.extension().is_some_and(|extension| derived.iter().any(|e| extension == *e))
}

/// Scenario 32: all nodes lose power once, and come back while some stand still: in the
/// end there is one history.
#[test]
fn one_power_loss_and_pauses() -> anyhow::Result<()> {
    in_a_world(async |world| {
        let mut cluster = Cluster::start_in(&world, 3, "").await?;
        let load = Load::start(&cluster).await?;
        load.acknowledged(BETWEEN).await?;
        for id in 1..=3 {
            cluster.node(id).lose_power()?;
        }
        for id in 1..=3 {
            cluster.node(id).regain_power()?;
        }
        for paused in 1..=3 {
            cluster.node(paused).pause()?;
            // The others are a majority, and in the end have all partitions.
            for partition in 0..PARTITIONS {
                cluster.leader(TOPIC, partition).await?;
            }
            cluster.node(paused).resume()?;
            cluster.wait_healthy().await?;
            load.acknowledged(BETWEEN).await?;
        }
        load.finish(cluster).await?;
        Ok(())
    })
}

/// Scenario 34: a node joins and gets a vote while the controller is killed and a
/// leader is cut off; then the controller's node is drained and removed while another
/// is cut off.
#[test]
fn members_change_while_nodes_are_killed_and_parted() -> anyhow::Result<()> {
    in_a_world(async |world| {
        let mut cluster = Cluster::start_in(&world, 4, "").await?;
        let load = Load::start(&cluster).await?;
        load.acknowledged(BETWEEN).await?;
        let fifth = cluster.join()?;
        let killed = controller(&cluster).await?;
        cluster.node(killed).kill()?;
        let parted = cluster.leader(TOPIC, 0).await?;
        let others = || (1..=4).filter(move |id| *id != parted);
        for other in others() {
            world.line(address(parted), address(other), |line| line.cut = true);
        }
        cluster.node(killed).start()?;
        wait_until("the fifth has a vote", async || {
            cluster.operate(&["add", &fifth.to_string()])?;
            Ok(())
        })
        .await?;
        world.heal();
        cluster.wait_healthy().await?;
        load.acknowledged(BETWEEN).await?;

        let leaves = controller(&cluster).await?;
        let parted = (1..=5).find(|id| *id != leaves).context("another node")?;
        world.line(address(parted), address(leaves), |line| line.cut = true);
        cluster.operate(&["drain", &leaves.to_string(), "--no-wait"])?;
        load.acknowledged(BETWEEN).await?;
        // Whoever is to copy from whom it does not reach waits until it does.
        world.heal();
        cluster.operate(&["drain", &leaves.to_string(), "--timeout", "60s"])?;
        wait_until("it is removed", async || {
            cluster.operate(&["remove", &leaves.to_string()])?;
            Ok(())
        })
        .await?;
        cluster.node(leaves).ended().await?;
        cluster.leaves(leaves);
        load.acknowledged(BETWEEN).await?;
        load.finish(cluster).await?;
        Ok(())
    })
}

/// Scenario 40: the active controller stands still while others create a topic. When it
/// wakes it believes that it is still the controller, and still does not answer without
/// that topic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_was_paused_tells_nothing_old() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(3).await?;
    for round in 0..3 {
        let paused = controller(&cluster).await?;
        let name = format!("created-meanwhile-{round}");
        cluster.node(paused).pause()?;
        let others: Vec<String> = cluster
            .nodes()
            .iter()
            .filter(|node| node.is_running())
            .map(|node| node.address())
            .collect();
        wait_until("the others have a controller", async || {
            ottla(&others, &["topic", "create", &name, "--replication-factor", "2"])?;
            Ok(())
        })
        .await?;
        cluster.node(paused).resume()?;
        let woken = [cluster.nodes()[paused as usize - 1].address()];
        let mut answers = 0;
        wait_until("the woken one has answered often", async || {
            let told = ottla(&woken, &["topic", "list"])?;
            assert!(told.to_string().contains(&name), "a stale answer: {told}");
            answers += 1;
            anyhow::ensure!(answers == 20, "{answers} answers");
            Ok(())
        })
        .await?;
        cluster.wait_healthy().await?;
    }
    Ok(())
}
