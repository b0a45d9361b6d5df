//! A partition on this node: one task that owns its replica, and what others
//! may see and send.

mod actor;
mod ops;
mod requests;

use crate::blocking::blocking;
use crate::core::{
    Acks, Event, Follow, FollowRefusal, ProduceRefusal, ReplicaStatus, RoleKind, SessionRef, View,
};
use crate::env::Env;
use crate::link::Credit;
use actor::Actor;
use bytes::Bytes;
use ottla_commitlog::format::ValidBatch;
use ottla_commitlog::{Log, LogConfig, LogError, OpenMode};
use ottla_proto::{ApiError, LeaderEpoch, NodeId, Offset, PartitionId};
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;

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
    Follow(Follow),
    Data(Incoming),
    Diverging { of: SessionRef, epoch: Option<LeaderEpoch>, end: Offset },
    Event(Event),
}

pub(crate) struct ProduceRequest {
    pub(crate) batch: ValidBatch,
    pub(crate) acks: Acks,
    pub(crate) deadline: Instant,
    pub(crate) reply: oneshot::Sender<Result<crate::Produced, ApiError>>,
    /// Its share of the node's produce memory.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// Records that a leader pushed.
pub(crate) struct Incoming {
    pub(crate) of: SessionRef,
    pub(crate) base: Offset,
    pub(crate) watermark: Offset,
    pub(crate) batches: Bytes,
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

/// A partition as others see it.
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    mailbox: mpsc::Sender<Message>,
    directive: watch::Sender<Directive>,
    state: watch::Sender<LocalPartition>,
    log: OnceLock<Arc<Log>>,
}

impl Partition {
    /// Starts the partition's task, which opens the log first.
    pub(crate) fn start(
        env: &Arc<Env>,
        id: PartitionId,
        view: View,
        config: LogConfig,
    ) -> Arc<Self> {
        let (mailbox, messages) = mpsc::channel(MAILBOX_MESSAGES);
        let (directive, directives) = watch::channel(Directive::Run(Arc::new(view)));
        let state = watch::Sender::new(LocalPartition::Opening);
        let partition = Arc::new(Self { id, mailbox, directive, state, log: OnceLock::new() });
        let task = run(Arc::clone(env), Arc::clone(&partition), messages, directives, config);
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

    pub(crate) fn stop(&self) {
        self.directive.send_replace(Directive::Stop);
    }

    pub(crate) fn delete(&self) {
        self.directive.send_replace(Directive::Delete);
    }

    pub(crate) fn state(&self) -> watch::Receiver<LocalPartition> {
        self.state.subscribe()
    }

    /// The replica, if it leads and its leadership has started.
    pub(crate) fn leading(&self) -> Option<ReplicaStatus> {
        self.state.borrow().leading().copied()
    }

    /// The log, once it is open.
    pub(crate) fn log(&self) -> Option<&Arc<Log>> {
        self.log.get()
    }

    fn fail(&self, reason: &str) {
        tracing::error!(partition = %self.id, reason, "partition is offline on this node");
        self.state.send_replace(LocalPartition::Offline { reason: reason.into() });
    }
}

async fn run(
    env: Arc<Env>,
    partition: Arc<Partition>,
    messages: mpsc::Receiver<Message>,
    mut directives: watch::Receiver<Directive>,
    config: LogConfig,
) {
    match open(&env, partition.id, config).await {
        Ok(log) => {
            let log = Arc::new(log);
            assert!(partition.log.set(Arc::clone(&log)).is_ok(), "a partition is opened once");
            let directive = directives.borrow_and_update().clone();
            if let Directive::Run(view) = directive {
                let view = View::clone(&view);
                let actor = Actor::new(Arc::clone(&env), Arc::clone(&partition), log, view);
                actor.run(messages, &mut directives).await;
            }
        }
        Err(reason) => {
            partition.fail(&reason);
            tokio::select! {
                () = refuse_all(&env, partition.id, messages) => {}
                // The sender lives in `partition`.
                _ = directives.wait_for(|wanted| !matches!(wanted, Directive::Run(_))) => {}
            }
        }
    }
    let delete = matches!(*directives.borrow(), Directive::Delete);
    if delete {
        delete_data(&env, partition.id).await;
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
            Message::Data(_) | Message::Diverging { .. } | Message::Event(_) => {}
        }
    }
}

async fn open(env: &Arc<Env>, id: PartitionId, config: LogConfig) -> Result<Log, String> {
    let _slot = env.opening.acquire().await.map_err(|closed| closed.to_string())?;
    let (vfs, dir) = (Arc::clone(&env.vfs), env.data_dir.partition_dir(id));
    let mode = if env.clean_start { OpenMode::Clean } else { OpenMode::Recover };
    let opened = blocking(move || Log::open(vfs, &dir, config, mode)).await;
    let (log, recovery) = opened.map_err(|lost| lost.to_string())?.map_err(|e| e.to_string())?;
    tracing::debug!(partition = %id, ?recovery, bounds = ?log.bounds(), "log opened");
    Ok(log)
}

async fn delete_data(env: &Arc<Env>, id: PartitionId) {
    let data_dir = Arc::clone(&env.data_dir);
    match blocking(move || data_dir.delete_partition(id)).await {
        Ok(Ok(())) => tracing::info!(partition = %id, "log deleted"),
        Ok(Err(error)) => tracing::error!(partition = %id, %error, "log could not be deleted"),
        Err(error) => tracing::error!(partition = %id, %error, "log could not be deleted"),
    }
}

/// Whether appends may be tried again later.
fn is_full(error: &LogError) -> bool {
    matches!(error, LogError::DiskFull { .. })
}
