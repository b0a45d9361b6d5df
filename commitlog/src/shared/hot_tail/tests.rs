//! Budget, order of eviction, and what a tail serves.

use super::*;
use crate::format::{BatchHeader, NewRecord, ValidBatch, encode_batch};
use ottla_proto::LeaderEpoch;
use proptest::prelude::*;

/// Batches of `counts` records each from `base` on.
fn run(base: Offset, counts: &[usize]) -> Run {
    let mut bytes = BytesMut::new();
    let mut next = base;
    for count in counts {
        let records =
            vec![NewRecord { value: Some("value".into()), ..NewRecord::default() }; *count];
        let encoded = encode_batch(&records, &crate::format::BatchOptions::default());
        let mut batch = ValidBatch::new(encoded.expect("encodes"), 1 << 20).expect("valid");
        batch.stamp(next, LeaderEpoch(1));
        next = batch.header().next_offset();
        bytes.extend_from_slice(batch.as_bytes());
    }
    let cost = bytes.len();
    Run { bytes: bytes.freeze(), base, next, cost }
}

fn cost(run: &Run) -> u64 {
    (run.cost + RUN_OVERHEAD_BYTES) as u64
}

#[test]
fn the_oldest_of_all_logs_goes_first() {
    let runs: Vec<Run> = (0..4).map(|index| run(index, &[1])).collect();
    let all = HotTail::new(3 * cost(&runs[0]) as usize);
    let (a, b) = (HotTail::tail(&all), HotTail::tail(&all));
    let holds = |tail: &Tail, offset| tail.read(offset, 100, 1).is_some();
    a.push([runs[0].clone()]);
    b.push([runs[0].clone()]);
    a.push([runs[1].clone()]);
    assert!(holds(&a, 0) && holds(&b, 0) && holds(&a, 1));
    b.push([runs[1].clone()]);
    assert!(!holds(&a, 0) && holds(&b, 0) && holds(&a, 1) && holds(&b, 1));
    b.push([runs[2].clone()]);
    assert!(!holds(&b, 0) && holds(&a, 1) && holds(&b, 1) && holds(&b, 2));
    assert_eq!(all.usage().bytes, 3 * cost(&runs[0]));
    // Truncation and the end of a log free at once, and what they leave in the
    // queue is no harm.
    b.truncate(2);
    assert!(!holds(&b, 2));
    drop(a);
    assert_eq!(all.usage().bytes, cost(&runs[0]));
    b.push([runs[2].clone(), runs[3].clone()]);
    assert!(holds(&b, 1) && holds(&b, 3));
    assert_eq!(all.usage(), HotTailUse { bytes: 3 * cost(&runs[0]), hits: 11, misses: 3 });
}

#[test]
fn a_smaller_budget_holds_at_once_and_a_larger_one_from_then_on() {
    let runs: Vec<Run> = (0..4).map(|index| run(index, &[1])).collect();
    let all = HotTail::new(4 * cost(&runs[0]) as usize);
    let tail = HotTail::tail(&all);
    tail.push(runs[..3].to_vec());
    all.resize(cost(&runs[0]) as usize);
    let held = || [0, 1, 2, 3].map(|offset| tail.read(offset, 100, 1).is_some());
    assert_eq!((held(), all.usage().bytes), ([false, false, true, false], cost(&runs[0])));
    all.resize(2 * cost(&runs[0]) as usize);
    tail.push([runs[3].clone()]);
    assert_eq!(held(), [false, false, true, true]);
    all.resize(0);
    tail.push([run(4, &[1])]);
    assert_eq!((held(), all.usage().bytes), ([false; 4], 0));
}

#[test]
fn void_entries_do_not_pile_up() {
    let all = HotTail::new(1 << 20);
    let tail = HotTail::tail(&all);
    let again = run(0, &[1]);
    for _ in 0..10 * VOID_ENTRIES {
        tail.push([again.clone()]);
        tail.truncate(0);
    }
    assert!(all.queue.lock().runs.len() <= VOID_ENTRIES + 2);
    assert_eq!(all.usage().bytes, 0);
}

#[test]
fn large_runs_are_sliced_and_small_ones_put_together() {
    let all = HotTail::new(1 << 30);
    let tail = HotTail::tail(&all);
    let large = run(0, &vec![100; 200]);
    assert!(large.bytes.len() > COPY_BELOW_BYTES);
    let small = run(large.next, &[1, 2]);
    let last = run(small.next, &[3]);
    tail.push([large.clone(), small.clone(), last.clone()]);
    let served = tail.read(0, u64::MAX, 1 << 20).expect("held");
    assert_eq!(served.as_ptr(), large.bytes.as_ptr(), "no copy");
    let served = tail.read(small.base, u64::MAX, 1 << 20).expect("held");
    assert_eq!(served, [small.bytes.clone(), last.bytes.clone()].concat());
    // A run that does not follow is not joined to what is there.
    tail.push([run(last.next + 5, &[1])]);
    assert!(tail.read(0, u64::MAX, 1).is_none());
    // Nor is one that is larger than all there may be.
    let tiny = HotTail::tail(&HotTail::new(100));
    tiny.push([small]);
    assert!(tiny.read(20_000, u64::MAX, 1).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// What is served is a beginning of what the file holds from the batch on
    /// that holds the offset: whole batches, one at least if any is below the
    /// limit, no more than asked for but for the first.
    #[test]
    fn serves_what_the_file_holds(
        runs in prop::collection::vec(prop::collection::vec(1..5usize, 1..6), 1..8),
        (from, limit, max_bytes) in (0..60u64, 0..80u64, 0..2000usize),
    ) {
        let tail = HotTail::tail(&HotTail::new(1 << 20));
        let (mut next, mut file) = (7, Vec::new());
        for counts in &runs {
            let run = run(next, counts);
            next = run.next;
            file.extend_from_slice(&run.bytes);
            tail.push([run]);
        }
        let served = tail.read(from, limit, max_bytes);
        prop_assert_eq!(served.is_some(), (7..next).contains(&from));
        let Some(served) = served else { return Ok(()) };
        let headers: Vec<(BatchHeader, Range<usize>)> =
            batch_headers(&file).map(|batch| batch.expect("good")).collect();
        let first = headers.iter().position(|(h, _)| h.last_offset() >= from).expect("held");
        let below = headers[first..].iter().take_while(|(h, _)| h.last_offset() < limit);
        let below: Vec<usize> = below.map(|(_, range)| range.end).collect();
        let start = headers[first].1.start;
        prop_assert!(file[start..].starts_with(&served));
        prop_assert_eq!(served.is_empty(), below.is_empty());
        if let Some(one) = below.first() {
            prop_assert!(below.contains(&(start + served.len())));
            prop_assert!(served.len() <= max_bytes || served.len() == one - start);
        }
    }
}
