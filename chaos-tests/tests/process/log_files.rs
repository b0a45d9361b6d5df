//! `ottla log` on the files of real nodes: under load, stopped, and damaged.

use crate::workload::{Load, PARTITIONS, acknowledged};
use anyhow::Context as _;
use ottla_chaos::process::{Cluster, binary};
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn ottla_log(args: &[&str], path: &Path) -> anyhow::Result<Output> {
    Ok(Command::new(binary()?).arg("log").args(args).arg(path).output()?)
}

/// The objects that a command printed, and how it ended.
fn json(args: &[&str], path: &Path) -> anyhow::Result<(Vec<Value>, Option<i32>)> {
    let output = ottla_log(&[args, &["--format", "json"]].concat(), path)?;
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let objects = lines.map(serde_json::from_slice).collect::<Result<_, _>>()?;
    Ok((objects, output.status.code()))
}

fn summary(objects: &[Value]) -> anyhow::Result<&Value> {
    let last = objects.last().context("something is printed")?;
    anyhow::ensure!(last["type"] == "summary", "{last}");
    Ok(last)
}

/// The largest segment of a node's partitions.
fn segment(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let mut found = Vec::new();
    for partition in fs::read_dir(data_dir.join("partitions"))? {
        for file in fs::read_dir(partition?.path())? {
            let file = file?;
            if file.path().extension().is_some_and(|extension| extension == "log") {
                found.push((file.metadata()?.len(), file.path()));
            }
        }
    }
    Ok(found.into_iter().max().context("a segment")?.1)
}

#[tokio::test]
async fn files_are_clean_under_load_and_stopped_and_damage_is_found() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    let dirs: Vec<PathBuf> = cluster.nodes().iter().map(|node| node.data_dir()).collect();
    let mut load = Load::start(&cluster).await?;
    // Once: what is written meanwhile is read too, by a debug build.
    load.acknowledged(200).await?;
    for dir in &dirs {
        let (objects, code) = json(&["verify"], dir)?;
        assert_eq!(code, Some(0), "under load: {objects:#?}");
        let summary = summary(&objects)?;
        assert_eq!(summary["logs"], PARTITIONS + 1, "the partitions and the metadata log");
        assert!(
            objects
                .iter()
                .all(|object| object["type"] == "summary" || object["owner"] == "running")
        );
        let dump = ottla_log(&["dump", "--records"], dir)?;
        assert_eq!(dump.status.code(), Some(0), "{}", String::from_utf8_lossy(&dump.stderr));
    }
    let acknowledged = acknowledged(&load.end().await?).count();
    cluster.wait_healthy().await?;
    for id in 1..=3 {
        cluster.node(id).stop()?;
    }
    for dir in &dirs {
        let (objects, code) = json(&["verify"], dir)?;
        assert_eq!(code, Some(0), "{objects:#?}");
        assert!(objects[..objects.len() - 1].iter().all(|object| object["owner"] == "clean"));
        let (items, _) = json(&["dump", "--records"], dir)?;
        let records = items.iter().filter(|item| item["type"] == "record").count();
        assert!(records >= acknowledged, "{records} of {acknowledged}");
    }
    damage(&dirs[0])
}

/// A flipped bit in a batch's records: both commands say where.
fn damage(dir: &Path) -> anyhow::Result<()> {
    let segment = segment(dir)?;
    let file = OpenOptions::new().read(true).write(true).open(&segment)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, 65)?;
    file.write_all_at(&[byte[0] ^ 4], 65)?;
    let (objects, code) = json(&["verify"], dir)?;
    assert_eq!((code, &summary(&objects)?["clean"]), (Some(1), &Value::Bool(false)));
    let problems: Vec<&Value> =
        objects.iter().filter_map(|object| object["problems"].as_array()).flatten().collect();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    let path = segment.canonicalize()?;
    assert_eq!(
        (problems[0]["path"].as_str(), &problems[0]["position"]),
        (path.to_str(), &0.into())
    );
    assert_eq!(problems[0]["severity"], "damage");
    let text = ottla_log(&["verify"], &segment)?;
    let text = (text.status.code(), String::from_utf8(text.stdout)?);
    assert!(
        text.0 == Some(1) && text.1.contains("damage") && text.1.contains("CRC-32C"),
        "{text:?}"
    );
    let (items, code) = json(&["dump"], &segment)?;
    let bad: Vec<&Value> = items.iter().filter(|item| item["type"] == "bad").collect();
    assert_eq!((code, bad.len(), &bad[0]["position"]), (Some(1), 1, &0.into()));
    let nothing = ottla_log(&["verify"], &dir.join("nothing"))?;
    assert_eq!((nothing.status.code(), nothing.stdout.is_empty()), (Some(2), true));
    Ok(())
}
