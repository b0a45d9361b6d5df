//! What the tasks and services of a node's metadata share, how they are
//! started, and what they make of openraft's metrics.

use super::active;
use super::addresses::{Addresses, Endpoints};
use super::config::raft_config;
use super::control::{Control, Queued};
use super::controller_client::Place;
use super::evicted::{self, Evicted};
use super::introduction::Way;
use super::log_store::LogStore;
use super::log_writer::{Hurry, Stopped};
use super::metadata::MetadataError;
use super::network::Connections;
use super::options::MetadataOptions;
use super::state_machine::StateMachine;
use super::streams::Streams;
use super::types::{LeaderId, Peer, TypeConfig};
use super::{BrokerStatus, MetadataRaft, QuorumStatus, knock, lifecycle, members};
use crate::image::Image;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{Instant as _, RaftMetrics};
use ottla_proto::v1::{self, ErrorReason};
use ottla_proto::{ApiError, MetadataOffset, NodeId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What [`Metadata::join`] needs and nobody else.
pub(super) struct Unjoined {
    log: LogStore,
    machine: StateMachine,
    active: watch::Sender<Option<LeaderId>>,
    commands: mpsc::Receiver<Queued>,
}

/// Everything that the tasks and services of a node's metadata share.
pub(super) struct Inner {
    pub(super) options: MetadataOptions,
    pub(super) addresses: Arc<Addresses>,
    pub(super) raft: OnceLock<MetadataRaft>,
    pub(super) images: watch::Receiver<Arc<Image>>,
    pub(super) quorum: watch::Sender<QuorumStatus>,
    pub(super) control: Control,
    pub(super) broker: watch::Sender<BrokerStatus>,
    /// Whether this broker asks for leave to stop.
    pub(super) leaving: watch::Sender<bool>,
    pub(super) streams: Streams,
    /// Set once this node is no part of the cluster any more.
    pub(super) evicted: watch::Sender<Option<Evicted>>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    /// Calls of other voters under way: Raft outlives them.
    pub(super) calls: TaskTracker,
    /// Entry of the Raft log below which this node is not elected: see `joining`.
    pub(super) admitted_at: AtomicU64,
    /// Held by whoever changes the quorum's membership from here.
    pub(super) changing: tokio::sync::Mutex<()>,
    /// How this node came into the quorum; unset before, and for a node that
    /// was in it already.
    way: OnceLock<Way>,
    pub(super) was_blank: bool,
    pub(super) unjoined: Mutex<Option<Unjoined>>,
    pub(super) closed: Mutex<Vec<Stopped>>,
    /// To be told when this stops.
    pub(super) log_writer: Hurry,
}

impl Inner {
    pub(super) fn new(
        options: MetadataOptions,
        log: LogStore,
        machine: StateMachine,
        admitted_at: u64,
    ) -> Self {
        let configured: Endpoints = Arc::new(
            options
                .voters
                .iter()
                .map(|(id, (host, port))| (id.0, Peer { host: host.clone(), port: *port }))
                .collect(),
        );
        let addresses = Arc::new(Addresses::new(configured, machine.images()));
        let voters = options.voters.keys().copied().collect();
        let quorum = watch::Sender::new(QuorumStatus { voters, ..QuorumStatus::default() });
        let active = watch::Sender::new(None);
        let (control, commands) = Control::new(
            options.node_id,
            active.subscribe(),
            quorum.subscribe(),
            Arc::clone(&addresses),
        );
        Self {
            addresses,
            admitted_at: AtomicU64::new(admitted_at),
            changing: tokio::sync::Mutex::default(),
            raft: OnceLock::new(),
            images: machine.images(),
            quorum,
            control,
            broker: watch::Sender::new(BrokerStatus::default()),
            leaving: watch::Sender::new(false),
            streams: Streams::default(),
            evicted: watch::Sender::new(None),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            calls: TaskTracker::new(),
            way: OnceLock::new(),
            was_blank: log.is_blank() && machine.is_blank(),
            log_writer: log.hurry(),
            closed: Mutex::new(vec![log.stopped(), machine.stopped()]),
            unjoined: Mutex::new(Some(Unjoined { log, machine, active, commands })),
            options,
        }
    }

    pub(super) async fn start(
        self: &Arc<Self>,
        unjoined: Unjoined,
        way: Option<Way>,
    ) -> Result<(), MetadataError> {
        let Unjoined { log, machine, active, commands } = unjoined;
        let node_id = self.options.node_id.0;
        let config = raft_config(&self.options)?;
        let connections = Connections {
            network: Arc::clone(&self.options.network),
            cluster_id: self.options.cluster_id.clone(),
            node_id,
            endpoints: Arc::clone(&self.addresses.configured),
        };
        let incompatible = machine.incompatible();
        let raft = MetadataRaft::new(node_id, config, connections, log, machine).await;
        let raft = raft.map_err(|error| match &*incompatible.borrow() {
            Some(why) => Evicted::Incompatible(why.to_string()).into_error(&self.options),
            None => MetadataError::Raft(error.to_string()),
        })?;
        if let Some(way) = way {
            tracing::info!(?way, "introduced to the metadata quorum");
            // Only this call sets it.
            let _ = self.way.set(way);
        }
        if way == Some(Way::Initialize) {
            initialize(&raft, &self.addresses.configured).await?;
        }
        // From here on the Raft service answers.
        let raft = self.raft.get_or_init(|| raft);
        self.tasks.spawn(observe(Arc::clone(self), raft.metrics(), active));
        self.tasks.spawn(evicted::look_for_another_release(Arc::clone(self), incompatible));
        self.tasks.spawn(active::run(Arc::clone(self), commands));
        self.tasks.spawn(lifecycle::run(Arc::clone(self)));
        self.tasks.spawn(knock::run(Arc::clone(self)));
        self.tasks.spawn(members::tend(Arc::clone(self)));
        self.tasks.spawn(members::claim_vote(Arc::clone(self)));
        Ok(())
    }

    pub(super) fn image(&self) -> Arc<Image> {
        Arc::clone(&self.images.borrow())
    }

    /// Whether this node has no part of any metadata: it is blank, or has
    /// initialised itself and heard from no leader yet.
    pub(super) fn is_newborn(&self) -> bool {
        if !self.was_blank || matches!(self.way.get(), Some(Way::Follow { .. })) {
            return false;
        }
        self.raft.get().is_none_or(|raft| {
            let last = raft.metrics().borrow_watched().last_log_index;
            last.is_none_or(|last| last == 0)
        })
    }

    pub(super) fn header(&self, offset: MetadataOffset) -> v1::ResponseHeader {
        v1::ResponseHeader {
            cluster_id: self.options.cluster_id.clone(),
            node_id: self.options.node_id.0,
            metadata_offset: offset.0,
        }
    }

    /// Where the controller is, if it is known where the quorum's leader is.
    pub(super) fn place_of(&self, leader: Option<NodeId>) -> Option<Place> {
        let leader = leader?;
        if leader == self.options.node_id {
            return Some(Place::Here);
        }
        Some(Place::There(leader, self.addresses.of(leader)?))
    }

    /// This node is no part of the cluster any more. The first word counts.
    pub(super) fn evict(&self, evicted: Evicted) {
        self.evicted.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(evicted);
            }
            first
        });
    }

    /// This node's image, once it has applied everything up to `offset`.
    pub(super) async fn applied(
        &self,
        offset: MetadataOffset,
        deadline: Instant,
    ) -> Option<Arc<Image>> {
        let mut images = self.images.clone();
        let applied = images.wait_for(|image| image.offset >= offset);
        let image = tokio::time::timeout_at(deadline, applied).await.ok()?.ok()?;
        Some(Arc::clone(&image))
    }

    /// Waits until this node has applied what a controller answered, and puts
    /// this node into the header.
    pub(super) async fn localize(
        &self,
        header: &mut Option<v1::ResponseHeader>,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        let offset = MetadataOffset(header.as_ref().map_or(0, |header| header.metadata_offset));
        match self.applied(offset, deadline).await {
            Some(image) => {
                *header = Some(self.header(image.offset));
                Ok(())
            }
            None => {
                let what = "the change is committed, but this node has not applied it in time";
                Err(ApiError::new(ErrorReason::RequestTimedOut, what))
            }
        }
    }

    /// Hands the leadership of the quorum to the voter with the longest log, of
    /// those that were heard of lately.
    pub(super) async fn hand_over(&self, deadline: Instant) {
        let Some(raft) = self.raft.get() else { return };
        let metrics = raft.metrics().borrow_watched().clone();
        let (Some(progress), Some(heard)) = (metrics.replication, metrics.heartbeat) else {
            return;
        };
        let voters: Vec<u64> = metrics.membership_config.membership().voter_ids().collect();
        let other = |id: &u64| *id != self.options.node_id.0 && voters.contains(id);
        let is_up = |id: &u64| {
            heard
                .get(id)
                .and_then(|at| at.as_ref())
                .is_some_and(|at| at.elapsed() <= members::SILENT_AFTER)
        };
        let others = progress.into_iter().filter(|(id, _)| other(id));
        let best = others.max_by_key(|(id, at)| (is_up(id), *at));
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
    mut metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    active: watch::Sender<Option<LeaderId>>,
) {
    loop {
        // Cloned at once: holding the reference could block openraft.
        let now = metrics.borrow_watched().clone();
        let ended = now.running_state.is_err();
        let patience = patience(&now, inner.options.timings.election_max);
        let heard = patience.is_none_or(|left| !left.is_zero());
        let leads = now.state.is_leader() && now.vote.is_committed() && !ended && heard;
        let term = *now.vote.leader_id();
        let caught_up = now.last_applied.is_some_and(|applied| applied.leader_id == term);
        let active_term = (leads && caught_up).then_some(term);
        let may_campaign = allow_campaign(&inner, &now);
        inner.addresses.learn(members_of(&now));
        let status = QuorumStatus {
            leader: now.current_leader.filter(|_| !ended && heard).map(NodeId),
            term: now.current_term,
            voters: voters_of(&inner, &now),
            learners: learners_of(&now),
            may_campaign,
            active_here: active_term.is_some(),
            failure: now.running_state.err().map(|error| error.to_string()),
        };
        active.send_if_modified(|known| replace(known, active_term));
        inner.quorum.send_if_modified(|known| replace(known, status));
        let silence = async { tokio::time::sleep(patience.expect("guarded")).await };
        tokio::select! {
            () = inner.stop.cancelled() => break,
            changed = metrics.changed() => if changed.is_err() { break },
            () = silence, if heard && patience.is_some() => {}
        }
    }
    active.send_replace(None);
    inner.quorum.send_modify(|status| {
        status.leader = None;
        status.active_here = false;
    });
}

/// Lets this node stand for election once it has applied what it was admitted at.
fn allow_campaign(inner: &Inner, metrics: &RaftMetrics<TypeConfig>) -> bool {
    let admitted_at = inner.admitted_at.load(Ordering::Relaxed);
    let applied = metrics.last_applied.map_or(0, |applied| applied.index);
    let may = applied >= admitted_at;
    if let Some(raft) = inner.raft.get().filter(|_| may) {
        raft.runtime_config().elect(true);
    }
    may
}

fn members_of(metrics: &RaftMetrics<TypeConfig>) -> BTreeMap<u64, Peer> {
    let membership = metrics.membership_config.membership();
    membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect()
}

fn learners_of(metrics: &RaftMetrics<TypeConfig>) -> Vec<NodeId> {
    metrics.membership_config.membership().learner_ids().map(NodeId).collect()
}

/// How long a leader still counts as one, should no majority answer it any more: after
/// an election timeout the others may have another (KAFKA-15489). Half of one more, as
/// Kafka has it: answers of a busy follower come late, and it elects nobody meanwhile.
/// A leader that is cut off cannot commit anything, so to go on would be safe; but
/// whoever asked it would wait for nothing.
/// `None`: it leads nothing, or is the majority.
fn patience(metrics: &RaftMetrics<TypeConfig>, election_max: Duration) -> Option<Duration> {
    let alone = metrics.membership_config.membership().voter_ids().count() == 1;
    let leads = metrics.state.is_leader() && !alone;
    let heard = metrics.last_quorum_acked.filter(|_| leads)?;
    Some((election_max * 3 / 2).saturating_sub(heard.into_inner().elapsed()))
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
