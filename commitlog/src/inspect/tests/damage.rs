//! Each kind of damage, and what is said of it.

use super::*;
use Severity::{Damage, Derived, Leftover, Torn};

/// What is done to a log of which these are the segments.
type Harm = fn(&SimVfs, &[u64]);

fn flip(vfs: &SimVfs, path: &Path, position: u64) {
    vfs.corrupt(path, position, 1).expect("within the file");
}

fn write(vfs: &SimVfs, path: &Path, position: u64, bytes: &[u8]) {
    let file = vfs.open(path).or_else(|_| vfs.create(path)).expect("simulated");
    file.write_all_at(position, &[bytes]).expect("simulated");
}

fn index(base: u64) -> PathBuf {
    segment(base).with_extension("index")
}

fn time_index(base: u64) -> PathBuf {
    segment(base).with_extension("timeindex")
}

/// Bytes of each batch in these logs.
const BATCH: u64 = 89;

/// The file of the first problem.
type Place = fn(&[u64]) -> PathBuf;

/// What is done; and the file, byte, severity, and part of the reason of the
/// first problem that is found.
type Row = (&'static str, Harm, Place, u64, Severity, &'static str);

const TABLE: [Row; 29] = [
    (
        "a record's byte in an older segment",
        |vfs, bases| flip(vfs, &segment(bases[1]), BATCH + 70),
        |bases| segment(bases[1]),
        BATCH,
        Damage,
        "CRC-32C",
    ),
    (
        "a record's byte in the last segment, with good batches behind it",
        |vfs, bases| flip(vfs, &segment(bases[bases.len() - 1]), 70),
        |bases| segment(bases[bases.len() - 1]),
        0,
        Damage,
        "CRC-32C",
    ),
    (
        "a header's magic",
        |vfs, bases| flip(vfs, &segment(bases[1]), BATCH + 16),
        |bases| segment(bases[1]),
        BATCH,
        Damage,
        "magic is 3",
    ),
    (
        "a header's length",
        |vfs, bases| flip(vfs, &segment(bases[1]), BATCH + 8),
        |bases| segment(bases[1]),
        BATCH,
        Damage,
        "limit",
    ),
    (
        "a base offset, which no CRC covers",
        |vfs, bases| flip(vfs, &segment(bases[1]), BATCH + 6),
        |bases| segment(bases[1]),
        BATCH,
        Damage,
        "follows",
    ),
    (
        "a leader epoch, which no CRC covers",
        |vfs, bases| flip(vfs, &segment(bases[1]), BATCH + 13),
        |bases| segment(bases[1]),
        2 * BATCH,
        Damage,
        "leader epoch 1 goes back",
    ),
    (
        "half a batch at the end",
        |vfs, bases| {
            let path = segment(bases[bases.len() - 1]);
            let len = len(vfs, &path);
            vfs.open(&path).expect("opens").set_len(len - 5).expect("cuts");
        },
        |bases| segment(bases[bases.len() - 1]),
        3 * BATCH,
        Torn,
        "truncated",
    ),
    (
        "an older segment that ends early",
        |vfs, bases| {
            let path = segment(bases[1]);
            let len = len(vfs, &path);
            vfs.open(&path).expect("opens").set_len(len - 5).expect("cuts");
        },
        |bases| segment(bases[1]),
        3 * BATCH,
        Damage,
        "truncated",
    ),
    (
        "an older segment without its last batch",
        |vfs, bases| vfs.open(&segment(bases[1])).expect("opens").set_len(3 * BATCH).expect("cuts"),
        |bases| index(bases[1]),
        16,
        Derived,
        "behind the last batch",
    ),
    (
        "a segment that is missing",
        |vfs, bases| vfs.remove_file(&segment(bases[1])).expect("removes"),
        |bases| index(bases[1]),
        0,
        Leftover,
        "no such segment",
    ),
    (
        "an index entry's position",
        |vfs, bases| flip(vfs, &index(bases[1]), 8 + 7),
        |bases| index(bases[1]),
        8,
        Derived,
        "where no batch starts",
    ),
    (
        "an index entry's offset",
        |vfs, bases| flip(vfs, &index(bases[1]), 3),
        |bases| index(bases[1]),
        0,
        Derived,
        "the batch ends at",
    ),
    (
        "a time index entry's timestamp",
        |vfs, bases| flip(vfs, &time_index(bases[1]), 12 + 7),
        |bases| time_index(bases[1]),
        12,
        Derived,
        "the batch's timestamp is",
    ),
    (
        "a time index entry's offset",
        |vfs, bases| flip(vfs, &time_index(bases[1]), 11),
        |bases| time_index(bases[1]),
        0,
        Derived,
        "no batch ends",
    ),
    (
        "a time index without its last entry",
        |vfs, bases| {
            let path = time_index(bases[1]);
            let len = len(vfs, &path);
            vfs.open(&path).expect("opens").set_len(len - 12).expect("cuts");
        },
        |bases| time_index(bases[1]),
        24,
        Derived,
        "the largest is",
    ),
    (
        "a time index entry twice",
        |vfs, bases| {
            let path = time_index(bases[1]);
            let mut last = Vec::new();
            vfs.open(&path).expect("opens").read_at(24, 12, &mut last).expect("reads");
            write(vfs, &path, 36, &last);
        },
        |bases| time_index(bases[1]),
        36,
        Derived,
        "not after",
    ),
    (
        "an index that does not end with an entry",
        |vfs, bases| write(vfs, &index(bases[1]), 24, b"???"),
        |bases| index(bases[1]),
        0,
        Derived,
        "3 bytes behind",
    ),
    (
        "no index of an older segment",
        |vfs, bases| vfs.remove_file(&index(bases[1])).expect("removes"),
        |bases| index(bases[1]),
        0,
        Derived,
        "missing",
    ),
    (
        "no leader epochs",
        |vfs, _| vfs.remove_file(&file("leader-epoch-checkpoint")).expect("removes"),
        |_| file("leader-epoch-checkpoint"),
        0,
        Derived,
        "missing",
    ),
    (
        "garbage for leader epochs",
        |vfs, _| flip(vfs, &file("leader-epoch-checkpoint"), 1),
        |_| file("leader-epoch-checkpoint"),
        0,
        Derived,
        "garbage",
    ),
    (
        "leader epochs that are not those of the batches",
        |vfs, _| write(vfs, &file("leader-epoch-checkpoint"), 0, b"0\n2\n1 0\n2 22"),
        |_| file("leader-epoch-checkpoint"),
        0,
        Derived,
        "does not agree",
    ),
    (
        "garbage for the log start",
        |vfs, _| write(vfs, &file("log-start-offset-checkpoint"), 0, b"17"),
        |_| file("log-start-offset-checkpoint"),
        0,
        Derived,
        "too short",
    ),
    (
        "a log start beyond the end",
        |vfs, _| {
            let path = file("log-start-offset-checkpoint");
            crate::checkpoint::write_atomically(vfs, &path, b"1000").expect("writes");
        },
        |bases| segment(bases[0]),
        0,
        Leftover,
        "below the log start",
    ),
    (
        "an older segment below the log start",
        |vfs, bases| {
            let path = file("log-start-offset-checkpoint");
            let start = bases[1].to_string();
            crate::checkpoint::write_atomically(vfs, &path, start.as_bytes()).expect("writes");
        },
        |bases| segment(bases[0]),
        0,
        Leftover,
        "below the log start",
    ),
    (
        "garbage for what is compacted",
        |vfs, _| write(vfs, &file("cleaner-offset-checkpoint"), 0, b"12345678910"),
        |_| file("cleaner-offset-checkpoint"),
        0,
        Derived,
        "unknown ending",
    ),
    (
        "a temporary file",
        |vfs, _| write(vfs, &file("leader-epoch-checkpoint.tmp"), 0, b"0"),
        |_| file("leader-epoch-checkpoint.tmp"),
        0,
        Leftover,
        "interrupted",
    ),
    (
        "a compaction that did not end",
        |vfs, _| write(vfs, &file("00000000000000000000.log.cleaned"), 0, b"x"),
        |_| file("00000000000000000000.log.cleaned"),
        0,
        Leftover,
        "interrupted",
    ),
    (
        "somebody's notes",
        |vfs, _| write(vfs, &file("notes"), 0, b"x"),
        |_| file("notes"),
        0,
        Leftover,
        "not a file of a log",
    ),
    (
        "a name that is almost a segment's",
        |vfs, _| write(vfs, &file("42.log"), 0, b"x"),
        |_| file("42.log"),
        0,
        Leftover,
        "not a file of a log",
    ),
];

#[test]
fn every_kind_of_damage_is_named_and_placed() {
    for (what, harm, path, position, severity, reason) in TABLE {
        let vfs = written();
        let bases = bases(&vfs);
        harm(&vfs, &bases);
        let found = look(&vfs, Owner::Unknown);
        let first = found.problems.first().unwrap_or_else(|| panic!("{what}: nothing found"));
        assert_eq!(
            (&first.path, first.position, first.severity),
            (&path(&bases), position, severity),
            "{what}: {first:?}"
        );
        assert!(first.reason.contains(reason), "{what}: {first:?}");
    }
}

/// The next start makes the newest snapshot again, and no other.
#[test]
fn of_a_bad_snapshot_it_is_said_whether_it_matters() {
    let vfs = written();
    let names = vfs.list(dir()).expect("lists");
    let mut snapshots: Vec<&String> =
        names.iter().filter(|name| name.ends_with(".snapshot")).collect();
    snapshots.sort_unstable();
    for name in &snapshots {
        flip(&vfs, &file(name), 3);
    }
    let found = look(&vfs, Owner::Unknown);
    let outcomes: Vec<&str> = found.problems.iter().map(|it| it.outcome).collect();
    let (newest, older) = outcomes.split_last().expect("problems");
    assert_eq!(outcomes.len(), snapshots.len());
    assert!(newest.contains("made again"), "{newest}");
    assert!(older.len() > 1 && older.iter().all(|it| it.starts_with("only used")), "{older:?}");
}

/// Behind a bad batch the walk goes on, by its length or through the index.
#[test]
fn one_bad_batch_hides_no_other() {
    for byte in [70, 16, 8, 11] {
        let vfs = written();
        flip(&vfs, &segment(bases(&vfs)[1]), BATCH + byte);
        let found = look(&vfs, Owner::Unknown);
        assert_eq!((found.batches, found.records), (19, 38), "byte {byte}");
        assert_eq!(found.problems.len(), 1, "byte {byte}: {:?}", found.problems);
    }
}

/// A hole is damage, beside the index that has lost its segment.
#[test]
fn a_missing_segment_is_damage() {
    let vfs = written();
    let bases = bases(&vfs);
    vfs.remove_file(&segment(bases[1])).expect("removes");
    let found = look(&vfs, Owner::Unknown);
    let damage: Vec<_> = found.damage().collect();
    assert_eq!((damage.len(), &damage[0].path, damage[0].position), (1, &segment(bases[2]), 0));
    assert!(damage[0].reason.contains(&format!("where {} follows", bases[1])), "{damage:?}");
}

/// In a log that was closed well nothing can be torn: the same place is damage.
#[test]
fn what_is_torn_depends_on_how_it_was_left() {
    let vfs = written();
    let last = segment(*bases(&vfs).last().expect("some"));
    let end = len(&vfs, &last);
    vfs.open(&last).expect("opens").set_len(end - 5).expect("cuts");
    let severity = |owner| look(&vfs, owner).problems.first().map(|problem| problem.severity);
    assert_eq!((severity(Owner::Unknown), severity(Owner::Clean)), (Some(Torn), Some(Damage)));
}

/// Whichever bit of whichever file is flipped: it is found.
#[test]
fn no_flipped_bit_goes_unnoticed() {
    let vfs = written();
    let names = vfs.list(dir()).expect("lists");
    assert!(names.len() > 8);
    for name in names {
        let path = file(&name);
        for position in 0..len(&vfs, &path) {
            let bit = 1 << (position % 8);
            vfs.corrupt(&path, position, bit).expect("within the file");
            let found = look(&vfs, Owner::Unknown);
            assert_ne!(found.problems, [], "{name} byte {position} bit {bit}");
            vfs.corrupt(&path, position, bit).expect("within the file");
        }
    }
    assert_eq!(look(&vfs, Owner::Unknown).problems, []);
}

/// A sector that cannot be read is damage; the walk goes on at the next segment.
#[test]
fn a_disk_error_is_damage() {
    let vfs = written();
    vfs.fail(crate::vfs::FaultRule {
        operation: crate::vfs::Operation::Read,
        path_ends_with: "00000000000000000000.log".to_owned(),
        skip: 0,
        times: 1,
        fault: crate::vfs::Fault::Eio,
    });
    let found = look(&vfs, Owner::Unknown);
    assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
    assert!(found.problems[0].reason.contains("cannot be read"));
    assert_eq!((found.problems[0].severity, found.end), (Damage, 40));
}

#[test]
fn problems_are_bounded_and_totals_are_not() {
    let vfs = SimVfs::new();
    let log = open(&vfs);
    append(&log, 300, 1);
    drop(log);
    for base in bases(&vfs) {
        flip(&vfs, &segment(base), 70);
        flip(&vfs, &segment(base), 2 * BATCH + 70);
    }
    let found = look(&vfs, Owner::Clean);
    assert_eq!(found.problems.len(), MAX_PROBLEMS);
    assert_eq!(found.end, 600);
}
