//! The life of a node: open, join, serve, hand over, stop.
//!
//! Not its job: what happens inside any of these; it only fixes their order.

use crate::changes::Changes;
use crate::config::NodeConfig;
use crate::ends::Ends;
use crate::health::{readiness, report_health, set_serving};
use crate::lag::LagMeter;
use crate::limits::{Bounded, ConnectionLimits, Connections};
use crate::live::{self, Followers, InForce};
use crate::metrics::{Metrics, Requests, Sources};
use crate::ports::{MAX_HTTP_CONNECTIONS, bind, serve_grpc};
use crate::producer_ids::ProducerIds;
use crate::services::{Cluster, Context, Groups, Log, MetadataWatch, Producers, Topics};
use crate::telemetry::{self, LogLevels};
use crate::{http, spans, storage};
use anyhow::Context as _;
use ottla_commitlog::data_dir::DataDirs;
use ottla_commitlog::vfs::{RealVfs, Vfs};
use ottla_commitlog::{LogError, Shared};
use ottla_coordinator::Coordinator;
use ottla_coordinator::groups::GroupOptions;
use ottla_host::{Listener, Network, Tcp};
use ottla_metadata::records::FeatureLevels;
use ottla_metadata::{Databases, LogLimits, Metadata, MetadataOptions, SledDatabases, Timings};
use ottla_proto::v1::cluster_service_server::ClusterServiceServer;
use ottla_proto::v1::group_service_server::GroupServiceServer;
use ottla_proto::v1::log_service_server::LogServiceServer;
use ottla_proto::v1::metadata_service_server::MetadataServiceServer;
use ottla_proto::v1::producer_service_server::ProducerServiceServer;
use ottla_proto::v1::topic_service_server::TopicServiceServer;
use ottla_proto::{FILE_DESCRIPTOR_SET, IncarnationId, MAX_GRPC_MESSAGE_BYTES, NodeId};
use ottla_replication::{Replicas, ReplicasOptions};
use ottla_trace::Exporter;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tracing::{error, info, warn};

/// Between two looks whether there is room on a full disk: no load, and soon beside the
/// time in which somebody makes room.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(1);

/// How long writes under way may take to be answered when the node stops: many
/// times a sync, and short beside what a supervisor grants.
const FINISH_WRITES_TIMEOUT: Duration = Duration::from_secs(2);

/// How long open calls may take to end once the node has let everything go.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs one node until SIGTERM, SIGINT or `stop`, then stops it gracefully.
///
/// # Errors
/// What kept it from starting, or from stopping cleanly.
pub async fn run(config: NodeConfig, stop: CancellationToken) -> anyhow::Result<()> {
    let levels = telemetry::init(&config)?;
    let stop = on_signals(stop)?;
    run_with(Host::default(), config, levels, stop).await
}

/// What a node runs on.
#[derive(Clone)]
pub struct Host {
    /// How it reaches others, and they it.
    pub network: Arc<dyn Network>,
    /// Where its logs are: those of partitions, and the metadata's.
    pub disk: Arc<dyn Vfs>,
    /// Where it keeps the applied metadata, which is rebuildable.
    pub databases: Arc<dyn Databases>,
}

impl Default for Host {
    /// The operating system's.
    fn default() -> Self {
        Self { network: Arc::new(Tcp), disk: Arc::new(RealVfs), databases: Arc::new(SledDatabases) }
    }
}

/// Runs one node on a host until `stop`, then stops it gracefully. Neither listens to
/// signals nor sets up logging, of which a process has one each.
///
/// # Errors
/// What kept it from starting, or from stopping cleanly.
pub async fn run_on(host: Host, config: NodeConfig, stop: CancellationToken) -> anyhow::Result<()> {
    run_with(host, config, LogLevels::default(), stop).await
}

async fn run_with(
    host: Host,
    config: NodeConfig,
    levels: LogLevels,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let node = open_when_there_is_room(host, config, levels, &stop).await?;
    let served = node.serve(&stop).await;
    if let Err(error) = &served {
        error!("node stops: {error:#}");
    }
    served
}

/// A full disk is no reason to end: whoever watches over processes might give up, and
/// the node would stay away when there is room again.
async fn open_when_there_is_room(
    host: Host,
    config: NodeConfig,
    levels: LogLevels,
    stop: &CancellationToken,
) -> anyhow::Result<Node> {
    let mut told = false;
    loop {
        let error = match Node::open(host.clone(), config.clone(), levels.clone()).await {
            Err(error) if lacks_room(&error) => error,
            opened => return opened,
        };
        if !std::mem::replace(&mut told, true) {
            warn!("no room on a disk to start; waiting for it: {error:#}");
        }
        tokio::select! {
            () = stop.cancelled() => return Err(error),
            () = tokio::time::sleep(LOOK_FOR_ROOM) => {}
        }
    }
}

fn lacks_room(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::StorageFull)
            || matches!(cause.downcast_ref(), Some(LogError::DiskFull { .. }))
    })
}

/// Cancelled by `stop`, SIGTERM or SIGINT, whichever comes first.
fn on_signals(stop: CancellationToken) -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let child = stop.child_token();
    let cancel = child.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: stopping"),
            _ = interrupt.recv() => info!("SIGINT: stopping"),
            () = cancel.cancelled() => {}
        }
        cancel.cancel();
    });
    Ok(child)
}

struct Node {
    config: NodeConfig,
    data_dirs: Arc<DataDirs>,
    shared: Arc<Shared>,
    metadata: Metadata,
    replicas: Replicas,
    coordinator: Coordinator,
    ends: Arc<Ends>,
    requests: Arc<Requests>,
    /// Where spans go.
    tracing: Option<Exporter>,
    levels: LogLevels,
    /// Options as they were when the parts were started.
    in_force: InForce,
    grpc: Listener,
    http: Listener,
}

impl Node {
    async fn open(host: Host, config: NodeConfig, levels: LogLevels) -> anyhow::Result<Self> {
        let Host { network, disk, databases } = host;
        // Ports first: a second process on the same ports must not touch data.
        let grpc = bind(&*network, config.listen, "gRPC", "listen").await?;
        let http = bind(&*network, config.http_listen, "HTTP", "http_listen").await?;
        let tracing = spans::exporter(&config)?;
        storage::allow_many_files();
        let data_dirs = Arc::new(storage::open(&config)?);
        let previous_broker_epoch = data_dirs.clean_shutdown();
        let directory_id = data_dirs.first().identity().directory_id;
        info!(
            node = config.node_id,
            cluster = config.cluster_id,
            directory = %directory_id,
            clean = previous_broker_epoch.is_some(),
            version = crate::VERSION,
            "node starts"
        );
        let shared = Shared::new(disk);
        let advertised = config.advertised();
        let metadata = Metadata::open(MetadataOptions {
            cluster_id: config.cluster_id.clone(),
            node_id: NodeId(config.node_id),
            directory_id,
            incarnation_id: IncarnationId::random(),
            previous_broker_epoch,
            dir: data_dirs.first().metadata_dir(),
            shared: shared.clone(),
            databases,
            network: Arc::clone(&network),
            voters: voters(&config)?,
            advertised: (advertised.host, advertised.port),
            rack: config.rack.clone(),
            levels: FeatureLevels::SUPPORTED,
            replace_directory: config.dev,
            timings: timings(&config),
            limits: LogLimits::default(),
        })
        .await?;
        // What was set before the last stop holds from the first moment on.
        let in_force = InForce::of(&config, &metadata.image());
        levels.set(&in_force.log_level);
        shared.set_hot_tail(in_force.hot_tail_bytes);
        let replicas = Replicas::start(ReplicasOptions {
            node_id: NodeId(config.node_id),
            cluster_id: config.cluster_id.clone(),
            data_dirs: data_dirs.clone(),
            shared: shared.clone(),
            network: Arc::clone(&network),
            tracer: tracing.as_ref().map(Exporter::tracer).unwrap_or_default(),
            cluster: Arc::new(metadata.clone()),
            clean_start: previous_broker_epoch.is_some(),
            limits: in_force.limits,
        });
        let coordinator = Coordinator::start(replicas.clone(), GroupOptions::default());
        let ends = Arc::new(Ends::new(NodeId(config.node_id), replicas.clone(), network));
        Ok(Self {
            config,
            data_dirs,
            shared,
            metadata,
            replicas,
            coordinator,
            ends,
            requests: Arc::default(),
            tracing,
            levels,
            in_force,
            grpc,
            http,
        })
    }

    async fn serve(self, stop: &CancellationToken) -> anyhow::Result<()> {
        // Ends the calls of clients; the node's own outlive it for the hand-over.
        let clients = CancellationToken::new();
        let servers = CancellationToken::new();
        let (health, health_service) = tonic_health::server::health_reporter();
        let routes = self.routes(&clients, health_service)?;
        let local = self.grpc.local_addr();
        let connections = Connections::new(connection_limits(&self.config));
        let serving =
            tokio::spawn(serve_grpc(self.grpc, Arc::clone(&connections), routes, servers.clone()));
        let ready = readiness(&self.metadata, &self.replicas, stop);
        let replicas = self.replicas.clone();
        let (coordinator, metadata) = (self.coordinator.clone(), self.metadata.clone());
        let lags = Arc::new(LagMeter::new(coordinator, metadata, Arc::clone(&self.ends)));
        let sent = move || replicas.sent_bytes();
        let replicas = self.replicas.clone();
        let disks = move || replicas.disks();
        let changes = Arc::new(Changes::default());
        let node_id = NodeId(self.config.node_id);
        let counting = tokio::spawn(Arc::clone(&changes).follow(self.metadata.clone(), node_id));
        let metrics = Metrics::new(Sources {
            logs: self.shared.clone(),
            sent,
            lags: lags.shown(),
            requests: Arc::clone(&self.requests),
            connections,
            disks,
            metadata: self.metadata.clone(),
            changes,
            node_id,
        });
        let before_scrape: http::BeforeScrape = Arc::new(move || {
            let lags = Arc::clone(&lags);
            Box::pin(async move { lags.measure().await })
        });
        let figures = (metrics, before_scrape);
        let http = bounded_http(self.http);
        let probes = tokio::spawn(http::serve(http, ready, figures, servers.clone()));

        tokio::select! {
            joined = self.metadata.join() => joined?,
            () = stop.cancelled() => {
                servers.cancel();
                return Ok(());
            }
        }
        info!(address = %local, advertised = %self.config.advertised(), "node serves");
        let followers = Followers {
            replicas: self.replicas.clone(),
            shared: self.shared.clone(),
            levels: self.levels.clone(),
        };
        let (config, images) = (self.config.clone(), self.metadata.images());
        let following = tokio::spawn(live::follow(config, images, self.in_force, followers));
        let reporting = tokio::spawn(report_health(self.metadata.clone(), health.clone()));
        let evicted = tokio::select! {
            () = stop.cancelled() => None,
            evicted = self.metadata.evicted() => Some(evicted),
        };

        counting.abort();
        reporting.abort();
        following.abort();
        set_serving(&health, false).await;
        if let Some(evicted) = evicted {
            // Nothing here counts any more: there is nobody to hand anything to.
            clients.cancel();
            self.coordinator.shutdown().await;
            if let Err(error) = self.replicas.shutdown().await {
                warn!("not every log could be synced: {error}");
            }
            self.metadata.shutdown().await;
            servers.cancel();
            return Err(evicted.into());
        }
        let InForce { shutdown_timeout, .. } = InForce::of(&self.config, &self.metadata.image());
        hand_over(&self.replicas, &self.metadata, shutdown_timeout).await;
        clients.cancel();
        self.coordinator.shutdown().await;
        let epoch = self.metadata.broker().borrow().epoch;
        self.replicas.shutdown().await.context("not every log could be synced")?;
        self.metadata.shutdown().await;
        if let Some(epoch) = epoch {
            self.data_dirs.mark_clean_shutdown(epoch)?;
        }
        servers.cancel();
        if tokio::time::timeout(DRAIN_TIMEOUT, serving).await.is_err() {
            warn!("some calls did not end in time and are cut");
        }
        probes.abort();
        spans::end(self.tracing).await;
        info!("node stopped cleanly");
        Ok(())
    }

    fn routes(
        &self,
        clients: &CancellationToken,
        health: impl tonic::codegen::Service<
            axum::http::Request<tonic::body::Body>,
            Response = axum::http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
            Future: Send + 'static,
        > + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    ) -> anyhow::Result<tonic::service::Routes> {
        let context = Context {
            cluster_id: self.config.cluster_id.clone(),
            node_id: NodeId(self.config.node_id),
            metadata: self.metadata.clone(),
            stop: clients.clone(),
        };
        let log = Log {
            context: context.clone(),
            replicas: self.replicas.clone(),
            requests: Arc::clone(&self.requests),
            tracer: self.tracing.as_ref().map(Exporter::tracer).unwrap_or_default(),
        };
        let cluster = Cluster {
            context: context.clone(),
            voters: voters(&self.config)?,
            replicas: self.replicas.clone(),
            own: Arc::new(self.config.given.clone()),
        };
        let groups = Groups {
            context: context.clone(),
            coordinator: self.coordinator.clone(),
            ends: Arc::clone(&self.ends),
        };
        let mut routes = RoutesBuilder::default();
        routes
            .add_service(
                LogServiceServer::new(log)
                    .max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_GRPC_MESSAGE_BYTES),
            )
            .add_service(
                MetadataServiceServer::new(MetadataWatch::new(context.clone()))
                    .max_encoding_message_size(MAX_GRPC_MESSAGE_BYTES),
            )
            .add_service(ProducerServiceServer::new(Producers {
                context: context.clone(),
                ids: Arc::new(ProducerIds::new(self.metadata.clone())),
            }))
            .add_service(TopicServiceServer::new(Topics {
                context,
                replicas: self.replicas.clone(),
            }))
            .add_service(ClusterServiceServer::new(cluster))
            .add_service(GroupServiceServer::new(groups))
            .add_service(self.metadata.raft_service())
            .add_service(self.metadata.controller_service())
            .add_service(self.replicas.service())
            .add_service(health)
            .add_service(reflection().build_v1()?)
            // What most installed tools still ask for.
            .add_service(reflection().build_v1alpha()?);
        Ok(routes.routes())
    }
}

fn reflection<'a>() -> tonic_reflection::server::Builder<'a> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn voters(
    config: &NodeConfig,
) -> anyhow::Result<std::collections::BTreeMap<NodeId, (String, u16)>> {
    let addresses = config.voter_addresses()?;
    Ok(addresses.into_iter().map(|(id, address)| (id, (address.host, address.port))).collect())
}

fn connection_limits(config: &NodeConfig) -> ConnectionLimits {
    ConnectionLimits {
        connections: config.max_connections as usize,
        requests: config.max_requests_per_connection as usize,
        bytes: config.max_connection_bytes,
    }
}

/// What is asked for over HTTP is small, and not counted.
fn bounded_http(listener: Listener) -> Listener {
    let connections = MAX_HTTP_CONNECTIONS;
    let limits = ConnectionLimits { connections, requests: usize::MAX, bytes: u32::MAX };
    let address = listener.local_addr();
    Listener::new(address, Bounded::new(listener, Connections::new(limits)))
}

fn timings(config: &NodeConfig) -> Timings {
    Timings {
        election_min: Duration::from_millis(config.election_timeout_min_ms),
        election_max: Duration::from_millis(config.election_timeout_max_ms),
        raft_heartbeat: Duration::from_millis(config.raft_heartbeat_ms),
        broker_heartbeat: Duration::from_millis(config.heartbeat_interval_ms),
        broker_session_timeout: Duration::from_millis(config.session_timeout_ms),
    }
}

/// Moves this node's leaderships elsewhere while it still serves. Writes are
/// finished first: one that is cut off by the hand-over would leave its writer in
/// doubt.
async fn hand_over(replicas: &Replicas, metadata: &Metadata, within: Duration) {
    let deadline = Instant::now() + FINISH_WRITES_TIMEOUT.min(within);
    if !replicas.drain_writes(deadline - Instant::now()).await {
        warn!("some writes were not answered before the hand-over");
    }
    if !replicas.followers_caught_up(deadline - Instant::now()).await {
        warn!("some in-sync replicas did not have everything before the hand-over");
    }
    if let Err(error) = metadata.controlled_shutdown(within).await {
        warn!("leaderships were not handed over: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_metadata::MetadataError;
    use std::io;

    #[test]
    fn only_want_of_room_is_waited_for() {
        let no_room = || io::Error::from_raw_os_error(28);
        assert!(lacks_room(&MetadataError::Io(no_room()).into()));
        assert!(lacks_room(&LogError::DiskFull { path: "log".into() }.into()));
        assert!(lacks_room(&anyhow::Error::new(no_room()).context("formatting")));
        let broken = io::Error::from_raw_os_error(5);
        assert!(!lacks_room(&MetadataError::Io(broken).into()));
        assert!(!lacks_room(&anyhow::anyhow!("No space left on device")));
    }
}
