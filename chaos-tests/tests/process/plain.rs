//! What the tests ask a node for: one record in, some records out, by plain gRPC;
//! and what the `ottla` command answers.

use anyhow::Context as _;
use ottla_chaos::process::{Cluster, binary};
use ottla_proto::v1;
use ottla_proto::v1::produce_request::Payload;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs `ottla` against the cluster.
pub(crate) fn ottla(cluster: &Cluster, args: &[&str], stdin: &[u8]) -> anyhow::Result<Output> {
    let mut child = Command::new(binary()?)
        .args(args)
        .env("OTTLA_BOOTSTRAP", cluster.bootstrap().join(","))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("a pipe")?;
    let stdin = stdin.to_owned();
    // A command that fails early closes its input; its own error is shown.
    let writer = std::thread::spawn(move || drop(input.write_all(&stdin)));
    let output = child.wait_with_output()?;
    writer.join().expect("the writer does not panic");
    Ok(output)
}

/// What it printed, if it went well.
pub(crate) fn succeeded(output: Output) -> anyhow::Result<Vec<u8>> {
    anyhow::ensure!(
        output.status.success(),
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

/// `ottla log verify` finds nothing wrong with what lies there.
pub(crate) fn verify(path: &Path) -> anyhow::Result<()> {
    let output = Command::new(binary()?).args(["log", "verify"]).arg(path).output()?;
    succeeded(output).map(drop)
}

/// Sends one payload to partition 0, with acks=all.
pub(crate) async fn produce(
    cluster: &Cluster,
    node: u64,
    topic: &str,
    payload: Payload,
) -> anyhow::Result<v1::ProduceResponse> {
    let request = v1::ProduceRequest {
        topic: topic.to_owned(),
        acks: v1::Acks::All.into(),
        payload: Some(payload),
        ..Default::default()
    };
    Ok(cluster.log_client(node)?.produce(request).await?.into_inner())
}

/// One record.
pub(crate) fn record(record: v1::Record) -> Payload {
    Payload::Records(v1::RecordSet { records: vec![record] })
}

/// The records of partition 0 from an offset on, as one answer holds them.
pub(crate) async fn fetch(
    cluster: &Cluster,
    node: u64,
    topic: &str,
    offset: u64,
) -> anyhow::Result<Vec<v1::ConsumedRecord>> {
    let request = v1::FetchRequest { topic: topic.to_owned(), offset, ..Default::default() };
    let fetched = cluster.log_client(node)?.fetch(request).await?.into_inner();
    match fetched.payload {
        Some(v1::fetch_response::Payload::Records(set)) => Ok(set.records),
        _ => anyhow::bail!("records were asked for"),
    }
}

/// One of the ends of partition 0.
pub(crate) async fn offset_of(
    cluster: &Cluster,
    node: u64,
    topic: &str,
    position: v1::OffsetPosition,
) -> anyhow::Result<u64> {
    let request = v1::ListOffsetsRequest {
        topic: topic.to_owned(),
        position: position.into(),
        ..Default::default()
    };
    Ok(cluster.log_client(node)?.list_offsets(request).await?.into_inner().offset)
}
