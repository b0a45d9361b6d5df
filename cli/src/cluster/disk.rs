//! `ottla cluster disk`: the data directories of all nodes, and the room on their disks.

use super::directory_state;
use crate::connection::Connection;
use crate::output::{self, Format, table};
use ottla_client::{Probe, v1};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Show the data directories of every node: size, free room, what logs take, and from
/// where on writes are refused. Exits with 1 unless every node answers, every directory
/// is in use, and there is enough room on every disk.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla cluster disk
  ottla cluster disk --format json
  ottla cluster config --set disk_refuse_free_bytes=5368709120")]
pub(super) struct Disk {
    #[command(flatten)]
    pub(super) connection: Connection,
}

pub(super) async fn run(args: &Disk) -> anyhow::Result<ExitCode> {
    let admin = args.connection.client().await?.admin();
    // As any node sees it: disks are looked at when there is no majority, too.
    let nodes = admin.probe(admin.local_cluster_info().await?.nodes).await;
    let is_well = nodes.iter().all(is_well);
    match args.connection.format {
        Format::Text => output::line(&text(&nodes))?,
        Format::Json => {
            let nodes: Vec<Value> = nodes.iter().map(node_json).collect();
            output::json(&json!({ "enough_room": is_well, "nodes": nodes }))?;
        }
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn is_well(probe: &Probe) -> bool {
    let Ok(info) = &probe.answer else { return false };
    info.data_directories.iter().all(|directory| {
        let has_room = matches!(
            directory.room(),
            // A node of an older release does not say.
            v1::DiskRoom::Enough | v1::DiskRoom::Unspecified
        );
        has_room && directory.state() == v1::DataDirectoryState::Online
    })
}

/// What room and state come to, for people and programs.
fn state(directory: &v1::DataDirectory) -> &'static str {
    if directory.state() == v1::DataDirectoryState::Offline {
        return directory_state(directory);
    }
    match directory.room() {
        v1::DiskRoom::NoCopies => "refuses-copies",
        v1::DiskRoom::NoWrites => "refuses-writes",
        v1::DiskRoom::Low => "low",
        v1::DiskRoom::Enough | v1::DiskRoom::Unspecified => directory_state(directory),
    }
}

fn text(nodes: &[Probe]) -> String {
    let heading = ["NODE", "DIRECTORY", "STATE", "SIZE", "FREE", "LOGS", "ALERT<", "REFUSE<"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for Probe { node, answer } in nodes {
        let id = node.node_id.to_string();
        let info = match answer {
            Ok(info) => info,
            Err(_) => {
                let blank = ["-", "unreachable", "-", "-", "-", "-", "-"];
                rows.push(std::iter::once(id).chain(blank.map(str::to_owned)).collect());
                continue;
            }
        };
        rows.extend(info.data_directories.iter().map(|directory| {
            let level = |bytes| if bytes == 0 { "never".to_owned() } else { size(Some(bytes)) };
            vec![
                id.clone(),
                directory.path.clone(),
                state(directory).to_owned(),
                size(directory.total_bytes),
                size(directory.free_bytes),
                size(directory.log_bytes),
                level(directory.alert_free_bytes),
                level(directory.refuse_free_bytes),
            ]
        }));
    }
    table(&rows)
}

fn node_json(Probe { node, answer }: &Probe) -> Value {
    let directories = answer.as_ref().ok().map(|info| {
        let directories = info.data_directories.iter().map(|directory| {
            json!({
                "path": directory.path,
                "state": state(directory),
                "reason": directory.reason,
                "partitions": directory.partitions,
                "total_bytes": directory.total_bytes,
                "free_bytes": directory.free_bytes,
                "log_bytes": directory.log_bytes,
                "alert_free_bytes": directory.alert_free_bytes,
                "refuse_free_bytes": directory.refuse_free_bytes,
                "refuse_copies_free_bytes": directory.refuse_copies_free_bytes,
            })
        });
        directories.collect::<Vec<Value>>()
    });
    json!({
        "node": node.node_id,
        "reachable": answer.is_ok(),
        "error": answer.as_ref().err().map(ToString::to_string),
        "data_directories": directories,
    })
}

/// Bytes for people, such as `1.5 GiB`; `-` where they are not known.
fn size(bytes: Option<u64>) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let Some(bytes) = bytes else { return "-".to_owned() };
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut scaled = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be rounded up to the next unit is told in it.
    while scaled >= 1023.95 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_client::{ClientError, HostPort};

    fn probe(node_id: u64, directory: Option<v1::DataDirectory>) -> Probe {
        let node = v1::ClusterNode { node_id, ..v1::ClusterNode::default() };
        let endpoint = HostPort::new("localhost", 7401);
        let answer = match directory {
            Some(directory) => {
                let data_directories = vec![directory];
                Ok(v1::GetClusterInfoResponse { data_directories, ..Default::default() })
            }
            None => Err(ClientError::Connect { endpoint, message: "refused".to_owned() }),
        };
        Probe { node, answer }
    }

    fn directory(room: v1::DiskRoom) -> v1::DataDirectory {
        v1::DataDirectory {
            path: "/d".to_owned(),
            state: v1::DataDirectoryState::Online.into(),
            room: room.into(),
            total_bytes: Some(1 << 40),
            free_bytes: Some(3 << 29),
            log_bytes: Some(1000),
            alert_free_bytes: 20 << 30,
            ..v1::DataDirectory::default()
        }
    }

    #[test]
    fn a_line_for_each_directory_and_each_node_that_is_silent() {
        let nodes = [probe(1, Some(directory(v1::DiskRoom::Low))), probe(2, None)];
        assert_eq!(
            text(&nodes),
            "NODE  DIRECTORY  STATE        SIZE     FREE     LOGS    ALERT<    REFUSE<\n\
             1     /d         low          1.0 TiB  1.5 GiB  1000 B  20.0 GiB  never\n\
             2     -          unreachable  -        -        -       -         -"
        );
        let json = node_json(&nodes[0]);
        assert_eq!(json["data_directories"][0]["state"], "low");
        assert_eq!(json["data_directories"][0]["free_bytes"], 3_u64 << 29);
        assert_eq!(node_json(&nodes[1])["reachable"], false);
    }

    #[test]
    fn only_who_answers_and_has_room_is_well() {
        assert!(is_well(&probe(1, Some(directory(v1::DiskRoom::Enough)))));
        assert!(is_well(&probe(1, Some(directory(v1::DiskRoom::Unspecified)))));
        assert!(!is_well(&probe(1, Some(directory(v1::DiskRoom::Low)))));
        assert!(!is_well(&probe(1, Some(directory(v1::DiskRoom::NoCopies)))));
        assert!(!is_well(&probe(1, None)));
        let state = v1::DataDirectoryState::Offline.into();
        let offline = v1::DataDirectory { state, ..directory(v1::DiskRoom::Enough) };
        assert!(!is_well(&probe(1, Some(offline))));
    }

    #[test]
    fn sizes_are_short() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (u64::MAX, "16384.0 PiB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(size(Some(bytes)), expected);
        }
        assert_eq!(size(None), "-");
    }
}
