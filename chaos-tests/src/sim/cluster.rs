//! The nodes of a simulation, and what is done to them.

use super::network::SimNetwork;
use super::plan::Fault;
use anyhow::anyhow;
use ottla_commitlog::vfs::{SimVfs, create_dir_durably};
use ottla_host::delay_work;
use ottla_node::config::NodeConfig;
use ottla_node::{Host, run_on};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use turmoil::Sim;

/// Every node's ports, each on a host of its own.
const GRPC_PORT: u16 = 7401;
const HTTP_PORT: u16 = 7501;

/// How long messages take when nothing is wrong.
const LATENCY: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(2));

/// Segments and new connections that wait at a host: all that gathers while it is cut
/// off must find room, or the simulation panics.
const TCP_CAPACITY: usize = 65_536;

/// How long disks take, in microseconds: mostly no more than a fast one, and now and
/// then as one that is busy.
const DISK_US: (u64, u64) = (0, 2_000);
const BUSY_DISK_US: (u64, u64) = (10_000, 100_000);

/// One call in so many finds the disk busy.
const BUSY_ONE_IN: u64 = 5;

/// Of simulated time, beyond any run's own bounds.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The host that clients run on.
const CLIENT: &str = "client";

pub(super) struct Cluster {
    sim: Sim<'static>,
    disks: BTreeMap<u64, SimVfs>,
    _dir: TempDir,
}

fn name(node: u64) -> String {
    format!("node-{node}")
}

/// Where the nodes of a cluster are reached.
pub(super) fn bootstrap(nodes: u64) -> String {
    (1..=nodes).map(|id| format!("{}:{GRPC_PORT}", name(id))).collect::<Vec<_>>().join(",")
}

fn config(dir: &Path, node: u64, nodes: u64) -> anyhow::Result<NodeConfig> {
    let voters: Vec<_> = (1..=nodes).map(|id| format!("{id}={}:{GRPC_PORT}", name(id))).collect();
    let options = [
        ("node_id", node.to_string()),
        ("cluster_id", "simulation".to_owned()),
        ("data_dir", dir.join(name(node)).display().to_string()),
        ("rack", super::load::rack(node)),
        ("listen", format!("0.0.0.0:{GRPC_PORT}")),
        ("http_listen", format!("0.0.0.0:{HTTP_PORT}")),
        ("advertise", format!("{}:{GRPC_PORT}", name(node))),
        ("voters", voters.join(",")),
    ];
    let options: Vec<_> = options.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    Ok(NodeConfig::load(None, &options)?)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        delay_work(None);
    }
}

impl Cluster {
    pub(super) fn new(seed: u64, nodes: u64) -> anyhow::Result<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        delay_work(Some(Box::new(move || {
            let (least, most) =
                if rng.random_range(0..BUSY_ONE_IN) == 0 { BUSY_DISK_US } else { DISK_US };
            Duration::from_micros(rng.random_range(least..=most))
        })));
        let dir = tempfile::Builder::new().prefix("ottla-sim-").tempdir()?;
        let mut sim = turmoil::Builder::new()
            .simulation_duration(LONGEST)
            .min_message_latency(LATENCY.0)
            .max_message_latency(LATENCY.1)
            .tcp_capacity(TCP_CAPACITY)
            .rng_seed(seed)
            .build();
        let mut disks = BTreeMap::new();
        for node in 1..=nodes {
            let config = config(dir.path(), node, nodes)?;
            ottla_node::format(&config)?;
            let disk = SimVfs::new();
            create_dir_durably(&disk, &config.data_dir.join("partitions"))?;
            disks.insert(node, disk.clone());
            sim.host(name(node), move || {
                let host = Host { network: Arc::new(SimNetwork), disk: Arc::new(disk.clone()) };
                let config = config.clone();
                async move {
                    let ended = run_on(host, config, CancellationToken::new()).await;
                    let why =
                        ended.err().map_or("stopped".to_owned(), |error| format!("{error:#}"));
                    Err(format!("node {node} ended by itself: {why}").into())
                }
            });
        }
        Ok(Self { sim, disks, _dir: dir })
    }

    /// Runs with the nodes; the simulation is over when it ends.
    pub(super) fn client(&mut self, client: impl Future<Output = turmoil::Result> + 'static) {
        self.sim.client(CLIENT, client);
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// A tick of time. True when the client has ended.
    pub(super) fn step(&mut self) -> anyhow::Result<bool> {
        self.sim.step().map_err(|error| anyhow!("{error}"))
    }

    pub(super) fn run_for(&mut self, duration: Duration) -> anyhow::Result<()> {
        let until = self.elapsed() + duration;
        while self.elapsed() < until {
            anyhow::ensure!(!self.step()?, "the client ended before its time");
        }
        Ok(())
    }

    fn everybody_but(&self, node: u64) -> Vec<String> {
        let others = self.disks.keys().filter(|id| **id != node).map(|id| name(*id));
        others.chain([CLIENT.to_owned()]).collect()
    }

    pub(super) fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::Calm => {}
            Fault::Kill { node } => self.sim.crash(name(node)),
            Fault::PowerLoss { node, seed } => self.lose_power(node, seed),
            Fault::PowerLossOfAll { seed } => {
                for node in self.disks.keys().copied().collect::<Vec<_>>() {
                    self.lose_power(node, seed.wrapping_add(node));
                }
            }
            Fault::Isolate { node } => {
                for other in self.everybody_but(node) {
                    self.sim.hold(name(node), other);
                }
            }
            Fault::Cut { one, other } => self.sim.hold(name(one), name(other)),
            Fault::Slow { latency_ms } => {
                self.sim.set_max_message_latency(Duration::from_millis(latency_ms));
            }
        }
    }

    fn lose_power(&mut self, node: u64, seed: u64) {
        // The disk first: what the dying process still closes must not reach it.
        self.disks[&node].crash(seed);
        self.sim.crash(name(node));
    }

    pub(super) fn end(&mut self, fault: Fault) {
        match fault {
            Fault::Calm => {}
            Fault::Kill { node } | Fault::PowerLoss { node, .. } => self.sim.bounce(name(node)),
            Fault::PowerLossOfAll { .. } => {
                for node in self.disks.keys().copied().collect::<Vec<_>>() {
                    self.sim.bounce(name(node));
                }
            }
            Fault::Isolate { node } => {
                for other in self.everybody_but(node) {
                    self.sim.release(name(node), other);
                }
            }
            Fault::Cut { one, other } => self.sim.release(name(one), name(other)),
            Fault::Slow { .. } => self.sim.set_max_message_latency(LATENCY.1),
        }
    }
}
