//! The active controller: one task on the Raft leader that takes commands,
//! decides them against the applied image, proposes what follows as one batch,
//! and answers when it is applied.
//!
//! It decides nothing before everything up to the start of its own term is
//! applied, and nothing after its leadership ended. What it proposed and did
//! not see applied is reported as indefinite, never as refused.
//!
//! Not its job: the rules (`controller`), and who may ask (`controller_service`).

use super::control::{Queued, Submitted, unknown_fate};
use super::inner::Inner;
use super::proposal::{MAX_RECORD_BYTES, fits, parts};
use super::types::{LeaderId, Outcome, Proposal, TypeConfig};
use super::{hand_over, probe};
use crate::controller::{BatchDecision, Command, Controller, ControllerOptions};
use crate::image::Image;
use crate::records::MetadataRecord;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, MetadataOffset};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

/// Commands decided in one batch: what one Raft entry carries.
const BATCH_COMMANDS: usize = 256;

/// Decisions of one batch against images that had moved on. Only this task
/// proposes in its term, so a second one would already be strange.
const MAX_DECISIONS: usize = 8;

/// Interval at which silent brokers are looked for: a tenth of the default
/// session timeout.
const SESSION_TICK: Duration = Duration::from_millis(100);

/// Interval at which leaderships are given back to preferred replicas: Kafka's
/// figure (leader.imbalance.check.interval.seconds). Each move makes writers wait a
/// moment and look for another leader, so it must stay rare.
const BALANCE_TICK: Duration = Duration::from_secs(300);

/// Follows the leadership of this node until it shuts down.
pub(super) async fn run(inner: Arc<Inner>, mut commands: mpsc::Receiver<Queued>) {
    let mut active = inner.control.active.clone();
    loop {
        let term = *active.borrow_and_update();
        if let Some(term) = term {
            tracing::info!(%term, "this node is the active controller");
            Active::new(Arc::clone(&inner), term).run(&mut commands).await;
            tracing::info!(%term, "this node is not the active controller any more");
        }
        if *active.borrow() == term {
            tokio::select! {
                () = inner.stop.cancelled() => return,
                changed = active.changed() => if changed.is_err() { return },
                command = commands.recv() => match command {
                    Some(command) => command.answer(Err(inner.control.not_controller())),
                    None => return,
                },
            }
        }
    }
}

/// What became of a proposal.
enum Proposed {
    Applied(MetadataOffset),
    Conflict(MetadataOffset),
    /// Certainly not in the log.
    Refused,
    /// In some log, perhaps.
    Unknown,
}

/// The controller in one term.
struct Active {
    inner: Arc<Inner>,
    term: LeaderId,
    lost: watch::Receiver<Option<LeaderId>>,
    controller: Controller,
    started: Instant,
}

impl Active {
    fn new(inner: Arc<Inner>, term: LeaderId) -> Self {
        let image = inner.image();
        let timeout = inner.options.timings.broker_session_timeout;
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let options = ControllerOptions {
            cluster_id: inner.options.cluster_id.clone(),
            session_timeout_ms: timeout_ms,
            levels: inner.options.levels,
        };
        let controller = Controller::activate(options, &image, 0);
        for broker in image.brokers.values().filter(|broker| !broker.fenced) {
            if broker.node_id != inner.options.node_id {
                probe::start(&inner, broker.node_id, broker.epoch);
            }
        }
        let lost = inner.control.active.clone();
        Self { inner, term, lost, controller, started: Instant::now() }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Resolves when this term is over.
    async fn over(lost: &mut watch::Receiver<Option<LeaderId>>, term: LeaderId) {
        // An error means that the node is being torn down.
        let _ = lost.wait_for(|active| *active != Some(term)).await;
    }

    async fn run(mut self, commands: &mut mpsc::Receiver<Queued>) {
        let mut sessions = ticker(SESSION_TICK);
        let mut balance = ticker(BALANCE_TICK);
        let (mut lost, term) = (self.lost.clone(), self.term);
        // The controller before may have died in the middle of something.
        if !self.decide(unattended(vec![Command::Settle])).await {
            return;
        }
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                () = self.inner.stop.cancelled() => return,
                () = Self::over(&mut lost, term) => return,
                received = commands.recv_many(&mut batch, BATCH_COMMANDS) => {
                    if received == 0 {
                        return;
                    }
                }
                _ = sessions.tick() => {
                    // What is waiting may be a sign of life: it counts first.
                    while batch.len() < BATCH_COMMANDS && let Ok(queued) = commands.try_recv() {
                        batch.push(queued);
                    }
                    if !self.decide(batch).await {
                        return;
                    }
                    batch = unattended(self.controller.tick(&self.inner.image(), self.now_ms()));
                }
                _ = balance.tick() => self.balance(),
            }
            if !self.decide(batch).await {
                return;
            }
        }
    }

    /// Has leaderships given back, once their leaders have finished.
    fn balance(&self) {
        let inner = Arc::clone(&self.inner);
        self.inner.tasks.spawn(async move {
            let work = async {
                hand_over::prepare(&inner, &Command::BalanceLeaders).await;
                inner.control.notify(Command::BalanceLeaders);
            };
            inner.stop.run_until_cancelled(work).await;
        });
    }

    /// Decides all of `batch`, in as few proposals as fit. False when the term
    /// is over.
    async fn decide(&mut self, mut batch: Vec<Queued>) -> bool {
        let mut decisions = 0;
        while !batch.is_empty() {
            if *self.lost.borrow() != Some(self.term) {
                refuse(batch, &self.inner.control.not_controller());
                return false;
            }
            let image = self.inner.image();
            let (taken, decision) = self.plan(&image, &batch);
            let Some(decision) = decision else {
                let error = too_large(self.inner.options.limits.proposal_bytes);
                refuse(batch.drain(..taken).collect(), &error);
                continue;
            };
            let outcome = match decision.records.is_empty() {
                true => Proposed::Applied(image.offset),
                false => self.propose_all(decision.expected_offset, decision.records).await,
            };
            match outcome {
                Proposed::Applied(offset) => {
                    decisions = 0;
                    for (queued, answer) in batch.drain(..taken).zip(decision.replies) {
                        queued.answer(answer.map(|reply| Submitted { reply, offset }));
                    }
                }
                Proposed::Conflict(offset) => {
                    decisions += 1;
                    tracing::warn!(%offset, decided_on = %image.offset, "deciding again");
                    // Perhaps a part of it is written.
                    batch.splice(0..0, unattended(vec![Command::Settle]));
                    if decisions == MAX_DECISIONS {
                        refuse(batch, &self.inner.control.not_controller());
                        return true;
                    }
                }
                Proposed::Refused => {
                    refuse(batch, &self.inner.control.not_controller());
                    return false;
                }
                Proposed::Unknown => {
                    let undecided = batch.split_off(taken);
                    refuse(batch, &unknown_fate());
                    refuse(undecided, &self.inner.control.not_controller());
                    return false;
                }
            }
        }
        true
    }

    /// Decides as many commands from the front of `batch` as make one entry, and
    /// says how many. The first alone may make several, if it can be split; no
    /// decision if it cannot.
    fn plan(&mut self, image: &Image, batch: &[Queued]) -> (usize, Option<BatchDecision>) {
        let now = self.now_ms();
        let bytes = self.inner.options.limits.proposal_bytes;
        let mut taken = batch.len();
        loop {
            let commands = batch[..taken].iter().map(|queued| queued.command.clone()).collect();
            let decision = self.controller.decide_batch(image, commands, now);
            // Most batches need no look at their size.
            if decision.records.len() <= bytes / MAX_RECORD_BYTES || fits(&decision.records, bytes)
            {
                return (taken, Some(decision));
            }
            if taken == 1 {
                let decision = Some(decision).filter(|_| batch[0].command.may_be_split());
                return (taken, decision);
            }
            taken /= 2;
        }
    }

    /// Proposes all records, in as many entries as they need.
    async fn propose_all(
        &mut self,
        mut decided_on: MetadataOffset,
        records: Vec<MetadataRecord>,
    ) -> Proposed {
        let parts = parts(records, self.inner.options.limits.proposal_bytes);
        for (nth, part) in parts.into_iter().enumerate() {
            match self.propose(decided_on, part).await {
                Proposed::Applied(offset) => decided_on = offset,
                // What went before is in the log.
                Proposed::Refused if nth > 0 => return Proposed::Unknown,
                other => return other,
            }
        }
        Proposed::Applied(decided_on)
    }

    /// Proposes one batch and waits for its fate, at most until the term is
    /// over.
    async fn propose(
        &mut self,
        decided_on: MetadataOffset,
        records: Vec<MetadataRecord>,
    ) -> Proposed {
        let Some(raft) = self.inner.raft.get() else { return Proposed::Refused };
        let (responder, result) = ProgressResponder::<TypeConfig, _>::complete_only();
        let proposal = Proposal::new(decided_on, records);
        let write = raft.write(proposal).with_leader(self.term).responder(responder);
        if write.await.is_err() {
            return Proposed::Unknown;
        }
        let mut lost = self.lost.clone();
        let result = tokio::select! {
            result = result => result,
            () = Self::over(&mut lost, self.term) => return Proposed::Unknown,
            () = self.inner.stop.cancelled() => return Proposed::Unknown,
        };
        match result {
            Ok(Ok(response)) => match response.data {
                Outcome::Applied(offset) => Proposed::Applied(offset),
                Outcome::Conflict(offset) => Proposed::Conflict(offset),
            },
            Ok(Err(ClientWriteError::ForwardToLeader(_))) => Proposed::Refused,
            Ok(Err(_)) | Err(_) => Proposed::Unknown,
        }
    }
}

fn ticker(every: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + every, every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn unattended(commands: Vec<Command>) -> Vec<Queued> {
    commands.into_iter().map(|command| Queued { command, answer: None }).collect()
}

fn too_large(bytes: usize) -> ApiError {
    let what = format!(
        "the change takes more than the {bytes} bytes that one entry of the metadata log may \
         have: ask for it in several steps, of fewer partitions each"
    );
    ApiError::new(ErrorReason::InvalidRequest, what)
}

fn refuse(batch: Vec<Queued>, error: &ApiError) {
    for queued in batch {
        queued.answer(Err(error.clone()));
    }
}
