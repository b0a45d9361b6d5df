//! Any sequence of appends, compactions, truncations, deletions and crashes: what
//! is there was written, where it was written; the latest of every key is there;
//! no offset is missing; nothing above the compacted part is touched.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    /// Keys (of a few), tombstones among them, compressed or not, a new epoch.
    Append(Vec<(u8, bool)>, bool, bool),
    Finish,
    Sync,
    /// The high watermark moves to somewhere between where it was and what is
    /// synced; time goes on by some quarters of `delete.retention.ms`; room for
    /// few keys or many.
    Compact(u16, u8, bool),
    /// Compaction with a power loss after so many changes of the disk.
    CompactAndCrash(u16, u64, u64),
    /// Never below the high watermark.
    Truncate(u16),
    DeleteBefore(u16),
    Crash(u64),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let pairs = prop::collection::vec((0..6u8, prop::bool::weighted(0.2)), 1..5);
    prop_oneof![
        10 => (pairs, any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(pairs, packed, epoch)| Op::Append(pairs, packed, epoch)),
        3 => Just(Op::Finish),
        2 => Just(Op::Sync),
        4 => (any::<u16>(), 0..3u8, any::<bool>()).prop_map(|(h, t, b)| Op::Compact(h, t, b)),
        2 => (any::<u16>(), 0..60u64, any::<u64>())
            .prop_map(|(h, n, s)| Op::CompactAndCrash(h, n, s)),
        1 => any::<u16>().prop_map(Op::Truncate),
        1 => any::<u16>().prop_map(Op::DeleteBefore),
        1 => any::<u64>().prop_map(Op::Crash),
        1 => Just(Op::Restart),
    ]
}

struct Run {
    vfs: SimVfs,
    log: Option<Log>,
    /// All that was ever written and not truncated away.
    written: Vec<Found>,
    high_watermark: u64,
    now_ms: i64,
    /// When compaction may first have looked at an offset: the ends of what it
    /// was allowed, and the times.
    looked: Vec<(u64, i64)>,
    count: u32,
}

impl Run {
    fn new() -> Self {
        let vfs = SimVfs::new();
        let (log, _) = open(&vfs, compacted(), OpenMode::Recover);
        let (written, looked) = (Vec::new(), Vec::new());
        Self { vfs, log: Some(log), written, high_watermark: 0, now_ms: NOW, looked, count: 0 }
    }

    fn log(&self) -> &Log {
        self.log.as_ref().expect("open between operations")
    }

    fn append(&mut self, keys: &[(u8, bool)], packed: bool, epoch: bool) {
        let mut texts = Vec::new();
        for (key, dead) in keys {
            self.count += 1;
            let width = 20 + self.count as usize % 30;
            let value = (!dead).then(|| format!("{:.<width$}", self.count));
            texts.push((format!("key {key}"), value));
        }
        let pairs: Vec<Pair<'_>> =
            texts.iter().map(|(key, value)| (&**key, value.as_deref())).collect();
        let compression = if packed { Compression::Lz4 } else { Compression::None };
        let options = BatchOptions { compression, ..BatchOptions::default() };
        let last = self.log().last_epoch().map_or(1, |last| last.0);
        let epoch = LeaderEpoch(last + u32::from(epoch));
        let batch = keyed_as(&pairs, self.now_ms, &options);
        let placed = self.log().append_as_leader(vec![batch], epoch, NOW).expect("appends");
        let offsets = placed.first_offset..;
        self.written.extend(offsets.zip(texts).map(|(at, (key, value))| (at, key, value)));
    }

    fn compact(&mut self, to: u16, quarters: u8, roomy: bool) -> Result<Compacted, LogError> {
        let bounds = self.log().bounds();
        let from = self.high_watermark.max(bounds.start);
        self.high_watermark = from + u64::from(to) % (bounds.synced.max(from) - from + 1);
        self.now_ms += i64::from(quarters) * DAY / 4;
        self.looked.push((self.high_watermark, self.now_ms));
        let mut cleaner = Cleaner::new(if roomy { 1 << 20 } else { 0 });
        let go = &mut |_| ControlFlow::Continue(());
        self.log().compact(self.now_ms, self.high_watermark, &mut cleaner, go)
    }

    fn reopen(&mut self, mode: OpenMode) {
        self.log = None;
        let (log, _) = open(&self.vfs, compacted(), mode);
        let end = log.bounds().end;
        self.written.retain(|(at, ..)| *at < end);
        self.log = Some(log);
    }

    fn crash(&mut self, seed: u64) {
        let (synced, start) = (self.log().bounds().synced, self.log().bounds().start);
        self.vfs.crash(seed);
        self.reopen(OpenMode::Recover);
        let bounds = self.log().bounds();
        assert!(bounds.end >= synced && bounds.start == start, "{bounds:?}, {synced} was safe");
        let seen = Log::verify(&self.vfs, dir()).expect("reads");
        assert_eq!(seen.damage().count(), 0, "{:?}", seen.problems);
    }

    fn run(&mut self, op: &Op) {
        let bounds = self.log().bounds();
        match op {
            Op::Append(keys, packed, epoch) => self.append(keys, *packed, *epoch),
            Op::Finish => finish(self.log()),
            Op::Sync => {
                self.log().sync().expect("syncs");
            }
            Op::Compact(to, quarters, roomy) => {
                self.compact(*to, *quarters, *roomy).expect("compacts");
            }
            Op::CompactAndCrash(to, changes, seed) => {
                self.vfs.power_fails_after(*changes);
                let _ = self.compact(*to, 1, true);
                self.crash(*seed);
            }
            Op::Truncate(at) => {
                let from = self.high_watermark.max(bounds.start);
                let to = from + u64::from(*at) % (bounds.end - from + 1);
                self.log().truncate_to(to).expect("truncates");
                let end = self.log().bounds().end;
                self.written.retain(|(offset, ..)| *offset < end);
                // A batch goes as a whole, also one that reaches below.
                self.high_watermark = self.high_watermark.min(end);
            }
            Op::DeleteBefore(at) => {
                let room = self.high_watermark.saturating_sub(bounds.start);
                let to = bounds.start + u64::from(*at) % (room + 1) / 4;
                self.log().delete_before(to).expect("deletes");
            }
            Op::Crash(seed) => self.crash(*seed),
            Op::Restart => {
                self.log().sync().expect("syncs");
                self.reopen(OpenMode::Clean);
            }
        }
    }

    /// Whether a tombstone at `offset` may be gone by now.
    fn may_be_gone(&self, offset: u64) -> bool {
        let first = self.looked.iter().find(|(end, _)| *end > offset);
        first.is_some_and(|(_, at)| self.now_ms >= at + DAY)
    }

    fn check(&self) {
        let start = self.log().bounds().start;
        let found = found(self.log());
        let written: Vec<&Found> = self.written.iter().filter(|it| it.0 >= start).collect();
        assert!(found.iter().all(|it| written.contains(&it)), "{found:?} is not of {written:?}");
        for it in written.iter().filter(|it| it.0 >= self.high_watermark) {
            assert!(found.contains(it), "{it:?} was not to be touched");
        }
        for key in (0..6).map(|key| format!("key {key}")) {
            let wanted = written.iter().rfind(|it| it.1 == key);
            let seen = found.iter().rfind(|it| it.1 == key);
            match (wanted, seen) {
                (Some(wanted), Some(seen)) => assert_eq!(*wanted, seen),
                (Some((at, _, None)), None) => {
                    assert!(self.may_be_gone(*at), "{key} at {at} went too early");
                }
                (wanted, seen) => assert_eq!(wanted, None, "{key}: {seen:?}"),
            }
        }
    }
}

proptest! {
    // About three seconds; more with PROPTEST_CASES.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 3))]

    #[test]
    fn every_key_has_its_latest_value(ops in prop::collection::vec(op(), 1..40)) {
        let mut run = Run::new();
        for op in &ops {
            run.run(op);
            run.check();
        }
    }
}
