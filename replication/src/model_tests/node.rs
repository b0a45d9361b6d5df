//! A machine of the model: its log, what is lost when it stops, and the process
//! that drives a replica.

use super::disk::{Disk, Record};
use super::said::{Call, Message, Said};
use crate::core::{
    Acks, AlterOutcome, Effect, Event, Follow, Millis, Peer, Progress, Replica, ReplicaConfig,
    RequestId, RoleKind, SessionRef, Stage, View,
};
use ottla_proto::{BrokerEpoch, IncarnationId, LeaderEpoch, NodeId, Offset};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

/// A member of the ISR that is behind for so long leaves it.
pub(super) const LAG_MAX: Millis = 10_000;

#[derive(Clone, Hash)]
enum Op {
    Inspect(Stage),
    StartEpoch(Stage, LeaderEpoch),
    Truncate(Stage, Offset),
    Write(Stage, RequestId, LeaderEpoch),
    Copy(Stage, Vec<Record>),
}

impl Op {
    fn stage(&self) -> Stage {
        match self {
            Self::Inspect(stage)
            | Self::StartEpoch(stage, _)
            | Self::Truncate(stage, _)
            | Self::Write(stage, ..)
            | Self::Copy(stage, _) => *stage,
        }
    }
}

/// What a follower is being sent.
#[derive(Clone, Hash)]
struct Serving {
    peer: Peer,
    of: SessionRef,
    next: Offset,
    /// The watermark that it was told last.
    told: Offset,
}

#[derive(Clone)]
pub(super) struct Process {
    pub(super) replica: Replica,
    pub(super) broker_epoch: BrokerEpoch,
    pub(super) incarnation: IncarnationId,
    /// Index of the newest image it has seen.
    pub(super) image: usize,
    ops: VecDeque<Op>,
    syncing: Option<usize>,
    sync_wanted: bool,
    serving: BTreeMap<NodeId, Serving>,
    /// Number of the connection to each leader.
    streams: BTreeMap<NodeId, u64>,
}

#[derive(Clone)]
pub(super) struct Node {
    pub(super) id: NodeId,
    retry_backoff: Millis,
    pub(super) disk: Disk,
    pub(super) process: Option<Process>,
    written: BTreeMap<RequestId, Offset>,
    wants_all: BTreeSet<RequestId>,
    /// Requests answered as committed, and where they are.
    pub(super) acknowledged: Vec<(RequestId, Offset)>,
    pub(super) outbox: Vec<Message>,
    /// Connections are numbered by the leader; here one counter serves all.
    last_stream: u64,
    pub(super) truncations: u64,
}

impl Node {
    pub(super) fn new(id: u64, retry_backoff: Millis) -> Self {
        Self {
            id: NodeId(id),
            retry_backoff,
            disk: Disk::default(),
            process: None,
            written: BTreeMap::new(),
            wants_all: BTreeSet::new(),
            acknowledged: Vec::new(),
            outbox: Vec::new(),
            last_stream: 0,
            truncations: 0,
        }
    }

    pub(super) fn start(
        &mut self,
        broker_epoch: BrokerEpoch,
        incarnation: IncarnationId,
        image: usize,
        view: View,
        now: Millis,
    ) {
        let Self { id: me, retry_backoff, .. } = *self;
        let config = ReplicaConfig { me, retry_backoff };
        let (log, watermark) = (self.disk.state(), self.disk.watermark);
        let (replica, effects) = Replica::open(config, log, watermark, view, now);
        self.process = Some(Process {
            replica,
            broker_epoch,
            incarnation,
            image,
            ops: VecDeque::new(),
            syncing: None,
            sync_wanted: false,
            serving: BTreeMap::new(),
            streams: BTreeMap::new(),
        });
        self.apply(effects, &[], now);
    }

    /// `kept`: records beyond the synced ones that survive.
    pub(super) fn crash(&mut self, kept: usize) {
        if let Some(process) = self.process.take() {
            self.disk.watermark = process.replica.status().high_watermark;
            self.disk.lose(kept);
            self.written.clear();
        }
    }

    /// The process syncs its log and goes.
    pub(super) fn stop(&mut self) {
        self.disk.synced = self.disk.log.len();
        self.crash(0);
    }

    pub(super) fn step(&mut self, event: Event, records: &[Record], now: Millis) {
        if let Some(process) = &mut self.process {
            let is_tick = matches!(event, Event::Tick);
            let effects = process.replica.step(event, now);
            let due = process.replica.next_deadline().is_some_and(|at| at <= now);
            assert!(!(is_tick && due), "a tick leaves something due: it would go on for ever");
            self.apply(effects, records, now);
        }
    }

    pub(super) fn produce(&mut self, id: RequestId, acks: Acks, deadline: Millis, now: Millis) {
        if acks == Acks::All {
            self.wants_all.insert(id);
        }
        self.step(Event::Produce { id, acks, deadline }, &[], now);
    }

    fn apply(&mut self, effects: Vec<Effect>, records: &[Record], now: Millis) {
        for effect in effects {
            self.carry_out(effect, records, now);
        }
    }

    fn say(&mut self, to: NodeId, said: Said) {
        self.outbox.push(Message { from: self.id, to, said });
    }

    fn carry_out(&mut self, effect: Effect, records: &[Record], now: Millis) {
        let process = self.process.as_mut().expect("it runs");
        match effect {
            Effect::Inspect { stage } => process.ops.push_back(Op::Inspect(stage)),
            Effect::StartEpoch { stage, epoch } => {
                process.ops.push_back(Op::StartEpoch(stage, epoch));
            }
            Effect::Truncate { stage, to } => process.ops.push_back(Op::Truncate(stage, to)),
            Effect::RaiseStart { .. } | Effect::AnswerDeletion { .. } => {
                panic!("nothing is deleted here")
            }
            Effect::Reset { .. } => panic!("no log here ever starts above 0"),
            Effect::Write { stage, id, epoch } => {
                process.ops.push_back(Op::Write(stage, id, epoch))
            }
            Effect::Copy { stage } => process.ops.push_back(Op::Copy(stage, records.to_vec())),
            Effect::Sync => process.sync_wanted = true,
            Effect::Answer { id, result } => {
                if self.wants_all.remove(&id) && result.is_ok() {
                    let offset = self.written.get(&id).expect("only what was written is committed");
                    self.acknowledged.push((id, *offset));
                }
            }
            Effect::AlterPartition { leader_epoch, partition_epoch, isr } => {
                let broker_epoch = process.broker_epoch;
                let call = Call { broker_epoch, leader_epoch, partition_epoch };
                self.say(NodeId(0), Said::Propose { call, isr, awaited: true });
            }
            Effect::Serve { peer, of, from } => {
                let serving = Serving { peer, of, next: from, told: 0 };
                process.serving.insert(peer.node, serving);
            }
            Effect::Diverge { peer, of, epoch, end } => {
                self.say(peer.node, Said::Diverging { of, epoch, end });
            }
            Effect::Refuse { peer, of, refusal } => {
                self.say(peer.node, Said::Refused { of, refusal });
            }
            Effect::Reconsider(follow) => self.hear_follow(follow, now),
            Effect::Follow { leader, of, log } => {
                let follow = Follow {
                    peer: self.peer(leader),
                    broker_epoch: self.process.as_ref().expect("it runs").broker_epoch,
                    session: of.session,
                    leader_epoch: of.leader_epoch,
                    log,
                };
                self.say(leader, Said::Follow(follow));
            }
            Effect::Unfollow { leader } => {
                let peer = self.peer(leader);
                self.say(leader, Said::Unfollow(peer));
            }
            Effect::Acknowledge { leader, of, end, synced, start } => {
                let (session, leader_epoch) = (of.session, of.leader_epoch);
                let peer = self.peer(leader);
                let progress = Progress { peer, session, leader_epoch, end, synced, start };
                self.say(leader, Said::Progress(progress));
            }
        }
    }

    fn peer(&mut self, leader: NodeId) -> Peer {
        let last = &mut self.last_stream;
        let process = self.process.as_mut().expect("it runs");
        let stream = *process.streams.entry(leader).or_insert_with(|| {
            *last += 1;
            *last
        });
        Peer { node: self.id, stream }
    }

    /// A new connection to whom it follows.
    pub(super) fn reconnect(&mut self, now: Millis) {
        let Some(leader) = self.process.as_ref().and_then(|p| p.replica.status().leader) else {
            return;
        };
        self.process.as_mut().expect("it runs").streams.remove(&leader);
        self.step(Event::LinkOpened { leader }, &[], now);
    }

    fn hear_follow(&mut self, follow: Follow, now: Millis) {
        let local = follow.log.last_epoch.and_then(|epoch| self.disk.end_of(epoch));
        self.step(Event::Follow { follow, local }, &[], now);
    }

    pub(super) fn hear(&mut self, said: Said, now: Millis) {
        match said {
            Said::Follow(follow) => self.hear_follow(follow, now),
            Said::Progress(progress) => self.step(Event::Progress(progress), &[], now),
            Said::Unfollow(peer) => {
                if let Some(process) = &mut self.process {
                    process.serving.retain(|_, serving| serving.peer != peer);
                }
                self.step(Event::Unfollow { peer }, &[], now);
            }
            Said::Data { of, base, records, watermark } => {
                let end = base + records.len() as u64;
                self.step(Event::Data { of, base, end, watermark, log_start: 0 }, &records, now);
            }
            Said::Watermark { of, watermark } => {
                self.step(Event::Watermark { of, watermark, log_start: 0 }, &[], now);
            }
            Said::Diverging { of, epoch, end } => {
                let local = epoch.and_then(|epoch| self.disk.end_of(epoch));
                self.step(Event::Diverging { of, epoch, end, local }, &[], now);
            }
            Said::Refused { of, refusal } => {
                self.step(Event::FollowRefused { of, refusal }, &[], now);
            }
            Said::Answered { call, outcome } => self.hear_answer(call, outcome, now),
            Said::Propose { .. } => panic!("a proposal goes to the controller"),
        }
    }

    /// A later process of the node knows nothing of the call.
    pub(super) fn hear_answer(&mut self, call: Call, outcome: AlterOutcome, now: Millis) {
        let Call { broker_epoch, leader_epoch, partition_epoch } = call;
        if self.process.as_ref().is_some_and(|p| p.broker_epoch == broker_epoch) {
            let event = Event::AlterAnswered { leader_epoch, partition_epoch, outcome };
            self.step(event, &[], now);
        }
    }

    /// Carries out the next operation on the log. Returns whether there was one.
    pub(super) fn run_op(&mut self, now: Millis) -> bool {
        let Some(process) = &mut self.process else { return false };
        let stage = process.replica.stage();
        while process.ops.front().is_some_and(|op| op.stage() != stage) {
            process.ops.pop_front();
        }
        if matches!(process.ops.front(), Some(Op::Truncate(..))) && process.syncing.is_some() {
            return false;
        }
        let Some(op) = process.ops.pop_front() else { return false };
        let event = match op {
            Op::Inspect(stage) => Event::Settled { stage, log: self.disk.state() },
            Op::StartEpoch(stage, epoch) => {
                self.disk.note(epoch);
                Event::Settled { stage, log: self.disk.state() }
            }
            Op::Truncate(stage, to) => {
                let to = usize::try_from(to).expect("small");
                self.truncations += u64::from(to < self.disk.log.len());
                self.disk.truncate(to);
                Event::Settled { stage, log: self.disk.state() }
            }
            Op::Write(stage, id, epoch) => {
                self.written.insert(id, self.disk.log.len() as u64);
                self.disk.append((epoch, id));
                let end = self.disk.log.len() as u64;
                Event::Wrote { stage, end, writes: vec![(id, Ok(end))] }
            }
            Op::Copy(stage, records) => {
                records.into_iter().for_each(|record| self.disk.append(record));
                Event::Copied { stage, end: self.disk.log.len() as u64 }
            }
        };
        self.step(event, &[], now);
        true
    }

    /// Begins a sync, or ends the one under way.
    pub(super) fn sync(&mut self, now: Millis) -> bool {
        let Some(process) = &mut self.process else { return false };
        match process.syncing.take() {
            Some(up_to) => {
                self.disk.synced = self.disk.synced.max(up_to);
                self.step(Event::Synced { up_to: up_to as u64 }, &[], now);
                true
            }
            None if std::mem::take(&mut process.sync_wanted) => {
                process.syncing = Some(self.disk.log.len());
                true
            }
            None => false,
        }
    }

    /// Sends a follower up to `most` records, or the watermark.
    pub(super) fn push(&mut self, to: NodeId, most: usize) {
        let Some(process) = &mut self.process else { return };
        let status = process.replica.status();
        let Some(serving) = process.serving.get_mut(&to) else { return };
        let (of, base, watermark) = (serving.of, serving.next, status.high_watermark);
        if status.role != RoleKind::Leader || status.leader_epoch != of.leader_epoch {
            return;
        }
        let from = usize::try_from(base).expect("small");
        let end = usize::try_from(status.log_end).expect("small").min(from + most);
        serving.told = watermark;
        let said = if from < end {
            serving.next = end as u64;
            Said::Data { of, base, records: self.disk.log[from..end].to_vec(), watermark }
        } else {
            Said::Watermark { of, watermark }
        };
        self.say(to, said);
    }

    /// Whether there is something to push that was not pushed before.
    pub(super) fn has_news(&self, to: NodeId) -> bool {
        self.process.as_ref().is_some_and(|process| {
            let status = process.replica.status();
            process.serving.get(&to).is_some_and(|serving| {
                status.role == RoleKind::Leader
                    && status.leader_epoch == serving.of.leader_epoch
                    && (serving.next < status.log_end || serving.told < status.high_watermark)
            })
        })
    }

    /// What the future of the node depends on. Numbers of incarnations and of the
    /// next connection are left out: whatever they are, they are new. Of images
    /// only the newest can still be read.
    pub(super) fn hash_into(&self, newest: usize, into: &mut impl Hasher) {
        (self.id, &self.disk, &self.written, &self.wants_all).hash(into);
        let Some(process) = &self.process else { return };
        let Process { replica, broker_epoch, image, ops, serving, streams, .. } = process;
        (replica, broker_epoch, *image == newest, ops, serving, streams).hash(into);
        (process.syncing, process.sync_wanted).hash(into);
    }

    /// Whether a sync is asked for or under way.
    pub(super) fn owes_sync(&self) -> bool {
        self.process.as_ref().is_some_and(|p| p.sync_wanted || p.syncing.is_some())
    }
}
