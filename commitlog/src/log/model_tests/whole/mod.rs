//! The whole log against a model: appends of every kind, rolls, truncations,
//! resets, retention, compaction, changes of configuration, faults of the disk and
//! crashes, then reopened. What was synced is there, nothing is invented, no offset
//! changes, none is missing; epochs, producers, aborted transactions and look-ups by
//! timestamp are those of what is there.
//!
//! Not its job: byte for byte what a plain log holds; that is the model beside it.

mod cases;
mod check;
mod events;
mod model;

use super::*;
use crate::format::{EndTxnMarker, ProducerSequence, TimestampType, TxnOutcome, encode_marker};
use crate::producers::ProducerRefusal;
use events::{Append, Event, Kind, Op, config, event};
use model::Model;
use std::ops::ControlFlow;

struct Run {
    vfs: SimVfs,
    config: LogConfig,
    log: Option<Log>,
    model: Model,
    now_ms: i64,
    values: u32,
    epoch: u32,
}

/// What an append asks for.
struct Made {
    /// As it is given to a leader.
    raw: ValidBatch,
    expected: Option<Placement>,
}

impl Run {
    fn new(config: LogConfig) -> Self {
        let (vfs, model) = (SimVfs::new(), Model::default());
        let mut run = Self { vfs, config, log: None, model, now_ms: 5000, values: 0, epoch: 0 };
        run.open(OpenMode::Clean);
        run
    }

    fn log(&self) -> &Log {
        self.log.as_ref().expect("open between events")
    }

    fn open(&mut self, mode: OpenMode) -> Recovery {
        self.log = None;
        let shared = Shared::with_hot_tail(Arc::new(self.vfs.clone()), 700);
        let (log, recovery) =
            Log::open(&shared, Path::new("/log"), self.config, mode).expect("a healthy disk opens");
        self.log = Some(log);
        recovery
    }

    fn encode(
        &mut self,
        append: &Append,
        count: usize,
        sequence: Option<ProducerSequence>,
    ) -> ValidBatch {
        let keys = append.records.iter().cycle().take(count);
        let records: Vec<NewRecord> = keys
            .map(|(key, null)| {
                self.values += 1;
                let width = (self.values % 40) as usize;
                NewRecord {
                    key: key.map(|key| format!("key {key}").into()),
                    value: (!null).then(|| format!("{:.<width$}", self.values).into()),
                    // Not always forward.
                    timestamp_ms: self.now_ms - i64::from(self.values * 7 % 50),
                    ..NewRecord::default()
                }
            })
            .collect();
        let options = BatchOptions {
            compression: append.compression,
            producer: sequence,
            transactional: matches!(append.kind, Kind::Transactional(_)),
        };
        ValidBatch::new(encode_batch(&records, &options).expect("encodes"), 1 << 20).expect("valid")
    }

    fn next_sequence(&self, id: i64) -> i32 {
        self.model.batches_of(id).last().map_or(0, |last| {
            let first = last.header.producer().expect("has one").base_sequence;
            first + last.header.last_offset_delta as i32 + 1
        })
    }

    /// `None` where there is nothing of the kind to append.
    fn make(&mut self, append: &Append) -> Option<Made> {
        let sequence = |id, base_sequence| Some(ProducerSequence { id, epoch: 0, base_sequence });
        let count = append.records.len();
        let next = |run: &Self, id| run.next_sequence(id);
        let (raw, expected) = match append.kind {
            Kind::Plain => (self.encode(append, count, None), None),
            Kind::Idempotent(id) | Kind::Transactional(id) => {
                let producer = sequence(id, next(self, id));
                (self.encode(append, count, producer), None)
            }
            Kind::Skipping(id) => {
                let last = self.model.batches_of(id).last()?.header.last_offset();
                if self.model.producers_rebuilt && last < self.model.start {
                    return None;
                }
                let got = next(self, id) + 3;
                let expected = next(self, id);
                let refusal =
                    ProducerRefusal::OutOfOrderSequence { producer_id: id, expected, got };
                (self.encode(append, count, sequence(id, got)), Some(Placement::Refused(refusal)))
            }
            Kind::Again(id, back) => {
                let header = self.model.batches_of(id).into_iter().rev().nth(back.into())?.header;
                let whole = header.last_offset() >= self.model.start;
                let known = back == 0 && whole || !self.model.producers_rebuilt;
                let count = header.last_offset_delta as usize + 1;
                let raw = self.encode(append, count, header.producer().filter(|_| known));
                (raw, known.then_some(Placement::Duplicate(header.base_offset)))
            }
            Kind::Marker(id, commit) => {
                if !self.model.has_open(id) {
                    return None;
                }
                let kind = if commit { TxnOutcome::Commit } else { TxnOutcome::Abort };
                let marker = EndTxnMarker { kind, coordinator_epoch: 1 };
                let bytes = encode_marker(&marker, id, 0, self.now_ms);
                (ValidBatch::marker(bytes).expect("a marker"), None)
            }
        };
        Some(Made { raw, expected })
    }

    fn append(&mut self, append: &Append, after: &mut Model) -> Result<(), LogError> {
        let Some(Made { raw, expected }) = self.make(append) else { return Ok(()) };
        self.epoch += append.step;
        let epoch = LeaderEpoch(self.epoch);
        let mut stamped = raw.clone();
        let follows = append.as_follower && expected.is_none();
        if self.config.timestamp_type == TimestampType::LogAppendTime {
            stamped.set_append_time(self.now_ms);
        }
        stamped.stamp(after.end, epoch);
        let at = after.end;
        if expected.is_none() {
            after.append(&stamped);
        }
        let log = self.log();
        let placed = if follows {
            log.append_as_follower(stamped.as_bytes().to_vec().into())?.placed
        } else {
            log.append_as_leader(vec![raw], epoch, self.now_ms)?.placed
        };
        assert_eq!(placed, [expected.unwrap_or(Placement::At(at))]);
        Ok(())
    }

    /// Does it to the log; returns what the model becomes if it succeeds.
    fn perform(&mut self, op: &Op) -> (Result<(), LogError>, Model) {
        let mut after = self.model.clone();
        let Model { start, end, high_watermark, .. } = self.model;
        let result = match op {
            Op::Append(append) => self.append(append, &mut after),
            Op::Finish => self.log().finish_segment().map(drop),
            Op::Sync => {
                after.synced = end;
                self.log().sync().map(drop)
            }
            Op::Truncate(at) => {
                let places = after.places(high_watermark.max(start), end);
                let to = places[usize::from(*at) % places.len()];
                after.truncate(to);
                self.log().truncate_to(to)
            }
            Op::Reset(at) => {
                let to = u64::from(*at) % (end + 20);
                after.reset(to);
                self.log().reset_to(to)
            }
            Op::DeleteBefore(at) => {
                let to = start + u64::from(*at) % (high_watermark.max(start) - start + 1);
                after.start = to;
                after.synced = after.synced.max(to);
                self.log().delete_before(to)
            }
            Op::Retain => {
                let done = self.log().retain(self.now_ms, high_watermark);
                after.start = self.log().bounds().start;
                assert!((start..=high_watermark.max(start)).contains(&after.start));
                done.map(drop)
            }
            Op::Compact(roomy) => {
                after.looked.push((high_watermark, self.now_ms));
                let mut cleaner = Cleaner::new(if *roomy { 1 << 20 } else { 0 });
                let go = &mut |_| ControlFlow::Continue(());
                let done = self.log().compact(self.now_ms, high_watermark, &mut cleaner, go);
                done.map(drop)
            }
            Op::Configure(config) => {
                self.config = *config;
                self.log().configure(*config);
                Ok(())
            }
        };
        (result, after)
    }

    /// What a log may be that stopped in the midst of `op`, and up to where nothing
    /// may be lost.
    fn midway(&self, op: &Op, after: &Model) -> Vec<(Model, u64)> {
        let before = &self.model;
        let synced = before.synced;
        match op {
            Op::Reset(_) => {
                let mut emptied = before.clone();
                emptied.reset(before.start);
                let kept = (before.clone(), before.start);
                vec![(after.clone(), after.start), kept, (emptied, before.start)]
            }
            Op::Truncate(_) => vec![(before.clone(), synced.min(after.end))],
            Op::Compact(_) => vec![(after.clone(), synced)],
            _ => vec![(before.clone(), synced), (after.clone(), synced.max(after.start))],
        }
    }

    /// After an unclean stop: the log must be one of `candidates`. Goes on from what
    /// it is.
    fn settle(&mut self, op: Option<&Op>, candidates: &[(Model, u64)]) {
        let recovery = self.open(OpenMode::Recover);
        assert_eq!(recovery.damage, None);
        let bounds = self.log().bounds();
        assert_eq!(bounds.synced, bounds.end, "recovery syncs what it keeps");
        let retains = matches!(op, Some(Op::Retain));
        let start = |model: &Model| {
            let any = retains && (model.start..=model.high_watermark).contains(&bounds.start);
            any || model.start == bounds.start
        };
        let mut possible: Vec<Model> = candidates
            .iter()
            .filter(|(model, _)| start(model))
            .filter_map(|(model, least)| model.cut_by_crash(bounds.start, bounds.end, *least))
            .collect();
        assert!(!possible.is_empty(), "{bounds:?} after {op:?} is none of {candidates:?}");
        // Where bounds do not tell: by what the log knows of producers.
        let producers = self.log().state.read().producers.clone();
        let chosen = possible.iter().position(|model| model.producers().0 == producers);
        self.model = possible.swap_remove(chosen.unwrap_or(0));
        // The first thing that a reset removes is what the log knows of producers.
        let resets = matches!(op, Some(Op::Reset(_))) && chosen.is_none();
        self.model.producers_rebuilt |=
            resets || recovery.producers_rebuilt && self.model.compacted() > 0;
        self.check();
        self.verify();
    }

    fn crash(&mut self, seed: Option<u64>) {
        let least = if seed.is_some() { self.log().bounds().synced } else { self.model.end };
        if let Some(seed) = seed {
            self.vfs.crash(seed);
        }
        self.settle(None, &[(self.model.clone(), least)]);
    }

    fn run(&mut self, event: &Event) {
        match event {
            Event::Do(op) => {
                let (result, after) = self.perform(op);
                result.expect("a healthy disk");
                self.model = after;
            }
            Event::Commit(at) => {
                let Model { start, synced, high_watermark, .. } = self.model;
                let places = self.model.places(high_watermark.max(start), synced);
                if !places.is_empty() {
                    self.model.high_watermark = places[usize::from(*at) % places.len()];
                }
            }
            Event::Wait(ms) => self.now_ms += i64::from(*ms),
            Event::CleanRestart => {
                self.log().close().expect("a healthy disk");
                self.model.synced = self.model.end;
                let recovery = self.open(OpenMode::Clean);
                assert_eq!(recovery, Recovery::default());
                self.verify();
            }
            Event::Crash(seed) => self.crash(*seed),
            Event::PowerLossDuring(op, changes, seed) => {
                self.vfs.power_fails_after(*changes);
                let (result, after) = self.perform(op);
                let candidates = match result {
                    Ok(()) => vec![(after.clone(), after.synced)],
                    Err(_) => self.midway(op, &after),
                };
                self.vfs.crash(*seed);
                self.settle(Some(op), &candidates);
            }
            Event::FaultDuring(op, rule, crash) => self.run_with_fault(op, rule, *crash),
        }
        self.check();
    }

    fn run_with_fault(&mut self, op: &Op, rule: &FaultRule, crash: Option<u64>) {
        self.vfs.fail(rule.clone());
        let (result, after) = self.perform(op);
        self.vfs.heal();
        let offline = self.log().offline_reason().is_some();
        match result {
            Ok(()) => {
                assert!(!offline, "went offline and said Ok");
                self.model = after;
            }
            Err(LogError::Io { .. }) if offline => {
                if let Some(seed) = crash {
                    self.vfs.crash(seed);
                }
                let candidates = self.midway(op, &after);
                self.settle(Some(op), &candidates);
            }
            // What was not done can be tried again.
            Err(LogError::DiskFull { .. } | LogError::Io { .. }) => {
                assert!(!offline, "a full disk is no reason to go offline");
                let bounds = self.log().bounds();
                let producers = self.log().state.read().producers.clone();
                let all = self.midway(op, &after).into_iter().map(|(model, _)| model);
                let mut fits: Vec<Model> = all
                    .chain([after])
                    .filter(|model| (model.start, model.end) == (bounds.start, bounds.end))
                    .collect();
                assert!(!fits.is_empty(), "{bounds:?} after {op:?}, from {:?}", self.model);
                let known = fits.iter().position(|model| model.producers().0 == producers);
                self.model = fits.swap_remove(known.unwrap_or(0));
                // From here on a crash may show that snapshots are gone.
                self.model.producers_rebuilt |= matches!(op, Op::Reset(_));
            }
            Err(other) => panic!("unexpected: {other}"),
        }
    }
}

proptest! {
    // About three seconds; more with PROPTEST_CASES.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases))]

    #[test]
    fn a_log_used_for_everything_is_its_model(
        config in config(),
        events in prop::collection::vec(event(), 1..50),
    ) {
        let mut run = Run::new(config);
        for event in &events {
            run.run(event);
        }
    }
}
