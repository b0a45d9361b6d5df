//! Configurations of nodes: made, checked and refused, without a cluster.

use super::{ottla, stderr};
use serde_json::Value;
use std::path::Path;
use std::process::Output;
use tempfile::TempDir;

fn node(args: &[&str], config: &Path) -> Output {
    ottla().arg("node").args(args).arg("--config").arg(config).output().expect("started")
}

#[test]
fn a_configuration_is_checked_without_starting_anything() {
    let dir = TempDir::new().expect("a directory");
    let (config, data) = (dir.path().join("ottla.toml"), dir.path().join("data"));
    let reference = ottla().args(["node", "reference"]).output().expect("started");
    let text = String::from_utf8(reference.stdout).expect("UTF-8");
    let text = text.replace("/var/lib/ottla", data.to_str().expect("UTF-8"));
    std::fs::write(&config, &text).expect("written");

    let told = node(&["--check"], &config);
    assert!(told.status.success(), "{}", stderr(&told));
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.starts_with("good: node 1 of cluster my-cluster"), "{told}");
    assert!(told.contains("to be formatted first"), "{told}");
    assert!(!data.exists(), "nothing was made");

    assert!(node(&["format"], &config).status.success());
    let told = node(&["--check", "--format", "json"], &config);
    let told: Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert_eq!((&told["good"], &told["to_be_formatted"]), (&true.into(), &Value::Array(vec![])));

    // Another node's directory, a filter that is none, an option that there is not.
    let refused = |args: &[&str], named: &str| {
        let told = node(args, &config);
        assert!(!told.status.success() && stderr(&told).contains(named), "{}", stderr(&told));
    };
    refused(&["--check", "--node-id", "2"], "data");
    refused(&["--check", "--log-level", "a=b=c"], "log_level");
    std::fs::write(&config, format!("retention = 5\n{text}")).expect("written");
    refused(&["--check"], "retention");
}

#[test]
fn options_are_told_to_programs_too() {
    let told = ottla().args(["node", "reference", "--format", "json"]).output().expect("started");
    let told: Value = serde_json::from_slice(&told.stdout).expect("JSON");
    let options = told["options"].as_array().expect("a list");
    let lag = options.iter().find(|option| option["name"] == "replica_lag_max_ms");
    let lag = lag.expect("a known option");
    assert_eq!((&lag["unit"], &lag["default"]), (&"ms".into(), &"10000".into()));
    assert_eq!(lag["while_running"], true);
}
