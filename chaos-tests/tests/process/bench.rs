//! `ottla bench`: what it measures is there, and can be read by a program.

use anyhow::Context as _;
use ottla_chaos::process::binary;
use serde_json::Value;
use std::process::Command;

/// Few partitions and one kill: every figure is there, and every partition was seen
/// to accept writes after its creation and after both kinds of kill.
#[test]
fn bench_controller_measures_what_it_says() -> anyhow::Result<()> {
    let output = Command::new(binary()?)
        .args(["bench", "controller", "--partitions", "20", "--topics", "3", "--idle", "200ms"])
        .args(["--controller-kills", "1", "--format", "json"])
        .output()?;
    let report = String::from_utf8(crate::plain::succeeded(output)?)?;
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
    let report = String::from_utf8(crate::plain::succeeded(output)?)?;
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
    let report = String::from_utf8(crate::plain::succeeded(output)?)?;
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
    let report = String::from_utf8(crate::plain::succeeded(output)?)?;
    let report: Value = serde_json::from_str(&report)?;
    let crashes = &report["crashes"];
    assert_eq!(crashes["detected_ms"]["count"], 1, "{report}");
    assert_eq!(crashes["moved_read_again_after_detection_ms"]["count"], 2, "{report}");
    assert_eq!(crashes["unmoved_longest_gap_ms"]["count"], 8, "{report}");
    assert_eq!(crashes["calm_longest_gap_ms"]["count"], 10, "{report}");
    let commits = &report["commits"];
    assert_eq!(commits["failed"], 0, "{report}");
    assert_eq!(commits["since_due_ms"]["count"], 60, "{report}");
    Ok(())
}
