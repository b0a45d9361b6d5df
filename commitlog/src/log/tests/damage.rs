//! A damaged file, and what opening the log makes of it: the table of
//! docs/formats.md ("Damage and what happens").
//!
//! Whatever is done to one file, opening does not fail, no record changes or
//! moves, and no record is lost but those that the table says.

use super::*;
use crate::log::segment::log_path;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A file of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// The segment that is written to.
    LastSegment,
    /// The one before it.
    SegmentBeforeLast,
    /// One further back.
    OlderSegment,
    OffsetIndex,
    TimeIndex,
    Epochs,
    Start,
}

/// What is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Missing,
    Empty,
    /// Every byte is 0xff.
    Garbage,
    /// The second half is gone.
    Half,
    /// One bit of each byte in turn.
    Bit,
}

/// What remains of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// All of it, and nobody notices.
    Whole,
    /// All but the damaged batches: reads of those fail, and say where.
    Named,
    /// All before the first damaged batch: the log ends there.
    Cut,
    /// One of the two, depending on the byte.
    NamedOrCut,
    /// All, but where an earlier epoch starts may be believed although it is false:
    /// Kafka's text has no CRC. `verify` tells.
    EpochsMayLie,
    /// All, and records deleted from the start may be back.
    StartsEarlier,
}

use Harm::{Bit, Empty, Garbage, Half, Missing};
use Outcome::{Cut, EpochsMayLie, Named, NamedOrCut, StartsEarlier, Whole};
use Which::{Epochs, LastSegment, OffsetIndex, OlderSegment, SegmentBeforeLast, Start, TimeIndex};

/// What; how; after a clean stop; after any other.
const TABLE: [(Which, Harm, Outcome, Outcome); 35] = [
    (LastSegment, Missing, Cut, Cut),
    (LastSegment, Empty, Cut, Cut),
    (LastSegment, Garbage, Cut, Cut),
    (LastSegment, Half, Cut, Cut),
    (LastSegment, Bit, NamedOrCut, Cut),
    (SegmentBeforeLast, Missing, Named, Named),
    (SegmentBeforeLast, Empty, Named, Named),
    (SegmentBeforeLast, Garbage, Named, Named),
    (SegmentBeforeLast, Half, Named, Named),
    (SegmentBeforeLast, Bit, Named, Named),
    (OlderSegment, Missing, Named, Named),
    (OlderSegment, Empty, Named, Named),
    (OlderSegment, Garbage, Named, Named),
    (OlderSegment, Half, Named, Named),
    (OlderSegment, Bit, Named, Named),
    (OffsetIndex, Missing, Whole, Whole),
    (OffsetIndex, Empty, Whole, Whole),
    (OffsetIndex, Garbage, Whole, Whole),
    (OffsetIndex, Half, Whole, Whole),
    (OffsetIndex, Bit, Whole, Whole),
    (TimeIndex, Missing, Whole, Whole),
    (TimeIndex, Empty, Whole, Whole),
    (TimeIndex, Garbage, Whole, Whole),
    (TimeIndex, Half, Whole, Whole),
    (TimeIndex, Bit, Whole, Whole),
    (Epochs, Missing, Whole, Whole),
    (Epochs, Empty, Whole, Whole),
    (Epochs, Garbage, Whole, Whole),
    (Epochs, Half, Whole, Whole),
    (Epochs, Bit, EpochsMayLie, EpochsMayLie),
    (Start, Missing, StartsEarlier, StartsEarlier),
    (Start, Empty, StartsEarlier, StartsEarlier),
    (Start, Garbage, StartsEarlier, StartsEarlier),
    (Start, Half, StartsEarlier, StartsEarlier),
    (Start, Bit, StartsEarlier, StartsEarlier),
];

/// Records per batch, so that offsets within batches count.
const PER_BATCH: u64 = 3;

/// Records between two index entries, at most.
const INTERVAL: u64 = 3 * PER_BATCH;

/// Twenty batches in segments of a few, two epochs, and deleted up to offset 5,
/// which is in the midst of a batch.
fn written() -> (SimVfs, Vec<(u64, String)>) {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, small(), OpenMode::Recover);
    for index in 0..20 {
        let values: Vec<String> = (0..PER_BATCH).map(|n| format!("{index}-{n}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let epoch = LeaderEpoch(1 + index / 10);
        log.append_as_leader(vec![batch(&values)], epoch, NOW).expect("appends");
    }
    log.sync().expect("syncs");
    let all = values(&log);
    log.delete_before(5).expect("deletes");
    (vfs, all)
}

fn files(vfs: &SimVfs, which: Which) -> Vec<PathBuf> {
    let bases = open::segment_bases(vfs, dir()).expect("lists");
    assert!(bases.len() > 4, "{bases:?}");
    let with = |extension| {
        let paths = bases.iter().map(move |base| log_path(dir(), *base).with_extension(extension));
        paths.filter(|path| vfs.open(path).is_ok()).collect()
    };
    match which {
        LastSegment => vec![log_path(dir(), bases[bases.len() - 1])],
        SegmentBeforeLast => vec![log_path(dir(), bases[bases.len() - 2])],
        OlderSegment => vec![log_path(dir(), bases[1])],
        OffsetIndex => with("index"),
        TimeIndex => with("timeindex"),
        Epochs => vec![dir().join(EPOCHS_FILE)],
        Start => vec![dir().join(START_FILE)],
    }
}

fn len(vfs: &SimVfs, path: &Path) -> u64 {
    vfs.open(path).expect("is there").len().expect("simulated")
}

/// Does it; `byte` is for a single bit.
fn harm(vfs: &SimVfs, path: &Path, harm: Harm, byte: u64) {
    let file = vfs.open(path).expect("is there");
    let len = file.len().expect("simulated");
    match harm {
        Missing => vfs.remove_file(path).expect("removes"),
        Empty => file.set_len(0).expect("cuts"),
        Garbage => file.write_all_at(0, &[&vec![0xff; len as usize]]).expect("writes"),
        Half => file.set_len(len / 2).expect("cuts"),
        Bit => vfs.corrupt(path, byte, 1 << (byte % 8)).expect("within the file"),
    }
    if harm != Bit {
        file.sync_data().expect("syncs");
    }
}

/// Offsets of a segment's batches that the harm touches, from the first on.
/// `None` for what cannot be told.
fn touched(vfs: &SimVfs, path: &Path, harm: Harm, byte: u64) -> Option<BTreeSet<u64>> {
    let base: u64 = path.file_stem().and_then(|s| s.to_str()?.parse().ok()).expect("a segment");
    let mut bytes = Vec::new();
    let file = vfs.open(path).expect("is there");
    file.read_at(0, len(vfs, path) as usize, &mut bytes).expect("reads");
    let mut found = BTreeSet::new();
    for batch in crate::format::batch_headers(&bytes) {
        let (header, range) = batch.expect("not harmed yet");
        let range = range.start as u64..range.end as u64;
        let is_touched = match harm {
            Missing | Empty | Garbage => true,
            Half => range.end > len(vfs, path) / 2,
            // No CRC covers the leader epoch. One that goes back is found where
            // the log is checked; one that does not is believed.
            Bit if (range.start + 12..range.start + 16).contains(&byte) => return None,
            Bit => range.contains(&byte),
        };
        if is_touched {
            found.extend(header.base_offset..header.next_offset());
        }
    }
    assert!(found.first() >= Some(&base));
    Some(found)
}

/// What a reader gets for the record at `offset`; `None` where it is told that
/// something is wrong.
fn read(row: &str, log: &Log, offset: u64) -> Option<String> {
    let bytes = match log.read(offset, u64::MAX, 1) {
        Ok(bytes) => bytes,
        Err(LogError::Corrupt { .. }) => return None,
        Err(error) => panic!("{row}: offset {offset}: {error}"),
    };
    for record in decode_records(&bytes) {
        let Ok(record) = record else { return None };
        if record.offset == offset {
            return Some(String::from_utf8(record.value?.to_vec()).expect("text"));
        }
    }
    panic!("{row}: offset {offset}: neither a record nor an error");
}

fn check(row: &str, log: &Log, all: &[(u64, String)], bad: &BTreeSet<u64>, expected: Outcome) {
    let bounds = log.bounds();
    let end = all.len() as u64;
    let cut = bounds.end < end;
    match expected {
        Whole | EpochsMayLie => {
            assert_eq!((bounds.start, bounds.end, bad.len()), (5, end, 0), "{row}")
        }
        Named => assert_eq!((bounds.start, bounds.end), (5, end), "{row}"),
        Cut => assert_eq!((bounds.start, Some(&bounds.end)), (5, bad.first()), "{row}"),
        NamedOrCut if cut => assert_eq!(Some(&bounds.end), bad.first(), "{row}"),
        NamedOrCut => assert_eq!((bounds.start, bounds.end), (5, end), "{row}"),
        StartsEarlier => assert!(bounds.start <= 5 && bounds.end == end, "{row}"),
    }
    let mut lost = BTreeSet::new();
    for offset in bounds.start..bounds.end {
        match read(row, log, offset) {
            Some(value) => assert_eq!((offset, value), all[offset as usize], "{row}"),
            None => {
                lost.insert(offset);
            }
        }
    }
    // A false length or offset hides its neighbours up to the next index entry.
    let near = |offset: &u64| bad.iter().any(|bad| bad.abs_diff(*offset) <= INTERVAL);
    assert!(lost.iter().all(near), "{row}: lost {lost:?}, harmed {bad:?}");
    let epochs = (log.epoch_start(LeaderEpoch(1)), log.epoch_start(LeaderEpoch(2)));
    if matches!(expected, Whole | StartsEarlier) {
        assert_eq!(epochs, (Some(bounds.start), Some(30)), "{row}");
    }
    if expected == Whole {
        assert_eq!(log.offset_for_timestamp(30, u64::MAX).expect("reads"), Some((5, 30)), "{row}");
    }
}

#[test]
fn one_damaged_file_costs_what_the_table_says() {
    for (which, how, after_clean, after_crash) in TABLE {
        for (mode, outcome) in [(OpenMode::Clean, after_clean), (OpenMode::Recover, after_crash)] {
            let (vfs, _) = written();
            for path in files(&vfs, which) {
                let bytes = if how == Bit { len(&vfs, &path) } else { 1 };
                // Every fifth byte of those in which most are a record's.
                let step = if bytes > 100 { 5 } else { 1 };
                for byte in (0..bytes).step_by(step) {
                    one(which, how, mode, outcome, &path, byte);
                }
            }
        }
    }
}

fn one(which: Which, how: Harm, mode: OpenMode, outcome: Outcome, path: &Path, byte: u64) {
    let (vfs, all) = written();
    let row = format!("{which:?} {how:?} {mode:?}: {} byte {byte}", path.display());
    let is_segment = matches!(which, LastSegment | SegmentBeforeLast | OlderSegment);
    let bad = if is_segment { touched(&vfs, path, how, byte) } else { Some(BTreeSet::new()) };
    let Some(bad) = bad else { return };
    harm(&vfs, path, how, byte);
    let (log, _) = open(&vfs, small(), mode);
    check(&row, &log, &all, &bad, outcome);
    let lost = bad.iter().any(|offset| *offset >= 5 && *offset < log.bounds().end);
    drop(log);
    let found = Log::verify(&vfs, dir()).expect("lists");
    assert_eq!(found.damage().count() > 0, lost, "{row}: {:?}", found.problems);
}
