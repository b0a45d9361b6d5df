//! One directory: formatting, the lock, the marker, and partitions in it.

use super::*;

fn identity() -> DirectoryIdentity {
    let directory_id = DirectoryId::random();
    DirectoryIdentity { cluster_id: "c1".to_owned(), node_id: NodeId(2), directory_id }
}

fn formatted() -> (tempfile::TempDir, DirectoryIdentity) {
    let temp = tempfile::tempdir().expect("a directory");
    let identity = identity();
    DataDir::format(temp.path(), &identity).expect("formats");
    (temp, identity)
}

#[test]
fn formatted_once_and_locked() {
    let temp = tempfile::tempdir().expect("a directory");
    let path = temp.path().join("a/b");
    assert!(matches!(DataDir::open(&path), Err(DataDirError::NotFormatted { .. })));
    let first = identity();
    DataDir::format(&path, &first).expect("formats");
    let again = DataDir::format(&path, &identity()).expect_err("must not be taken over");
    assert!(again.to_string().contains("node 2 of cluster c1"), "{again}");
    let dir = DataDir::open(&path).expect("opens");
    assert_eq!(dir.identity(), &first);
    assert_eq!(DataDir::identity_at(&path).expect("reads"), Some(first));
    // flock is by open file, so this is as good as another process.
    assert!(matches!(DataDir::open(&path), Err(DataDirError::Locked { .. })));
    // What a child process holds between fork and exec.
    let copy = dir.lock.try_clone().expect("copies");
    drop(dir);
    DataDir::open(&path).expect("free again");
    drop(copy);
}

#[test]
fn garbage_is_named_and_not_overwritten() {
    let (temp, identity) = formatted();
    let meta = temp.path().join(META);
    let text = fs::read_to_string(&meta).expect("reads");
    for bad in ["", "{}", &text.replace("\"version\": 1", "\"version\": 2")] {
        fs::write(&meta, bad).expect("writes");
        assert!(matches!(DataDir::open(temp.path()), Err(DataDirError::Garbage { .. })));
        assert!(DataDir::format(temp.path(), &identity).is_err());
        assert_eq!(fs::read_to_string(&meta).expect("reads"), bad);
    }
}

#[test]
fn the_clean_shutdown_marker_is_taken_once() {
    let (temp, _) = formatted();
    let dir = DataDir::open(temp.path()).expect("opens");
    assert_eq!(dir.take_clean_shutdown().expect("reads"), None);
    dir.mark_clean_shutdown(BrokerEpoch(41)).expect("writes");
    assert_eq!(dir.take_clean_shutdown().expect("reads"), Some(BrokerEpoch(41)));
    assert_eq!(dir.take_clean_shutdown().expect("reads"), None);
    fs::write(temp.path().join(CLEAN_SHUTDOWN), "41").expect("writes");
    assert_eq!(dir.take_clean_shutdown().expect("garbage is none"), None);
    assert!(!temp.path().join(CLEAN_SHUTDOWN).exists());
}

#[test]
fn partitions_come_and_go() {
    let (temp, _) = formatted();
    let dir = DataDir::open(temp.path()).expect("opens");
    let topic = TopicId::random();
    let partitions = [0, 1, 12].map(|index| PartitionId { topic, index });
    for partition in partitions {
        fs::create_dir(dir.partition_dir(partition)).expect("creates");
    }
    for stray in ["lost+found", "x-1", &format!("{topic}-01"), &format!("{topic}-1.deleted")] {
        fs::create_dir(dir.partitions().join(stray)).expect("creates");
    }
    assert_eq!(dir.partition_dirs().expect("lists"), partitions);
    fs::write(dir.partition_dir(partitions[1]).join("f"), "x").expect("writes");
    dir.delete_partition(partitions[1]).expect("over the left-over");
    dir.delete_partition(partitions[1]).expect("is gone already");
    assert_eq!(dir.partition_dirs().expect("lists"), [partitions[0], partitions[2]]);
    // A deletion that a crash interrupted is finished by the next start.
    let doomed = dir.partitions().join(format!("{topic}-0.deleted"));
    fs::rename(dir.partition_dir(partitions[0]), &doomed).expect("renames");
    drop(dir);
    let dir = DataDir::open(temp.path()).expect("opens");
    assert!(!doomed.exists());
    assert!(dir.partitions().join("lost+found").exists());
    assert_eq!(dir.partition_dirs().expect("lists"), [partitions[2]]);
}
