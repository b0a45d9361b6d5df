//! What one follower's connection is to be sent. Partitions put themselves in
//! line when they have something; those that are idle cost nothing.

use super::read::Read;
use crate::core::{FollowRefusal, SessionRef};
use crate::flow::{Schedule, Traffic};
use crate::partition::Partition;
use crate::wire;
use ottla_proto::internal::v1::replicate_response::Message as Body;
use ottla_proto::internal::v1::{Append, Diverging, Watermark};
use ottla_proto::{LeaderEpoch, NodeId, Offset, PartitionId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::Notify;

/// Where a follower stands in a partition.
struct Served {
    of: SessionRef,
    /// First offset not yet sent.
    next: Offset,
    /// Highest watermark and log start sent.
    told: Option<(Offset, Offset)>,
    /// What it needs next was not in memory when it was looked for.
    cold: bool,
    partition: Arc<Partition>,
}

struct State {
    served: HashMap<PartitionId, Served>,
    /// Answers instead of records.
    answers: BTreeMap<PartitionId, Body>,
    schedule: Schedule<PartitionId>,
}

/// One connection of a follower.
pub(crate) struct Session {
    stream: u64,
    node: NodeId,
    state: Mutex<State>,
    /// One for each kind of traffic.
    changed: [Notify; Traffic::ALL.len()],
}

/// One partition's turn: what to read.
pub(super) struct Turn {
    pub(super) id: PartitionId,
    pub(super) of: SessionRef,
    pub(super) next: Offset,
    pub(super) max_bytes: usize,
    pub(super) partition: Arc<Partition>,
    told: Option<(Offset, Offset)>,
}

impl Session {
    pub(super) fn new(stream: u64, node: NodeId, credit: u64) -> Self {
        let (served, answers) = (HashMap::new(), BTreeMap::new());
        let state = Mutex::new(State { served, answers, schedule: Schedule::new(credit) });
        Self { stream, node, state, changed: Default::default() }
    }

    pub(crate) fn stream(&self) -> u64 {
        self.stream
    }

    /// From now on the follower is sent what the partition has from `from` on.
    pub(crate) fn serve(&self, partition: &Arc<Partition>, of: SessionRef, from: Offset) {
        let partition = Arc::clone(partition);
        let (id, told) = (partition.id, None);
        let served = Served { of, next: from, told, cold: false, partition };
        let mut state = self.state.lock();
        state.answers.remove(&id);
        state.served.insert(id, served);
        self.ready(&mut state, id);
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

    /// The partition has more, its watermark moved, or its ISR changed. False: it is
    /// not served.
    pub(crate) fn wake(&self, id: PartitionId) -> bool {
        self.ready(&mut self.state.lock(), id)
    }

    /// The partition is not served any more.
    pub(crate) fn forget(&self, id: PartitionId) {
        let mut state = self.state.lock();
        state.served.remove(&id);
        state.schedule.remove(id);
    }

    pub(super) fn add_credit(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.schedule.add_credit(bytes);
        self.tell(&state);
    }

    fn answer(&self, id: PartitionId, body: Body) {
        let mut state = self.state.lock();
        state.served.remove(&id);
        state.schedule.remove(id);
        state.answers.insert(id, body);
        self.tell(&state);
    }

    fn ready(&self, state: &mut State, id: PartitionId) -> bool {
        let Some(served) = state.served.get(&id) else { return false };
        state.schedule.ready(id, self.traffic(served));
        self.tell(state);
        true
    }

    fn traffic(&self, served: &Served) -> Traffic {
        match served.partition.traffic_to(self.node) {
            Traffic::Live if served.cold => Traffic::Lagging,
            traffic => traffic,
        }
    }

    /// Wakes whoever has something to do now.
    fn tell(&self, state: &State) {
        for traffic in Traffic::ALL {
            if state.has(traffic) {
                self.changed[traffic.index()].notify_one();
            }
        }
    }

    /// Waits until there is something to say, and credit to say it with.
    pub(super) async fn has(&self, traffic: Traffic) {
        loop {
            let changed = self.changed[traffic.index()].notified();
            if self.state.lock().has(traffic) {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn next_answer(&self) -> Option<Body> {
        self.state.lock().answers.pop_first().map(|(_, body)| body)
    }

    /// Followers outside of the ISR have waited long enough.
    pub(super) fn owes_catch_up(&self) -> bool {
        self.state.lock().schedule.owes_catch_up()
    }

    /// The next partition to be read. Each is handed back by
    /// [`release`](Self::release).
    pub(super) fn next(&self, traffic: Traffic) -> Option<Turn> {
        let mut state = self.state.lock();
        loop {
            let grant = state.schedule.next(traffic)?;
            let Some(served) = state.served.get(&grant.key) else {
                state.schedule.done(grant.key, traffic);
                continue;
            };
            return Some(Turn {
                id: grant.key,
                of: served.of,
                next: served.next,
                max_bytes: grant.max_bytes,
                partition: Arc::clone(&served.partition),
                told: served.told,
            });
        }
    }

    /// Takes what a turn brought; says what is to be sent, if the follower still
    /// stands where it stood.
    pub(super) fn finish(&self, turn: &Turn, read: Read) -> Option<Body> {
        let mut state = self.state.lock();
        let State { served, schedule, .. } = &mut *state;
        let place = served.get_mut(&turn.id)?;
        if place.of != turn.of || place.next != turn.next {
            return None;
        }
        let refusal = match read {
            Read::Records { batches, next, watermark, log_start, more } => {
                place.next = next;
                place.told = place.told.max(Some((watermark, log_start)));
                place.cold &= more;
                schedule.pushed(turn.id, batches.len(), more);
                return body(turn, batches, next, watermark, log_start);
            }
            Read::NotInMemory => {
                place.cold = true;
                schedule.pushed(turn.id, 0, true);
                return None;
            }
            // The partition's task will say what the follower has to know.
            Read::Ended => return None,
            Read::Gone { log_start } => FollowRefusal::OutOfRange { log_start },
            Read::Failed => FollowRefusal::Offline,
        };
        served.remove(&turn.id);
        Some(Body::Refused(wire::refused(turn.id, turn.of, refusal)))
    }

    /// The partition's turn is over, and what it brought cannot be overtaken.
    pub(super) fn release(&self, turn: &Turn) {
        let mut state = self.state.lock();
        let served = state.served.get(&turn.id);
        match served.map(|served| self.traffic(served)) {
            Some(traffic) => state.schedule.done(turn.id, traffic),
            None => state.schedule.forget(turn.id),
        }
        self.tell(&state);
    }
}

impl State {
    fn has(&self, traffic: Traffic) -> bool {
        (traffic == Traffic::Live && !self.answers.is_empty()) || self.schedule.has(traffic)
    }
}

fn body(
    turn: &Turn,
    batches: bytes::Bytes,
    next: Offset,
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
            trace_parents: turn.partition.traced.between(turn.of.leader_epoch, turn.next, next),
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
