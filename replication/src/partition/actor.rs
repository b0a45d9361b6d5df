//! The task that owns a partition's replica: takes messages in batches, steps the
//! replica, carries out what it says. Nothing but this task orders operations on
//! the log, and it never waits for anything but its next event.

mod effects;

use super::ops::{self, Copy, Done, Op, OpQueue, Placed, Running, Write};
use super::requests::Requests;
use super::traced::Copying;
use super::{DeleteRequest, Directive, LocalPartition, Message, Partition, ProduceRequest};
use crate::core::{
    Event, FollowRefusal, LogState, Replica, ReplicaConfig, ReplicaStatus, RoleKind, View,
};
use crate::env::Env;
use crate::serve::Session;
use bytes::Bytes;
use effects::Payload;
use ottla_commitlog::format::batch_headers;
use ottla_commitlog::{Log, LogError};
use ottla_host::{Blocking, blocking};
use ottla_proto::Offset;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Wait before something that was refused or failed is tried again, such as a
/// Follow or a proposed ISR.
const RETRY_BACKOFF: Duration = Duration::from_millis(50);

/// Wait before an operation that found no space is tried again.
const FULL_DISK_BACKOFF: Duration = Duration::from_secs(1);

/// Messages taken at once: what a sync's time brings at some 100,000 a second.
const MESSAGES_PER_TURN: usize = 256;

/// Messages for which a partition keeps memory between two turns: thousands of
/// partitions that had a burst once should not hold on to it.
const MESSAGES_KEPT: usize = 16;

pub(super) struct Actor {
    env: Arc<Env>,
    partition: Arc<Partition>,
    log: Arc<Log>,
    replica: Replica,
    ops: OpQueue,
    running: Option<Running>,
    syncing: Option<Blocking<Result<Offset, LogError>>>,
    sync_wanted: bool,
    /// After a full disk, when the next operation may begin.
    blocked_until: Option<Instant>,
    requests: Requests,
    served: Vec<Arc<Session>>,
    copying: Copying,
    published: ReplicaStatus,
    failure: Option<String>,
}

/// What one round of waiting brought.
enum Woken {
    Messages,
    Op(Done),
    Sync(Result<Offset, String>),
    Directive,
    Time,
}

impl Actor {
    pub(super) fn new(env: Arc<Env>, partition: Arc<Partition>, log: Arc<Log>, view: View) -> Self {
        let config = ReplicaConfig { me: env.node_id, retry_backoff: millis(RETRY_BACKOFF) };
        let watermark = env.old_watermarks.get(&partition.id).copied().unwrap_or_default();
        let state = ops::inspect(&log);
        let (replica, effects) = Replica::open(config, state, watermark, view, env.clock.now());
        let mut actor = Self {
            published: replica.status(),
            env,
            partition,
            log,
            replica,
            ops: OpQueue::default(),
            running: None,
            syncing: None,
            sync_wanted: false,
            blocked_until: None,
            requests: Requests::default(),
            served: Vec::new(),
            copying: Copying::default(),
            failure: None,
        };
        actor.apply(effects, None);
        actor.publish_status(actor.published);
        actor
    }

    pub(super) async fn run(
        mut self,
        mut mailbox: mpsc::Receiver<Message>,
        directives: &mut watch::Receiver<Directive>,
    ) {
        let mut messages = Vec::new();
        loop {
            self.start_ops();
            self.publish();
            let woken = self.wait(&mut mailbox, &mut messages, directives).await;
            // Before any message: whoever sent one may have read newer metadata.
            if directives.has_changed().unwrap_or(false) {
                match &*directives.borrow_and_update() {
                    Directive::Run(view) => {
                        let view = View::clone(view);
                        self.step(Event::Metadata(view));
                    }
                    Directive::Stop | Directive::Delete => break,
                }
            }
            for message in messages.drain(..) {
                self.on_message(message);
            }
            messages.shrink_to(MESSAGES_KEPT);
            match woken {
                Woken::Op(done) => self.on_done(done),
                Woken::Sync(Ok(up_to)) => self.step(Event::Synced { up_to }),
                Woken::Sync(Err(reason)) => self.on_failure(reason),
                Woken::Time => self.step(Event::Tick),
                Woken::Messages | Woken::Directive => {}
            }
        }
        self.end(mailbox).await;
    }

    async fn wait(
        &mut self,
        mailbox: &mut mpsc::Receiver<Message>,
        messages: &mut Vec<Message>,
        directives: &mut watch::Receiver<Directive>,
    ) -> Woken {
        let tick = self.replica.next_deadline().map(|millis| self.env.clock.instant(millis));
        let wake = [tick, self.blocked_until].into_iter().flatten().min();
        let (running, syncing) = (&mut self.running, &mut self.syncing);
        tokio::select! {
            done = async { running.as_mut().expect("guarded").done().await },
                if running.is_some() => {
                self.running = None;
                Woken::Op(done)
            }
            synced = async { syncing.as_mut().expect("guarded").await }, if syncing.is_some() => {
                self.syncing = None;
                Woken::Sync(match synced {
                    Ok(Ok(up_to)) => Ok(up_to),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(lost) => Err(lost.to_string()),
                })
            }
            _ = mailbox.recv_many(messages, MESSAGES_PER_TURN) => Woken::Messages,
            _ = directives.changed() => {
                directives.mark_changed();
                Woken::Directive
            }
            () = async { tokio::time::sleep_until(wake.expect("guarded")).await },
                if wake.is_some() => {
                self.blocked_until = self.blocked_until.filter(|until| *until > Instant::now());
                Woken::Time
            }
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Event(Event::Unfollow { peer }) => {
                if let Some(session) = self.env.sessions.get(peer.stream) {
                    session.forget(self.partition.id);
                }
                self.served.retain(|session| session.stream() != peer.stream);
                self.step(Event::Unfollow { peer });
            }
            Message::Event(event) => self.step(event),
            Message::Produce(request) => self.on_produce(request),
            Message::DeleteRecords(request) => self.on_delete_records(request),
            Message::StartRaised => self.on_start_raised(),
            Message::Followers(reply) => {
                // Fails when nobody waits for it any more.
                let _ = reply.send(self.replica.followers().collect());
            }
            Message::Failed(reason) => self.on_failure(reason),
            Message::Follow(follow) => {
                let local = follow.log.last_epoch.and_then(|epoch| self.end_of_epoch(epoch));
                self.step(Event::Follow { follow, local });
            }
            Message::Diverging { of, epoch, end } => {
                let local = epoch.and_then(|epoch| self.end_of_epoch(epoch));
                self.step(Event::Diverging { of, epoch, end, local });
            }
            Message::Data(incoming) => {
                let (of, base, watermark) = (incoming.of, incoming.base, incoming.watermark);
                let Some(end) = end_of(&incoming.batches) else {
                    tracing::warn!(partition = %self.partition.id, "unreadable batches dropped");
                    let refusal = FollowRefusal::UnknownPartition;
                    return self.step(Event::FollowRefused { of, refusal });
                };
                self.copying.begin(&self.env, self.partition.id, &incoming.trace_parents, end);
                let log_start = incoming.log_start;
                let event = Event::Data { of, base, end, watermark, log_start };
                let effects = self.replica.step(event, self.env.clock.now());
                let payload = Copy { batches: incoming.batches, credit: incoming.credit };
                self.apply(effects, Some(Payload::Copy(payload)));
            }
        }
    }

    fn on_start_raised(&mut self) {
        let start = self.log.bounds().start;
        self.step(Event::StartRaised { start });
    }

    fn on_delete_records(&mut self, request: DeleteRequest) {
        let id = self.requests.add_deletion(request.reply);
        let (before, deadline) = (request.before, self.env.clock.at(request.deadline));
        self.step(Event::DeleteRecords { id, before, deadline });
    }

    fn on_produce(&mut self, request: ProduceRequest) {
        let current = self.replica.status().leader_epoch;
        if request.epoch.is_some_and(|epoch| epoch != current) {
            // Fails when nobody waits for it any more.
            let _ = request.reply.send(Err(self.env.not_leader(self.partition.id)));
            return;
        }
        let admission = Arc::new(request.admission);
        let count = request.batch.header().record_count;
        let id = self.requests.add(request.reply, count, Arc::clone(&admission));
        let (acks, deadline) = (request.acks, self.env.clock.at(request.deadline));
        let event = Event::Produce { id, acks, deadline };
        let effects = self.replica.step(event, self.env.clock.now());
        let ProduceRequest { batch, trace_parent, .. } = request;
        let write = Write { id, batch, admission, trace_parent };
        self.apply(effects, Some(Payload::Write(write)));
    }

    fn step(&mut self, event: Event) {
        let effects = self.replica.step(event, self.env.clock.now());
        self.apply(effects, None);
    }

    fn end_of_epoch(&self, epoch: ottla_proto::LeaderEpoch) -> Option<crate::core::EpochEnd> {
        let found = self.log.end_of_epoch(epoch)?;
        Some(crate::core::EpochEnd { epoch: found.epoch, end: found.end_offset })
    }

    fn start_ops(&mut self) {
        while self.running.is_none() && self.blocked_until.is_none() {
            match self.ops.next(self.replica.stage(), self.syncing.is_some()) {
                Some(Op::Inspect(stage)) => {
                    let log = ops::inspect(&self.log);
                    self.step(Event::Settled { stage, log });
                }
                Some(Op::Copy(stage, _)) if self.lacks_room_for_copies() => {
                    let path = self.log.dir().to_owned();
                    self.on_done(Done::CopyRejected { stage, reason: LogError::DiskFull { path } });
                }
                Some(op) => self.running = Some(Running::begin(&self.log, op)),
                None => break,
            }
        }
        let may_sync = !self.running.as_ref().is_some_and(|running| running.removes);
        if self.sync_wanted && self.syncing.is_none() && may_sync && self.failure.is_none() {
            self.sync_wanted = false;
            let log = Arc::clone(&self.log);
            self.syncing = Some(blocking(move || log.sync()));
        }
    }

    /// The last bytes of a disk are for what nodes write themselves.
    fn lacks_room_for_copies(&self) -> bool {
        let disk = self.partition.directory().map(|directory| self.env.disks.of(directory));
        disk.is_some_and(|disk| disk.room.refuses_copies())
            && !self.env.is_internal(self.partition.id)
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Settled { stage, log } => {
                // Retention may have removed something since it was looked at.
                let log = LogState { start: self.log.bounds().start.min(log.end), ..log };
                self.step(Event::Settled { stage, log });
            }
            Done::StartRaised => self.on_start_raised(),
            Done::Wrote { stage, epoch, end, mut writes } => {
                for written in &mut writes {
                    if let Ok((base, _)) = written.place {
                        self.requests.appended(written.id, base, end, epoch);
                        if !written.trace_parent.is_empty() {
                            let trace_parent = std::mem::take(&mut written.trace_parent);
                            self.partition.traced.appended(epoch, base, trace_parent);
                        }
                    }
                }
                let next = |written: Placed| (written.id, written.place.map(|(_, next)| next));
                let writes = writes.into_iter().map(next).collect();
                self.step(Event::Wrote { stage, end, writes });
            }
            Done::WriteRejected { stage, ids } => {
                tracing::warn!(partition = %self.partition.id, "no space for a write");
                self.step(Event::WriteRejected { stage, ids });
            }
            Done::Copied { stage, end } => self.step(Event::Copied { stage, end }),
            Done::CopyRejected { stage, reason } => {
                tracing::warn!(partition = %self.partition.id, %reason, "leader's records refused");
                if matches!(reason, LogError::DiskFull { .. }) {
                    self.blocked_until = Some(Instant::now() + FULL_DISK_BACKOFF);
                }
                self.step(Event::CopyRejected { stage });
            }
            Done::Blocked(op) => {
                tracing::warn!(partition = %self.partition.id, "no space; to be tried again");
                self.ops.push_front(op);
                self.blocked_until = Some(Instant::now() + FULL_DISK_BACKOFF);
            }
            Done::Failed(reason) => self.on_failure(reason),
        }
    }

    fn on_failure(&mut self, reason: String) {
        if self.failure.is_none() {
            self.partition.fail(&self.env, &reason);
            self.failure = Some(reason);
            self.step(Event::DiskFailed);
        }
    }

    /// Tells readers, and the followers' streams if there is something for them.
    fn publish(&mut self) {
        let (status, before) = (self.replica.status(), self.published);
        let urgency_changed = self.publish_waited_for();
        if status != before {
            self.publish_status(status);
        }
        if status.role != before.role || status.leader_epoch != before.leader_epoch {
            self.copying.start_over();
        }
        self.copying.synced(status.synced);
        if status.role != RoleKind::Leader || status.leader_epoch != before.leader_epoch {
            for session in self.served.drain(..) {
                session.forget(self.partition.id);
            }
            return;
        }
        let seen =
            |status: ReplicaStatus| (status.log_start, status.log_end, status.high_watermark);
        if urgency_changed || seen(status) != seen(before) {
            self.served.retain(|session| session.wake(self.partition.id));
        }
    }

    /// How urgent it is what followers are sent. Returns whether that has changed.
    fn publish_waited_for(&self) -> bool {
        let mut known = self.partition.waited_for.lock();
        let changed = !self.replica.waited_for().eq(known.iter().copied());
        if changed {
            known.clear();
            known.extend(self.replica.waited_for());
        }
        changed
    }

    fn publish_status(&mut self, status: ReplicaStatus) {
        self.published = status;
        if self.failure.is_some() {
            return;
        }
        let isr = self.replica.isr();
        self.partition.state.send_modify(|state| {
            let isr = match state {
                LocalPartition::Running { isr: known, .. } if **known == *isr => Arc::clone(known),
                _ => Arc::new(isr.clone()),
            };
            *state = LocalPartition::Running { status, isr };
        });
    }

    /// Ends in order: nothing of what was begun is left half done, and the log
    /// is closed.
    async fn end(mut self, mailbox: mpsc::Receiver<Message>) {
        drop(mailbox);
        for session in self.served.drain(..) {
            session.forget(self.partition.id);
        }
        if let Some(leader) = self.published.leader {
            self.env.links.unfollow(leader, self.partition.id);
        }
        if let Some(mut running) = self.running.take() {
            running.done().await;
        }
        if let Some(syncing) = self.syncing.take() {
            // Whatever it found, closing finds too.
            let _ = syncing.await;
        }
        let log = Arc::clone(&self.log);
        match blocking(move || log.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.partition.fail(&self.env, &error.to_string()),
            Err(error) => self.partition.fail(&self.env, &error.to_string()),
        }
    }
}

fn end_of(batches: &Bytes) -> Option<Offset> {
    let mut end = None;
    for header in batch_headers(batches) {
        end = Some(header.ok()?.0.next_offset());
    }
    end
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
