//! Records that go while a topic is used, on every replica, also on one that was
//! away meanwhile.

use crate::plain::{fetch, offset_of, ottla, produce, record, succeeded, verify};
use ottla_chaos::process::{Cluster, Node, read_replica, wait_until};
use ottla_proto::v1::ErrorReason;
use ottla_proto::v1::OffsetPosition::{Earliest, Latest};
use ottla_proto::{ApiError, v1};
use std::path::PathBuf;
use tonic::Status;

const TOPIC: &str = "old";

/// Records written before and after something happens, each a batch of its own.
const RECORDS: u64 = 24;

/// Bytes of a value: three fit into a segment.
const VALUE_BYTES: usize = 1000;

/// Bytes that retention leaves, but for less than a segment.
const KEPT_BYTES: usize = 6000;

/// Most records that can be left then: whole segments go.
const MOST_LEFT: u64 = (KEPT_BYTES / VALUE_BYTES) as u64 + 2;

#[tokio::test]
async fn retention_on_a_running_topic_and_on_a_replica_that_was_away() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient_with(3, "log_retention_check_ms = 50\n").await?;
    let configs = [("segment.bytes", "4096"), ("retention.ms", "-1")];
    let topic = cluster.create_topic(TOPIC, 1, &configs).await?;
    write(&cluster).await?;
    let leader = cluster.leader(TOPIC, 0).await?;
    assert_eq!(offset_of(&cluster, leader, TOPIC, Earliest).await?, 0);

    // Altered while it is used: the oldest segments go, on every replica.
    let bytes = format!("retention.bytes={KEPT_BYTES}");
    succeeded(ottla(&cluster, &["topic", "alter", TOPIC, "--config", &bytes], b"")?)?;
    wait_until("the first segment is gone from every replica", async || {
        for node in cluster.nodes() {
            let left = segments(node)?;
            let first = format!("{:020}.", 0);
            anyhow::ensure!(
                !left.is_empty() && !left.iter().any(|name| name.starts_with(&first)),
                "node {}: {left:?}",
                node.id()
            );
        }
        Ok(())
    })
    .await?;
    reads_begin_at_the_start(&cluster).await?;

    // A follower is away until nothing is left of what it has.
    let away = (1..=3).find(|id| *id != leader).expect("three nodes");
    cluster.node(away).kill()?;
    let end = offset_of(&cluster, leader, TOPIC, Latest).await?;
    write(&cluster).await?;
    wait_until("the log starts above what the dead follower has", async || {
        let leader = cluster.leader(TOPIC, 0).await?;
        let start = offset_of(&cluster, leader, TOPIC, Earliest).await?;
        anyhow::ensure!(start > end, "{start} is not above {end}");
        Ok(())
    })
    .await?;
    cluster.node(away).start()?;
    cluster.wait_healthy().await?;
    let isr = cluster.describe(TOPIC).await?.partitions[0].isr.clone();
    assert_eq!(isr.len(), 3, "{isr:?}");
    reads_begin_at_the_start(&cluster).await?;

    for id in 1..=3 {
        cluster.node(id).stop()?;
    }
    for node in cluster.nodes() {
        verify(&node.data_dir())?;
        let records = read_replica(node, &topic, 0)?;
        let (first, last) = (records[0].0, records[records.len() - 1].0);
        assert!(first > end && last == 2 * RECORDS - 1, "node {}: {first}..={last}", node.id());
        assert_eq!(records.len() as u64, last + 1 - first);
        assert!(records.iter().all(|(offset, value)| *value == value_of(*offset)));
    }
    Ok(())
}

fn value_of(offset: u64) -> String {
    format!("{offset:0VALUE_BYTES$}")
}

/// Writes the next records: each value is its offset.
async fn write(cluster: &Cluster) -> anyhow::Result<()> {
    let leader = cluster.leader(TOPIC, 0).await?;
    let end = offset_of(cluster, leader, TOPIC, Latest).await?;
    for offset in end..end + RECORDS {
        let sent = v1::Record { value: Some(value_of(offset).into()), ..Default::default() };
        let placed = produce(cluster, leader, TOPIC, record(sent)).await?;
        assert_eq!(placed.base_offset, Some(offset));
    }
    Ok(())
}

/// A consumer from the start gets what is left, and one that asks for what is
/// gone is told so.
async fn reads_begin_at_the_start(cluster: &Cluster) -> anyhow::Result<()> {
    let leader = cluster.leader(TOPIC, 0).await?;
    let end = offset_of(cluster, leader, TOPIC, Latest).await?;
    let mut start = 0;
    wait_until("the leader says that the rest is gone", async || {
        start = offset_of(cluster, leader, TOPIC, Earliest).await?;
        anyhow::ensure!(end - start <= MOST_LEFT, "{start}..{end}");
        Ok(())
    })
    .await?;
    let consume = ["consume", TOPIC, "--until", "end"];
    let found = String::from_utf8(succeeded(ottla(cluster, &consume, b"")?)?)?;
    assert!(found.lines().map(str::to_owned).eq((start..end).map(value_of)), "{start}..{end}");
    let gone = fetch(cluster, leader, TOPIC, start - 1).await.expect_err("it is gone");
    let gone = ApiError::from_status(gone.downcast_ref::<Status>().expect("an answer"));
    assert_eq!(gone.reason, ErrorReason::OffsetOutOfRange, "{gone}");
    assert_eq!(gone.metadata["log_start_offset"], start.to_string());
    Ok(())
}

/// Names of the files in the directory of the node's one partition.
fn segments(node: &Node) -> anyhow::Result<Vec<String>> {
    let mut partitions = std::fs::read_dir(node.data_dir().join("partitions"))?;
    let Some(partition) = partitions.next() else { return Ok(Vec::new()) };
    let dir: PathBuf = partition?.path();
    let mut names = Vec::new();
    for file in std::fs::read_dir(dir)? {
        names.push(file?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}
