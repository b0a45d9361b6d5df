//! The checker is tested first: each anomaly is caught, and a near miss is not.

use super::*;

fn write(value: &str, outcome: Outcome) -> Write {
    Write { partition: 0, value: value.to_owned(), outcome }
}

fn reading(reader: &str, records: &[(u64, &str)]) -> Reading {
    let records = records.iter().map(|(offset, value)| (*offset, (*value).to_owned())).collect();
    Reading { reader: reader.to_owned(), partition: 0, records }
}

fn history() -> Vec<Write> {
    vec![
        write("a", Outcome::Acknowledged(0)),
        write("b", Outcome::Unknown),
        write("c", Outcome::Failed),
        write("d", Outcome::Acknowledged(1)),
    ]
}

#[test]
fn a_true_log_is_clean_whether_the_unknown_is_there_or_not() {
    assert_eq!(check(&history(), &[reading("r", &[(0, "a"), (1, "d")])]), []);
    assert_eq!(check(&history(), &[reading("r", &[(0, "a"), (1, "d"), (2, "b")])]), []);
}

#[test]
fn a_lost_write_is_caught_for_the_reader_that_misses_it() {
    let found =
        check(&history(), &[reading("one", &[(0, "a"), (1, "d")]), reading("two", &[(0, "a")])]);
    assert!(
        matches!(&found[..], [Anomaly::LostWrite { reader, offset: 1, .. }] if reader == "two")
    );
}

#[test]
fn a_moved_write_is_lost_and_its_offset_inconsistent() {
    let found = check(&history(), &[reading("r", &[(0, "a"), (1, "b"), (2, "d")])]);
    assert!(found.iter().any(|a| matches!(a, Anomaly::LostWrite { offset: 1, .. })));
    assert!(found.iter().any(|a| matches!(a, Anomaly::InconsistentOffset { offset: 1, .. })));
}

#[test]
fn two_readers_that_disagree_are_caught() {
    let found = check(
        &history(),
        &[
            reading("one", &[(0, "a"), (1, "d"), (2, "b")]),
            reading("two", &[(0, "a"), (1, "d"), (2, "x")]),
        ],
    );
    assert!(found.iter().any(|a| matches!(a, Anomaly::InconsistentOffset { offset: 2, .. })));
}

#[test]
fn a_duplicate_is_caught() {
    let found = check(&history(), &[reading("r", &[(0, "a"), (1, "d"), (2, "a")])]);
    assert!(matches!(&found[..], [Anomaly::Duplicate { offsets, .. }] if offsets == &[0, 2]));
}

#[test]
fn a_failed_write_that_is_there_is_caught() {
    let found = check(&history(), &[reading("r", &[(0, "a"), (1, "d"), (2, "c")])]);
    assert!(matches!(&found[..], [Anomaly::FailedWriteVisible { .. }]));
}

#[test]
fn an_invented_value_is_caught() {
    let found = check(&history(), &[reading("r", &[(0, "a"), (1, "d"), (2, "z")])]);
    assert!(matches!(&found[..], [Anomaly::Invented { .. }]));
}

#[test]
fn a_gap_and_a_step_back_are_caught() {
    for records in [[(0, "a"), (1, "d"), (3, "b")], [(0, "a"), (1, "d"), (1, "d")]] {
        let found = check(&history(), &[reading("r", &records)]);
        assert!(found.iter().any(|a| matches!(a, Anomaly::OutOfOrder { .. })), "{found:?}");
    }
}
