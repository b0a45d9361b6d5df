//! A partition on this node: one task that owns its replica, and what others
//! may see and send.

mod actor;
mod fit;
mod gate;
mod ops;
mod requests;
mod traced;

pub(crate) use gate::Entry;
pub(crate) use ops::wall_clock_ms;

use crate::ReplicaCounts;
use crate::budget::Share;
use crate::core::{
    Acks, DeletionRefusal, Event, Follow, FollowRefusal, ProduceRefusal, ReplicaStatus, RoleKind,
    SessionRef, View,
};
use crate::env::Env;
use crate::flow::Traffic;
use crate::link::Credit;
use crate::offline::OfflineReports;
use actor::Actor;
use bytes::Bytes;
use gate::Gate;
use ottla_commitlog::data_dir::Place;
use ottla_commitlog::format::ValidBatch;
use ottla_commitlog::{Log, LogConfig, LogError, OpenMode, Recovery};
use ottla_host::blocking;
use ottla_proto::{ApiError, LeaderEpoch, NodeId, Offset, PartitionId};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use traced::Traced;

/// Messages that wait for a partition's task. It takes all of them at once; the
/// bytes they hold are bounded by the produce limit and the replication credit.
const MAILBOX_MESSAGES: usize = 1024;

/// A local partition, for readers, health and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalPartition {
    /// Its log is being opened.
    Opening,
    /// It takes part.
    Running {
        /// The replica.
        status: ReplicaStatus,
        /// The committed in-sync replicas, as far as known here.
        isr: Arc<BTreeSet<NodeId>>,
    },
    /// It cannot be used on this node until the node is started again.
    Offline {
        /// The first error.
        reason: Arc<str>,
    },
}

impl LocalPartition {
    /// The replica, while it takes part.
    #[must_use]
    pub fn status(&self) -> Option<&ReplicaStatus> {
        match self {
            Self::Running { status, .. } => Some(status),
            Self::Opening | Self::Offline { .. } => None,
        }
    }

    /// The replica, if it leads and its leadership has started.
    #[must_use]
    pub fn leading(&self) -> Option<&ReplicaStatus> {
        self.status().filter(|status| status.role == RoleKind::Leader)
    }
}

pub(crate) enum Message {
    Produce(ProduceRequest),
    DeleteRecords(DeleteRequest),
    /// Somebody wants to know how far the followers are.
    Followers(oneshot::Sender<Vec<(NodeId, Option<Offset>)>>),
    /// Retention removed records from the start of the log.
    StartRaised,
    /// Maintenance found the disk failed.
    Failed(String),
    Follow(Follow),
    Data(Incoming),
    Diverging {
        of: SessionRef,
        epoch: Option<LeaderEpoch>,
        end: Offset,
    },
    Event(Event),
}

pub(crate) struct ProduceRequest {
    pub(crate) batch: ValidBatch,
    /// The span that it belongs to, as a `traceparent`; empty: none.
    pub(crate) trace_parent: String,
    pub(crate) acks: Acks,
    pub(crate) deadline: Instant,
    /// The leadership in which it is meant, if not in any.
    pub(crate) epoch: Option<LeaderEpoch>,
    pub(crate) reply: oneshot::Sender<Result<crate::Produced, ApiError>>,
    pub(crate) admission: Admission,
}

/// What a write holds until it is written and answered.
pub(crate) struct Admission {
    /// Its share of the node's produce memory.
    pub(crate) _memory: Share,
    pub(crate) _entry: Entry,
}

pub(crate) struct DeleteRequest {
    /// All records below are to go; `None`: all that are committed.
    pub(crate) before: Option<Offset>,
    pub(crate) deadline: Instant,
    pub(crate) reply: oneshot::Sender<Result<Offset, ApiError>>,
}

/// Records that a leader pushed.
pub(crate) struct Incoming {
    pub(crate) of: SessionRef,
    pub(crate) base: Offset,
    pub(crate) watermark: Offset,
    pub(crate) log_start: Offset,
    pub(crate) batches: Bytes,
    /// The leader's spans of what is traced in it.
    pub(crate) trace_parents: Vec<String>,
    /// Goes back to the leader when the records are written or dropped.
    pub(crate) credit: Credit,
}

/// What the manager wants of a partition's task.
#[derive(Clone)]
enum Directive {
    Run(Arc<View>),
    /// End, everything synced.
    Stop,
    /// End, and delete the log.
    Delete,
}

/// How a partition of this process begins.
pub(crate) struct Start {
    /// Where its log lies, or why it cannot be used.
    pub(crate) place: Result<Place, String>,
    /// It belongs to what this node had when it started.
    pub(crate) at_start: bool,
}

/// Wait before a log for which there was no room is opened again: no load on a disk, even
/// with thousands of them, and soon enough for who has just made room.
const ROOM_AGAIN: Duration = Duration::from_secs(1);

/// A partition as others see it.
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    mailbox: mpsc::Sender<Message>,
    directive: watch::Sender<Directive>,
    state: watch::Sender<LocalPartition>,
    log: OnceLock<Arc<Log>>,
    /// What the log is to be configured to, also while it is being opened.
    config: Mutex<LogConfig>,
    /// Replicas that a reassignment adds.
    adding: Mutex<Vec<NodeId>>,
    /// Leader only: followers that what is committed waits for.
    waited_for: Mutex<Vec<NodeId>>,
    /// The data directory its log lies in, if it can be used.
    directory: Option<usize>,
    /// This node.
    node: NodeId,
    /// Where failed disks are reported.
    offline: Arc<OfflineReports>,
    /// The door for writes.
    pub(crate) writes: Gate,
    /// Leader only: the spans of what was appended last.
    pub(crate) traced: Traced,
}

impl Partition {
    /// Starts the partition's task, which opens the log first.
    pub(crate) fn start(
        env: &Arc<Env>,
        id: PartitionId,
        view: View,
        config: LogConfig,
        start: Start,
    ) -> Arc<Self> {
        let (mailbox, messages) = mpsc::channel(MAILBOX_MESSAGES);
        let (directive, directives) = watch::channel(Directive::Run(Arc::new(view)));
        let state = watch::Sender::new(LocalPartition::Opening);
        let directory = start.place.as_ref().ok().map(|place| place.directory);
        let (log, config) = (OnceLock::new(), Mutex::new(config));
        let writes = Gate::default();
        let partition = Arc::new(Self {
            id,
            mailbox,
            directive,
            state,
            log,
            config,
            adding: Mutex::default(),
            waited_for: Mutex::default(),
            directory,
            node: env.node_id,
            offline: Arc::clone(&env.offline),
            writes,
            traced: Traced::default(),
        });
        let task = run(Arc::clone(env), Arc::clone(&partition), messages, directives, start);
        env.tasks.spawn(task);
        partition
    }

    /// Hands a message to the task. Lost if the task has ended.
    pub(crate) async fn send(&self, message: Message) {
        // A partition that has ended answers nobody; its state says so.
        let _ = self.mailbox.send(message).await;
    }

    pub(crate) fn set_view(&self, view: View) {
        self.directive.send_replace(Directive::Run(Arc::new(view)));
    }

    /// To be told before the metadata that it is from.
    pub(crate) fn set_adding(&self, adding: Vec<NodeId>) {
        *self.adding.lock() = adding;
    }

    /// Why `follower` is sent records. Whoever writers wait for is never taken for
    /// anything else, in the ISR already or not.
    pub(crate) fn traffic_to(&self, follower: NodeId) -> Traffic {
        if self.waited_for.lock().contains(&follower) {
            Traffic::Live
        } else if self.adding.lock().contains(&follower) {
            Traffic::Moving
        } else {
            Traffic::CatchUp
        }
    }

    /// The topic has other options: they hold for the log at once.
    pub(crate) fn configure(&self, config: LogConfig) {
        let mut wanted = self.config.lock();
        if std::mem::replace(&mut *wanted, config) != config
            && let Some(log) = self.log.get()
        {
            log.configure(config);
        }
    }

    /// The log is open. Whatever it was to be configured to meanwhile, it is now.
    fn opened(&self, log: &Arc<Log>) {
        let wanted = self.config.lock();
        log.configure(*wanted);
        assert!(self.log.set(Arc::clone(log)).is_ok(), "a partition is opened once");
    }

    pub(crate) fn stop(&self) {
        self.directive.send_replace(Directive::Stop);
    }

    pub(crate) fn delete(&self) {
        self.directive.send_replace(Directive::Delete);
    }

    pub(crate) fn state(&self) -> watch::Receiver<LocalPartition> {
        self.state.subscribe()
    }

    /// Adds what it is at this moment.
    pub(crate) fn count(&self, counts: &mut ReplicaCounts) {
        counts.add(&self.state.borrow());
    }

    /// The replica, if it leads and its leadership has started.
    pub(crate) fn leading(&self) -> Option<ReplicaStatus> {
        self.state.borrow().leading().copied()
    }

    /// Number of the data directory that its log lies in, if it can be used.
    pub(crate) fn directory(&self) -> Option<usize> {
        self.directory
    }

    /// It takes part: its log is open and its disk has not failed.
    pub(crate) fn is_running(&self) -> bool {
        self.state.borrow().status().is_some()
    }

    /// The high watermark, as far as this replica knows it.
    pub(crate) fn committed(&self) -> Option<Offset> {
        self.state.borrow().status().map(|status| status.high_watermark)
    }

    /// The log, once it is open.
    pub(crate) fn log(&self) -> Option<&Arc<Log>> {
        self.log.get()
    }

    /// The node stops before the log was opened. After an unclean stop it is still to
    /// be recovered, and this stop is not clean either.
    fn leave_closed(&self, env: &Env) {
        if !env.clean_start {
            let reason = "the node stopped before its log was recovered".into();
            self.state.send_replace(LocalPartition::Offline { reason });
        }
    }

    /// Something that was read is not what was written. Where other members of the ISR
    /// have it whole, one of them is to lead; where there are none, what can be read
    /// here is all there is.
    pub(crate) fn is_damaged(&self, found: &LogError) {
        let directive = self.directive.borrow().clone();
        let Directive::Run(view) = directive else { return };
        let others = view.isr.iter().any(|member| *member != self.node);
        tracing::error!(partition = %self.id, %found, others, "this replica is damaged");
        if others {
            self.offline.add(self.id);
        }
    }

    fn fail(&self, env: &Env, reason: &str) {
        tracing::error!(partition = %self.id, reason, "partition is offline on this node");
        self.state.send_replace(LocalPartition::Offline { reason: reason.into() });
        if let Some(directory) = self.directory {
            env.data_dirs.suspect(directory, &format!("log of {} failed: {reason}", self.id));
        }
        env.offline.add(self.id);
    }
}

async fn run(
    env: Arc<Env>,
    partition: Arc<Partition>,
    messages: mpsc::Receiver<Message>,
    mut directives: watch::Receiver<Directive>,
    start: Start,
) {
    let config = *partition.config.lock();
    let opened = match start.place {
        Ok(place) => match open(&env, place, config, &mut directives).await {
            Some(opened) => opened,
            None => return partition.leave_closed(&env),
        },
        Err(reason) => Err(reason),
    };
    if start.at_start {
        env.opening.opened(opened.as_ref().ok().map(|(_, recovery)| recovery));
    }
    match opened {
        Ok((log, recovery)) => {
            tracing::debug!(partition = %partition.id, ?recovery, "log opened");
            let log = Arc::new(log);
            partition.opened(&log);
            let directive = directives.borrow_and_update().clone();
            if let Directive::Run(view) = directive {
                let view = View::clone(&view);
                let actor = Actor::new(Arc::clone(&env), Arc::clone(&partition), log, view);
                actor.run(messages, &mut directives).await;
            }
        }
        Err(reason) => {
            partition.fail(&env, &reason);
            tokio::select! {
                () = refuse_all(&env, partition.id, messages) => {}
                // The sender lives in `partition`.
                _ = directives.wait_for(|wanted| !matches!(wanted, Directive::Run(_))) => {}
            }
        }
    }
    let delete = matches!(*directives.borrow(), Directive::Delete);
    if delete {
        if let Some(log) = partition.log() {
            log.discard();
        }
        delete_data(&env, partition.id).await;
        env.leaving.end(partition.id);
    }
}

/// Answers for a partition whose log could not be opened.
async fn refuse_all(env: &Env, id: PartitionId, mut messages: mpsc::Receiver<Message>) {
    while let Some(message) = messages.recv().await {
        match message {
            Message::Produce(request) => {
                let error = requests::error_of(env, id, ProduceRefusal::Offline);
                let _ = request.reply.send(Err(error));
            }
            Message::Follow(follow) => {
                if let Some(session) = env.sessions.get(follow.peer.stream) {
                    let (session_number, leader_epoch) = (follow.session, follow.leader_epoch);
                    let of = SessionRef { session: session_number, leader_epoch };
                    session.refuse(id, of, FollowRefusal::Offline);
                }
            }
            Message::DeleteRecords(request) => {
                let error = requests::deletion_error(env, id, DeletionRefusal::Offline);
                let _ = request.reply.send(Err(error));
            }
            Message::Followers(_)
            | Message::Data(_)
            | Message::Diverging { .. }
            | Message::Event(_)
            | Message::StartRaised
            | Message::Failed(_) => {}
        }
    }
}

/// `None`: the node stops before it was this log's turn. A full disk is waited for: a
/// replica that is new needs room, and somebody will make it.
async fn open(
    env: &Env,
    place: Place,
    config: LogConfig,
    directives: &mut watch::Receiver<Directive>,
) -> Option<Result<(Log, Recovery), String>> {
    let mode = if env.clean_start { OpenMode::Clean } else { OpenMode::Recover };
    let mut told = false;
    loop {
        let slot = tokio::select! {
            biased;
            () = env.stop.cancelled() => return None,
            slot = env.opening.slot(place.directory) => slot.expect("never closed"),
        };
        let (shared, path) = (Arc::clone(&env.shared), place.path.clone());
        let opened = blocking(move || Log::open(&shared, &path, config, mode)).await;
        drop(slot);
        let full = match opened {
            Ok(Err(error)) if is_full(&error) => error.to_string(),
            Ok(opened) => return Some(opened.map_err(|error| error.to_string())),
            Err(lost) => return Some(Err(lost.to_string())),
        };
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(path = %place.path.display(), "no room to open a log; waiting for it");
        }
        tokio::select! {
            () = env.stop.cancelled() => return None,
            // It is not wanted any more.
            _ = directives.wait_for(|wanted| !matches!(wanted, Directive::Run(_))) => {
                return Some(Err(full));
            }
            () = tokio::time::sleep(ROOM_AGAIN) => {}
        }
    }
}

async fn delete_data(env: &Arc<Env>, id: PartitionId) {
    let data_dirs = Arc::clone(&env.data_dirs);
    match blocking(move || data_dirs.delete_partition(id)).await {
        Ok(Ok(())) => tracing::info!(partition = %id, "log deleted"),
        Ok(Err(error)) => tracing::error!(partition = %id, %error, "log could not be deleted"),
        Err(error) => tracing::error!(partition = %id, %error, "log could not be deleted"),
    }
}

/// Whether appends may be tried again later.
fn is_full(error: &LogError) -> bool {
    matches!(error, LogError::DiskFull { .. })
}
