//! Fairness, credit and limits, told as events.

use super::schedule::{CATCH_UP_IN_FLIGHT_BYTES, LIVE_BYTES_PER_CATCH_UP, QUANTUM_BYTES};
use super::{Bucket, Grant, Schedule, Traffic};
use proptest::prelude::*;
use std::collections::BTreeMap;

const QUANTUM: usize = QUANTUM_BYTES as usize;

const IN_FLIGHT: usize = CATCH_UP_IN_FLIGHT_BYTES as usize;

/// More than any test sends.
const NO_BOUND: u64 = 1 << 50;

/// Partitions that always have more, in batches of one size each: what a read gives
/// for a grant is what fits, but at least one batch.
struct World {
    schedule: Schedule<usize>,
    batches: Vec<usize>,
    sent: Vec<usize>,
    /// Bytes to others since each was last served.
    waited: Vec<usize>,
    longest_wait: Vec<usize>,
}

impl World {
    fn new(batches: Vec<usize>, traffic: Traffic) -> Self {
        let mut schedule = Schedule::new(NO_BOUND);
        (0..batches.len()).for_each(|key| schedule.ready(key, traffic));
        let zeros = vec![0; batches.len()];
        Self { schedule, batches, sent: zeros.clone(), waited: zeros.clone(), longest_wait: zeros }
    }

    fn turn(&mut self, traffic: Traffic) {
        let Grant { key, max_bytes } = self.schedule.next(traffic).expect("all have more");
        let batch = self.batches[key];
        let bytes = (max_bytes / batch).max(1) * batch;
        for (other, waited) in self.waited.iter_mut().enumerate() {
            *waited = if other == key { 0 } else { *waited + bytes };
            self.longest_wait[other] = self.longest_wait[other].max(*waited);
        }
        self.sent[key] += bytes;
        self.schedule.pushed(key, bytes, true);
        self.schedule.done(key, traffic);
        self.schedule.add_credit(bytes as u64);
    }
}

proptest! {
    /// Whoever has something is served within a bounded number of bytes, whatever
    /// the batches of the others: each of them gets a quantum and overdraws by less
    /// than a batch, once for each round that an own large batch has to be made up
    /// for. In the long run all get the same.
    #[test]
    fn nobody_starves(
        batches in prop::collection::vec(
            prop_oneof![1_usize..2_000, 100_000_usize..9_000_000],
            2..12,
        ),
        lines in prop::sample::select(&Traffic::ALL[..]),
    ) {
        let mut world = World::new(batches.clone(), lines);
        for _ in 0..60 * batches.len() {
            world.turn(lines);
        }
        let largest = *batches.iter().max().expect("two at least");
        for (key, batch) in batches.iter().enumerate() {
            let rounds = 1 + batch.div_ceil(QUANTUM);
            let bound = (batches.len() - 1) * (QUANTUM + largest) * rounds;
            prop_assert!(world.longest_wait[key] <= bound, "{} over {bound}", world.longest_wait[key]);
        }
        let (least, most) = (world.sent.iter().min(), world.sent.iter().max());
        let apart = most.expect("some") - least.expect("some");
        prop_assert!(apart <= 2 * (QUANTUM + largest), "{apart} apart: {:?}", world.sent);
    }

    /// Whatever happens in whatever order: nobody is granted twice at a time, credit
    /// is kept to but for one batch a grant, and who became ready is served.
    #[test]
    fn whatever_happens(
        events in prop::collection::vec((0_u8..7, 0_usize..6, 0_usize..4, 0_usize..2_000_000), 1..400),
    ) {
        let mut schedule = Schedule::new(8 << 20);
        let mut credit: i64 = 8 << 20;
        let mut open: BTreeMap<usize, Traffic> = BTreeMap::new();
        let mut owed: BTreeMap<usize, Traffic> = BTreeMap::new();
        for (what, key, traffic, bytes) in events {
            let traffic = Traffic::ALL[traffic];
            match what {
                0 | 1 => {
                    schedule.ready(key, traffic);
                    owed.insert(key, traffic);
                }
                2 => {
                    schedule.remove(key);
                    owed.remove(&key);
                }
                3 => {
                    schedule.add_credit(bytes as u64);
                    credit += i64::try_from(bytes).expect("small");
                }
                4 | 5 => if let Some(Grant { key, max_bytes }) = schedule.next(traffic) {
                    prop_assert!(max_bytes > 0 && max_bytes <= QUANTUM);
                    prop_assert!(credit > 0, "granted without credit");
                    prop_assert!(open.insert(key, traffic).is_none(), "granted twice");
                    owed.remove(&key).expect("granted, and had nothing");
                    credit -= i64::try_from(bytes).expect("small");
                    schedule.pushed(key, bytes, false);
                },
                _ => if open.remove(&key).is_some() {
                    schedule.done(key, traffic);
                    if let Some(again) = owed.get_mut(&key) {
                        *again = traffic;
                    }
                },
            }
        }
        for key in open.into_keys() {
            schedule.done(key, Traffic::CatchUp);
        }
        schedule.add_credit(NO_BOUND);
        for traffic in Traffic::ALL {
            while let Some(Grant { key, .. }) = schedule.next(traffic) {
                prop_assert!(owed.remove(&key).is_some());
                schedule.pushed(key, 0, false);
                schedule.done(key, traffic);
            }
            prop_assert!(!schedule.has(traffic));
        }
        prop_assert!(owed.is_empty(), "never served: {owed:?}");
    }

    /// Over any time, no more than the speed allows, but for the burst and one batch;
    /// and somebody who always wants more gets that.
    #[test]
    fn a_bucket_keeps_its_speed(
        speed in 1_000_u64..1_000_000_000,
        sizes in prop::collection::vec(1_usize..2_000_000, 1..100),
        idle in 0_u64..10_000_000,
    ) {
        let mut bucket = Bucket::new(speed);
        let begun = idle;
        let (mut now, mut sent) = (begun, 0_u128);
        for bytes in &sizes {
            now += bucket.wait(now).unwrap_or(0);
            prop_assert_eq!(bucket.wait(now), None);
            let allowed = u128::from(speed) * u128::from(now - begun + 100_000) / 1_000_000;
            prop_assert!(sent <= allowed + 1, "{sent} sent, {allowed} allowed");
            bucket.take(*bytes, now);
            sent += *bytes as u128;
        }
        let paid = sent - *sizes.last().expect("one") as u128;
        // Each waits for less than a microsecond too long.
        let rounding = sizes.len() as u128 * u128::from(speed.div_ceil(1_000_000));
        let waited_for = u128::from(speed) * u128::from(now - begun) / 1_000_000;
        prop_assert!(waited_for <= paid + rounding, "{waited_for} could have been sent, {paid} were");
    }
}

fn serve(schedule: &mut Schedule<&'static str>, traffic: Traffic, bytes: usize, more: bool) {
    let grant = schedule.next(traffic).expect("somebody waits");
    schedule.pushed(grant.key, bytes, more);
    schedule.done(grant.key, traffic);
}

/// The same, and the follower has written it.
fn serve_through(schedule: &mut Schedule<&'static str>, traffic: Traffic, bytes: usize) {
    serve(schedule, traffic, bytes, true);
    schedule.add_credit(bytes as u64);
}

/// A partition far behind has one turn, then each of those that have a record.
#[test]
fn small_ones_do_not_wait_for_a_huge_one() {
    let mut schedule = Schedule::new(NO_BOUND);
    for key in ["huge", "a", "b"] {
        schedule.ready(key, Traffic::CatchUp);
    }
    let mut served = Vec::new();
    for _ in 0..QUANTUM / IN_FLIGHT + 4 {
        let Grant { key, max_bytes } = schedule.next(Traffic::CatchUp).expect("somebody waits");
        served.push(key);
        let bytes = if key == "huge" { max_bytes } else { 100 };
        schedule.pushed(key, bytes, key == "huge");
        schedule.done(key, Traffic::CatchUp);
        schedule.add_credit(bytes as u64);
    }
    let in_one_turn = QUANTUM / IN_FLIGHT;
    let mut expected = vec!["huge"; in_one_turn];
    expected.extend(["a", "b", "huge", "huge"]);
    assert_eq!(served, expected);
}

/// What is left of a turn is not lost to those behind, also when credit or the
/// reader ends it early.
#[test]
fn a_turn_goes_on_where_it_was_cut() {
    let mut schedule = Schedule::new(NO_BOUND);
    schedule.ready("a", Traffic::CatchUp);
    schedule.ready("b", Traffic::CatchUp);
    serve_through(&mut schedule, Traffic::CatchUp, QUANTUM - 1000);
    let rest = schedule.next(Traffic::CatchUp);
    assert_eq!(rest, Some(Grant { key: "a", max_bytes: 1000 }));
    schedule.pushed("a", 1000, true);
    schedule.done("a", Traffic::CatchUp);
    assert_eq!(schedule.next(Traffic::CatchUp).expect("b waits").key, "b");
}

/// What catches up has little on its way, whatever the credit, and of a small one half.
#[test]
fn credit_is_left_to_those_in_sync() {
    for (credit, part) in [(2 << 20, IN_FLIGHT), (200_000, 100_000)] {
        let mut schedule = Schedule::new(credit);
        schedule.ready("behind", Traffic::CatchUp);
        schedule.ready("added", Traffic::Moving);
        schedule.ready("in sync", Traffic::Live);
        serve(&mut schedule, Traffic::CatchUp, part / 2, true);
        serve(&mut schedule, Traffic::Moving, part / 2, true);
        assert_eq!((schedule.has(Traffic::CatchUp), schedule.has(Traffic::Moving)), (false, false));
        assert_eq!((schedule.next(Traffic::CatchUp), schedule.next(Traffic::Moving)), (None, None));
        assert!(schedule.next(Traffic::Live).is_some(), "its part is left");
        schedule.add_credit(1);
        let next = schedule.next(Traffic::CatchUp);
        // The live grant is on its way with its whole share.
        assert_eq!(next, None);
        schedule.pushed("in sync", 0, false);
        assert_eq!(schedule.next(Traffic::CatchUp), Some(Grant { key: "behind", max_bytes: 1 }));
    }
}

/// A leader whose credit is always used up by those in sync still gets the others
/// back: they have a turn now and then.
#[test]
fn those_in_sync_do_not_starve_the_others() {
    let mut schedule = Schedule::new(2 << 20);
    schedule.ready("behind", Traffic::CatchUp);
    schedule.ready("in sync", Traffic::Live);
    let mut sent = 0;
    schedule.pushed("nobody", 1, true);
    while sent < LIVE_BYTES_PER_CATCH_UP {
        serve(&mut schedule, Traffic::Live, QUANTUM, true);
        sent += QUANTUM_BYTES;
        // The follower gives back little.
        schedule.add_credit(u64::try_from(QUANTUM_BYTES / 4).expect("positive"));
        let due = sent >= LIVE_BYTES_PER_CATCH_UP;
        assert_eq!(schedule.owes_catch_up(), due);
        assert_eq!(schedule.has(Traffic::CatchUp), due, "after {sent}");
    }
    serve(&mut schedule, Traffic::CatchUp, QUANTUM, true);
    assert!(!schedule.owes_catch_up() && !schedule.has(Traffic::CatchUp), "one turn");
}

/// Who joins the ISR while it waits is in sync at once, and who leaves it waits with
/// the others; a partition is in one line only.
#[test]
fn a_partition_changes_lines() {
    let mut schedule = Schedule::new(NO_BOUND);
    schedule.ready("a", Traffic::CatchUp);
    schedule.ready("a", Traffic::Live);
    assert!(!schedule.has(Traffic::CatchUp));
    let grant = schedule.next(Traffic::Live).expect("in sync");
    schedule.ready("a", Traffic::CatchUp);
    assert!(!schedule.has(Traffic::CatchUp), "not while it is being sent");
    schedule.done(grant.key, Traffic::CatchUp);
    assert!(schedule.has(Traffic::CatchUp) && !schedule.has(Traffic::Live));
    schedule.remove("a");
    assert!(!schedule.has(Traffic::CatchUp));
}

/// Who reads from the disk is not sent back to where memory is looked at by every
/// record that comes in.
#[test]
fn who_lags_stays_in_its_line() {
    let mut schedule = Schedule::new(NO_BOUND);
    schedule.ready("a", Traffic::Lagging);
    schedule.ready("a", Traffic::Live);
    assert!(schedule.has(Traffic::Lagging) && !schedule.has(Traffic::Live));
}

/// A debt is to those who waited. Once nobody does, it is forgotten.
#[test]
fn an_old_debt_is_forgotten() {
    let mut schedule = Schedule::new(NO_BOUND);
    schedule.ready("large", Traffic::Live);
    schedule.ready("other", Traffic::Live);
    serve(&mut schedule, Traffic::Live, 20 * QUANTUM, false);
    serve(&mut schedule, Traffic::Live, 100, false);
    schedule.ready("large", Traffic::Live);
    schedule.ready("other", Traffic::Live);
    assert_eq!(schedule.next(Traffic::Live), Some(Grant { key: "large", max_bytes: QUANTUM }));
}

#[test]
fn no_limit_is_no_wait() {
    let mut bucket = Bucket::new(0);
    bucket.take(usize::MAX, 5);
    assert_eq!((bucket.is_limited(), bucket.wait(5)), (false, None));
}

/// A new speed holds for what was taken before, so that a limit that was far too low
/// can be undone.
#[test]
fn a_speed_changes_at_once() {
    let mut bucket = Bucket::new(1);
    bucket.take(1_000, 0);
    assert_eq!(bucket.wait(0), Some(1_000_000_000));
    bucket.set(1_000_000, 0);
    assert_eq!(bucket.wait(0), Some(1_000));
    bucket.set(0, 0);
    assert_eq!(bucket.wait(0), None);
    bucket.set(1_000, 7);
    bucket.take(1, 7);
    assert_eq!(bucket.wait(1_007), None);
}
