//! Nodes of one process over loopback, with simulated disks and the real
//! controller: only the quorum's log is missing.

use crate::partition::Partition;
use crate::{
    Acks, Cluster, Limits, LocalPartition, OffsetPosition, Produced, ReplicaStatus, Replicas,
    ReplicasOptions,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use ottla_commitlog::data_dir::{DataDir, DataDirs, Owner};
use ottla_commitlog::format::{BatchOptions, NewRecord, ValidBatch, decode_records, encode_batch};
use ottla_commitlog::vfs::{RealVfs, SimVfs, Space, Vfs, create_dir_durably};
use ottla_commitlog::{DEFAULT_HOT_TAIL_BYTES, Shared};
use ottla_metadata::controller::{
    AlterPartition, Command, Controller, ControllerOptions, CreateTopic, Heartbeat,
    PartitionAlteration, PartitionOutcome, RegisterBroker, Reply, ReportOffline,
};
use ottla_metadata::image::Image;
use ottla_metadata::records::FeatureLevels;
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{
    ApiError, BrokerEpoch, DirectoryId, IncarnationId, MAX_BATCH_BYTES, NodeId, PartitionId,
    TopicId,
};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything. Only a failing test reaches it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) const CLUSTER: &str = "test";

/// The active controller and what it decided.
#[derive(Clone)]
pub(super) struct Quorum {
    controller: Arc<Mutex<Controller>>,
    images: watch::Sender<Arc<Image>>,
    /// Whether it can be asked what is current.
    pub(super) has_majority: Arc<AtomicBool>,
}

impl Quorum {
    pub(super) fn new() -> Self {
        let options = ControllerOptions {
            cluster_id: CLUSTER.to_owned(),
            session_timeout_ms: 1000,
            levels: FeatureLevels::SUPPORTED,
        };
        let image = Arc::new(Image::default());
        let controller = Controller::activate(options, &image, 0);
        let (controller, images) = (Arc::new(Mutex::new(controller)), watch::Sender::new(image));
        Self { controller, images, has_majority: Arc::new(AtomicBool::new(true)) }
    }

    pub(super) fn submit(&self, command: Command) -> Result<Reply, ApiError> {
        let mut controller = self.controller.lock();
        let mut image = Image::clone(&self.images.borrow());
        let decision = controller.decide(&image, command, 0);
        for record in &decision.records {
            image.replay(record).expect("the controller's own record");
        }
        self.images.send_replace(Arc::new(image));
        decision.reply
    }

    pub(super) fn image(&self) -> Arc<Image> {
        Arc::clone(&self.images.borrow())
    }

    /// The images until then, and the last of them for ever.
    fn told_until(&self, deaf: CancellationToken) -> watch::Sender<Arc<Image>> {
        let mut images = self.images.subscribe();
        let told = watch::Sender::new(Arc::clone(&images.borrow_and_update()));
        let teller = told.clone();
        tokio::spawn(deaf.run_until_cancelled_owned(async move {
            while images.changed().await.is_ok() {
                teller.send_replace(Arc::clone(&images.borrow_and_update()));
            }
        }));
        told
    }

    /// A topic of one partition on three nodes, the first of which leads.
    pub(super) fn create_topic(&self, name: &str, configs: &[(&str, &str)]) -> PartitionId {
        self.create_wide_topic(name, 1, configs)
    }

    /// Returns the first partition.
    pub(super) fn create_wide_topic(
        &self,
        name: &str,
        partitions: u32,
        configs: &[(&str, &str)],
    ) -> PartitionId {
        let configs = configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let topic = TopicId::random();
        self.submit(Command::CreateTopic(CreateTopic {
            name: name.to_owned(),
            topic_id: topic,
            partitions,
            replication_factor: 0,
            configs,
            validate_only: false,
            placement_seed: 0,
        }))
        .expect("a topic");
        PartitionId { topic, index: 0 }
    }

    pub(super) fn leader(&self, id: PartitionId) -> NodeId {
        self.image().partitions[&id].leader.expect("a leader")
    }

    /// The other replicas, in order.
    pub(super) fn followers(&self, id: PartitionId) -> Vec<NodeId> {
        self.all_but(id, self.leader(id))
    }

    /// All replicas but one, in order.
    pub(super) fn all_but(&self, id: PartitionId, leader: NodeId) -> Vec<NodeId> {
        let mut nodes = self.image().partitions[&id].replicas.clone();
        nodes.retain(|node| *node != leader);
        nodes.sort();
        nodes
    }

    pub(super) async fn until(&self, what: &str, holds: impl FnMut(&Arc<Image>) -> bool) {
        let mut images = self.images.subscribe();
        let waited = timeout(PATIENCE, images.wait_for(holds)).await;
        drop(waited.unwrap_or_else(|_| panic!("never: {what}")).expect("the quorum lives"));
    }
}

/// The quorum as one process knows it.
struct Process {
    quorum: Quorum,
    /// What it hears of, where that can end.
    heard: Option<watch::Sender<Arc<Image>>>,
    node_id: NodeId,
    epoch: BrokerEpoch,
}

impl Cluster for Process {
    fn images(&self) -> watch::Receiver<Arc<Image>> {
        self.heard.as_ref().unwrap_or(&self.quorum.images).subscribe()
    }

    fn current_image(&self, _: Instant) -> BoxFuture<'_, Result<Arc<Image>, ApiError>> {
        let answer = if self.quorum.has_majority.load(Relaxed) {
            Ok(self.quorum.image())
        } else {
            Err(ApiError::new(R::ControllerNotAvailable, "no majority"))
        };
        std::future::ready(answer).boxed()
    }

    fn registered(&self) -> BoxFuture<'_, BrokerEpoch> {
        std::future::ready(self.epoch).boxed()
    }

    fn alter_partition(
        &self,
        partitions: Vec<PartitionAlteration>,
    ) -> BoxFuture<'_, Result<Vec<PartitionOutcome>, ApiError>> {
        let (node_id, broker_epoch) = (self.node_id, self.epoch);
        let command = AlterPartition { node_id, broker_epoch, partitions };
        let reply = self.quorum.submit(Command::AlterPartition(command));
        let outcomes = reply.map(|reply| match reply {
            Reply::Altered(outcomes) => outcomes,
            other => panic!("not an answer to a proposal: {other:?}"),
        });
        std::future::ready(outcomes).boxed()
    }

    fn report_offline(&self, partitions: Vec<PartitionId>) -> BoxFuture<'_, Result<(), ApiError>> {
        let (node_id, broker_epoch) = (self.node_id, self.epoch);
        let command = ReportOffline { node_id, broker_epoch, partitions };
        let reply = self.quorum.submit(Command::ReportOffline(command));
        std::future::ready(reply.map(drop)).boxed()
    }
}

fn owner(node_id: NodeId) -> Owner {
    Owner { cluster_id: CLUSTER.to_owned(), node_id }
}

/// A machine: what outlives its process.
pub(super) struct Machine {
    pub(super) node_id: NodeId,
    pub(super) vfs: SimVfs,
    /// Removed with it.
    _folder: tempfile::TempDir,
    /// The data directories: marks and locks are on the real disk, logs on `vfs`.
    pub(super) directories: Vec<PathBuf>,
    directory: DirectoryId,
    incarnation: IncarnationId,
    pub(super) limits: Limits,
    /// Logs are on the real disk too: for tests of what is deleted, which only
    /// happens there.
    real_logs: bool,
    hot_tail_bytes: usize,
    /// Its processes can be made deaf ([`Node::deafen`]).
    ears: bool,
}

impl Machine {
    pub(super) fn with_directories(node: u64, count: usize) -> Self {
        let node_id = NodeId(node);
        let folder = tempfile::tempdir().expect("a folder");
        let directories: Vec<PathBuf> =
            (0..count).map(|n| folder.path().join(format!("d{n}"))).collect();
        DataDirs::format(&directories, &owner(node_id)).expect("formatted");
        let identity = DataDir::identity_at(&directories[0]).expect("readable");
        let vfs = SimVfs::new();
        for directory in &directories {
            create_dir_durably(&vfs, &directory.join("partitions")).expect("a directory");
        }
        Self {
            node_id,
            vfs,
            _folder: folder,
            directories,
            directory: identity.expect("formatted").directory_id,
            incarnation: IncarnationId::random(),
            limits: Limits::default(),
            real_logs: false,
            hot_tail_bytes: DEFAULT_HOT_TAIL_BYTES,
            ears: false,
        }
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.directories[0]
    }

    /// A new process, registered and unfenced.
    pub(super) async fn start(&mut self, quorum: &Quorum) -> Node {
        self.incarnation = IncarnationId::random();
        let node = self.resume(quorum).await;
        node.unfence();
        node
    }

    /// As if the process had only been paused: with the same registration.
    pub(super) async fn resume(&self, quorum: &Quorum) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let reply = quorum.submit(Command::RegisterBroker(RegisterBroker {
            cluster_id: CLUSTER.to_owned(),
            node_id: self.node_id,
            incarnation: self.incarnation,
            directory: self.directory,
            host: "127.0.0.1".to_owned(),
            port,
            rack: None,
            levels: FeatureLevels::SUPPORTED,
            previous_broker_epoch: None,
            previous_stream_open: false,
        }));
        let Ok(Reply::Registered { broker_epoch, .. }) = reply else {
            panic!("not registered: {reply:?}");
        };
        Node::start(self, quorum, broker_epoch, listener)
    }
}

/// A process.
pub(super) struct Node {
    pub(super) replicas: Replicas,
    pub(super) data_dirs: Arc<DataDirs>,
    node_id: NodeId,
    epoch: BrokerEpoch,
    quorum: Quorum,
    deaf: CancellationToken,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Node {
    fn start(machine: &Machine, quorum: &Quorum, epoch: BrokerEpoch, port: TcpListener) -> Self {
        let node_id = machine.node_id;
        let data_dirs = DataDirs::open(&machine.directories, &owner(node_id));
        let data_dirs = Arc::new(data_dirs.expect("data directories"));
        let deaf = CancellationToken::new();
        let heard = machine.ears.then(|| quorum.told_until(deaf.clone()));
        let vfs: Arc<dyn Vfs> =
            if machine.real_logs { Arc::new(RealVfs) } else { Arc::new(machine.vfs.clone()) };
        let replicas = Replicas::start(ReplicasOptions {
            tracer: ottla_trace::Tracer::default(),
            node_id,
            cluster_id: CLUSTER.to_owned(),
            data_dirs: Arc::clone(&data_dirs),
            shared: Shared::with_hot_tail(vfs, machine.hot_tail_bytes),
            network: Arc::new(ottla_host::Tcp),
            cluster: Arc::new(Process { quorum: quorum.clone(), heard, node_id, epoch }),
            clean_start: false,
            limits: machine.limits,
        });
        let stop = CancellationToken::new();
        let serving = tonic::transport::Server::builder()
            .layer(ottla_grpc::ServerLayer)
            .add_service(replicas.service())
            .serve_with_incoming_shutdown(
                TcpListenerStream::new(port),
                stop.clone().cancelled_owned(),
            );
        let server = tokio::spawn(async move { serving.await.expect("served") });
        let quorum = quorum.clone();
        Self { replicas, data_dirs, node_id, epoch, quorum, deaf, stop, server }
    }

    /// From now on it hears nothing of the metadata, and the controller takes it for dead.
    pub(super) fn deafen(&self) {
        self.deaf.cancel();
        let gone = Command::BrokerGone { node_id: self.node_id, broker_epoch: self.epoch };
        self.quorum.submit(gone).expect("noticed");
    }

    pub(super) fn unfence(&self) {
        let metadata_offset = self.quorum.image().offset;
        self.heartbeat(metadata_offset, false);
    }

    /// Asks for leave to stop: leaderships move away.
    pub(super) fn want_shutdown(&self) {
        let metadata_offset = self.quorum.image().offset;
        self.heartbeat(metadata_offset, true);
    }

    fn heartbeat(&self, metadata_offset: ottla_proto::MetadataOffset, want_shutdown: bool) {
        let heartbeat = Heartbeat {
            node_id: self.node_id,
            broker_epoch: self.epoch,
            metadata_offset,
            want_fence: false,
            want_shutdown,
        };
        self.quorum.submit(Command::Heartbeat(heartbeat)).expect("heard");
    }

    /// Ends the process; nobody is told.
    pub(super) async fn stop(self) {
        // Logs on a disk that lost power cannot be synced.
        let _ = self.replicas.shutdown().await;
        self.stop.cancel();
        timeout(PATIENCE, self.server).await.expect("the server ends").expect("it did not panic");
    }

    /// Ends the process, and the controller notices.
    pub(super) async fn die(self) {
        let gone = Command::BrokerGone { node_id: self.node_id, broker_epoch: self.epoch };
        self.quorum.submit(gone).expect("noticed");
        self.stop().await;
    }

    pub(super) async fn produce(&self, topic: &str, value: &str) -> Result<Produced, ApiError> {
        self.produce_with(topic, value, Acks::All, PATIENCE).await
    }

    pub(super) async fn produce_with(
        &self,
        topic: &str,
        value: &str,
        acks: Acks,
        within: Duration,
    ) -> Result<Produced, ApiError> {
        self.send(topic, batch(&[value]), acks, within).await
    }

    /// A batch as it is.
    pub(super) async fn send(
        &self,
        topic: &str,
        batch: ValidBatch,
        acks: Acks,
        within: Duration,
    ) -> Result<Produced, ApiError> {
        let deadline = Instant::now() + within;
        let ticket = self.replicas.produce(topic, 0, batch, acks, deadline).await?;
        timeout(PATIENCE, ticket.wait()).await.expect("an answer")
    }

    /// All committed values, from the leader.
    pub(super) async fn read_all(&self, topic: &str) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let end = self.replicas.list_offset(topic, 0, OffsetPosition::Latest, deadline).await;
        let end = end.expect("an end").offset;
        let mut values = Vec::new();
        while (values.len() as u64) < end {
            let from = values.len() as u64;
            let fetched = self.replicas.fetch(topic, 0, from, 1 << 20, PATIENCE).await;
            values.extend(values_of(&fetched.expect("records").batches));
        }
        values
    }

    pub(super) fn partition(&self, id: PartitionId) -> Arc<Partition> {
        self.replicas.local(id).expect("a local replica")
    }

    pub(super) async fn until(
        &self,
        id: PartitionId,
        what: &str,
        mut holds: impl FnMut(&ReplicaStatus) -> bool,
    ) -> ReplicaStatus {
        let state = self.until_state(id, what, |state| state.status().is_some_and(&mut holds));
        *state.await.status().expect("just seen")
    }

    pub(super) async fn until_state(
        &self,
        id: PartitionId,
        what: &str,
        holds: impl FnMut(&LocalPartition) -> bool,
    ) -> LocalPartition {
        self.until_here(id).await;
        let mut state = self.replicas.watch(id).expect("a local replica");
        let waited = timeout(PATIENCE, state.wait_for(holds)).await;
        let seen = waited.unwrap_or_else(|_| {
            panic!("never on node {}: {what}; {:?}", self.node_id, self.replicas.status(id))
        });
        seen.expect("the partition lives").clone()
    }

    async fn until_here(&self, id: PartitionId) {
        let mut images = self.replicas.images();
        let known = images.wait_for(|image| image.partitions.contains_key(&id));
        drop(timeout(PATIENCE, known).await.expect("the topic is known").expect("it lives"));
    }

    /// Everything in the local log, committed or not.
    pub(super) fn log_bytes(&self, id: PartitionId) -> bytes::Bytes {
        let partition = self.partition(id);
        let log = partition.log().expect("open");
        let bounds = log.bounds();
        log.read(bounds.start, bounds.end, usize::MAX).expect("readable")
    }
}

pub(super) fn batch(values: &[&str]) -> ValidBatch {
    let records: Vec<NewRecord> = values
        .iter()
        .map(|value| NewRecord {
            key: None,
            value: Some(bytes::Bytes::copy_from_slice(value.as_bytes())),
            headers: Vec::new(),
            timestamp_ms: 1_000,
        })
        .collect();
    let bytes = encode_batch(&records, &BatchOptions::default()).expect("encoded");
    ValidBatch::new(bytes, MAX_BATCH_BYTES).expect("valid")
}

pub(super) fn values_of(batches: &bytes::Bytes) -> Vec<String> {
    decode_records(batches)
        .map(|record| {
            let value = record.expect("a good record").value.expect("a value");
            String::from_utf8(value.to_vec()).expect("text")
        })
        .collect()
}

/// Three machines and a process on each.
pub(super) struct Three {
    pub(super) quorum: Quorum,
    pub(super) machines: Vec<Machine>,
    nodes: Vec<Option<Node>>,
}

impl Three {
    pub(super) async fn start(limits: Limits) -> Self {
        Self::with_directories(limits, 1).await
    }

    /// With all files on the real disk.
    pub(super) async fn on_real_disks() -> Self {
        let machine = |node| Machine { real_logs: true, ..Machine::with_directories(node, 1) };
        Self::on((1..=3).map(machine).collect(), Limits::default()).await
    }

    pub(super) async fn with_directories(limits: Limits, count: usize) -> Self {
        let machines = (1..=3).map(|node| Machine::with_directories(node, count));
        Self::on(machines.collect(), limits).await
    }

    /// Nodes that keep nothing in memory of what was appended last.
    pub(super) async fn without_memory() -> Self {
        let machine = |node| Machine { hot_tail_bytes: 0, ..Machine::with_directories(node, 1) };
        Self::on((1..=3).map(machine).collect(), Limits::default()).await
    }

    /// Processes that can be made deaf.
    pub(super) async fn with_ears() -> Self {
        let machine = |node| Machine { ears: true, ..Machine::with_directories(node, 1) };
        Self::on((1..=3).map(machine).collect(), Limits::default()).await
    }

    /// On disks that say how much room they have.
    pub(super) async fn with_space(limits: Limits, space: Space) -> Self {
        let machines: Vec<Machine> = (1..=3).map(|n| Machine::with_directories(n, 1)).collect();
        machines.iter().for_each(|machine| machine.vfs.set_space(Some(space)));
        Self::on(machines, limits).await
    }

    async fn on(mut machines: Vec<Machine>, limits: Limits) -> Self {
        let quorum = Quorum::new();
        let mut nodes = Vec::new();
        for machine in &mut machines {
            machine.limits = limits;
            nodes.push(Some(machine.start(&quorum).await));
        }
        Self { quorum, machines, nodes }
    }

    fn slot(node: NodeId) -> usize {
        usize::try_from(node.0).expect("small") - 1
    }

    pub(super) fn node(&self, node: NodeId) -> &Node {
        self.nodes[Self::slot(node)].as_ref().expect("running")
    }

    pub(super) fn take(&mut self, node: NodeId) -> Node {
        self.nodes[Self::slot(node)].take().expect("running")
    }

    pub(super) async fn restart(&mut self, node: NodeId) {
        let started = self.machines[Self::slot(node)].start(&self.quorum).await;
        self.nodes[Self::slot(node)] = Some(started);
    }

    pub(super) async fn resume(&mut self, node: NodeId) {
        let resumed = self.machines[Self::slot(node)].resume(&self.quorum).await;
        self.nodes[Self::slot(node)] = Some(resumed);
    }

    pub(super) fn machine(&self, node: NodeId) -> &Machine {
        &self.machines[Self::slot(node)]
    }

    /// Waits until the controller has this ISR and the leader knows it.
    pub(super) async fn until_isr(&self, id: PartitionId, isr: &[NodeId]) {
        let wanted: BTreeSet<NodeId> = isr.iter().copied().collect();
        let what = format!("ISR {isr:?} of {id}");
        let decided = |image: &Arc<Image>| {
            image.partitions[&id].isr.iter().copied().collect::<BTreeSet<_>>() == wanted
        };
        self.quorum.until(&what, decided).await;
        let known = |state: &LocalPartition| matches!(state, LocalPartition::Running { isr, .. } if **isr == wanted);
        self.node(self.quorum.leader(id)).until_state(id, &what, known).await;
    }

    pub(super) async fn end(mut self) {
        for node in self.nodes.iter_mut().filter_map(Option::take) {
            node.stop().await;
        }
    }
}
