//! The nodes of a simulation: their processes, disks and places on the network.
//!
//! Not its job: what is done to them when (`faults`).

use super::churn::Members;
use super::network::{self, SimNetwork};
use super::pause::Paused;
use super::{os, trace};
use anyhow::anyhow;
use ottla_commitlog::vfs::{SimVfs, create_dir_durably};
use ottla_host::delay_work;
use ottla_metadata::MemoryDatabases;
use ottla_node::config::NodeConfig;
use ottla_node::{Host, run_on};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use turmoil::Sim;

/// Every node's ports, each on a host of its own.
const GRPC_PORT: u16 = 7401;
const HTTP_PORT: u16 = 7501;

/// How long hosts run before messages are looked for: half of what a simulation costs goes
/// by ticks, and messages take up to as long anyway.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// How long messages take when nothing is wrong.
pub(super) const LATENCY: (Duration, Duration) =
    (Duration::from_micros(100), Duration::from_millis(2));

/// Segments and new connections that wait at a host: all that gathers while it is cut
/// off must find room, or the simulation panics.
const TCP_CAPACITY: usize = 65_536;

/// How long disks take, in microseconds: mostly no more than a fast one, and now and
/// then as one that is busy.
const DISK_US: (u64, u64) = (0, 2_000);
pub(super) const BUSY_DISK_US: (u64, u64) = (10_000, 100_000);

/// One call in so many finds the disk busy.
const BUSY_ONE_IN: u64 = 5;

/// Of simulated time, beyond any run's own bounds.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The host that clients run on.
pub(super) const CLIENT: &str = "client";

/// Nodes that there are at most: placement and quorum are as with five.
pub(super) const MOST_NODES: u64 = 5;

pub(super) struct Cluster {
    pub(super) sim: Sim<'static>,
    pub(super) nodes: BTreeMap<u64, Node>,
    /// Most microseconds that a call to a busy disk takes.
    pub(super) busy_us: Arc<AtomicU64>,
    /// Hosts that others do not hear, or that do not hear others: who may pass on what.
    pub(super) one_way: Option<OneWay>,
    /// Whose connections break, and every how many ticks.
    pub(super) resets: Option<(u64, u64)>,
    pub(super) paused: Option<Paused>,
    pub(super) members: Arc<Mutex<Members>>,
    voters: u64,
    lag_ms: u64,
    ticks: u64,
    /// Where their files are; gone with them.
    _dir: TempDir,
}

/// One host's direction that is cut while the other works.
pub(super) struct OneWay {
    pub(super) host: IpAddr,
    /// What it sends is held; otherwise what is sent to it.
    pub(super) outwards: bool,
}

pub(super) struct Node {
    pub(super) disk: Disk,
    /// Added to the simulation at that time.
    pub(super) added: Duration,
    pub(super) running: bool,
    /// Its disk is such that it may end by itself.
    pub(super) may_end: bool,
    /// Of its process.
    pub(super) runtime: Arc<Mutex<Option<Handle>>>,
    /// Asks its process to stop.
    stop: Arc<Mutex<CancellationToken>>,
    ended: Arc<Mutex<Option<String>>>,
}

/// What a node keeps while its process is gone.
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) files: SimVfs,
    databases: MemoryDatabases,
}

impl Disk {
    /// What was not synced may be gone, and who had anything open has it no more.
    fn crash(&self, seed: u64) {
        self.files.crash(seed);
        self.databases.crash(seed);
    }

    /// Who had anything open has it no more.
    fn close_all(&self) {
        self.files.close_all();
        self.databases.close_all();
    }
}

pub(super) fn name(node: u64) -> String {
    format!("node-{node}")
}

/// Where the nodes of a cluster are reached.
pub(super) fn bootstrap(nodes: u64) -> String {
    (1..=nodes).map(|id| format!("{}:{GRPC_PORT}", name(id))).collect::<Vec<_>>().join(",")
}

/// Delivers what is on the way from a host (or to it), although the links are held.
fn pass_on(sim: &Sim<'static>, host: IpAddr, from: bool) {
    sim.links(|links| {
        for sent in links.flatten() {
            let (source, target) = sent.pair();
            if host == if from { source.ip() } else { target.ip() } {
                sent.deliver();
            }
        }
    });
}

fn config(node: u64, nodes: u64, lag_ms: u64) -> anyhow::Result<NodeConfig> {
    let voters: Vec<_> = (1..=nodes).map(|id| format!("{id}={}:{GRPC_PORT}", name(id))).collect();
    let options = [
        ("node_id", node.to_string()),
        ("cluster_id", "simulation".to_owned()),
        // In the directory that this process works in, by a name that is always the same.
        ("data_dir", format!("/proc/self/cwd/{}", name(node))),
        ("rack", super::load::rack(node)),
        ("listen", format!("0.0.0.0:{GRPC_PORT}")),
        ("http_listen", format!("0.0.0.0:{HTTP_PORT}")),
        ("advertise", format!("{}:{GRPC_PORT}", name(node))),
        ("voters", voters.join(",")),
        ("replica_lag_max_ms", lag_ms.to_string()),
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
    pub(super) fn new(seed: u64, nodes: u64, lag_ms: u64, dir: TempDir) -> anyhow::Result<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let busy_us = Arc::new(AtomicU64::new(BUSY_DISK_US.1));
        let most_us = Arc::clone(&busy_us);
        delay_work(Some(Box::new(move || {
            let (least, most) = match rng.random_range(0..BUSY_ONE_IN) {
                0 => (BUSY_DISK_US.0, most_us.load(Relaxed)),
                _ => DISK_US,
            };
            Duration::from_micros(rng.random_range(least..=most))
        })));
        let sim = turmoil::Builder::new()
            .simulation_duration(LONGEST)
            .tick_duration(TICK)
            .min_message_latency(LATENCY.0)
            .max_message_latency(LATENCY.1)
            .tcp_capacity(TCP_CAPACITY)
            .rng_seed(seed)
            .enable_random_order()
            .build();
        let mut this = Self {
            sim,
            nodes: BTreeMap::new(),
            busy_us,
            one_way: None,
            resets: None,
            paused: None,
            members: Arc::default(),
            voters: nodes,
            lag_ms,
            ticks: 0,
            _dir: dir,
        };
        for node in 1..=nodes {
            this.add(node)?;
        }
        Ok(this)
    }

    /// A further node, with a blank disk, which joins by itself.
    pub(super) fn add(&mut self, node: u64) -> anyhow::Result<()> {
        // Each at a time of its own, by which hosts are known to `os`.
        self.step()?;
        let config = config(node, self.voters, self.lag_ms)?;
        ottla_node::format(&config)?;
        let disk = Disk { files: SimVfs::new(), databases: MemoryDatabases::default() };
        create_dir_durably(&disk.files, &config.data_dir.join("partitions"))?;
        let ended = Arc::new(Mutex::new(None));
        let (runtime, stop) =
            (Arc::new(Mutex::new(None)), Arc::<Mutex<CancellationToken>>::default());
        let state = Node {
            disk: disk.clone(),
            added: self.elapsed(),
            running: true,
            may_end: false,
            runtime: Arc::clone(&runtime),
            stop: Arc::clone(&stop),
            ended: Arc::clone(&ended),
        };
        self.nodes.insert(node, state);
        self.members.lock().there.insert(node);
        self.sim.host(name(node), move || {
            let host = Host {
                network: Arc::new(SimNetwork),
                disk: Arc::new(disk.files.clone()),
                databases: Arc::new(disk.databases.clone()),
            };
            let (config, ended) = (config.clone(), Arc::clone(&ended));
            let (runtime, stop) = (Arc::clone(&runtime), Arc::clone(&stop));
            async move {
                *runtime.lock() = Some(Handle::current());
                let token = stop.lock().clone();
                let result = run_on(host, config, token).await;
                let why = result.err().map_or("stopped".to_owned(), |error| format!("{error:#}"));
                *ended.lock() = Some(why);
                Ok(())
            }
        });
        Ok(())
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
        os::set_now(self.sim.elapsed());
        self.ticks += 1;
        if let Some(OneWay { host, outwards }) = self.one_way {
            pass_on(&self.sim, host, !outwards);
        }
        if let Some((node, every)) = self.resets
            && self.ticks.is_multiple_of(every)
        {
            network::reset(&name(node));
        }
        let over = self.sim.step().map_err(|error| anyhow!("{error}"))?;
        self.note_ends()?;
        Ok(over)
    }

    /// A node may end by itself if its disk fails or if it is to leave, and only then.
    fn note_ends(&mut self) -> anyhow::Result<()> {
        for (id, node) in &mut self.nodes {
            let Some(why) = node.ended.lock().take() else { continue };
            trace::told(&format!("node {id} ends: {why}"));
            node.running = false;
            node.disk.close_all();
            let stopped = node.stop.lock().is_cancelled();
            let may = stopped || node.may_end || self.members.lock().leaving.contains(id);
            anyhow::ensure!(may, "node {id} ended by itself: {why}");
        }
        Ok(())
    }

    /// The process is gone, as with `kill -9`.
    pub(super) fn kill(&mut self, node: u64) {
        // The disk first: what the dying process still closes must not reach it.
        self.nodes[&node].disk.close_all();
        self.stop(node);
    }

    /// Its process is asked to stop, and does when it has handed over what it leads.
    pub(super) fn stop_in_order(&mut self, node: u64) {
        self.go_on_if(node);
        self.nodes[&node].stop.lock().cancel();
    }

    pub(super) fn lose_power(&mut self, node: u64, seed: u64) {
        self.nodes[&node].disk.crash(seed);
        self.stop(node);
    }

    fn stop(&mut self, node: u64) {
        self.go_on_if(node);
        self.sim.crash(name(node));
        self.nodes.get_mut(&node).expect("a node that there is").running = false;
    }

    /// Starts its process, unless it runs. If it has not ended although it was asked to,
    /// nobody waits any longer.
    pub(super) fn start(&mut self, node: u64) {
        let is_stopping = self.nodes[&node].stop.lock().is_cancelled();
        if is_stopping && self.nodes[&node].running {
            self.kill(node);
        }
        let state = self.nodes.get_mut(&node).expect("a node that there is");
        if !std::mem::replace(&mut state.running, true) {
            *state.stop.lock() = CancellationToken::new();
            self.sim.bounce(name(node));
        }
    }

    pub(super) fn run_for(&mut self, duration: Duration) -> anyhow::Result<()> {
        let until = self.elapsed() + duration;
        while self.elapsed() < until {
            anyhow::ensure!(!self.step()?, "the client ended before its time");
        }
        Ok(())
    }
}
