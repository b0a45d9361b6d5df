//! More partitions for a topic that is written to and read.

use crate::workload::{Load, TOPIC, WINDOW, acknowledged, key};
use anyhow::Context as _;
use ottla_chaos::history::Send;
use ottla_chaos::process::{Cluster, binary, wait_until};
use serde_json::Value;
use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command};

/// A topic grows from four to nine partitions while producers write and `ottla
/// consume` reads it: both find the new ones by themselves. Then the leader of a new
/// partition is killed. Everything acknowledged is on every replica, and the
/// consumer that began before the growth has printed all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_grows_under_load() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let mut load = Load::start(&cluster).await?;
    let consumer = Consumer::start(&cluster)?;
    load.acknowledged(4 * WINDOW as u64).await?;

    let grown = alter(&cluster, "9")?;
    assert_eq!(grown, "topic load has 9 partitions, 5 of them new\n");
    assert_eq!(alter(&cluster, "9")?, "topic load has 9 partitions already\n");
    let shrunk = alter(&cluster, "8").expect_err("a topic never shrinks").to_string();
    assert!(shrunk.contains("can only grow, not shrink to 8"), "{shrunk}");
    wait_until("the consumer reads every new partition", async || {
        let read: HashSet<u32> = consumer.read()?.into_iter().map(|(p, _)| p).collect();
        anyhow::ensure!(read.len() == 9, "{read:?}");
        Ok(())
    })
    .await?;

    let leader = cluster.leader(TOPIC, 8).await?;
    cluster.node(leader).kill()?;
    cluster.leader(TOPIC, 8).await?;
    load.acknowledged(4 * WINDOW as u64).await?;
    cluster.node(leader).start()?;
    cluster.wait_healthy().await?;

    let told = load.end().await?;
    wait_until("the consumer has read all that was acknowledged", async || {
        let read = consumer.read()?.into_iter();
        let read: HashSet<_> = read.map(|(partition, value)| (key(partition), value)).collect();
        let missing = |send: &&Send| !read.contains(&(send.key.clone(), send.value.clone()));
        let missing: Vec<_> = acknowledged(&told).filter(missing).take(5).collect();
        anyhow::ensure!(missing.is_empty(), "{missing:?}");
        Ok(())
    })
    .await?;
    load.read_back(cluster).await
}

/// What the command prints, or its complaint.
fn alter(cluster: &Cluster, partitions: &str) -> anyhow::Result<String> {
    let output = Command::new(binary()?)
        .args(["topic", "alter", TOPIC, "--partitions", partitions])
        .env("OTTLA_BOOTSTRAP", cluster.bootstrap().join(","))
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// `ottla consume` of the whole topic, writing to a file.
struct Consumer {
    process: Child,
    output: PathBuf,
}

impl Consumer {
    fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let output = cluster.dir().join("consumed.json");
        let process = Command::new(binary()?)
            .args(["consume", TOPIC, "--format", "json"])
            .env("OTTLA_BOOTSTRAP", cluster.bootstrap().join(","))
            .stdout(File::create(&output)?)
            .spawn()?;
        Ok(Self { process, output })
    }

    /// Partition and value of all that it has printed so far.
    fn read(&self) -> anyhow::Result<Vec<(u32, String)>> {
        let text = std::fs::read_to_string(&self.output)?;
        // The last line may be half there.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| {
                let record: Value = serde_json::from_str(line)?;
                let partition = record["partition"].as_u64().context("a partition")?;
                Ok((partition.try_into()?, record["value"].as_str().context("a value")?.to_owned()))
            })
            .collect()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // Fails when it has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
