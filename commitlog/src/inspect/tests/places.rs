//! Paths, and who uses what is there.

use super::*;
use crate::data_dir::{DataDir, DirectoryIdentity};
use crate::vfs::RealVfs;
use ottla_proto::{BrokerEpoch, DirectoryId, NodeId, PartitionId, TopicId};
use std::fs;

/// A formatted data directory with one log in it.
fn data_dir(path: &Path) -> PathBuf {
    let directory_id = DirectoryId::random();
    let identity =
        DirectoryIdentity { cluster_id: "c".to_owned(), node_id: NodeId(1), directory_id };
    DataDir::format(path, &identity).expect("formats");
    let dir = DataDir::open(path).expect("opens");
    let log = dir.partition_dir(PartitionId { topic: TopicId::random(), index: 0 });
    let shared = Shared::new(Arc::new(RealVfs));
    let opened = Log::open(&shared, &log, LogConfig::default(), OpenMode::Recover).expect("opens");
    append(&opened.0, 3, 1);
    log
}

#[test]
fn paths_are_what_they_hold() {
    let temp = tempfile::tempdir().expect("a directory");
    let root = temp.path().canonicalize().expect("is there");
    let first = root.join("node-1/data");
    let second = root.join("node-2/data");
    let log = data_dir(&first);
    data_dir(&second);
    let at = |path: &Path| Target::at(path).expect("is something");
    assert_eq!(at(&log), [Target::Log(log.clone())]);
    assert_eq!(at(&first), [Target::DataDir(first.clone())]);
    assert_eq!(at(&root), [Target::DataDir(first.clone()), Target::DataDir(second)]);
    let segment = log.join(format!("{:020}.log", 0));
    assert_eq!(at(&segment), [Target::File(segment.clone(), FileKind::Segment(0))]);
    assert_eq!(logs(&first).expect("lists"), [log]);
    for nothing in [root.join("node-3"), first.join("meta.properties"), first.join("metadata")] {
        Target::at(&nothing).expect_err("nothing to look into");
    }
}

#[test]
fn the_lock_and_the_marker_tell_who_uses_a_log() {
    let temp = tempfile::tempdir().expect("a directory");
    let root = temp.path().canonicalize().expect("is there");
    let log = data_dir(&root);
    let segment = log.join(format!("{:020}.log", 0));
    let owner = || (Owner::of_data_dir(&root), Owner::of_log(&log), Owner::of_log(&segment));
    let all = |owner| (owner, owner, owner);
    assert_eq!(owner(), all(Owner::Unknown));
    let dir = DataDir::open(&root).expect("free, although it was looked at");
    assert_eq!(owner(), all(Owner::Running));
    dir.mark_clean_shutdown(BrokerEpoch(7)).expect("writes");
    drop(dir);
    assert_eq!(owner(), all(Owner::Clean));
    // A log by itself, as somebody copied it.
    let copy = tempfile::tempdir().expect("a directory");
    assert_eq!(Owner::of_log(&copy.path().join("log")), Owner::Unknown);
}

#[test]
fn small_files_of_a_data_directory_are_checked() {
    let temp = tempfile::tempdir().expect("a directory");
    let root = temp.path();
    let log = data_dir(root);
    let problems = |owner| {
        let found = verify_data_dir(root, owner).expect("lists");
        let named = found.into_iter().map(|problem| {
            let name = problem.path.strip_prefix(root).expect("below").display().to_string();
            (name, problem.severity)
        });
        named.collect::<Vec<_>>()
    };
    assert_eq!(problems(Owner::Unknown), []);
    fs::create_dir(root.join("metadata")).expect("creates");
    for name in ["clean-shutdown", "replication-offset-checkpoint", "metadata/vote"] {
        fs::write(root.join(name), "garbage").expect("writes");
    }
    fs::create_dir(root.join("partitions/lost+found")).expect("creates");
    let doomed = log.with_extension("deleted");
    fs::create_dir(&doomed).expect("creates");
    let name = doomed.file_name().expect("has one").to_string_lossy();
    let mut expected = vec![
        ("clean-shutdown".to_owned(), Severity::Derived),
        ("replication-offset-checkpoint".to_owned(), Severity::Derived),
        ("metadata/vote".to_owned(), Severity::Damage),
        (format!("partitions/{name}"), Severity::Leftover),
        ("partitions/lost+found".to_owned(), Severity::Leftover),
    ];
    assert_eq!(problems(Owner::Unknown), expected);
    expected.remove(3);
    assert_eq!(problems(Owner::Running), expected);
    fs::write(root.join("meta.properties"), "{}").expect("writes");
    assert_eq!(problems(Owner::Unknown)[0], ("meta.properties".to_owned(), Severity::Damage));
}
