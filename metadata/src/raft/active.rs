//! The active controller: one task on the Raft leader that takes commands,
//! decides them against the applied image, proposes what follows as one batch,
//! and answers when it is applied.
//!
//! It decides nothing before everything up to the start of its own term is
//! applied, and nothing after its leadership ended. What it proposed and did
//! not see applied is reported as indefinite, never as refused.
//!
//! Not its job: the rules (`controller`), and who may ask (`controller_service`).

use super::addresses::Addresses;
use super::inner::Inner;
use super::proposal::fits;
use super::types::{LeaderId, Outcome, Proposal, TypeConfig};
use super::{hand_over, probe};
use crate::controller::{BatchDecision, Command, Controller, ControllerOptions, Reply};
use crate::image::Image;
use crate::records::MetadataRecord;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, Leader, LeaderEpoch, MetadataOffset, NodeId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

/// Commands waiting for the active controller. A cluster of five brokers sends
/// about thirty a second; more than this waiting means overload.
const QUEUED_COMMANDS: usize = 1024;

/// Commands decided in one batch: what one Raft entry carries.
const BATCH_COMMANDS: usize = 256;

/// Records up to which a batch needs no look at its size in bytes.
const BATCH_RECORDS: usize = 10_000;

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

/// Pause suggested to a caller that found the queue full.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(100);

/// A command that was decided, and the image offset at which its effect is in
/// force.
#[derive(Clone, Debug)]
pub(super) struct Submitted {
    pub(super) reply: Reply,
    pub(super) offset: MetadataOffset,
}

type Answer = Result<Submitted, ApiError>;

/// A command and who waits for it.
pub(super) struct Queued {
    command: Command,
    answer: Option<oneshot::Sender<Answer>>,
}

impl Queued {
    fn answer(self, answer: Answer) {
        match (self.answer, answer) {
            // A caller that gave up needs no answer.
            (Some(waiting), answer) => drop(waiting.send(answer)),
            (None, Err(error)) => tracing::debug!(%error, command = ?self.command, "refused"),
            (None, Ok(_)) => {}
        }
    }
}

/// Where commands are handed to the controller of this node.
pub(super) struct Control {
    node_id: NodeId,
    queue: mpsc::Sender<Queued>,
    /// The term in which this node's controller is active.
    active: watch::Receiver<Option<LeaderId>>,
    quorum: watch::Receiver<super::QuorumStatus>,
    addresses: Arc<Addresses>,
}

impl Control {
    /// The queue's other end goes to [`run`].
    pub(super) fn new(
        node_id: NodeId,
        active: watch::Receiver<Option<LeaderId>>,
        quorum: watch::Receiver<super::QuorumStatus>,
        addresses: Arc<Addresses>,
    ) -> (Self, mpsc::Receiver<Queued>) {
        let (queue, commands) = mpsc::channel(QUEUED_COMMANDS);
        (Self { node_id, queue, active, quorum, addresses }, commands)
    }

    /// NOT_CONTROLLER with who is, or CONTROLLER_NOT_AVAILABLE.
    pub(super) fn not_controller(&self) -> ApiError {
        let leader = self.quorum.borrow().leader.filter(|leader| *leader != self.node_id);
        let Some(leader) = leader else {
            let what = "the metadata quorum has no leader that could decide";
            return ApiError::new(ErrorReason::ControllerNotAvailable, what);
        };
        let what = format!("node {} is not the controller, node {leader} is", self.node_id);
        let hint = self.addresses.of(leader).map(|peer| Leader {
            node_id: leader,
            epoch: LeaderEpoch(0),
            host: peer.host,
            port: peer.port,
        });
        ApiError::new(ErrorReason::NotController, what).with_leader(hint)
    }

    /// Waits while this node leads the quorum but has not applied everything
    /// up to its own term yet.
    pub(super) async fn until_active(&self) -> Result<(), ApiError> {
        let (mut active, mut quorum) = (self.active.clone(), self.quorum.clone());
        loop {
            if active.borrow_and_update().is_some() {
                return Ok(());
            }
            if quorum.borrow_and_update().leader != Some(self.node_id) {
                return Err(self.not_controller());
            }
            let changed = tokio::select! {
                changed = active.changed() => changed,
                changed = quorum.changed() => changed,
            };
            if changed.is_err() {
                return Err(self.not_controller());
            }
        }
    }

    /// Has a command decided by the controller on this node and waits until
    /// its effect is applied here. Fails with NOT_CONTROLLER or
    /// CONTROLLER_NOT_AVAILABLE where this node does not lead the quorum:
    /// then nothing was done.
    pub(super) async fn submit_here(&self, command: Command) -> Answer {
        self.until_active().await?;
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Queued { command, answer: Some(answer) }).map_err(
            |error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    ApiError::new(ErrorReason::Overloaded, "the controller's queue is full")
                        .with_retry_after(OVERLOAD_PAUSE)
                }
                mpsc::error::TrySendError::Closed(_) => {
                    ApiError::new(ErrorReason::ShuttingDown, "this node is shutting down")
                }
            },
        )?;
        answered.await.unwrap_or_else(|_| Err(unknown_fate()))
    }

    /// Hands in a command that nobody waits for. Lost if the queue is full:
    /// for what would be noticed again later.
    pub(super) fn notify(&self, command: Command) {
        if let Err(error) = self.queue.try_send(Queued { command, answer: None }) {
            tracing::warn!(%error, "a command for the controller was dropped");
        }
    }
}

fn unknown_fate() -> ApiError {
    let what = "the controller lost its leadership before the change was known to be committed";
    ApiError::new(ErrorReason::LeadershipLost, what)
}

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
                let what = "the change is larger than one entry of the metadata log may be";
                let error = ApiError::new(ErrorReason::InvalidRequest, what);
                refuse(batch.drain(..taken).collect(), &error);
                continue;
            };
            let outcome = match decision.records.is_empty() {
                true => Proposed::Applied(image.offset),
                false => self.propose(decision.expected_offset, decision.records).await,
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

    /// Decides as many commands from the front of `batch` as make one entry,
    /// and says how many; no decision where already the first is too large.
    fn plan(&mut self, image: &Image, batch: &[Queued]) -> (usize, Option<BatchDecision>) {
        let now = self.now_ms();
        let mut taken = batch.len();
        loop {
            let commands = batch[..taken].iter().map(|queued| queued.command.clone()).collect();
            let decision = self.controller.decide_batch(image, commands, now);
            if decision.records.len() <= BATCH_RECORDS || fits(&decision.records) {
                return (taken, Some(decision));
            }
            if taken == 1 {
                return (taken, None);
            }
            taken /= 2;
        }
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

fn refuse(batch: Vec<Queued>, error: &ApiError) {
    for queued in batch {
        queued.answer(Err(error.clone()));
    }
}
