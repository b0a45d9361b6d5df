//! Compressed batches, from standard input to the files of every replica.

use crate::plain::{ottla, succeeded, verify};
use ottla_chaos::process::{Cluster, binary};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Lines of one codec: enough for several batches.
const LINES: usize = 8_000;

/// What is produced with each codec comes out as it went in, and lies compressed
/// in the files of every replica.
#[tokio::test]
async fn each_codec_goes_through() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    cluster.create_topic("t", 1, &[]).await?;
    let mut all = String::new();
    for codec in CODECS {
        let mut lines = String::new();
        for n in 0..LINES {
            writeln!(lines, "{codec} {n} {}", "compressible ".repeat(n % 5))?;
        }
        let produce = ["produce", "t", "--compression", codec];
        succeeded(ottla(&cluster, &produce, lines.as_bytes())?)?;
        all += &lines;
    }
    let consume = ["consume", "t", "--until", "end"];
    let found = succeeded(ottla(&cluster, &consume, b"")?)?;
    assert!(found == all.as_bytes(), "{} bytes in, {} out", all.len(), found.len());

    // From the middle of a compressed batch.
    let from = format!("{}", LINES * 2 - 7);
    let consume = ["consume", "t", "--from", &from, "--max", "7"];
    let found = String::from_utf8(succeeded(ottla(&cluster, &consume, b"")?)?)?;
    let expected: String =
        all.lines().skip(LINES * 2 - 7).take(7).map(|line| line.to_owned() + "\n").collect();
    assert_eq!(found, expected);

    cluster.wait_healthy().await?;
    for id in 1..=3 {
        cluster.node(id).stop()?;
    }
    for node in cluster.nodes() {
        verify(&node.data_dir())?;
        assert_eq!(
            codecs_in(&node.data_dir().join("partitions"))?,
            BTreeSet::from(CODECS.map(str::to_owned))
        );
    }
    Ok(())
}

fn codecs_in(partitions: &std::path::Path) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for partition in std::fs::read_dir(partitions)? {
        let dump = ["log", "dump", "--format", "json"];
        let output = Command::new(binary()?).args(dump).arg(partition?.path()).output()?;
        for line in String::from_utf8(succeeded(output)?)?.lines() {
            let item: Value = serde_json::from_str(line)?;
            if item["type"] == "batch" {
                found.insert(item["codec"].as_str().unwrap_or_default().to_owned());
            }
        }
    }
    Ok(found)
}
