//! Random histories: the state against one that keeps everything, and through
//! snapshots.

use super::*;
use proptest::prelude::*;

/// Everything that was ever applied, looked through anew for every question.
#[derive(Clone, Default)]
struct Naive(Vec<Step>);

impl Naive {
    fn of(&self, producer: i64) -> Vec<Step> {
        self.0.iter().filter(|step| step.producer == producer).copied().collect()
    }

    /// First offset and marker (none while open) of every transaction.
    fn transactions(&self) -> Vec<(i64, Offset, Option<Step>)> {
        let mut found: Vec<(i64, Offset, Option<Step>)> = Vec::new();
        for step in &self.0 {
            let open = found.iter_mut().find(|txn| txn.0 == step.producer && txn.2.is_none());
            match (open, step.marker, step.transactional) {
                (Some(txn), Some(_), _) => txn.2 = Some(*step),
                (None, None, true) => found.push((step.producer, step.first, None)),
                _ => {}
            }
        }
        found
    }

    fn first_unstable(&self, high_watermark: Offset) -> Option<Offset> {
        let unstable = |txn: &&(i64, Offset, Option<Step>)| {
            txn.2.is_none_or(|marker| marker.first >= high_watermark)
        };
        self.transactions().iter().filter(unstable).map(|txn| txn.1).min()
    }

    fn verdict(&self, step: &Step) -> Result<Option<Offset>, ()> {
        let history = self.of(step.producer);
        let Some(newest) = history.last() else { return Ok(None) };
        let epoch = newest.epoch;
        let same: Vec<&Step> = history.iter().rev().take_while(|s| s.epoch == epoch).collect();
        let sent: Vec<&&Step> = same.iter().filter(|s| s.sequences.is_some()).collect();
        if step.epoch == epoch
            && step.sequences.is_some()
            && let Some(same) = sent.iter().take(5).find(|s| s.sequences == step.sequences)
        {
            return Ok(Some(same.first));
        }
        let open = self.transactions().iter().any(|t| t.0 == step.producer && t.2.is_none());
        let coordinator =
            history.iter().filter_map(|s| s.marker).map(|m| m.coordinator_epoch).max();
        let fits = match (step.marker, step.sequences) {
            (Some(marker), _) => Some(marker.coordinator_epoch) >= coordinator,
            (None, Some((first, _))) => {
                let next = sent.first().and_then(|s| s.sequences).map_or(0, |(_, last)| last + 1);
                let expected = if step.epoch == epoch { next } else { 0 };
                first == expected && (step.transactional || !open)
            }
            (None, None) => false,
        };
        if step.epoch >= epoch && fits { Ok(None) } else { Err(()) }
    }
}

#[derive(Clone, Debug)]
struct Attempt {
    producer: i64,
    bump: i16,
    /// Relative to the sequence that would fit, and how many records.
    skew: i32,
    count: u32,
    kind: u8,
    coordinator: i32,
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let bump = prop_oneof![12 => Just(0i16), 1 => Just(1), 1 => Just(-1)];
    let skew = prop_oneof![8 => Just(0i32), 1 => -9..9];
    (0..4i64, bump, skew, 1..4u32, 0..10u8, 0..2i32).prop_map(
        |(producer, bump, skew, count, kind, coordinator)| Attempt {
            producer,
            bump,
            skew,
            count,
            kind,
            coordinator,
        },
    )
}

/// The step that an attempt comes to, behind `history`.
fn step(attempt: &Attempt, history: &Naive, end: Offset) -> Step {
    let own = history.of(attempt.producer);
    let epoch = own.last().map_or(0, |last| last.epoch);
    let next = match own.iter().rev().take_while(|s| s.epoch == epoch).find_map(|s| s.sequences) {
        Some((_, last)) if attempt.bump == 0 => last + 1,
        _ => 0,
    };
    let epoch = (epoch + attempt.bump).max(0);
    match attempt.kind {
        0 | 1 => marker(attempt.producer, epoch, attempt.kind == 0, attempt.coordinator, end),
        kind => {
            let sequence = (next + attempt.skew).max(0);
            let attributes = if kind < 7 { TRANSACTIONAL } else { 0 };
            let header = header(epoch, sequence, attempt.count, end);
            let header = BatchHeader { attributes, producer_id: attempt.producer, ..header };
            Step::of(&header, None).expect("has a producer")
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(500)))]

    /// A leader and its naive twin agree on every batch, and on what is stable.
    #[test]
    fn the_state_is_its_history(attempts in prop::collection::vec(attempt(), 1..60)) {
        let (mut producers, mut naive, mut end) = (Producers::default(), Naive::default(), 0);
        for attempt in &attempts {
            let step = step(attempt, &naive, end);
            let verdict = Judge::new(&producers).judge(&step);
            match naive.verdict(&step) {
                Ok(Some(offset)) => prop_assert_eq!(verdict, Verdict::Duplicate(offset)),
                Ok(None) => prop_assert_eq!(verdict, Verdict::Append(end)),
                Err(()) => prop_assert!(matches!(verdict, Verdict::Refused(_)), "{:?}", verdict),
            }
            if matches!(verdict, Verdict::Append(_)) {
                let open = naive.transactions();
                let aborted = producers.apply(&step);
                naive.0.push(step);
                let ends = step.marker.is_some_and(|marker| !marker.commit)
                    && open.iter().any(|t| t.0 == step.producer && t.2.is_none());
                prop_assert_eq!(aborted.is_some(), ends);
                end = step.last + 1;
            }
            for watermark in [0, end / 3, end / 2, end.saturating_sub(1), end] {
                let unstable = producers.first_unstable(watermark);
                prop_assert_eq!(unstable, naive.first_unstable(watermark));
            }
            let bytes = producers.encode(end);
            prop_assert_eq!(Producers::decode(&bytes, end), Ok(producers.clone()));
        }
    }

    /// Whatever the bytes: an error or a state, no panic, and no more memory
    /// than they take.
    #[test]
    fn garbage_is_an_error(
        attempts in prop::collection::vec(attempt(), 1..20),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8u8), 1..4),
        keep in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let (mut producers, mut naive, mut end) = (Producers::default(), Naive::default(), 0);
        for attempt in &attempts {
            let step = step(attempt, &naive, end);
            producers.apply(&step);
            naive.0.push(step);
            end = step.last + 1;
        }
        let good = producers.encode(end);
        let short = &good[..keep.index(good.len())];
        prop_assert!(Producers::decode(short, end).is_err());
        let mut flipped = good.clone();
        for (at, bit) in &flips {
            flipped[at.index(good.len())] ^= 1 << bit;
        }
        if let Ok(read) = Producers::decode(&flipped, end) {
            prop_assert_eq!(read.encode(end), flipped);
        }
        let _ = Producers::decode(&noise, end);
        prop_assert!(Producers::decode(&good, end + 1).is_err());
    }
}
