//! What one follower's connection is to be sent. Partitions put themselves in
//! line when they have something; those that are idle cost nothing.

use crate::core::{FollowRefusal, SessionRef};
use crate::partition::Partition;
use crate::wire;
use ottla_proto::internal::v1::replicate_response::Message as Body;
use ottla_proto::internal::v1::{Append, Diverging, Watermark};
use ottla_proto::{LeaderEpoch, Offset, PartitionId};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::Notify;

/// Partitions that get their turn together: one hand-over to a reading thread
/// for all of them.
const PARTITIONS_PER_TURN: usize = 32;

/// Where a follower stands in a partition.
#[derive(Clone)]
struct Served {
    of: SessionRef,
    /// First offset not yet sent.
    next: Offset,
    /// Highest watermark and log start sent.
    told: Option<(Offset, Offset)>,
    partition: Arc<Partition>,
}

#[derive(Default)]
struct Entry {
    served: Option<Served>,
    /// An answer instead of records.
    answer: Option<Body>,
    in_line: bool,
}

#[derive(Default)]
struct State {
    entries: HashMap<PartitionId, Entry>,
    /// Whose turn it is. A partition is in it once.
    line: VecDeque<PartitionId>,
    /// Bytes that may still be sent. Below zero after a batch larger than that.
    credit: i64,
}

/// One connection of a follower.
pub(crate) struct Session {
    stream: u64,
    state: Mutex<State>,
    changed: Notify,
}

/// One partition's turn: what to read.
pub(super) struct Turn {
    pub(super) id: PartitionId,
    pub(super) of: SessionRef,
    pub(super) next: Offset,
    pub(super) told: Option<(Offset, Offset)>,
    pub(super) partition: Arc<Partition>,
}

/// What a turn brought.
pub(super) enum Read {
    /// Records, perhaps none, as far as `next`.
    Records {
        batches: bytes::Bytes,
        next: Offset,
        watermark: Offset,
        log_start: Offset,
        more: bool,
    },
    /// The leadership has ended.
    Ended,
    /// What the follower needs next is gone: the log starts behind it.
    Gone { log_start: Offset },
    /// The disk failed.
    Failed,
}

impl Session {
    pub(super) fn new(stream: u64) -> Self {
        Self { stream, state: Mutex::default(), changed: Notify::new() }
    }

    pub(crate) fn stream(&self) -> u64 {
        self.stream
    }

    /// From now on the follower is sent what the partition has from `from` on.
    pub(crate) fn serve(&self, partition: &Arc<Partition>, of: SessionRef, from: Offset) {
        let served = Served { of, next: from, told: None, partition: Arc::clone(partition) };
        self.change(partition.id, |entry| {
            entry.served = Some(served);
            entry.answer = None;
        });
    }

    pub(crate) fn refuse(&self, id: PartitionId, of: SessionRef, refusal: FollowRefusal) {
        self.answer(id, Body::Refused(wire::refused(id, of, refusal)));
    }

    pub(crate) fn diverge(
        &self,
        id: PartitionId,
        of: SessionRef,
        epoch: Option<LeaderEpoch>,
        end: Offset,
    ) {
        let body = Body::Diverging(Diverging {
            partition: wire::key(id),
            session: of.session,
            leader_epoch: of.leader_epoch.0,
            epoch: epoch.map(|epoch| epoch.0),
            end_offset: end,
        });
        self.answer(id, body);
    }

    /// The partition has more, or its watermark moved. False: it is not served.
    pub(crate) fn wake(&self, id: PartitionId) -> bool {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(&id).filter(|entry| entry.served.is_some()) else {
            return false;
        };
        if !std::mem::replace(&mut entry.in_line, true) {
            state.line.push_back(id);
            self.changed.notify_one();
        }
        true
    }

    /// The partition is not served any more.
    pub(crate) fn forget(&self, id: PartitionId) {
        let mut state = self.state.lock();
        if let Some(entry) = state.entries.get_mut(&id) {
            entry.served = None;
            if entry.answer.is_none() && !entry.in_line {
                state.entries.remove(&id);
            }
        }
    }

    pub(super) fn add_credit(&self, bytes: u64) {
        let mut state = self.state.lock();
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        state.credit = state.credit.saturating_add(bytes);
        self.changed.notify_one();
    }

    fn answer(&self, id: PartitionId, body: Body) {
        self.change(id, |entry| {
            entry.served = None;
            entry.answer = Some(body);
        });
    }

    fn change(&self, id: PartitionId, change: impl FnOnce(&mut Entry)) {
        let mut state = self.state.lock();
        let entry = state.entries.entry(id).or_default();
        change(entry);
        if !std::mem::replace(&mut entry.in_line, true) {
            state.line.push_back(id);
        }
        self.changed.notify_one();
    }

    /// Waits until there is something to say and credit to say it with: answers
    /// that are ready, and partitions to be read, with the bytes they may have.
    pub(super) async fn next_turns(&self) -> (Vec<Body>, Vec<Turn>, usize) {
        loop {
            let changed = self.changed.notified();
            let (answers, turns, credit) = self.turns_now();
            if !answers.is_empty() || !turns.is_empty() {
                return (answers, turns, credit);
            }
            changed.await;
        }
    }

    fn turns_now(&self) -> (Vec<Body>, Vec<Turn>, usize) {
        let mut state = self.state.lock();
        let credit = usize::try_from(state.credit).unwrap_or_default();
        let (mut answers, mut turns) = (Vec::new(), Vec::new());
        for _ in 0..state.line.len().min(PARTITIONS_PER_TURN) {
            let Some(id) = state.line.pop_front() else { break };
            let Some(entry) = state.entries.get_mut(&id) else { continue };
            entry.in_line = false;
            if let Some(answer) = entry.answer.take() {
                answers.push(answer);
            }
            match &entry.served {
                Some(served) if credit > 0 => turns.push(Turn {
                    id,
                    of: served.of,
                    next: served.next,
                    told: served.told,
                    partition: Arc::clone(&served.partition),
                }),
                Some(_) => {
                    entry.in_line = true;
                    state.line.push_back(id);
                }
                None => {
                    state.entries.remove(&id);
                }
            }
        }
        (answers, turns, credit)
    }

    /// Takes what a turn brought; says what is to be sent, if the follower still
    /// stands where it stood.
    pub(super) fn finish(&self, turn: &Turn, read: Read) -> Option<Body> {
        let mut state = self.state.lock();
        let entry = state.entries.get_mut(&turn.id)?;
        let served = entry.served.as_mut()?;
        if served.of != turn.of || served.next != turn.next {
            return None;
        }
        match read {
            Read::Records { batches, next, watermark, log_start, more } => {
                served.next = next;
                served.told = served.told.max(Some((watermark, log_start)));
                if more && !std::mem::replace(&mut entry.in_line, true) {
                    state.line.push_back(turn.id);
                }
                state.credit -= i64::try_from(batches.len()).unwrap_or(i64::MAX);
                body(turn, batches, watermark, log_start)
            }
            Read::Gone { log_start } => {
                entry.served = None;
                let refusal = FollowRefusal::OutOfRange { log_start };
                Some(Body::Refused(wire::refused(turn.id, turn.of, refusal)))
            }
            // The partition's task will say what the follower has to know.
            Read::Ended => None,
            Read::Failed => {
                entry.served = None;
                let refused = wire::refused(turn.id, turn.of, FollowRefusal::Offline);
                Some(Body::Refused(refused))
            }
        }
    }
}

fn body(
    turn: &Turn,
    batches: bytes::Bytes,
    high_watermark: Offset,
    log_start_offset: Offset,
) -> Option<Body> {
    let (partition, session) = (wire::key(turn.id), turn.of.session);
    let leader_epoch = turn.of.leader_epoch.0;
    if !batches.is_empty() {
        return Some(Body::Append(Append {
            partition,
            session,
            leader_epoch,
            base_offset: turn.next,
            record_batches: batches,
            high_watermark,
            log_start_offset,
        }));
    }
    let moved = turn.told != Some((high_watermark, log_start_offset));
    moved.then_some(Body::Watermark(Watermark {
        partition,
        session,
        leader_epoch,
        high_watermark,
        log_start_offset,
    }))
}
