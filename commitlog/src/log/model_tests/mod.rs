//! The log against a model that is nothing but a list of batches, through
//! random work, crashes, power lost in the midst of an operation, and disks that
//! fail or fill up. What was synced is there and identical, what is there was
//! appended, in order, and the epochs are those of the batches.

mod events;
mod model;
mod whole;

use super::*;
use crate::LogError;
use crate::format::{
    BatchHeader, BatchOptions, NewRecord, ValidBatch, batch_headers, encode_batch,
};
use crate::log::epochs::Epochs;
use crate::vfs::{FaultRule, SimVfs};
use events::{Event, Op, event};
use model::{Model, decode, epochs_of, stored};
use proptest::prelude::*;

struct Run {
    vfs: SimVfs,
    hot_tail_bytes: usize,
    config: LogConfig,
    log: Option<Log>,
    model: Model,
    values: u32,
    highest_epoch: u32,
}

impl Run {
    fn new(config: LogConfig, hot_tail_bytes: usize) -> Self {
        let mut run = Self {
            vfs: SimVfs::new(),
            hot_tail_bytes,
            config,
            log: None,
            model: Model::default(),
            values: 0,
            highest_epoch: 0,
        };
        run.open(OpenMode::Clean);
        run
    }

    fn log(&self) -> &Log {
        self.log.as_ref().expect("open between events")
    }

    fn open(&mut self, mode: OpenMode) -> Recovery {
        self.log = None;
        let vfs = Arc::new(self.vfs.clone());
        let shared = Shared::with_hot_tail(vfs, self.hot_tail_bytes);
        let (log, recovery) =
            Log::open(&shared, Path::new("/log"), self.config, mode).expect("a healthy disk opens");
        self.log = Some(log);
        recovery
    }

    fn make_batches(&mut self, counts: &[u8], last_step: u32, first_step: u32) -> Vec<ValidBatch> {
        let mut next = self.model.end;
        let mut epoch = self.model.epochs.last().map_or(0, |last| last.0) + first_step;
        let mut made = Vec::new();
        for (index, count) in counts.iter().enumerate() {
            let records: Vec<NewRecord> = (0..=*count)
                .map(|_| {
                    self.values += 1;
                    let value = format!("{:.<1$}", self.values, (self.values % 40) as usize);
                    let timestamp_ms = i64::from(self.values);
                    NewRecord { value: Some(value.into()), timestamp_ms, ..NewRecord::default() }
                })
                .collect();
            let encoded = encode_batch(&records, &BatchOptions::default()).expect("encodes");
            let mut batch = ValidBatch::new(encoded, 1 << 20).expect("valid");
            if index + 1 == counts.len() {
                epoch += last_step;
            }
            batch.stamp(next, LeaderEpoch(epoch));
            next = batch.header().next_offset();
            made.push(batch);
        }
        made
    }

    /// Does it to the log; returns what the model becomes if it succeeds.
    fn perform(&mut self, op: &Op) -> (Result<(), LogError>, Model) {
        let mut after = self.model.clone();
        let (start, end) = (self.model.start, self.model.end);
        let within = |at: u16| start + u64::from(at) % (end - start + 1);
        let last_epoch = self.model.epochs.last().map_or(0, |last| last.0);
        self.highest_epoch = self.highest_epoch.max(last_epoch + 2);
        let result = match op {
            Op::Lead(counts, step) => {
                let batches = self.make_batches(counts, 0, *step);
                after.append(&stored(&batches));
                // What a leader is given has no place in the log yet.
                let unplaced = batches.iter().map(|batch| {
                    let mut batch = batch.clone();
                    batch.stamp(0, LeaderEpoch(0));
                    batch
                });
                let epoch = LeaderEpoch(last_epoch + step);
                self.log().append_as_leader(unplaced.collect(), epoch, 0).map(|_| ())
            }
            Op::Follow(counts, step) => {
                let batches = self.make_batches(counts, *step, 0);
                after.append(&stored(&batches));
                let bytes: Vec<u8> =
                    batches.iter().flat_map(|batch| batch.as_bytes().to_vec()).collect();
                self.log().append_as_follower(bytes.into()).map(|_| ())
            }
            Op::StartEpoch(step) => {
                after.start_epoch(last_epoch + step, end);
                self.log().start_epoch(LeaderEpoch(last_epoch + step))
            }
            Op::Truncate(at) => {
                after.truncate(within(*at));
                self.log().truncate_to(within(*at))
            }
            Op::Reset(at) => {
                let to = u64::from(*at) % (end + 20);
                after.reset(to);
                self.log().reset_to(to)
            }
            Op::DeleteBefore(at) => {
                after.delete_before(within(*at));
                self.log().delete_before(within(*at))
            }
            Op::Sync => {
                after.synced = end;
                self.log().sync().map(|_| ())
            }
        };
        (result, after)
    }

    /// The log must be exactly the model.
    fn check(&mut self) {
        let (log, model) = (self.log(), &self.model);
        let bounds = log.bounds();
        assert_eq!((bounds.start, bounds.end), (model.start, model.end));
        assert!((model.synced..=model.end).contains(&bounds.synced), "{bounds:?}");
        let epochs = log.state.read().epochs.clone();
        assert_eq!(epochs, epochs_of(&model.epochs));
        self.check_contents(model);
        // More may be synced than was asked for (a finished segment): it is
        // held to its word.
        self.model.synced = bounds.synced;
    }

    fn check_contents(&self, model: &Model) {
        let log = self.log();
        let mut read = Vec::new();
        let mut next = model.start;
        while next < model.end {
            let bytes = log.read(next, u64::MAX, 200).expect("reads");
            let last = batch_headers(&bytes).last().expect("not empty").expect("whole").0;
            assert!(last.last_offset() >= next, "reads go forward");
            next = last.next_offset();
            read.extend_from_slice(&bytes);
        }
        assert!(read == model.readable(), "other bytes than were appended");
        // A bound is kept, and a read in the middle of a batch starts with it.
        let middle = model.start + (model.end - model.start) / 2;
        let bytes = log.read(model.start, middle, usize::MAX).expect("reads");
        assert!(model.readable().starts_with(&bytes));
        for batch in batch_headers(&bytes) {
            assert!(batch.expect("whole").0.last_offset() < middle);
        }
        if middle < model.end {
            let bytes = log.read(middle, u64::MAX, 1).expect("reads");
            let first = BatchHeader::parse(&bytes).expect("a batch");
            assert!(first.base_offset <= middle && middle <= first.last_offset());
        }
    }

    /// After an unclean stop: the log must be one of `candidates` (each with
    /// the offset up to which nothing may be lost), cut at a batch. Goes on from
    /// what it is. Returns whether it was opened with its epochs rebuilt.
    fn settle(&mut self, candidates: &[(Model, u64)], exact_epochs: bool) {
        let recovery = self.open(OpenMode::Recover);
        let bounds = self.log().bounds();
        assert_eq!(bounds.synced, bounds.end, "recovery syncs what it keeps");
        let epochs = self.log().state.read().epochs.clone();
        let possible = candidates
            .iter()
            .filter(|(model, _)| model.start == bounds.start)
            .find_map(|(model, least)| model.cut_by_crash(bounds.end, *least));
        let Some(mut model) = possible else {
            panic!("{bounds:?} is none of {candidates:?}");
        };
        if exact_epochs {
            assert!(!recovery.epochs_rebuilt);
        } else {
            self.take_epochs(&mut model, &epochs);
        }
        self.model = model;
        self.check();
        let found = Log::verify(&self.vfs, Path::new("/log")).expect("reads");
        assert_eq!(found.damage().collect::<Vec<_>>(), Vec::<&crate::inspect::Problem>::new());
        assert_eq!((found.start, found.end), (self.model.start, self.model.end));
    }

    /// The checkpoint of epochs says what the log knows.
    fn epochs_on_record(&self) -> bool {
        let writer = self.log().writer.lock();
        !writer.epochs_stale && !writer.epoch_begun
    }

    /// The epochs of the batches, and at most one begun without any.
    fn take_epochs(&self, model: &mut Model, epochs: &Epochs) {
        let proven = model.proven_epochs();
        let known = decode(epochs);
        assert!(known.starts_with(&proven), "{known:?} does not begin with {proven:?}");
        let begun = &known[proven.len()..];
        assert!(begun.len() <= 1 && begun.iter().all(|entry| entry.1 == model.end));
        assert!(begun.iter().all(|entry| entry.0 <= self.highest_epoch));
        model.epochs = known;
    }

    /// What a log may be that stopped in the midst of `op`.
    fn midway(&self, op: &Op, after: &Model) -> Vec<(Model, u64)> {
        let before = &self.model;
        match op {
            Op::Reset(_) => vec![(before.clone(), before.start), (after.clone(), after.start)],
            Op::Truncate(_) => vec![(before.clone(), before.synced.min(after.end))],
            Op::DeleteBefore(_) => {
                vec![(before.clone(), before.synced), (after.clone(), after.start)]
            }
            Op::Lead(..) | Op::Follow(..) | Op::StartEpoch(_) => {
                vec![(before.clone(), before.synced), (after.clone(), before.synced)]
            }
            Op::Sync => vec![(before.clone(), before.synced)],
        }
    }

    fn run(&mut self, event: &Event) {
        match event {
            Event::Do(op) => {
                let (result, after) = self.perform(op);
                result.expect("a healthy disk");
                self.model = after;
            }
            Event::CleanRestart => {
                self.log().close().expect("a healthy disk");
                self.model.synced = self.model.end;
                let recovery = self.open(OpenMode::Clean);
                assert_eq!(recovery, Recovery::default());
                // One that was begun without records need not be known any more.
                let (mut model, epochs) =
                    (self.model.clone(), self.log().state.read().epochs.clone());
                self.take_epochs(&mut model, &epochs);
                self.model = model;
            }
            Event::ProcessCrash => {
                let least = self.model.end;
                let exact = self.epochs_on_record();
                self.settle(&[(self.model.clone(), least)], exact);
            }
            Event::PowerLoss(seed) => {
                let least = self.log().bounds().synced;
                let exact = self.epochs_on_record();
                self.vfs.crash(*seed);
                self.settle(&[(self.model.clone(), least)], exact);
            }
            Event::PowerLossDuring(op, changes, seed) => {
                self.vfs.power_fails_after(*changes);
                let (result, after) = self.perform(op);
                let candidates = match result {
                    Ok(()) => vec![(after.clone(), after.synced)],
                    Err(_) => self.midway(op, &after),
                };
                self.vfs.crash(*seed);
                self.settle(&candidates, false);
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
            Err(LogError::DiskFull { .. }) => {
                assert!(!offline, "a full disk is no reason to go offline");
                // Deleting may be half done, on the safe side of it; a
                // truncation lacks only the note of it; a reset may have got as
                // far as removing everything.
                let bounds = self.log().bounds();
                if matches!(op, Op::Reset(_)) && self.log().last_epoch().is_none() {
                    let start = self.model.start;
                    self.model.reset(start);
                }
                // An append may have got as far as noting its epoch.
                if matches!(op, Op::Lead(..) | Op::Follow(..)) {
                    let mut noted = after.epochs.clone();
                    noted.retain(|entry| entry.1 <= self.model.end);
                    if self.log().state.read().epochs == epochs_of(&noted) {
                        self.model.epochs = noted;
                    }
                }
                let done = matches!(op, Op::Truncate(_)) || bounds.start == after.start;
                if done && matches!(op, Op::Truncate(_) | Op::DeleteBefore(_)) {
                    self.model = after;
                }
            }
            Err(LogError::Io { .. }) => {
                assert!(offline, "a failed write was survived");
                let again = self.log().append_as_leader(Vec::new(), LeaderEpoch(9999), 0);
                assert!(matches!(again, Err(LogError::Offline { .. } | LogError::Invalid(_))));
                assert!(matches!(self.log().sync(), Err(LogError::Offline { .. })));
                if let Some(seed) = crash {
                    self.vfs.crash(seed);
                }
                let candidates = self.midway(op, &after);
                self.settle(&candidates, false);
            }
            Err(other) => panic!("unexpected: {other}"),
        }
    }
}

proptest! {
    // About two seconds; more with PROPTEST_CASES.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(800)))]

    #[test]
    fn the_log_is_its_model(
        segment_bytes in 150..900u64,
        index_interval_bytes in 0..300u32,
        max_index_entries in prop_oneof![1..4u32, Just(1000)],
        // None of what is read from memory, some, or most.
        hot_tail_bytes in prop::sample::select(vec![0, 700, 3000, 1 << 20]),
        events in prop::collection::vec(event(), 1..40),
    ) {
        let config = LogConfig {
            segment_bytes,
            index_interval_bytes,
            max_index_entries,
            ..LogConfig::default()
        };
        let mut run = Run::new(config, hot_tail_bytes);
        for event in &events {
            run.run(event);
        }
    }
}
