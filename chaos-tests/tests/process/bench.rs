//! `ottla bench`: what it measures is there, and can be read by a program.

use crate::plain;
use anyhow::Context as _;
use ottla_chaos::process::{Cluster, binary};
use ottla_proto::v1;
use serde_json::Value;
use std::process::Command;

/// The report of a small run that must succeed.
fn report_of(args: &[&str]) -> anyhow::Result<Value> {
    let mut command = Command::new(binary()?);
    command.arg("bench").args(args).args(["--format", "json"]);
    let report = plain::succeeded(command.output()?)?;
    Ok(serde_json::from_slice(&report)?)
}

/// Percentiles that were measured, and do not contradict each other.
fn ordered(latencies: &Value) -> anyhow::Result<()> {
    let figures = ["p50", "p90", "p99", "p999", "max"].map(|name| latencies[name].as_f64());
    anyhow::ensure!(latencies["count"].as_u64() > Some(0), "nothing measured: {latencies}");
    anyhow::ensure!(figures.iter().all(Option::is_some) && figures.is_sorted(), "{latencies}");
    anyhow::ensure!(figures[4] > Some(0.0), "{latencies}");
    Ok(())
}

/// Every process of a run has used some processor time and memory.
fn used(report: &Value) {
    let (processor, memory) = (&report["processor"], &report["memory"]);
    let nodes = |of: &Value| of["nodes"].as_array().map(Vec::len);
    assert_eq!((nodes(processor), nodes(memory)), (Some(3), Some(3)), "{report}");
    assert!(processor["seconds_per_gb"].as_f64() > Some(0.0), "{report}");
    assert!(memory["nodes"][0]["peak_bytes"].as_u64() > Some(1 << 20), "{report}");
}

/// At a fixed rate what was due was sent and acknowledged, and is in the log; so is what
/// was written as fast as it went, by two producers without ids, and a page shows it.
#[test]
fn bench_produce_measures_what_it_says() -> anyhow::Result<()> {
    let times = ["--duration", "2s", "--warm-up", "500ms"];
    let rate = ["produce", "--rate", "400", "--record-size", "100", "--linger", "0ms"];
    let report = report_of(&[&rate[..], &times].concat())?;
    let records = &report["records"];
    let sent = records["sent"].as_u64().context("sent")?;
    assert_eq!(records["acknowledged"], sent, "{report}");
    assert_eq!(records["in_the_log"], sent, "{report}");
    assert_eq!(records["failed"], 0, "{report}");
    // Due over two and a half seconds.
    let not_sent = records["due_and_not_sent"].as_u64().context("not sent")?;
    assert!((1000..=1001).contains(&(sent + not_sent)), "{report}");
    ordered(&report["measured"]["latency_ms"])?;
    ordered(&report["measured"]["sent_late_ms"])?;
    assert_eq!(report["load"]["idempotent"], true, "{report}");
    used(&report);

    let page = tempfile::NamedTempFile::new()?;
    let path = page.path().to_str().context("a path")?;
    let unbounded = ["produce", "--producers", "2", "--no-idempotence", "--report", path];
    let in_memory = ["--config", "durability=memory"];
    let report = report_of(&[&unbounded[..], &in_memory, &times].concat())?;
    assert_eq!(report["load"]["idempotent"], false, "{report}");
    assert_eq!(report["records"]["acknowledged"], report["records"]["sent"], "{report}");
    assert_eq!(report["records"]["in_the_log"], report["records"]["sent"], "{report}");
    assert!(report["measured"]["bytes_per_second"].as_u64() > Some(100_000), "{report}");
    assert!(report["timeline"].as_array().is_some_and(|points| points.len() >= 2), "{report}");
    ordered(&report["measured"]["latency_ms"])?;
    let page = std::fs::read_to_string(path)?;
    assert!(page.contains("<polyline") && page.contains("records/s"), "{page}");
    Ok(())
}

/// Everything that was filled in is read and verified; then what is written is read as
/// it comes.
#[test]
fn bench_consume_measures_what_it_says() -> anyhow::Result<()> {
    let args = ["consume", "--megabytes", "5", "--partitions", "3", "--consumers", "2"];
    let times = ["--duration", "1s", "--warm-up", "500ms", "--rate", "300"];
    let report = report_of(&[&args[..], &times].concat())?;
    let catch_up = &report["catch_up"];
    assert_eq!(catch_up["records"], 5_000_000_u64.div_ceil(1024), "{report}");
    assert!(catch_up["bytes"].as_u64() >= Some(5_000_000), "{report}");
    assert!(catch_up["bytes_per_second"].as_u64() > Some(0), "{report}");
    for part in [catch_up, &report["live"]] {
        assert_eq!(part["integrity"]["intact"], true, "{report}");
        assert_eq!(part["integrity"]["foreign"], 0, "{report}");
    }
    let records = &report["live"]["records"];
    assert_eq!(records["read"], records["sent"], "{report}");
    Ok(())
}

/// Each record is read after it was due; none is lost.
#[test]
fn bench_end_to_end_measures_what_it_says() -> anyhow::Result<()> {
    let args = ["end-to-end", "--rate", "300", "--duration", "2s", "--warm-up", "500ms"];
    let report = report_of(&args)?;
    assert_eq!(report["records"]["read"], report["records"]["sent"], "{report}");
    assert_eq!(report["integrity"]["good"], report["records"]["sent"], "{report}");
    ordered(&report["measured"]["due_to_read_ms"])?;
    ordered(&report["measured"]["due_to_acknowledged_ms"])?;
    used(&report);
    Ok(())
}

/// A topic of a cluster that is there: what one run wrote into it another reads and
/// verifies, until a record is there twice, and another with one bit changed.
#[tokio::test]
async fn bench_consume_names_what_is_repeated_and_changed() -> anyhow::Result<()> {
    let cluster = Cluster::start_patient(1).await?;
    cluster.create_topic("t", 1, &[]).await?;
    let bootstrap = cluster.bootstrap().join(",");
    let there = ["--bootstrap", &bootstrap, "--topic", "t"];
    let produce = ["produce", "--chain", "--rate", "200", "--duration", "1s", "--warm-up", "0ms"];
    let written = report_of(&[&produce[..], &there].concat())?;
    let consume = [&["consume", "--mode", "catch-up"][..], &there].concat();
    let integrity = &report_of(&consume)?["catch_up"]["integrity"];
    assert_eq!(integrity["good"], written["records"]["sent"], "{written} {integrity}");

    let value = plain::fetch(&cluster, 1, "t", 0).await?.remove(0).value;
    let mut value = value.context("a value")?.to_vec();
    let record = |value: Vec<u8>| v1::Record { value: Some(value.into()), ..Default::default() };
    plain::produce(&cluster, 1, "t", plain::record(record(value.clone()))).await?;
    *value.last_mut().context("bytes")? ^= 1;
    plain::produce(&cluster, 1, "t", plain::record(record(value))).await?;

    let output = Command::new(binary()?).arg("bench").args(&consume).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{told}");
    assert!(told.contains("0 records lost, 1 repeated, 1 changed"), "{told}");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("1 repeated, 1 changed"), "{shown}");
    Ok(())
}

/// Bytes go to three files, with and without being synced.
#[test]
fn bench_floor_measures_what_it_says() -> anyhow::Result<()> {
    for durability in ["memory", "disk"] {
        let report = report_of(&["floor", "--megabytes", "20", "--durability", durability])?;
        assert_eq!(report["durability"], durability);
        assert_eq!(report["measured"]["bytes"], 20_000_000, "{report}");
        assert!(report["measured"]["bytes_per_second"].as_u64() > Some(0), "{report}");
        assert!(report["processor"]["seconds_per_gb"].as_f64() > Some(0.0), "{report}");
    }
    Ok(())
}

/// Few partitions and one kill: every figure is there, and every partition was seen
/// to accept writes after its creation and after both kinds of kill.
#[test]
fn bench_controller_measures_what_it_says() -> anyhow::Result<()> {
    let output = Command::new(binary()?)
        .args(["bench", "controller", "--partitions", "20", "--topics", "3", "--idle", "200ms"])
        .args(["--controller-kills", "1", "--format", "json"])
        .output()?;
    let report = String::from_utf8(plain::succeeded(output)?)?;
    let report: Value = serde_json::from_str(&report)?;
    let seconds = |figure: &Value| figure.as_f64().with_context(|| format!("{figure}"));
    assert_eq!(report["topics"], 3);
    let creation = &report["creation"];
    assert!(seconds(&creation["accepting_seconds"])? >= seconds(&creation["committed_seconds"])?);
    assert_eq!(creation["probe_writes_ms"]["count"], 7);
    let idle = report["idle"]["nodes"].as_array().context("nodes")?;
    assert_eq!(idle.len(), 3);
    assert!(idle.iter().all(|node| node["resident_bytes"].as_u64() > Some(1 << 20)));
    let failovers = report["failovers"].as_array().context("failovers")?;
    assert_eq!(failovers.len(), 2);
    for failover in failovers {
        // The one that was killed led some of 20 in any order of election.
        assert!(failover["partitions_led"].as_u64() > Some(0), "{failover}");
        assert!(seconds(&failover["accepting_seconds"])? > 0.0);
    }
    assert_eq!(report["controller_losses_ms"]["count"], 1);
    Ok(())
}

/// One kill and one planned restart: every partition of the killed node is measured,
/// nothing failed, and everything acknowledged was read back.
#[test]
fn bench_failover_measures_what_it_says() -> anyhow::Result<()> {
    let output = Command::new(binary()?)
        .args(["bench", "failover", "--kills", "1", "--restarts", "1", "--format", "json"])
        .output()?;
    let report = String::from_utf8(plain::succeeded(output)?)?;
    let report: Value = serde_json::from_str(&report)?;
    let kills = &report["kills_to_next_write_ms"];
    assert!(kills["count"].as_u64() >= Some(1) && kills["p50"].as_f64() > Some(0.0), "{report}");
    let planned = &report["planned"];
    assert_eq!(planned["restarts_longest_gap_ms"]["count"], 1, "{report}");
    assert_eq!(planned["moves_longest_gap_ms"]["count"], 1, "{report}");
    // Leaders finish what they were given before they go.
    assert_eq!((&planned["failed"], &planned["in_doubt"]), (&0.into(), &0.into()));
    let records = &report["records"];
    assert!(records["acknowledged"].as_u64() > Some(100), "{report}");
    assert_eq!((&records["failed"], &records["lost"]), (&0.into(), &0.into()), "{report}");
    Ok(())
}

/// Little is missed: the node is in sync again, the floor was measured beside it, and
/// the writers were answered before, meanwhile and beside the floor.
#[test]
fn bench_catch_up_measures_what_it_says() -> anyhow::Result<()> {
    let output = Command::new(binary()?)
        .args(["bench", "catch-up", "--megabytes", "20", "--partitions", "2"])
        .args(["--watch", "1s", "--format", "json"])
        .output()?;
    let report = String::from_utf8(plain::succeeded(output)?)?;
    let report: Value = serde_json::from_str(&report)?;
    assert_eq!(report["missed_bytes"], 20_000_000, "{report}");
    for figure in ["caught_up_bytes_per_second", "floor_bytes_per_second", "of_the_floor"] {
        assert!(report[figure].as_f64() > Some(0.0), "{figure}: {report}");
    }
    let live = &report["live"];
    assert_eq!(live["failed"], 0, "{report}");
    assert!(live["before_ms"]["count"].as_u64() > Some(100), "{report}");
    for window in ["before_ms", "during_ms"] {
        assert!(live[window]["p50"].as_f64() > Some(0.0), "{window}: {report}");
    }
    Ok(())
}

/// Five members, one of which dies: what it had is read again, what the others had went
/// on, and commits are counted.
#[test]
fn bench_groups_measures_what_it_says() -> anyhow::Result<()> {
    let output = Command::new(binary()?)
        .args(["bench", "groups", "--members", "5", "--partitions", "10", "--crashes", "1"])
        .args(["--groups", "20", "--duration", "3s", "--format", "json"])
        .output()?;
    let report = String::from_utf8(plain::succeeded(output)?)?;
    let report: Value = serde_json::from_str(&report)?;
    let crashes = &report["crashes"];
    assert_eq!(crashes["detected_ms"]["count"], 1, "{report}");
    assert_eq!(crashes["moved_read_again_after_detection_ms"]["count"], 2, "{report}");
    assert_eq!(crashes["unmoved_longest_gap_ms"]["count"], 8, "{report}");
    assert_eq!(crashes["calm_longest_gap_ms"]["count"], 10, "{report}");
    assert_eq!(crashes["unmoved_longest_wait_ms"]["count"], 8, "{report}");
    assert_eq!(crashes["calm_longest_wait_ms"]["count"], 10, "{report}");
    assert_eq!(crashes["unmoved_slowest"].as_array().map(Vec::len), Some(5), "{report}");
    assert_eq!(crashes["moved_without_need"], 0, "{report}");
    let commits = &report["commits"];
    assert_eq!(commits["failed"], 0, "{report}");
    assert_eq!(commits["since_due_ms"]["count"], 60, "{report}");
    let commits = &report["commits_of_members"];
    assert_eq!(commits["failed"], 0, "{report}");
    assert_eq!(commits["since_due_ms"]["count"], 60, "{report}");
    // Two a second.
    assert_eq!(commits["heartbeats_since_due_ms"]["count"], 120, "{report}");
    Ok(())
}
