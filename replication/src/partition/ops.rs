//! Operations on a partition's log: one after the other, in the order given,
//! with all that wait for the same thing taken together.

use super::Admission;
use super::fit::fit;
use super::is_full;
use crate::core::{LogState, RequestId, Stage};
use crate::link::Credit;
use bytes::Bytes;
use ottla_commitlog::format::ValidBatch;
use ottla_commitlog::{Log, LogError, Placement, ProducerRefusal};
use ottla_host::{Blocking, WorkLost, blocking};
use ottla_proto::{LeaderEpoch, Offset};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) struct Write {
    pub(super) id: RequestId,
    pub(super) batch: ValidBatch,
    pub(super) admission: Arc<Admission>,
    pub(super) trace_parent: String,
}

pub(super) struct Copy {
    pub(super) batches: Bytes,
    pub(super) credit: Credit,
}

pub(super) enum Op {
    Inspect(Stage),
    StartEpoch(Stage, LeaderEpoch),
    Truncate(Stage, Offset),
    Reset(Stage, Offset),
    RaiseStart(Stage, Offset),
    Write(Stage, LeaderEpoch, Vec<Write>),
    Copy(Stage, Vec<Copy>),
}

/// What an operation came to.
pub(super) enum Done {
    Settled {
        stage: Stage,
        log: LogState,
    },
    Wrote {
        stage: Stage,
        epoch: LeaderEpoch,
        end: Offset,
        writes: Vec<Placed>,
    },
    WriteRejected {
        stage: Stage,
        ids: Vec<RequestId>,
    },
    Copied {
        stage: Stage,
        end: Offset,
    },
    CopyRejected {
        stage: Stage,
        reason: LogError,
    },
    /// Records were removed from the start of the log, as far as space allowed.
    StartRaised,
    /// No space for what must not be left out: to be tried again.
    Blocked(Op),
    Failed(String),
}

pub(super) struct Placed {
    pub(super) id: RequestId,
    /// Base offset and the one after the last record.
    pub(super) place: Result<(Offset, Offset), ProducerRefusal>,
    pub(super) trace_parent: String,
}

impl Op {
    fn stage(&self) -> Stage {
        match self {
            Self::Inspect(stage)
            | Self::StartEpoch(stage, _)
            | Self::Truncate(stage, _)
            | Self::Reset(stage, _)
            | Self::RaiseStart(stage, _)
            | Self::Write(stage, ..)
            | Self::Copy(stage, _) => *stage,
        }
    }

    /// No sync may run beside it: what a sync reports must still be there.
    fn removes(&self) -> bool {
        matches!(self, Self::Truncate(..) | Self::Reset(..))
    }
}

/// The operations that wait. Bounded by what their records are bounded by.
#[derive(Default)]
pub(super) struct OpQueue {
    waiting: VecDeque<Op>,
}

impl OpQueue {
    pub(super) fn push(&mut self, op: Op) {
        match (self.waiting.back_mut(), op) {
            (Some(Op::Write(stage, epoch, queued)), Op::Write(s, e, mut more))
                if *stage == s && *epoch == e =>
            {
                queued.append(&mut more);
            }
            (Some(Op::Copy(stage, queued)), Op::Copy(s, mut more)) if *stage == s => {
                queued.append(&mut more);
            }
            (_, op) => self.waiting.push_back(op),
        }
    }

    pub(super) fn push_front(&mut self, op: Op) {
        self.waiting.push_front(op);
    }

    /// The next operation that still counts and may begin.
    pub(super) fn next(&mut self, stage: Stage, syncing: bool) -> Option<Op> {
        while self.waiting.front().is_some_and(|op| op.stage() != stage) {
            self.waiting.pop_front();
        }
        if syncing && self.waiting.front().is_some_and(Op::removes) {
            return None;
        }
        self.waiting.pop_front()
    }
}

/// An operation under way.
pub(super) struct Running {
    pub(super) removes: bool,
    work: Blocking<Done>,
}

impl Running {
    pub(super) fn begin(log: &Arc<Log>, op: Op) -> Self {
        let (removes, log) = (op.removes(), Arc::clone(log));
        Self { removes, work: blocking(move || carry_out(&log, op)) }
    }

    pub(super) async fn done(&mut self) -> Done {
        let done: Result<Done, WorkLost> = (&mut self.work).await;
        done.unwrap_or_else(|lost| Done::Failed(lost.to_string()))
    }
}

pub(super) fn inspect(log: &Log) -> LogState {
    let bounds = log.bounds();
    LogState {
        start: bounds.start,
        end: bounds.end,
        synced: bounds.synced,
        last_epoch: log.last_epoch(),
    }
}

fn carry_out(log: &Log, op: Op) -> Done {
    let (stage, result) = match op {
        Op::Write(stage, epoch, writes) => return write(log, stage, epoch, writes),
        Op::Copy(stage, copies) => return copy(log, stage, copies),
        Op::RaiseStart(_, to) => return raise_start(log, to),
        Op::Inspect(stage) => (stage, Ok(())),
        Op::StartEpoch(stage, epoch) => (stage, log.start_epoch(epoch)),
        Op::Truncate(stage, to) => (stage, log.truncate_to(to)),
        Op::Reset(stage, start) => (stage, log.reset_to(start)),
    };
    match result {
        Ok(()) => Done::Settled { stage, log: inspect(log) },
        Err(error) if is_full(&error) => Done::Blocked(op),
        Err(error) => Done::Failed(error.to_string()),
    }
}

fn write(log: &Log, stage: Stage, epoch: LeaderEpoch, writes: Vec<Write>) -> Done {
    let mut places = Vec::with_capacity(writes.len());
    let mut batches = Vec::with_capacity(writes.len());
    let mut admissions = Vec::with_capacity(writes.len());
    for Write { id, batch, admission, trace_parent } in writes {
        places.push((id, trace_parent, u64::from(batch.header().last_offset_delta) + 1));
        batches.push(batch);
        admissions.push(admission);
    }
    match log.append_as_leader(batches, epoch, wall_clock_ms()) {
        Ok(appended) => {
            assert_eq!(appended.placed.len(), places.len(), "one place a batch");
            let placed = places.into_iter().zip(appended.placed);
            let placed = placed.map(|((id, trace_parent, records), place)| {
                let place = match place {
                    Placement::At(base) | Placement::Duplicate(base) => Ok((base, base + records)),
                    Placement::Refused(refusal) => Err(refusal),
                };
                Placed { id, place, trace_parent }
            });
            Done::Wrote { stage, epoch, end: appended.end_offset, writes: placed.collect() }
        }
        Err(error) if is_full(&error) => {
            let ids = places.into_iter().map(|(id, ..)| id).collect();
            Done::WriteRejected { stage, ids }
        }
        Err(error) => Done::Failed(error.to_string()),
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A full disk is no reason to stop everything else: whoever waits for it is
/// told in time, and the next call, or retention, does it.
fn raise_start(log: &Log, to: Offset) -> Done {
    match log.delete_before(to) {
        Ok(()) => Done::StartRaised,
        Err(error) if is_full(&error) => {
            tracing::warn!(dir = %log.dir().display(), %error, "old records stay for now");
            Done::StartRaised
        }
        Err(error) => Done::Failed(error.to_string()),
    }
}

fn copy(log: &Log, stage: Stage, copies: Vec<Copy>) -> Done {
    for Copy { batches, credit } in copies {
        let result = fit(log, &batches).and_then(|()| log.append_as_follower(batches));
        drop(credit);
        match result {
            Ok(_) => {}
            // The bytes are at fault, or space is; the log is as it was.
            Err(
                error @ (LogError::DiskFull { .. }
                | LogError::Invalid(_)
                | LogError::NotContiguous { .. }
                | LogError::EpochWentBack { .. }),
            ) => return Done::CopyRejected { stage, reason: error },
            Err(error) => return Done::Failed(error.to_string()),
        }
    }
    Done::Copied { stage, end: log.bounds().end }
}
