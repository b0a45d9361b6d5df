//! Several directories: which are refused, which are away, and where partitions lie.

use super::assignments::{Assignments, FILE};
use super::*;
use std::collections::BTreeSet;

struct Disks {
    temp: tempfile::TempDir,
    paths: Vec<PathBuf>,
}

fn owner(node: u64) -> Owner {
    Owner { cluster_id: "c1".to_owned(), node_id: NodeId(node) }
}

impl Disks {
    fn formatted(count: usize) -> Self {
        let temp = tempfile::tempdir().expect("a directory");
        let paths: Vec<PathBuf> = (0..count).map(|n| temp.path().join(format!("d{n}"))).collect();
        assert_eq!(DataDirs::format(&paths, &owner(1)).expect("formats"), paths);
        Self { temp, paths }
    }

    fn open(&self) -> DataDirs {
        DataDirs::open(&self.paths, &owner(1)).expect("opens")
    }

    /// As a disk that is not mounted.
    fn take_away(&self, index: usize) {
        fs::rename(&self.paths[index], self.aside(index)).expect("renames");
        fs::create_dir(&self.paths[index]).expect("a mount point");
    }

    fn bring_back(&self, index: usize) {
        fs::remove_dir(&self.paths[index]).expect("nothing was put into the mount point");
        fs::rename(self.aside(index), &self.paths[index]).expect("renames");
    }

    fn aside(&self, index: usize) -> PathBuf {
        self.temp.path().join(format!("aside{index}"))
    }
}

fn partitions(count: u32) -> Vec<PartitionId> {
    let topic = TopicId::random();
    (0..count).map(|index| PartitionId { topic, index }).collect()
}

fn new(partition: PartitionId) -> Wanted {
    Wanted { partition, may_be_old: false, sole_copy: false }
}

fn old(partition: PartitionId) -> Wanted {
    Wanted { may_be_old: true, ..new(partition) }
}

fn locate(dirs: &DataDirs, wanted: Wanted) -> Result<usize, String> {
    dirs.locate(&[wanted]).remove(0).map(|place| place.directory)
}

/// Each in a directory; their directories are made, as opening a log does.
fn create(dirs: &DataDirs, ids: &[PartitionId]) -> Vec<usize> {
    let wanted: Vec<Wanted> = ids.iter().copied().map(new).collect();
    let places = dirs.locate(&wanted).into_iter().map(|place| place.expect("a place"));
    places
        .map(|place| {
            fs::create_dir(&place.path).expect("creates");
            place.directory
        })
        .collect()
}

fn is_offline(dirs: &DataDirs, index: usize) -> bool {
    matches!(dirs.statuses()[index].state, DirectoryState::Offline { .. })
}

#[test]
fn new_partitions_go_where_the_fewest_are_and_stay() {
    let disks = Disks::formatted(3);
    let ids = partitions(7);
    let dirs = disks.open();
    assert_eq!(create(&dirs, &ids[..4]), [0, 1, 2, 0]);
    dirs.delete_partition(ids[1]).expect("deletes");
    dirs.delete_partition(ids[1]).expect("is gone already");
    assert_eq!(create(&dirs, &ids[4..6]), [1, 1]);
    // Placed, and then a crash before its log was created.
    assert_eq!(locate(&dirs, new(ids[6])), Ok(2));
    drop(dirs);
    let dirs = disks.open();
    let places: Vec<usize> =
        [0, 2, 3, 4, 5, 6].map(|n| locate(&dirs, old(ids[n])).expect("a place")).into();
    assert_eq!(places, [0, 2, 0, 1, 1, 2]);
    assert_eq!(dirs.statuses().iter().map(|s| s.partitions).collect::<Vec<_>>(), [2, 2, 2]);
    let here: BTreeSet<PartitionId> = dirs.partitions().into_iter().collect();
    assert_eq!(here, ids.iter().copied().filter(|id| *id != ids[1]).collect());
}

/// With a single directory nothing is written: there is nothing to remember.
#[test]
fn one_directory_needs_no_record() {
    let disks = Disks::formatted(1);
    let dirs = disks.open();
    create(&dirs, &partitions(3));
    dirs.mark_clean_shutdown(BrokerEpoch(1)).expect("writes");
    assert!(!disks.paths[0].join(FILE).exists());
}

/// Whatever is wrong with a disk but the first: the node starts, what lies there is
/// offline by name, nothing of it is created anew, and it is back with the disk.
#[test]
fn a_directory_that_is_away_takes_only_its_own_partitions_offline() {
    type Harm = fn(&Path);
    let harms: [(Harm, &str); 4] = [
        (|path| fs::create_dir(path).expect("a mount point"), "not formatted"),
        (|_| {}, "not formatted"),
        (|path| fs::write(path, "x").expect("a file"), "meta.properties"),
        (
            |path| {
                fs::create_dir(path).expect("creates");
                fs::write(path.join(META), "{").expect("writes");
            },
            "garbage",
        ),
    ];
    for (harm, expected) in harms {
        let disks = Disks::formatted(2);
        let ids = partitions(3);
        assert_eq!(create(&disks.open(), &ids[..2]), [0, 1]);
        fs::rename(&disks.paths[1], disks.aside(1)).expect("renames");
        harm(&disks.paths[1]);
        let dirs = disks.open();
        assert!(is_offline(&dirs, 1));
        assert_eq!(locate(&dirs, old(ids[0])), Ok(0));
        let reason = locate(&dirs, old(ids[1])).expect_err("is away");
        assert!(reason.contains(expected) && reason.contains("d1"), "{reason}");
        // The record is whole: this one was never here.
        assert_eq!(locate(&dirs, old(ids[2])), Ok(0));
        assert_eq!(dirs.partitions(), [ids[0], ids[2]]);
        drop(dirs);
        let _ = fs::remove_file(&disks.paths[1]);
        let _ = fs::remove_dir_all(&disks.paths[1]);
        fs::rename(disks.aside(1), &disks.paths[1]).expect("renames");
        assert_eq!(locate(&disks.open(), old(ids[1])), Ok(1));
    }
}

#[test]
fn the_first_directory_must_be_there() {
    let disks = Disks::formatted(2);
    disks.take_away(0);
    let error = DataDirs::open(&disks.paths, &owner(1)).expect_err("the first is away");
    assert!(matches!(error, DataDirError::NotFormatted { .. }), "{error}");
}

/// Mistakes of the operator are no trouble of a disk.
#[test]
fn foreign_copied_doubled_and_used_directories_are_refused() {
    let disks = Disks::formatted(2);
    let error = DataDirs::open(&disks.paths, &owner(2)).expect_err("another node's");
    assert!(matches!(error, DataDirError::Foreign { .. }), "{error}");
    let foreign = disks.temp.path().join("foreign");
    DataDirs::format(std::slice::from_ref(&foreign), &owner(2)).expect("formats");
    let with = |other: &Path| vec![disks.paths[0].clone(), other.to_owned()];
    let refused = |other: &Path| DataDirs::open(&with(other), &owner(1)).expect_err("refused");
    assert!(matches!(refused(&foreign), DataDirError::Foreign { .. }));
    let error = DataDirs::format(&with(&foreign), &owner(1)).expect_err("another node's");
    assert!(matches!(error, DataDirError::Foreign { .. }), "{error}");

    let link = disks.temp.path().join("link");
    std::os::unix::fs::symlink(&disks.paths[0], &link).expect("links");
    assert!(matches!(refused(&link), DataDirError::Same { .. }));
    let copy = disks.temp.path().join("copy");
    fs::create_dir(&copy).expect("creates");
    fs::copy(disks.paths[0].join(META), copy.join(META)).expect("copies");
    assert!(matches!(refused(&copy), DataDirError::Same { .. }));

    let held = DataDir::open(&disks.paths[1]).expect("opens");
    assert!(matches!(refused(&disks.paths[1]), DataDirError::Locked { .. }));
    drop(held);
    disks.open();
}

/// A blank directory is added by formatting again, and by nothing else.
#[test]
fn a_directory_is_added_by_formatting_again() {
    let mut disks = Disks::formatted(1);
    let ids = partitions(3);
    create(&disks.open(), &ids[..2]);
    disks.paths.push(disks.temp.path().join("added"));
    assert!(is_offline(&disks.open(), 1));
    let formatted = DataDirs::format(&disks.paths, &owner(1)).expect("formats");
    assert_eq!(formatted, disks.paths[1..]);
    assert!(DataDirs::format(&disks.paths, &owner(1)).expect("formats").is_empty());
    let dirs = disks.open();
    assert_eq!(create(&dirs, &ids[2..]), [1]);
    assert_eq!(locate(&dirs, old(ids[0])), Ok(0));
}

/// The record is lost and a directory is away: what is not found may lie there. It is
/// not created anew, not after another start either; what is new for certain is.
#[test]
fn a_lost_record_makes_cautious_until_every_directory_was_seen() {
    for damage in [None, Some("complete\nnonsense")] {
        let disks = Disks::formatted(2);
        let ids = partitions(4);
        assert_eq!(create(&disks.open(), &ids[..2]), [0, 1]);
        let file = disks.paths[0].join(FILE);
        match damage {
            None => fs::remove_file(&file).expect("removes"),
            Some(text) => fs::write(&file, text).expect("writes"),
        }
        disks.take_away(1);
        for _ in 0..2 {
            let dirs = disks.open();
            assert_eq!(locate(&dirs, old(ids[0])), Ok(0));
            let reason = locate(&dirs, old(ids[1])).expect_err("may lie there");
            assert!(reason.contains("may lie in"), "{reason}");
            locate(&dirs, old(ids[2])).expect_err("may lie there");
            assert_eq!(locate(&dirs, new(ids[3])), Ok(0));
        }
        disks.bring_back(1);
        assert_eq!(locate(&disks.open(), old(ids[1])), Ok(1));
        disks.take_away(1);
        let dirs = disks.open();
        locate(&dirs, old(ids[1])).expect_err("lies there");
        assert_eq!(locate(&dirs, old(ids[2])), Ok(0));
    }
}

/// A directory that is gone for good: others have what it held, unless nobody has.
#[test]
fn a_replaced_directory_is_filled_again_but_not_with_the_only_copy() {
    let disks = Disks::formatted(2);
    let ids = partitions(4);
    assert_eq!(create(&disks.open(), &ids), [0, 1, 0, 1]);
    disks.take_away(1);
    DataDirs::format(&disks.paths, &owner(1)).expect("formats");
    let dirs = disks.open();
    let sole = Wanted { sole_copy: true, ..old(ids[1]) };
    let reason = locate(&dirs, sole).expect_err("nobody else has it");
    assert!(reason.contains("only in-sync copy"), "{reason}");
    assert_eq!(locate(&dirs, old(ids[3])), Ok(1));
    drop(dirs);
    // As well if it is simply not configured any more.
    let dirs = DataDirs::open(&disks.paths[..1], &owner(1)).expect("opens");
    locate(&dirs, sole).expect_err("nobody else has it");
    assert_eq!(locate(&dirs, old(ids[1])), Ok(0));
}

#[test]
fn a_partition_in_two_directories_is_offline_and_named() {
    let disks = Disks::formatted(2);
    let ids = partitions(2);
    assert_eq!(create(&disks.open(), &ids), [0, 1]);
    fs::create_dir(disks.paths[1].join(PARTITIONS).join(ids[0].to_string())).expect("creates");
    let dirs = disks.open();
    let reason = locate(&dirs, old(ids[0])).expect_err("which is it?");
    assert!(reason.contains("d0") && reason.contains("d1"), "{reason}");
    assert_eq!(locate(&dirs, old(ids[1])), Ok(1));
    dirs.delete_partition(ids[0]).expect("deletes both");
    assert_eq!(dirs.partitions(), [ids[1]]);
    assert_eq!(locate(&disks_reopened(dirs, &disks), new(ids[0])), Ok(0));
}

fn disks_reopened(dirs: DataDirs, disks: &Disks) -> DataDirs {
    drop(dirs);
    disks.open()
}

/// A stop was clean only if every directory says so, of the same run, and is there.
#[test]
fn a_clean_shutdown_takes_all_directories() {
    let disks = Disks::formatted(2);
    let dirs = disks.open();
    assert_eq!(dirs.clean_shutdown(), None);
    dirs.mark_clean_shutdown(BrokerEpoch(7)).expect("writes");
    let dirs = disks_reopened(dirs, &disks);
    assert_eq!(dirs.clean_shutdown(), Some(BrokerEpoch(7)));
    let dirs = disks_reopened(dirs, &disks);
    assert_eq!(dirs.clean_shutdown(), None, "the marker is taken once");
    // One directory alone, and two that disagree.
    dirs.first().mark_clean_shutdown(BrokerEpoch(8)).expect("writes");
    let dirs = disks_reopened(dirs, &disks);
    assert_eq!(dirs.clean_shutdown(), None);
    dirs.mark_clean_shutdown(BrokerEpoch(9)).expect("writes");
    dirs.first().mark_clean_shutdown(BrokerEpoch(10)).expect("writes");
    let dirs = disks_reopened(dirs, &disks);
    assert_eq!(dirs.clean_shutdown(), None);
    // One that was clean, but is away; and a run without it.
    dirs.mark_clean_shutdown(BrokerEpoch(11)).expect("writes");
    drop(dirs);
    disks.take_away(1);
    let dirs = disks.open();
    assert_eq!(dirs.clean_shutdown(), None);
    dirs.mark_clean_shutdown(BrokerEpoch(12)).expect("says nothing");
    drop(dirs);
    disks.bring_back(1);
    assert_eq!(disks.open().clean_shutdown(), None);
}

#[test]
fn new_partitions_avoid_a_suspect_directory_while_there_is_another() {
    let disks = Disks::formatted(2);
    let dirs = disks.open();
    dirs.suspect(0, "EIO");
    dirs.suspect(0, "later");
    let state = DirectoryState::Suspect { reason: "EIO".to_owned() };
    assert_eq!(dirs.statuses()[0].state, state);
    let ids = partitions(5);
    assert_eq!(create(&dirs, &ids[..3]), [1, 1, 1]);
    dirs.suspect(1, "EIO");
    assert_eq!(create(&dirs, &ids[3..]), [0, 0]);
}

/// What cannot be recorded is not placed: the next run could place it elsewhere.
#[test]
fn a_place_that_cannot_be_recorded_is_none() {
    let disks = Disks::formatted(2);
    let dirs = disks.open();
    let ids = partitions(2);
    // A directory of that name lets no temporary file be made.
    let obstacle = disks.paths[0].join(format!("{FILE}.tmp"));
    fs::create_dir(&obstacle).expect("creates");
    for _ in 0..2 {
        let reason = locate(&dirs, new(ids[0])).expect_err("not recorded");
        assert!(reason.contains("could not be recorded"), "{reason}");
    }
    assert!(dirs.partitions().is_empty());
    fs::remove_dir(&obstacle).expect("removes");
    assert_eq!(create(&dirs, &ids), [0, 1]);
}

#[test]
fn the_record_is_lines_and_nothing_else_is_read() {
    let id: PartitionId = PartitionId {
        topic: "6f9619ff-8b86-d011-b42d-00cf4fc964ff".parse().expect("a uuid"),
        index: 3,
    };
    let directory: DirectoryId = "11111111-2222-3333-4444-555555555555".parse().expect("a uuid");
    let assignments = Assignments { complete: true, directories: [(id, directory)].into() };
    let text = "complete\n6f9619ff-8b86-d011-b42d-00cf4fc964ff-3 \
                11111111-2222-3333-4444-555555555555\n";
    assert_eq!(assignments.encode(), text);
    assert_eq!(Assignments::decode(text.as_bytes()), Some(assignments));
    let rebuilt = Assignments { complete: false, directories: [].into() };
    assert_eq!(Assignments::decode(rebuilt.encode().as_bytes()), Some(rebuilt));
    for bad in ["", "perhaps\n", "complete\nx", "complete\nx y\n", "\u{fffd}"] {
        assert_eq!(Assignments::decode(bad.as_bytes()), None, "{bad:?}");
    }
}
