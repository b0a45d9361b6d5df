//! A cluster of node processes to be measured, and killed: as `ottla dev` starts
//! it, in a directory of its own.

use crate::dev::layout::{Layout, NodePlan, Plan};
use crate::dev::process::Process;
use crate::dev::{ports, until_healthy};
use anyhow::{Context, ensure};
use futures::future::join_all;
use ottla_client::{Admin, Client, ClientOptions, HostPort, v1};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// How often a state that is waited for is looked at: well below any figure
/// measured, and little work beside what is measured.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Longest wait for any one state. A cluster that needs longer is broken.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long nodes may take to stop before they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the nodes of a measurement keep their files: gone afterwards, unless the
/// measurement failed.
pub(super) struct Place {
    dir: PathBuf,
    temporary: Option<TempDir>,
}

impl Place {
    /// In an empty directory, or a temporary one.
    pub(super) fn open(given: Option<&Path>) -> anyhow::Result<Self> {
        let Some(dir) = given else {
            let temporary = tempfile::Builder::new().prefix("ottla-bench-").tempdir()?;
            let dir = temporary.path().to_owned();
            return Ok(Self { dir, temporary: Some(temporary) });
        };
        let empty = !dir.exists() || dir.read_dir()?.next().is_none();
        ensure!(empty, "{} is not empty; a new cluster needs a --dir of its own", dir.display());
        Ok(Self { dir: dir.to_owned(), temporary: None })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// When the nodes are stopped.
    pub(super) fn leave<T>(self, measured: anyhow::Result<T>) -> anyhow::Result<T> {
        let dir = self.dir;
        match measured {
            Ok(measured) => {
                // A temporary one goes by itself.
                if self.temporary.is_none() {
                    std::fs::remove_dir_all(&dir)
                        .with_context(|| format!("cannot remove {}", dir.display()))?;
                }
                Ok(measured)
            }
            Err(error) => {
                self.temporary.map(TempDir::keep);
                Err(error.context(format!("the nodes' logs are in {}", dir.display())))
            }
        }
    }
}

/// The nodes' processes and their plan. They end with this.
pub(super) struct LocalCluster {
    layout: Layout,
    plan: Plan,
    nodes: Vec<Process>,
    pub(super) client: Client,
}

/// The partitions as all nodes that answered have them at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Nodes that did not answer.
    pub(super) silent: usize,
    /// Partitions whose leader would take an acks=all write.
    pub(super) accepting: u32,
    /// The fewest partitions that any node knows to be led by a node that runs.
    pub(super) led: u32,
    /// Replicas that lead or follow.
    pub(super) in_touch: u32,
}

impl LocalCluster {
    /// Starts so many nodes in an empty directory, on free ports, and waits until
    /// they work together.
    pub(super) async fn start(dir: &Path, nodes: u16) -> anyhow::Result<Self> {
        let layout = Layout::open(dir)?;
        let plan = ports::any(Plan::new(uuid::Uuid::new_v4().to_string(), nodes))?;
        layout.save(&plan)?;
        let started = plan.nodes.iter().map(|node| Process::start(&layout, node));
        let nodes = started.collect::<anyhow::Result<Vec<_>>>()?;
        until_healthy(&plan.bootstrap()).await?;
        let bootstrap = HostPort::parse_list(&plan.bootstrap())?;
        let options = ClientOptions { request_timeout: PATIENCE, ..ClientOptions::default() };
        let client = Client::connect(&bootstrap, options).await?;
        Ok(Self { layout, plan, nodes, client })
    }

    pub(super) fn admin(&self) -> Admin {
        self.client.admin()
    }

    /// Where its nodes are.
    pub(super) fn bootstrap(&self) -> Vec<HostPort> {
        HostPort::parse_list(&self.plan.bootstrap()).expect("addresses that were connected to")
    }

    /// Node id and process id of every node that runs.
    pub(super) fn pids(&self) -> Vec<(u64, u32)> {
        self.nodes.iter().map(|process| (process.node.node_id, process.pid)).collect()
    }

    /// Kills a node; returns when that was.
    pub(super) async fn kill(&mut self, node_id: u64) -> anyhow::Result<Instant> {
        let found = self.nodes.iter().position(|process| process.node.node_id == node_id);
        let index = found.with_context(|| format!("node {node_id} does not run"))?;
        let mut process = self.nodes.remove(index);
        let killed = Instant::now();
        process.kill().await.with_context(|| format!("cannot kill node {node_id}"))?;
        Ok(killed)
    }

    /// Stops a node in good order.
    pub(super) async fn stop_node(&mut self, node_id: u64) -> anyhow::Result<()> {
        let found = self.nodes.iter().position(|process| process.node.node_id == node_id);
        let index = found.with_context(|| format!("node {node_id} does not run"))?;
        let mut process = self.nodes.remove(index);
        process.stop();
        let stopped = process.stopped(STOP_TIMEOUT).await;
        ensure!(stopped, "node {node_id} did not stop within {STOP_TIMEOUT:?}");
        Ok(())
    }

    /// Starts a node that was killed or stopped.
    pub(super) fn restart(&mut self, node_id: u64) -> anyhow::Result<()> {
        let plan = self.plan.nodes.iter().find(|node| node.node_id == node_id);
        let plan = plan.with_context(|| format!("there is no node {node_id}"))?;
        self.nodes.push(Process::start(&self.layout, plan)?);
        Ok(())
    }

    /// The active controller.
    pub(super) async fn controller(&self) -> anyhow::Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(node) = self.admin().cluster_info().await?.controller_id
                && self.nodes.iter().any(|process| process.node.node_id == node)
            {
                return Ok(node);
            }
            ensure!(Instant::now() < deadline, "no controller for {PATIENCE:?}");
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Asks every node that runs.
    pub(super) async fn look(&self) -> Seen {
        let asked = self.nodes.iter().map(|process| wire(&process.node)).collect();
        let answers = self.admin().probe(asked).await;
        let running: Vec<u64> = self.nodes.iter().map(|process| process.node.node_id).collect();
        let mut seen = Seen { led: u32::MAX, ..Seen::default() };
        for probe in answers {
            let Ok(info) = probe.answer else {
                seen.silent += 1;
                continue;
            };
            let leaders = info.nodes.iter().filter(|node| running.contains(&node.node_id));
            seen.led = seen.led.min(leaders.map(|node| node.leaders).sum());
            let local = info.local_replicas.unwrap_or_default();
            seen.accepting += local.accepting;
            seen.in_touch += local.leading + local.following;
        }
        seen
    }

    /// Looks until the state is as wanted; returns when that was seen.
    pub(super) async fn until(
        &self,
        what: &str,
        wanted: impl Fn(&Seen) -> bool,
    ) -> anyhow::Result<Instant> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.look().await;
            if wanted(&seen) {
                return Ok(Instant::now());
            }
            ensure!(Instant::now() < deadline, "no {what} after {PATIENCE:?}: {seen:?}");
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Waits until the cluster says that all is well.
    pub(super) async fn until_healthy(&self) -> anyhow::Result<()> {
        until_healthy(&self.plan.bootstrap()).await
    }

    /// Stops all nodes in good order.
    pub(super) async fn stop(mut self) {
        self.nodes.iter_mut().for_each(Process::stop);
        join_all(self.nodes.iter_mut().map(|node| node.stopped(STOP_TIMEOUT))).await;
    }
}

fn wire(node: &NodePlan) -> v1::ClusterNode {
    let endpoint = v1::Endpoint { host: "127.0.0.1".to_owned(), port: node.grpc_port.into() };
    v1::ClusterNode { node_id: node.node_id, endpoint: Some(endpoint), ..Default::default() }
}
