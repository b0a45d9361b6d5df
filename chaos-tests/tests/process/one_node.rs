//! What one node shows of its logs: whose clock the records carry, its figures,
//! and what it knows of producers.

use crate::plain::{fetch, ottla, produce, record, succeeded};
use ottla_chaos::process::Cluster;
use ottla_commitlog::format::{BatchOptions, NewRecord, ProducerSequence, encode_batch};
use ottla_proto::v1;
use ottla_proto::v1::produce_request::Payload;
use std::time::{SystemTime, UNIX_EPOCH};

/// With `message.timestamp.type=LogAppendTime` a consumer sees the node's clock,
/// whatever the producer wrote.
#[tokio::test]
async fn append_time_is_what_consumers_see() -> anyhow::Result<()> {
    let cluster = Cluster::start_patient(1).await?;
    cluster.create_topic("t", 1, &[("message.timestamp.type", "LogAppendTime")]).await?;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_millis() as i64);
    let before = now()?;
    for timestamp_ms in [Some(5), None, Some(i64::MAX)] {
        let sent = v1::Record { value: Some("x".into()), timestamp_ms, ..Default::default() };
        produce(&cluster, 1, "t", record(sent)).await?;
    }
    let within = before..=now()?;
    let found = fetch(&cluster, 1, "t", 0).await?;
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|record| within.contains(&record.timestamp_ms)), "{found:?}");

    let consume = ["consume", "t", "--until", "end", "--format", "json"];
    let printed = String::from_utf8(succeeded(ottla(&cluster, &consume, b"")?)?)?;
    for line in printed.lines() {
        let record: serde_json::Value = serde_json::from_str(line)?;
        assert!(record["timestamp"].as_i64().is_some_and(|at| within.contains(&at)), "{line}");
    }
    assert_eq!(printed.lines().count(), 3);
    Ok(())
}

/// The figures of a node that was written to say that it synced.
#[tokio::test]
async fn figures_are_at_the_http_port() -> anyhow::Result<()> {
    let cluster = Cluster::start_patient(1).await?;
    cluster.create_topic("t", 1, &[]).await?;
    let before = figures(&cluster).await?;
    for _ in 0..3 {
        let sent = v1::Record { value: Some("x".into()), ..Default::default() };
        produce(&cluster, 1, "t", record(sent)).await?;
    }
    let after = figures(&cluster).await?;
    for (name, least) in [
        ("ottla_log_appends_total", 3.0),
        ("ottla_log_appended_records_total", 3.0),
        // One sync may cover what all of them wait for, never none.
        ("ottla_log_sync_seconds_count", 1.0),
        ("ottla_log_sync_batch_appends_sum", 3.0),
    ] {
        let grown = figure(&after, name)? - figure(&before, name)?;
        assert!(grown >= least, "{name} grew by {grown}:\n{after}");
    }
    Ok(())
}

fn figure(text: &str, name: &str) -> anyhow::Result<f64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    match lines.find(|(have, _)| *have == name) {
        Some((_, value)) => Ok(value.parse()?),
        None => anyhow::bail!("no {name} in\n{text}"),
    }
}

async fn figures(cluster: &Cluster) -> anyhow::Result<String> {
    cluster.nodes()[0].get("/metrics").await
}

/// A batch of an idempotent producer that is sent again is acknowledged with the
/// offset it has, also by the next process, and is in the log once.
#[tokio::test]
async fn a_batch_sent_again_has_its_first_offset() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(1).await?;
    cluster.create_topic("t", 1, &[]).await?;
    let sent = v1::Record { value: Some("before".into()), ..Default::default() };
    produce(&cluster, 1, "t", record(sent)).await?;

    for (sequence, expected) in [(0, 1), (2, 3), (0, 1), (2, 3), (4, 5)] {
        let placed = produce(&cluster, 1, "t", of_producer(sequence)?).await?;
        assert_eq!((placed.base_offset, placed.record_count), (Some(expected), 2));
    }
    cluster.node(1).kill()?;
    cluster.node(1).start()?;
    cluster.wait_healthy().await?;
    let again = produce(&cluster, 1, "t", of_producer(2)?).await?;
    assert_eq!(again.base_offset, Some(3), "the next process knows it too");
    let gap = produce(&cluster, 1, "t", of_producer(8)?).await.expect_err("6 is missing");
    assert!(format!("{gap:?}").contains("sequence"), "{gap:?}");
    assert_eq!(fetch(&cluster, 1, "t", 0).await?.len(), 7);
    Ok(())
}

/// A batch of two records.
fn of_producer(base_sequence: i32) -> anyhow::Result<Payload> {
    let records = [NewRecord::default(), NewRecord::default()];
    let producer = Some(ProducerSequence { id: 7, epoch: 0, base_sequence });
    let batch = encode_batch(&records, &BatchOptions { producer, ..Default::default() })?;
    Ok(Payload::RecordBatch(batch.freeze()))
}
