//! What the figures look like.

use super::disks::Disks;
use super::encoded;
use super::groups::Groups;
use super::logs::Logs;
use super::replication::Replication;
use crate::lag::{Lag, Lags};
use ottla_commitlog::Shared;
use ottla_commitlog::data_dir::{DirectoryState, DirectoryStatus};
use ottla_commitlog::format::{BatchOptions, NewRecord, ValidBatch, encode_batch};
use ottla_commitlog::vfs::{SimVfs, Space};
use ottla_commitlog::{Log, LogConfig, OpenMode};
use ottla_proto::LeaderEpoch;
use ottla_replication::{DiskStatus, Levels, Room, SentBytes};
use prometheus_client::registry::Registry;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

#[test]
fn shows_what_the_node_did() {
    let shared = Shared::new(Arc::new(SimVfs::new()));
    let log = Log::open(&shared, Path::new("/log"), LogConfig::default(), OpenMode::Clean);
    let log = log.expect("opens").0;
    let records = [NewRecord::default(), NewRecord::default()];
    let batch = encode_batch(&records, &BatchOptions::default()).expect("encodes");
    let size = batch.len();
    let batch = ValidBatch::new(batch, 1 << 20).expect("valid");
    log.append_as_leader(vec![batch], LeaderEpoch(1), 0).expect("appends");
    log.sync().expect("syncs");
    log.read(0, 2, 1).expect("reads");
    let sent = || SentBytes { in_sync: 30, catch_up: 20, reassignment: 10 };
    let behind = Lag {
        group: "billing".into(),
        topic: "orders".to_owned(),
        partition: 3,
        records: 41,
        seconds: 1.5,
    };
    let (_lags, shown) = watch::channel(Arc::new(Lags { known: vec![behind], left_out: 2 }));
    let disks = || {
        let (path, partitions, state) = ("/d".into(), 1, DirectoryState::Online);
        let directory = DirectoryStatus { path, partitions, state };
        let space = Some(Space { free: 40, total: 1000 });
        let levels = Levels { alert: 150, writes: 50, copies: 25 };
        vec![DiskStatus { directory, space, room: Room::NoWrites, levels, log_bytes: 900 }]
    };
    let mut registry = Registry::with_prefix("ottla");
    registry.register_collector(Box::new(Disks(disks)));
    registry.register_collector(Box::new(Logs(shared)));
    registry.register_collector(Box::new(Replication(sent)));
    registry.register_collector(Box::new(Groups(shown)));
    let text = encoded(&[&registry]).expect("encodes");
    let labels = r#"group="billing",topic="orders",partition="3""#;
    for line in [
        "# TYPE ottla_log_sync_seconds histogram".to_owned(),
        "ottla_log_sync_seconds_count 1".to_owned(),
        "ottla_log_sync_wait_seconds_count 1".to_owned(),
        "ottla_log_sync_seconds_bucket{le=\"+Inf\"} 1".to_owned(),
        "ottla_log_sync_batch_appends_sum 1.0".to_owned(),
        "ottla_log_sync_batch_records_bucket{le=\"1.0\"} 0".to_owned(),
        "ottla_log_sync_batch_records_bucket{le=\"2.0\"} 1".to_owned(),
        format!("ottla_log_sync_batch_bytes_sum {size}.0"),
        "ottla_log_appends_total 1".to_owned(),
        "ottla_log_appended_records_total 2".to_owned(),
        format!("ottla_log_appended_bytes_total {size}"),
        "ottla_log_hot_tail_hits_total 1".to_owned(),
        "ottla_log_hot_tail_misses_total 0".to_owned(),
        "ottla_replication_sent_bytes_total{traffic=\"in_sync\"} 30".to_owned(),
        "ottla_replication_sent_bytes_total{traffic=\"catch_up\"} 20".to_owned(),
        "ottla_replication_sent_bytes_total{traffic=\"reassignment\"} 10".to_owned(),
        format!("ottla_group_lag_records{{{labels}}} 41"),
        format!("ottla_group_lag_seconds{{{labels}}} 1.5"),
        "ottla_group_lag_left_out_partitions 2".to_owned(),
        r#"ottla_disk_online{directory="/d"} 1"#.to_owned(),
        r#"ottla_disk_low{directory="/d"} 1"#.to_owned(),
        r#"ottla_disk_refuses_writes{directory="/d"} 1"#.to_owned(),
        r#"ottla_disk_refuses_copies{directory="/d"} 0"#.to_owned(),
        r#"ottla_disk_free_bytes{directory="/d"} 40"#.to_owned(),
        r#"ottla_disk_total_bytes{directory="/d"} 1000"#.to_owned(),
        r#"ottla_disk_refuse_free_bytes{directory="/d"} 50"#.to_owned(),
        r#"ottla_disk_logs_bytes{directory="/d"} 900"#.to_owned(),
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
    }
}
