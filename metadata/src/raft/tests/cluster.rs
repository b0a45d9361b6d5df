//! Three nodes in one process, and two that may be added: real services on
//! loopback ports, real files.

use crate::image::Image;
use crate::raft::types::LogId;
use crate::raft::{
    LogLimits, Metadata, MetadataError, MetadataOptions, QuorumStatus, SledDatabases, Timings,
};
use crate::records::FeatureLevels;
use openraft::async_runtime::watch::WatchReceiver;
use ottla_commitlog::Shared;
use ottla_commitlog::vfs::RealVfs;
use ottla_proto::v1::{CreateTopicRequest, CreateTopicResponse};
use ottla_proto::{ApiError, BrokerEpoch, DirectoryId, IncarnationId, NodeId};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::wrappers::TcpListenerStream;

/// Longest wait for anything: far beyond what a busy machine needs.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A node of a test cluster, running.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) metadata: Metadata,
    /// The services have threads of their own, to be torn away with every
    /// connection as the death of a process would.
    server: Option<Runtime>,
}

/// Where nodes live, running or not.
pub(super) struct Cluster {
    root: TempDir,
    pub(super) voters: BTreeMap<NodeId, (String, u16)>,
    /// Where each node is, voter to begin with or not.
    pub(super) places: BTreeMap<NodeId, (String, u16)>,
    pub(super) limits: LogLimits,
    pub(super) session_timeout: Duration,
    /// Shortest silence before an election; the longest is twice that.
    pub(super) election: Duration,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    /// Of the release that nodes are started with.
    pub(super) levels: FeatureLevels,
}

/// Waits until `check` holds for what is watched.
pub(super) async fn until<T: Clone>(
    mut watched: watch::Receiver<T>,
    why: &str,
    check: impl FnMut(&T) -> bool,
) -> T {
    match tokio::time::timeout(PATIENCE, watched.wait_for(check)).await {
        Ok(Ok(value)) => value.clone(),
        Ok(Err(_)) => panic!("the node is gone while waiting for {why}"),
        Err(_) => panic!("gave up waiting for {why}"),
    }
}

impl Cluster {
    /// Addresses for five nodes, none of which runs; the first three are the
    /// voters to begin with.
    pub(super) async fn new() -> Self {
        let mut places = BTreeMap::new();
        let mut listeners = Vec::new();
        for id in 1..=5 {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let port = listener.local_addr().expect("is bound").port();
            places.insert(NodeId(id), ("127.0.0.1".to_owned(), port));
            listeners.push(listener);
        }
        let root = tempfile::tempdir().expect("a temporary directory");
        Self {
            root,
            voters: places.range(..=NodeId(3)).map(|(id, at)| (*id, at.clone())).collect(),
            places,
            limits: LogLimits::default(),
            session_timeout: Timings::default().broker_session_timeout,
            election: Timings::default().election_min,
            nodes: BTreeMap::new(),
            levels: FeatureLevels::SUPPORTED,
        }
    }

    /// Three nodes that have formed a quorum and are all unfenced.
    pub(super) async fn formed() -> Self {
        let mut cluster = Self::new().await;
        cluster.start_all().await;
        cluster
    }

    pub(super) async fn start_all(&mut self) {
        let opened = futures::future::join_all(
            self.voters.keys().map(|id| self.open(*id, self.options(*id))),
        );
        let nodes = opened.await;
        let joins = nodes.iter().map(|node| node.metadata.join());
        for joined in futures::future::join_all(joins).await {
            joined.expect("joins");
        }
        self.nodes.extend(nodes.into_iter().map(|node| (node.id, node)));
        for node in self.nodes.values() {
            node.unfenced_here(&[1, 2, 3]).await;
        }
    }

    pub(super) fn dir(&self, id: NodeId) -> PathBuf {
        self.root.path().join(format!("node-{id}"))
    }

    /// The disk of a node that does not run is gone. Moved, not deleted: threads of
    /// sled may outlive the handle for a moment and write to it.
    pub(super) fn lose_disk(&self, id: NodeId) {
        let away = self.root.path().join(format!("lost-{}", uuid::Uuid::new_v4()));
        std::fs::rename(self.dir(id), away).expect("is there");
    }

    /// As the node would be configured, with the directory it was formatted
    /// with and a new incarnation.
    pub(super) fn options(&self, id: NodeId) -> MetadataOptions {
        MetadataOptions {
            network: Arc::new(ottla_host::Tcp),
            cluster_id: "test-cluster".to_owned(),
            node_id: id,
            directory_id: DirectoryId(uuid::Uuid::from_u128(id.0.into())),
            incarnation_id: IncarnationId::random(),
            previous_broker_epoch: None,
            dir: self.dir(id),
            shared: Shared::new(Arc::new(RealVfs)),
            databases: Arc::new(SledDatabases),
            voters: self.voters.clone(),
            advertised: self.places[&id].clone(),
            rack: None,
            levels: self.levels,
            replace_directory: false,
            timings: Timings { broker_session_timeout: self.session_timeout, ..Timings::default() },
            limits: self.limits,
        }
    }

    /// Opens a node and serves it on its port.
    pub(super) async fn open(&self, id: NodeId, options: MetadataOptions) -> Node {
        let metadata = Metadata::open(options).await.expect("opens");
        let (host, port) = &self.places[&id];
        let router = tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .add_service(metadata.raft_service())
            .add_service(metadata.controller_service());
        let server = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let address = (host.clone(), *port);
        let bound = server.spawn(TcpListener::bind(address)).await.expect("does not panic");
        let incoming = TcpListenerStream::new(bound.expect("its port is free"));
        server.spawn(router.serve_with_incoming(incoming));
        Node { id, metadata, server: Some(server) }
    }

    /// Starts a node and waits until it is a broker again.
    pub(super) async fn start(&mut self, id: u64) {
        let options = self.options(NodeId(id));
        self.start_with(options).await.expect("joins");
    }

    pub(super) async fn start_with(
        &mut self,
        options: MetadataOptions,
    ) -> Result<(), MetadataError> {
        let id = options.node_id;
        let node = self.open(id, options).await;
        if let Err(error) = node.metadata.join().await {
            node.stop().await;
            return Err(error);
        }
        self.nodes.insert(id, node);
        Ok(())
    }

    /// Takes a node's port, connections and tasks away at once, without a word
    /// to anybody: what kill -9 looks like from outside.
    pub(super) async fn kill(&mut self, id: NodeId) {
        self.nodes.remove(&id).expect("runs").stop().await;
    }

    /// The leader that a majority of the running nodes agree on.
    pub(super) async fn leader(&self) -> NodeId {
        let any = self.nodes.values().next().expect("one runs");
        let status = until(any.metadata.quorum_changes(), "a leader", |status| {
            status.leader.is_some_and(|leader| self.nodes.contains_key(&leader))
        });
        status.await.leader.expect("was waited for")
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[&id]
    }

    /// A running node that does not lead the quorum.
    pub(super) async fn follower(&self) -> &Node {
        let leader = self.leader().await;
        self.nodes.values().find(|node| node.id != leader).expect("more than one runs")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }
}

impl Node {
    pub(super) async fn stop(mut self) {
        // The port must be closed before anybody looks.
        let server = self.server.take().expect("runs until it is stopped");
        let close = move || server.shutdown_timeout(PATIENCE);
        tokio::task::spawn_blocking(close).await.expect("closes");
        self.metadata.shutdown().await;
    }

    pub(super) async fn image_where(
        &self,
        why: &str,
        check: impl Fn(&Image) -> bool,
    ) -> Arc<Image> {
        until(self.metadata.images(), why, |image| check(image)).await
    }

    pub(super) async fn quorum_where(
        &self,
        why: &str,
        check: impl Fn(&QuorumStatus) -> bool,
    ) -> QuorumStatus {
        until(self.metadata.quorum_changes(), why, check).await
    }

    /// Waits until this node sees these brokers unfenced.
    pub(super) async fn unfenced_here(&self, nodes: &[u64]) -> Arc<Image> {
        let why = format!("node {} to see {nodes:?} unfenced", self.id);
        self.image_where(&why, |image| nodes.iter().all(|id| image.is_active(NodeId(*id)))).await
    }

    /// Waits until the Raft log of this node begins behind entry `index`.
    pub(super) async fn purged_beyond(&self, index: u64) {
        let raft = self.metadata.inner.raft.get().expect("has joined");
        let purged = |m: &openraft::RaftMetrics<_>| {
            m.purged.as_ref().is_some_and(|purged: &LogId| purged.index > index)
        };
        raft.wait(Some(PATIENCE)).metrics(purged, "the log to be purged").await.expect("purges");
    }

    pub(super) fn last_log_index(&self) -> u64 {
        let raft = self.metadata.inner.raft.get().expect("has joined");
        raft.metrics().borrow_watched().last_log_index.expect("is not empty")
    }

    pub(super) fn epoch(&self) -> BrokerEpoch {
        self.metadata.broker().borrow().epoch.expect("is registered")
    }

    pub(super) async fn create(&self, name: &str) -> Result<CreateTopicResponse, ApiError> {
        let request = CreateTopicRequest {
            name: name.to_owned(),
            partitions: 3,
            replication_factor: 3,
            ..Default::default()
        };
        self.metadata.administer(request, Instant::now() + PATIENCE).await
    }
}
