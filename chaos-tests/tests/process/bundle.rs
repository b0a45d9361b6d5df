//! `ottla cluster debug-bundle` of a cluster in trouble: what is in it, and what is not.

use crate::plain::{ottla, succeeded};
use anyhow::Context as _;
use ottla_chaos::process::{Cluster, binary, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What nobody outside is to read.
const SECRET: &str = "hush-hush";

/// Every file of the bundle, by its name within, as `tar` unpacks it.
fn opened(bundle: &Path, into: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    fs::create_dir(into)?;
    let tar = Command::new("tar").arg("-xzf").arg(bundle).arg("-C").arg(into).output()?;
    succeeded(tar)?;
    let root = fs::read_dir(into)?.next().context("a directory")??.path();
    let mut files = BTreeMap::new();
    let mut dirs = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(&root)?.display().to_string();
                files.insert(name, fs::read_to_string(path)?);
            }
        }
    }
    Ok(files)
}

/// Makes a bundle as somebody does who has passwords about. Returns what the command said,
/// and the files.
fn made(
    cluster: &Cluster,
    dir: &Path,
    name: &str,
) -> anyhow::Result<(Value, BTreeMap<String, String>)> {
    let bundle = dir.join(format!("{name}.tar.gz"));
    let profiles = dir.join("profiles.toml");
    let text = format!("# password = \"{SECRET}\"\n[profiles.p]\nbootstrap = \"localhost:1\"\n");
    fs::write(&profiles, text)?;
    let output = Command::new(binary()?)
        .args(["cluster", "debug-bundle", "--format", "json", "--output"])
        .arg(&bundle)
        .env("OTTLA_BOOTSTRAP", cluster.bootstrap().join(","))
        .env("OTTLA_PROFILES", &profiles)
        .env("OTTLA_TLS_PASSWORD", SECRET)
        .env("OTTLA_PROXY", format!("http://me:{SECRET}@proxy:3128"))
        .output()?;
    let told = serde_json::from_slice(&succeeded(output)?)?;
    let files = opened(&bundle, &dir.join(name))?;
    let leak = files.iter().find(|(_, text)| text.contains(SECRET));
    anyhow::ensure!(leak.is_none(), "{leak:?}");
    Ok((told, files))
}

fn json_of(files: &BTreeMap<String, String>, name: &str) -> anyhow::Result<Value> {
    let names: Vec<_> = files.keys().collect();
    let text = files.get(name).with_context(|| format!("no {name} among {names:?}"))?;
    Ok(serde_json::from_str(text)?)
}

#[tokio::test]
async fn a_bundle_tells_all_of_a_cluster_in_trouble_but_no_secrets() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    cluster.create_topic("orders", 2, &[("retention.ms", "86400000")]).await?;
    succeeded(ottla(&cluster, &["produce", "orders"], b"one\ntwo\nof-a-customer\n")?)?;
    let seek = ["group", "seek", "billing", "orders", "--to", "start"];
    succeeded(ottla(&cluster, &seek, b"")?)?;
    cluster.node(3).kill()?;
    wait_until("the node is fenced", async || {
        let health = ottla(&cluster, &["cluster", "health", "--format", "json"], b"")?;
        let health: Value = serde_json::from_slice(&health.stdout)?;
        anyhow::ensure!(health["fenced_nodes"] == json!([3]), "{health}");
        Ok(())
    })
    .await?;
    let dir = tempfile::tempdir()?;
    let (told, files) = made(&cluster, dir.path(), "degraded")?;
    assert_eq!(json_of(&files, "cluster/health.json")?["unreachable_nodes"], json!([3]));
    assert_eq!(json_of(&files, "cluster/info.json")?["nodes"][1]["reachable"], true);
    assert!(json_of(&files, "cluster/features.json")?["feature_level"].as_u64() > Some(0));
    let options = json_of(&files, "nodes/2/options.json")?;
    assert_eq!(
        options["options"]["rack"],
        json!({
            "value": "rack-2", "source": "file", "dynamic": false,
            "takes": options["options"]["rack"]["takes"], "unit": "",
        })
    );
    for node in [1, 2] {
        assert!(files[&format!("nodes/{node}/metrics.txt")].contains("\nottla_partitions_led "));
        assert!(files[&format!("nodes/{node}/readyz.txt")].starts_with("ready"));
    }
    let topics = json_of(&files, "topics/described.json")?;
    let orders =
        topics["topics"].as_array().context("topics")?.iter().find(|t| t["name"] == "orders");
    let orders = orders.context("orders")?;
    assert_eq!(
        orders["options"]["retention.ms"],
        json!({ "value": "86400000", "source": "topic" })
    );
    assert_eq!(orders["partitions"][1]["isr"].as_array().map(Vec::len), Some(2));
    let groups = json_of(&files, "groups/described.json")?;
    let lags = groups["groups"][0]["partitions"].as_array().context("partitions")?;
    assert_eq!(lags.iter().filter_map(|row| row["lag"].as_u64()).sum::<u64>(), 3);
    // Nothing of what the records say.
    assert!(files.values().all(|text| !text.contains("of-a-customer")));

    let manifest = json_of(&files, "MANIFEST.json")?;
    assert_eq!(manifest["missing"], told["missing"]);
    let missing: Vec<_> = manifest["missing"].as_array().context("missing")?.iter().collect();
    assert!(missing.iter().any(|one| one["what"] == "node 3"), "{missing:?}");
    assert_eq!(manifest["files"].as_array().map(|listed| listed.len() + 1), Some(files.len()));
    assert_eq!(told["masked_values"], 3, "{told}");

    // Nobody is there at all: even that is told.
    for id in [1, 2] {
        cluster.node(id).kill()?;
    }
    let (told, files) = made(&cluster, dir.path(), "dark")?;
    assert_eq!(told["missing"][0]["what"], "the cluster", "{told}");
    assert_eq!(json_of(&files, "client/client.json")?["environment"]["OTTLA_TLS_PASSWORD"], "***");
    Ok(())
}
