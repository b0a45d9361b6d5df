//! The handle: opens a node's metadata, joins it to the quorum, and is what
//! the rest of the node asks.
//!
//! Starting takes two steps, because a node must serve introductions before it
//! may take part: [`Metadata::open`] reads what is on disk and gives the handle
//! and its services to mount; [`Metadata::join`] introduces a blank node, starts
//! Raft, the controller's task and the broker's registration.

use super::active::{self, Control, Queued};
use super::config::raft_config;
use super::controller_client::{self, Place};
use super::controller_service::ControllerRpc;
use super::introduction::{self, Way};
use super::log_store::{LogStore, LogStoreError};
use super::network::Network;
use super::options::MetadataOptions;
use super::service::RaftRpc;
use super::state_machine::StateMachine;
use super::streams::Streams;
use super::types::{LeaderId, Peer, TypeConfig};
use super::{BrokerStatus, MetadataRaft, QuorumStatus, lifecycle};
use crate::controller::{AlterPartition, PartitionAlteration, PartitionOutcome};
use crate::image::Image;
use openraft::RaftMetrics;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use ottla_commitlog::vfs;
use ottla_proto::internal::v1::controller_service_server::ControllerServiceServer;
use ottla_proto::internal::v1::raft_service_server::RaftServiceServer;
use ottla_proto::v1::{self, ErrorReason};
use ottla_proto::{ApiError, DirectoryId, MetadataOffset, NodeId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longest wait for the answer to an AlterPartition. The leader asks again.
const ALTER_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest wait at shutdown for threads that hold files open.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Voters' addresses by node id.
pub(super) type Endpoints = Arc<BTreeMap<u64, Peer>>;

/// Why the metadata of a node cannot be opened or joined.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The Raft log cannot be used.
    #[error(transparent)]
    Log(#[from] LogStoreError),
    /// Another file could not be used.
    #[error("metadata storage: {0}")]
    Io(#[from] io::Error),
    /// The timings or limits contradict each other.
    #[error("metadata configuration: {0}")]
    Config(#[from] openraft::ConfigError),
    /// This node is not among the configured voters.
    #[error("node {node_id} is not among the configured voters")]
    NotAVoter {
        /// This node.
        node_id: NodeId,
    },
    /// The quorum knows this voter with another disk.
    #[error(
        "BLANK_DISK_OF_KNOWN_VOTER: the metadata log of node {node_id} is empty, in directory \
         {directory}, but the quorum knows this voter with another one ({detail}). With the lost \
         disk went its votes and its part of committed metadata: letting it vote again could undo \
         what the cluster has acknowledged. Start it on its old directory, or with a node id of \
         its own"
    )]
    BlankDiskOfKnownVoter {
        /// This node.
        node_id: NodeId,
        /// Its directory.
        directory: DirectoryId,
        /// What the controller said.
        detail: String,
    },
    /// Raft could not start.
    #[error("metadata quorum: {0}")]
    Raft(String),
    /// `join` was called before, or the node is shutting down.
    #[error("this node has joined already, or is shutting down")]
    Closed,
}

/// What [`Metadata::join`] needs and nobody else.
struct Unjoined {
    log: LogStore,
    machine: StateMachine,
    active: watch::Sender<Option<LeaderId>>,
    commands: mpsc::Receiver<Queued>,
}

/// Everything that the tasks and services of a node's metadata share.
pub(super) struct Inner {
    pub(super) options: MetadataOptions,
    pub(super) endpoints: Endpoints,
    pub(super) raft: OnceLock<MetadataRaft>,
    pub(super) images: watch::Receiver<Arc<Image>>,
    pub(super) quorum: watch::Sender<QuorumStatus>,
    pub(super) control: Control,
    pub(super) broker: watch::Sender<BrokerStatus>,
    /// Whether this broker asks for leave to stop.
    pub(super) leaving: watch::Sender<bool>,
    pub(super) streams: Streams,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    /// How this node came into the quorum; unset before, and for a node that
    /// was in it already.
    way: OnceLock<Way>,
    was_blank: bool,
    unjoined: Mutex<Option<Unjoined>>,
    closed: Mutex<Vec<super::log_writer::Stopped>>,
}

/// A node's metadata: cheap to clone, one per node.
#[derive(Clone)]
pub struct Metadata {
    pub(super) inner: Arc<Inner>,
}

impl Metadata {
    /// Opens what is on disk and gives the handle, whose services can be
    /// mounted at once. Takes part in nothing yet: see [`join`](Self::join).
    ///
    /// # Errors
    /// A directory that cannot be used, or options that make no sense.
    pub async fn open(options: MetadataOptions) -> Result<Self, MetadataError> {
        if !options.voters.contains_key(&options.node_id) {
            return Err(MetadataError::NotAVoter { node_id: options.node_id });
        }
        raft_config(&options)?;
        let (vfs, dir) = (Arc::clone(&options.vfs), options.dir.clone());
        let open = move || {
            vfs::create_dir_durably(vfs.as_ref(), &dir)?;
            let log = LogStore::open(Arc::clone(&vfs), &dir)?;
            let machine = StateMachine::open(&dir, vfs, |id, covered| log.justifies(id, covered))?;
            Ok::<_, MetadataError>((log, machine))
        };
        let opened = tokio::task::spawn_blocking(open).await.map_err(io::Error::other)?;
        let (log, machine) = opened?;
        Ok(Self { inner: Arc::new(Inner::new(options, log, machine)) })
    }

    /// Takes part: a blank node introduces itself until it may (see the module
    /// `introduction`), then Raft, the controller's task and the broker's
    /// registration run. Returns when Raft runs, not when there is a leader.
    ///
    /// # Errors
    /// `BlankDiskOfKnownVoter` where the quorum refuses this disk; whatever
    /// keeps Raft from starting.
    pub async fn join(&self) -> Result<(), MetadataError> {
        let unjoined = self.inner.unjoined.lock().take().ok_or(MetadataError::Closed)?;
        let way = if self.inner.was_blank {
            let introduced = tokio::select! {
                introduced = introduction::introduce(&self.inner) => introduced,
                () = self.inner.stop.cancelled() => Err(MetadataError::Closed),
            };
            Some(introduced?)
        } else {
            None
        };
        self.inner.start(unjoined, way).await
    }

    /// [`open`](Self::open) and [`join`](Self::join), for a node whose services
    /// nobody needs before.
    ///
    /// # Errors
    /// As these.
    pub async fn start(options: MetadataOptions) -> Result<Self, MetadataError> {
        let metadata = Self::open(options).await?;
        metadata.join().await?;
        Ok(metadata)
    }

    /// The Raft service, to be mounted on the node's gRPC port.
    #[must_use]
    pub fn raft_service(&self) -> RaftServiceServer<RaftRpc> {
        RaftRpc::server(Arc::clone(&self.inner))
    }

    /// The controller service, to be mounted on the node's gRPC port.
    #[must_use]
    pub fn controller_service(&self) -> ControllerServiceServer<ControllerRpc> {
        ControllerRpc::server(Arc::clone(&self.inner))
    }

    /// The image as applied on this node.
    #[must_use]
    pub fn image(&self) -> Arc<Image> {
        self.inner.image()
    }

    /// Every image after its apply. A slow reader skips some and loses
    /// nothing if it compares with what it handled last (`Delta::between`).
    #[must_use]
    pub fn images(&self) -> watch::Receiver<Arc<Image>> {
        self.inner.images.clone()
    }

    /// The quorum as this node sees it now.
    #[must_use]
    pub fn quorum(&self) -> QuorumStatus {
        self.inner.quorum.borrow().clone()
    }

    /// The quorum as this node sees it, whenever that changes.
    #[must_use]
    pub fn quorum_changes(&self) -> watch::Receiver<QuorumStatus> {
        self.inner.quorum.subscribe()
    }

    /// This node as a broker, whenever that changes.
    #[must_use]
    pub fn broker(&self) -> watch::Receiver<BrokerStatus> {
        self.inner.broker.subscribe()
    }

    /// Has a topic created by the active controller, waiting for one until
    /// `deadline`; returns once it is committed and applied on this node.
    ///
    /// # Errors
    /// What the controller refuses; CONTROLLER_NOT_AVAILABLE, with nothing
    /// done; REQUEST_TIMED_OUT or LEADERSHIP_LOST, when it may have been done.
    pub async fn create_topic(
        &self,
        request: v1::CreateTopicRequest,
        deadline: Instant,
    ) -> Result<v1::CreateTopicResponse, ApiError> {
        let mut response = controller_client::create_topic(&self.inner, request, deadline).await?;
        self.inner.localize(&mut response.header, deadline).await?;
        Ok(response)
    }

    /// As [`create_topic`](Self::create_topic), for deletion.
    ///
    /// # Errors
    /// The same.
    pub async fn delete_topic(
        &self,
        request: v1::DeleteTopicRequest,
        deadline: Instant,
    ) -> Result<v1::DeleteTopicResponse, ApiError> {
        let mut response = controller_client::delete_topic(&self.inner, request, deadline).await?;
        self.inner.localize(&mut response.header, deadline).await?;
        Ok(response)
    }

    /// Proposes ISRs for partitions that this node leads, under its broker
    /// epoch; one outcome for each, in their order.
    ///
    /// # Errors
    /// What refuses the call as a whole. Where the error is indefinite the
    /// changes may have been made; the image will show it.
    pub async fn alter_partition(
        &self,
        partitions: Vec<PartitionAlteration>,
    ) -> Result<Vec<PartitionOutcome>, ApiError> {
        let epoch = self.inner.broker.borrow().epoch;
        let broker_epoch = epoch.ok_or_else(|| {
            ApiError::new(ErrorReason::BrokerNotRegistered, "this broker has not registered yet")
        })?;
        let node_id = self.inner.options.node_id;
        let request = AlterPartition { node_id, broker_epoch, partitions };
        let deadline = Instant::now() + ALTER_TIMEOUT;
        controller_client::alter_partition(&self.inner, request, deadline).await
    }

    /// Asks the controller for leave to stop and waits until other nodes lead
    /// what this one led; then hands over the leadership of the quorum, if
    /// this node has it.
    ///
    /// # Errors
    /// REQUEST_TIMED_OUT if leave did not come in time. The node may stop all
    /// the same; it is then missed like one that died.
    pub async fn controlled_shutdown(&self, within: Duration) -> Result<(), ApiError> {
        let deadline = Instant::now() + within;
        self.inner.leaving.send_replace(true);
        let mut broker = self.inner.broker.subscribe();
        let left = if broker.borrow().epoch.is_some() {
            let leave = broker.wait_for(|status| status.may_stop);
            matches!(tokio::time::timeout_at(deadline, leave).await, Ok(Ok(_)))
        } else {
            true
        };
        self.inner.hand_over(deadline).await;
        if left {
            return Ok(());
        }
        let what = "the controller did not give leave to stop in time";
        Err(ApiError::new(ErrorReason::RequestTimedOut, what))
    }

    /// Stops everything and closes all files.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        // A node that never joined has its files here.
        drop(self.inner.unjoined.lock().take());
        if let Some(raft) = self.inner.raft.get()
            && let Err(error) = raft.shutdown().await
        {
            tracing::warn!(%error, "the metadata quorum's Raft ended badly");
        }
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        let closed = std::mem::take(&mut *self.inner.closed.lock());
        for file in closed {
            if tokio::time::timeout(CLOSE_TIMEOUT, file.wait()).await.is_err() {
                tracing::warn!("metadata files are still open");
            }
        }
    }
}

impl Inner {
    fn new(options: MetadataOptions, log: LogStore, machine: StateMachine) -> Self {
        let endpoints: Endpoints = Arc::new(
            options
                .voters
                .iter()
                .map(|(id, (host, port))| (id.0, Peer { host: host.clone(), port: *port }))
                .collect(),
        );
        let voters = options.voters.keys().copied().collect();
        let quorum = watch::Sender::new(QuorumStatus { voters, ..QuorumStatus::default() });
        let active = watch::Sender::new(None);
        let (control, commands) = Control::new(
            options.node_id,
            active.subscribe(),
            quorum.subscribe(),
            Arc::clone(&endpoints),
        );
        Self {
            endpoints,
            raft: OnceLock::new(),
            images: machine.images(),
            quorum,
            control,
            broker: watch::Sender::new(BrokerStatus::default()),
            leaving: watch::Sender::new(false),
            streams: Streams::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            way: OnceLock::new(),
            was_blank: log.is_blank() && machine.is_blank(),
            closed: Mutex::new(vec![log.stopped(), machine.stopped()]),
            unjoined: Mutex::new(Some(Unjoined { log, machine, active, commands })),
            options,
        }
    }

    async fn start(
        self: &Arc<Self>,
        unjoined: Unjoined,
        way: Option<Way>,
    ) -> Result<(), MetadataError> {
        let Unjoined { log, machine, active, commands } = unjoined;
        let node_id = self.options.node_id.0;
        let config = raft_config(&self.options)?;
        let network = Network { cluster_id: self.options.cluster_id.clone(), node_id };
        let raft = MetadataRaft::new(node_id, config, network, log, machine).await;
        let raft = raft.map_err(|error| MetadataError::Raft(error.to_string()))?;
        if let Some(way) = way {
            tracing::info!(?way, "introduced to the metadata quorum");
            // Only this call sets it.
            let _ = self.way.set(way);
        }
        if way == Some(Way::Initialize) {
            initialize(&raft, &self.endpoints).await?;
        }
        // From here on the Raft service answers.
        let raft = self.raft.get_or_init(|| raft);
        self.tasks.spawn(observe(Arc::clone(self), raft.metrics(), active));
        self.tasks.spawn(active::run(Arc::clone(self), commands));
        self.tasks.spawn(lifecycle::run(Arc::clone(self)));
        Ok(())
    }

    pub(super) fn image(&self) -> Arc<Image> {
        Arc::clone(&self.images.borrow())
    }

    /// Whether this node has promised nothing to anybody: it is blank, or has
    /// initialised itself and nothing more.
    pub(super) fn is_newborn(&self) -> bool {
        if !self.was_blank || self.way.get() == Some(&Way::Follow) {
            return false;
        }
        self.raft.get().is_none_or(|raft| {
            let metrics = raft.metrics().borrow_watched().clone();
            metrics.current_term == 0 && metrics.last_log_index.is_none_or(|last| last == 0)
        })
    }

    pub(super) fn header(&self, offset: MetadataOffset) -> v1::ResponseHeader {
        v1::ResponseHeader {
            cluster_id: self.options.cluster_id.clone(),
            node_id: self.options.node_id.0,
            metadata_offset: offset.0,
        }
    }

    /// Where the controller is, if the quorum's leader is a voter we know.
    pub(super) fn place_of(&self, leader: Option<NodeId>) -> Option<Place> {
        let leader = leader?;
        if leader == self.options.node_id {
            return Some(Place::Here);
        }
        Some(Place::There(leader, self.endpoints.get(&leader.0)?.clone()))
    }

    /// A voter was admitted that this leader may remember with a longer log.
    pub(super) async fn expect_blank_log(&self, node_id: NodeId) {
        let Some(raft) = self.raft.get() else { return };
        let metrics = raft.metrics().borrow_watched().clone();
        let remembered = metrics.replication.as_ref().and_then(|r| r.get(&node_id.0).cloned());
        if remembered.flatten().is_some()
            && let Err(error) = raft.trigger().allow_next_revert(&node_id.0, true).await
        {
            tracing::warn!(%error, "could not expect a blank log");
        }
    }

    /// Waits until this node has applied what a controller answered, and puts
    /// this node into the header.
    async fn localize(
        &self,
        header: &mut Option<v1::ResponseHeader>,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        let offset = MetadataOffset(header.as_ref().map_or(0, |header| header.metadata_offset));
        let mut images = self.images.clone();
        let applied = images.wait_for(|image| image.offset >= offset);
        match tokio::time::timeout_at(deadline, applied).await {
            Ok(Ok(image)) => {
                *header = Some(self.header(image.offset));
                Ok(())
            }
            Ok(Err(_)) | Err(_) => {
                let what = "the change is committed, but this node has not applied it in time";
                Err(ApiError::new(ErrorReason::RequestTimedOut, what))
            }
        }
    }

    /// Hands the leadership of the quorum to the voter with the longest log.
    async fn hand_over(&self, deadline: Instant) {
        let Some(raft) = self.raft.get() else { return };
        let metrics = raft.metrics().borrow_watched().clone();
        let Some(progress) = metrics.replication else { return };
        let voters: Vec<u64> = metrics.membership_config.membership().voter_ids().collect();
        let other = |id: &u64| *id != self.options.node_id.0 && voters.contains(id);
        let best = progress.into_iter().filter(|(id, _)| other(id)).max_by_key(|(_, at)| *at);
        let Some((to, _)) = best else { return };
        if let Err(error) = raft.trigger().transfer_leader(to).await {
            tracing::warn!(%error, "could not hand over the metadata quorum");
            return;
        }
        let mut quorum = self.quorum.subscribe();
        let moved = quorum.wait_for(|s| s.leader.is_some_and(|l| l != self.options.node_id));
        if tokio::time::timeout_at(deadline, moved).await.is_err() {
            tracing::warn!(to, "nobody took over the metadata quorum in time");
        }
    }
}

async fn initialize(raft: &MetadataRaft, voters: &Endpoints) -> Result<(), MetadataError> {
    match raft.initialize(BTreeMap::clone(voters)).await {
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(MetadataError::Raft(error.to_string())),
    }
}

/// Turns openraft's metrics into what the rest of the node watches.
async fn observe(
    inner: Arc<Inner>,
    mut metrics: openraft::type_config::alias::WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    active: watch::Sender<Option<LeaderId>>,
) {
    loop {
        // Cloned at once: holding the reference could block openraft.
        let now = metrics.borrow_watched().clone();
        let ended = now.running_state.is_err();
        let leads = now.state.is_leader() && now.vote.is_committed() && !ended;
        let term = *now.vote.leader_id();
        let caught_up = now.last_applied.is_some_and(|applied| applied.leader_id == term);
        let active_term = (leads && caught_up).then_some(term);
        let status = QuorumStatus {
            leader: now.current_leader.filter(|_| !ended).map(NodeId),
            term: now.current_term,
            voters: voters_of(&inner, &now),
            active_here: active_term.is_some(),
            failure: now.running_state.err().map(|error| error.to_string()),
        };
        active.send_if_modified(|known| replace(known, active_term));
        inner.quorum.send_if_modified(|known| replace(known, status));
        tokio::select! {
            () = inner.stop.cancelled() => break,
            changed = metrics.changed() => if changed.is_err() { break },
        }
    }
    active.send_replace(None);
    inner.quorum.send_modify(|status| {
        status.leader = None;
        status.active_here = false;
    });
}

fn voters_of(inner: &Inner, metrics: &RaftMetrics<TypeConfig>) -> Vec<NodeId> {
    let mut voters: Vec<NodeId> =
        metrics.membership_config.membership().voter_ids().map(NodeId).collect();
    if voters.is_empty() {
        voters = inner.options.voters.keys().copied().collect();
    }
    voters.sort_unstable();
    voters
}

fn replace<T: PartialEq>(known: &mut T, new: T) -> bool {
    let changed = *known != new;
    *known = new;
    changed
}
