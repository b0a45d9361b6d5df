//! Clusters of real `ottla node` processes, to be hurt: on loopback, or each on a host
//! of its own.
//!
//! Not its job: what is done to them (the tests), or whether the records are
//! right afterwards (`checker`).

mod files;
mod node;
mod place;
mod ports;
pub mod world;

pub use files::{finished_segments, flip_a_bit, read_replica};
pub use node::Node;

use anyhow::{Context as _, bail};
use futures::future::join_all;
use ottla_proto::v1::cluster_service_client::ClusterServiceClient;
use ottla_proto::v1::group_service_client::GroupServiceClient;
use ottla_proto::v1::log_service_client::LogServiceClient;
use ottla_proto::v1::metadata_service_client::MetadataServiceClient;
use ottla_proto::v1::topic_service_client::TopicServiceClient;
use ottla_proto::{MAX_GRPC_MESSAGE_BYTES, v1};
use place::Ground;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use world::World;

/// How long anything in a cluster on a busy two-core machine may take before a
/// test gives it up. Nothing waits so long when things go well.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Interval at which a state is looked at again while a test waits for it.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// How long a node that is asked what it knows may take: one that is stopped or cut
/// off never answers, and others know as much.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Replicas of a partition, where there are so many nodes.
const REPLICAS: usize = 3;

/// The `ottla` binary, built once in the profile of the test. As one that a test of the whole
/// workspace needs: so `cargo test --workspace` has it already, and with `-p` alone most
/// crates would be built anew, with fewer features.
pub fn binary() -> anyhow::Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BINARY.get_or_init(|| {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        let build = escargot::CargoBuild::new().arg("--workspace").test("commands");
        let build = build.manifest_path(manifest);
        let build = if cfg!(debug_assertions) { build } else { build.release() };
        build.run().map(|run| run.path().to_owned()).map_err(|error| error.to_string())
    });
    match built {
        Ok(path) => Ok(path),
        Err(error) => bail!("cannot build the ottla binary: {error}"),
    }
}

/// A cluster of processes. Dropping it kills them and removes their files.
pub struct Cluster {
    nodes: Vec<Node>,
    /// Nodes that it began with.
    voters: Vec<(u64, SocketAddr)>,
    ground: Ground,
    /// Further lines for the configuration of every node.
    options: String,
    /// Nodes that have left it.
    left: BTreeSet<u64>,
    dir: TempDir,
}

impl Cluster {
    /// Formats and starts `count` nodes as anybody would and waits until they are
    /// healthy.
    pub async fn start(count: u64) -> anyhow::Result<Self> {
        Self::start_with(count, "").await
    }

    /// The same with nodes that are fenced only when their process is gone: for
    /// tests whose verdict a busy machine must not change. Anywhere else a node
    /// that gets no processor for a second is fenced, and rightly so.
    pub async fn start_patient(count: u64) -> anyhow::Result<Self> {
        Self::start_patient_with(count, "").await
    }

    /// The same, with further lines for the configuration of every node.
    pub async fn start_patient_with(count: u64, options: &str) -> anyhow::Result<Self> {
        Self::start_with(count, &(patiently() + options)).await
    }

    /// The same, of nodes that run another binary than ours ([`Node::runs`]).
    pub async fn start_patient_of(binary: &Path, count: u64) -> anyhow::Result<Self> {
        let cluster = Self::begin(Ground::Loopback, count, &patiently(), binary)?;
        cluster.wait_healthy().await?;
        Ok(cluster)
    }

    async fn start_with(count: u64, options: &str) -> anyhow::Result<Self> {
        let cluster = Self::begin(Ground::Loopback, count, options, binary()?)?;
        cluster.wait_healthy().await?;
        Ok(cluster)
    }

    /// The same, each node on a host and a disk of its own.
    pub async fn start_in(world: &Arc<World>, count: u64, options: &str) -> anyhow::Result<Self> {
        let cluster = Self::begin(Ground::World(Arc::clone(world)), count, options, binary()?)?;
        cluster.wait_healthy().await?;
        Ok(cluster)
    }

    /// Formats and starts the nodes.
    fn begin(ground: Ground, count: u64, options: &str, binary: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("ottla-process-").tempdir()?;
        let ids: Vec<u64> = (1..=count).collect();
        let addresses = ground.addresses(&ids)?;
        let voters = ids.iter().zip(&addresses).map(|(&id, (grpc, _))| (id, *grpc)).collect();
        let (options, left) = (options.to_owned(), BTreeSet::new());
        let mut cluster = Self { nodes: Vec::new(), voters, ground, options, left, dir };
        for (id, addresses) in ids.into_iter().zip(addresses) {
            cluster.add(id, addresses, binary)?;
        }
        Ok(cluster)
    }

    fn add(
        &mut self,
        id: u64,
        addresses: (SocketAddr, SocketAddr),
        binary: &Path,
    ) -> anyhow::Result<()> {
        let dir = self.dir.path().join(format!("node-{id}"));
        let place = self.ground.place(id, addresses, &dir)?;
        let mut node = Node::create(&dir, id, &self.voters, place, &self.options, binary)?;
        node.format()?;
        node.start()?;
        self.nodes.push(node);
        Ok(())
    }

    /// Formats and starts one node more, which is told only who was there first.
    pub fn join(&mut self) -> anyhow::Result<u64> {
        let id = self.nodes.len() as u64 + 1;
        let addresses = self.ground.addresses(&[id])?;
        self.add(id, addresses[0], binary()?)?;
        Ok(id)
    }

    /// Nodes that are part of the cluster, running or not.
    pub fn members(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| !self.left.contains(&node.id()))
    }

    /// A node is no part of the cluster any more. It keeps its place among the nodes.
    pub fn leaves(&mut self, id: u64) {
        self.left.insert(id);
    }

    /// It is part of it again.
    pub fn comes_back(&mut self, id: u64) {
        self.left.remove(&id);
    }

    /// Leaves all files where they are, for somebody to look at.
    #[must_use]
    pub fn keep(&mut self) -> PathBuf {
        self.dir.disable_cleanup(true);
        self.dir.path().to_owned()
    }

    /// The last node is no part of the cluster any more.
    pub fn part(&mut self) -> Option<Node> {
        self.nodes.pop()
    }

    /// Runs `ottla cluster …` against every node, and gives what it answered.
    pub fn operate(&self, args: &[&str]) -> anyhow::Result<serde_json::Value> {
        ottla(&self.bootstrap(), &[&["cluster"], args].concat())
    }

    /// The node with this id.
    pub fn node(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    /// Every node, in order of ids.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Where the cluster keeps everything.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `--bootstrap` of a client: every node's address.
    #[must_use]
    pub fn bootstrap(&self) -> Vec<String> {
        self.members().map(Node::address).collect()
    }

    /// Waits until every node runs, is unfenced, and every partition has all
    /// its replicas in sync, as each node itself sees it.
    pub async fn wait_healthy(&self) -> anyhow::Result<()> {
        wait_until("every node reports a healthy cluster", async || {
            for node in self.members() {
                let mut client = ClusterServiceClient::new(node.channel()?);
                let health =
                    client.get_cluster_health(v1::GetClusterHealthRequest {}).await?.into_inner();
                if !health.healthy {
                    bail!("node {}: {health:?}", node.id());
                }
            }
            Ok(())
        })
        .await
    }

    /// Creates a topic on three nodes, or on all if there are fewer, through any
    /// node that answers.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        configs: &[(&str, &str)],
    ) -> anyhow::Result<v1::TopicMetadata> {
        let configs: HashMap<_, _> =
            configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let request = v1::CreateTopicRequest {
            name: name.to_owned(),
            partitions,
            replication_factor: self.nodes.len().min(REPLICAS) as u32,
            configs,
            ..v1::CreateTopicRequest::default()
        };
        let mut client = TopicServiceClient::new(self.nodes[0].channel()?);
        let created = client.create_topic(request).await?.into_inner();
        created.topic.context("the answer carries the topic")
    }

    /// The topic as the node sees it that knows most: one that was cut off goes on
    /// answering with what it knew then.
    pub async fn describe(&self, topic: &str) -> anyhow::Result<v1::TopicMetadata> {
        let running = self.nodes.iter().filter(|node| node.is_running());
        let mut newest: Option<v1::GetMetadataResponse> = None;
        let mut silent = Vec::new();
        for view in join_all(running.map(|node| metadata_of(node, topic))).await {
            match view {
                Ok(view) if newest.as_ref().is_none_or(|seen| known(seen) < known(&view)) => {
                    newest = Some(view);
                }
                Ok(_) => {}
                Err(error) => silent.push(format!("{error:#}")),
            }
        }
        let topics = newest.and_then(|view| view.metadata).unwrap_or_default().topics;
        let found = topics.into_iter().next();
        found.with_context(|| format!("no node knows topic {topic} ({silent:?})"))
    }

    /// Waits until the partition has a leader that runs, and returns its id.
    pub async fn leader(&self, topic: &str, partition: u32) -> anyhow::Result<u64> {
        let mut found = 0;
        wait_until("the partition has a running leader", async || {
            let topic = self.describe(topic).await?;
            let partition = &topic.partitions[partition as usize];
            let leader = partition.leader_id.context("no leader")?;
            if !self.nodes[leader as usize - 1].is_running() {
                bail!("leader {leader} is dead and not replaced yet");
            }
            found = leader;
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// A plain generated client of one node.
    pub fn log_client(&self, id: u64) -> anyhow::Result<LogServiceClient<Channel>> {
        let channel = self.nodes[id as usize - 1].channel()?;
        Ok(LogServiceClient::new(channel)
            .max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_GRPC_MESSAGE_BYTES))
    }

    /// The same for groups.
    pub fn group_client(&self, id: u64) -> anyhow::Result<GroupServiceClient<Channel>> {
        Ok(GroupServiceClient::new(self.nodes[id as usize - 1].channel()?))
    }
}

/// Options of nodes that are fenced only when their process is gone.
fn patiently() -> String {
    format!("session_timeout_ms = {}\n", PATIENCE.as_millis())
}

/// Runs an `ottla` command against these nodes, and gives what it answered.
pub fn ottla(bootstrap: &[String], args: &[&str]) -> anyhow::Result<serde_json::Value> {
    let output = std::process::Command::new(binary()?)
        .args(args)
        .args(["--format", "json", "--bootstrap", &bootstrap.join(",")])
        .output()?;
    let shown = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "ottla {}: {shown}{told}", args.join(" "));
    Ok(serde_json::from_str(&shown)?)
}

/// One topic as one node sees it, if it answers soon.
async fn metadata_of(node: &Node, topic: &str) -> anyhow::Result<v1::GetMetadataResponse> {
    let request = v1::GetMetadataRequest { topics: vec![topic.to_owned()] };
    let mut client = MetadataServiceClient::new(node.channel()?);
    let answer = timeout(ANSWERS_WITHIN, client.get_metadata(request)).await;
    Ok(answer.context("it does not answer")??.into_inner())
}

/// How many records of metadata a node had applied when it answered.
fn known(view: &v1::GetMetadataResponse) -> u64 {
    view.header.as_ref().map_or(0, |header| header.metadata_offset)
}

/// A lazily connected channel, with a deadline on every call.
pub(crate) fn channel(address: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(Duration::from_secs(2))
        .timeout(Duration::from_secs(30));
    Ok(endpoint.connect_lazy())
}

/// Looks at a state until `look` is content; fails with what it last said.
pub async fn wait_until(
    what_for: &str,
    mut look: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut again = tokio::time::interval(LOOK_AGAIN);
    loop {
        again.tick().await;
        let Err(not_yet) = look().await else { return Ok(()) };
        if tokio::time::Instant::now() > deadline {
            return Err(not_yet.context(format!("waited {PATIENCE:?} until {what_for}")));
        }
    }
}
