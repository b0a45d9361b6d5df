//! The handle: opens a node's metadata, joins it to the quorum, and is what
//! the rest of the node asks.
//!
//! Starting takes two steps, because a node must serve introductions before it
//! may take part: [`Metadata::open`] reads what is on disk and gives the handle
//! and its services to mount; [`Metadata::join`] introduces a blank node, starts
//! Raft, the controller's task and the broker's registration.

use super::administration::{self, AdminCall};
use super::config::raft_config;
use super::controller_client;
use super::controller_service::ControllerRpc;
use super::incompatible::Incompatible;
use super::inner::Inner;
use super::introduction::{self, Way};
use super::joining;
use super::log_files::LogStoreError;
use super::log_store::LogStore;
use super::options::MetadataOptions;
use super::service::RaftRpc;
use super::state_machine::StateMachine;
use super::{BrokerStatus, QuorumStatus};
use crate::controller::{AlterPartition, PartitionAlteration, PartitionOutcome, ReportOffline};
use crate::image::Image;
use ottla_commitlog::vfs;
use ottla_proto::internal::v1::controller_service_server::ControllerServiceServer;
use ottla_proto::internal::v1::raft_service_server::RaftServiceServer;
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, BrokerEpoch, DirectoryId, NodeId, PartitionId};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Longest wait for the answer to an AlterPartition or a report of offline
/// replicas. The caller asks again.
const ALTER_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest wait at shutdown for threads that hold files open.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// No other node is configured that could admit this one, which is no voter.
    #[error(
        "node {node_id} is not among the configured voters, and there are none that it could join"
    )]
    NobodyToJoin {
        /// This node.
        node_id: NodeId,
    },
    /// The file that says how far this node must get before it may be elected.
    #[error(
        "{}: {what}. It says how much of the metadata log this node needs before it may stand \
         for election; without it the node cannot start. Have its disk replaced",
        path.display()
    )]
    Joining {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The quorum knows this voter with another disk.
    #[error(
        "BLANK_DISK_OF_KNOWN_VOTER: the metadata log of node {node_id} is empty, in directory \
         {directory}, but the quorum knows this voter with another one ({detail}). With the lost \
         disk went its votes and its part of committed metadata: letting it vote again could undo \
         what the cluster has acknowledged. Start it on its old directory; if that is lost, run \
         `ottla cluster replace-disk {node_id}` and start it again"
    )]
    BlankDiskOfKnownVoter {
        /// This node.
        node_id: NodeId,
        /// Its directory.
        directory: DirectoryId,
        /// What the controller said.
        detail: String,
    },
    /// This node, or its data directory, is no part of the cluster any more.
    #[error(
        "NODE_REMOVED: node {node_id} was removed from this cluster, or its disk given up \
         ({detail}). To add it again, empty its data directories, format them with `ottla node \
         format`, and start it"
    )]
    Removed {
        /// This node.
        node_id: NodeId,
        /// What the controller said.
        detail: String,
    },
    /// What is committed is for another release than this one.
    #[error(
        "INCOMPATIBLE_RELEASE: node {node_id} cannot go on with this release ({detail}). Nothing \
         on its disk was changed: start it with a release that can, as the other nodes have"
    )]
    Incompatible {
        /// This node.
        node_id: NodeId,
        /// What it met.
        detail: String,
    },
    /// Raft could not start.
    #[error("metadata quorum: {0}")]
    Raft(String),
    /// `join` was called before, or the node is shutting down.
    #[error("this node has joined already, or is shutting down")]
    Closed,
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
        if options.voters.is_empty() {
            return Err(MetadataError::NobodyToJoin { node_id: options.node_id });
        }
        raft_config(&options)?;
        let (shared, dir) = (Arc::clone(&options.shared), options.dir.clone());
        let (levels, node_id) = (options.levels, options.node_id);
        let databases = Arc::clone(&options.databases);
        let open = move || {
            vfs::create_dir_durably(shared.vfs(), &dir)?;
            let admitted_at = joining::read(shared.vfs(), &dir)?;
            let log = LogStore::open(&shared, &dir)?;
            let machine = StateMachine::open(&dir, &shared, databases, levels, |id, covered| {
                log.justifies(id, covered)
            });
            let machine = machine.map_err(|error| match Incompatible::within(&error) {
                Some(why) => MetadataError::Incompatible { node_id, detail: why.to_string() },
                None => error.into(),
            })?;
            Ok::<_, MetadataError>((log, machine, admitted_at))
        };
        let opened = ottla_host::blocking(open).await.map_err(io::Error::other)?;
        let (log, machine, admitted_at) = opened?;
        Ok(Self { inner: Arc::new(Inner::new(options, log, machine, admitted_at)) })
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
            let way = introduced?;
            if let Way::Follow { admitted_at } = way {
                self.remember(admitted_at).await?;
            }
            Some(way)
        } else {
            None
        };
        self.inner.start(unjoined, way).await
    }

    /// Keeps this node from being elected before it has applied an entry, over
    /// restarts too.
    async fn remember(&self, admitted_at: u64) -> Result<(), MetadataError> {
        let options = &self.inner.options;
        let (shared, dir) = (Arc::clone(&options.shared), options.dir.clone());
        let write = move || joining::write(shared.vfs(), &dir, admitted_at);
        ottla_host::blocking(write).await.map_err(io::Error::other)??;
        self.inner.admitted_at.store(admitted_at, Ordering::Relaxed);
        Ok(())
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

    /// Has an operator's call decided by the active controller, waiting for one
    /// until `deadline`; returns once it is committed and applied on this node.
    ///
    /// # Errors
    /// What the controller refuses; CONTROLLER_NOT_AVAILABLE, with nothing
    /// done; REQUEST_TIMED_OUT or LEADERSHIP_LOST, when it may have been done.
    pub async fn administer<C: AdminCall>(
        &self,
        call: C,
        deadline: Instant,
    ) -> Result<C::Response, ApiError> {
        let call = call.into_call();
        let answer = controller_client::administer(&self.inner, call, deadline).await?;
        let mut response = C::response_of(answer).ok_or_else(administration::unknown_answer)?;
        self.inner.localize(C::header(&mut response), deadline).await?;
        Ok(response)
    }

    /// Completes when this node is found to be no part of the cluster any more,
    /// with why. It serves no purpose then and should stop.
    pub async fn evicted(&self) -> MetadataError {
        let mut evicted = self.inner.evicted.subscribe();
        let why = evicted.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => why.into_error(&self.inner.options),
            // The sender lives as long as this handle.
            None => std::future::pending().await,
        }
    }

    /// The image with everything that was committed when this was called, on
    /// whatever node: what an operator was told is done is seen in it.
    ///
    /// # Errors
    /// CONTROLLER_NOT_AVAILABLE where a majority of the quorum cannot be asked
    /// until `deadline`. [`image`](Self::image) may be old then.
    pub async fn current_image(&self, deadline: Instant) -> Result<Arc<Image>, ApiError> {
        let offset = controller_client::read_index(&self.inner, deadline).await?;
        self.inner.applied(offset, deadline).await.ok_or_else(|| {
            let what = format!("this node has not applied the metadata to offset {offset} in time");
            ApiError::new(ErrorReason::ControllerNotAvailable, what)
        })
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
        let broker_epoch = self.broker_epoch()?;
        let node_id = self.inner.options.node_id;
        let request = AlterPartition { node_id, broker_epoch, partitions };
        let deadline = Instant::now() + ALTER_TIMEOUT;
        controller_client::alter_partition(&self.inner, request, deadline).await
    }

    /// Tells the controller that the disk under these replicas of this node failed,
    /// under its broker epoch: at most `MAX_OFFLINE_REPLICAS`.
    ///
    /// # Errors
    /// What refuses the report. Where the error is indefinite it may have been
    /// taken; saying it again is harmless.
    pub async fn report_offline(&self, partitions: Vec<PartitionId>) -> Result<(), ApiError> {
        let broker_epoch = self.broker_epoch()?;
        let node_id = self.inner.options.node_id;
        let request = ReportOffline { node_id, broker_epoch, partitions };
        let deadline = Instant::now() + ALTER_TIMEOUT;
        controller_client::report_offline(&self.inner, request, deadline).await
    }

    /// Producer ids that nobody else gets, from the controller.
    ///
    /// # Errors
    /// What refuses the call; that no controller answered until `deadline`.
    pub async fn allocate_producer_ids(&self, deadline: Instant) -> Result<Range<i64>, ApiError> {
        let broker_epoch = self.broker_epoch()?;
        controller_client::allocate_producer_ids(&self.inner, broker_epoch, deadline).await
    }

    fn broker_epoch(&self) -> Result<BrokerEpoch, ApiError> {
        self.inner.broker.borrow().epoch.ok_or_else(|| {
            ApiError::new(ErrorReason::BrokerNotRegistered, "this broker has not registered yet")
        })
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
        self.inner.log_writer.up();
        // A node that never joined has its files here.
        drop(self.inner.unjoined.lock().take());
        self.inner.calls.close();
        if tokio::time::timeout(CLOSE_TIMEOUT, self.inner.calls.wait()).await.is_err() {
            tracing::warn!("a call of another voter did not end in time and is cut");
        }
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
