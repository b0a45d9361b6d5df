//! `ottla dev`: a local cluster in the foreground, each node a process of its
//! own that anybody may kill.

pub(crate) mod layout;
pub(crate) mod ports;
pub(crate) mod process;

use crate::failure::diagnose;
use crate::output::{self, Format};
use anyhow::{Context, bail};
use futures::future::{FutureExt, join_all, select_all};
use layout::{Layout, Plan};
use ottla_client::{Client, ClientOptions, HostPort};
use process::Process;
use serde_json::json;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

/// How long nodes may take to become a healthy cluster. Recovering large logs
/// after a crash takes the longest.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// How often the cluster is asked whether it is healthy.
const READY_INTERVAL: Duration = Duration::from_millis(100);

/// How long nodes may take to stop before they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before a node that died is started again, so that one that cannot
/// start does not fill its log.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Start a local cluster for development.
///
/// Runs in the foreground until Ctrl-C. Each node is a process of its own;
/// their pids are printed, so that you can kill one and see what happens. When
/// all nodes work together, `ready` is printed on a line of its own. The same
/// directory brings back the same cluster with all its data.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla dev
  ottla dev --nodes 1 --dir /tmp/one
  ottla dev --any-port --restart")]
pub(crate) struct Args {
    /// Number of nodes. Default: as many as the directory has, or 3.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=5))]
    nodes: Option<u16>,

    /// Where everything is kept.
    #[arg(long, value_name = "DIR", default_value = "ottla-data")]
    dir: PathBuf,

    /// Choose free ports instead of 7401… (gRPC) and 7501… (HTTP).
    #[arg(long)]
    any_port: bool,

    /// Start a node again when it dies.
    #[arg(long)]
    restart: bool,

    /// How addresses and events are written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        self.format
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Before anything is started: from here on no signal leaves a node behind.
    let mut stop = StopSignals::new()?;
    let layout = Layout::open(&args.dir)?;
    let plan = plan(&args, &layout)?;
    let plan = if args.any_port { ports::any(plan)? } else { ports::standard(plan)? };
    layout.save(&plan)?;
    let mut nodes = Vec::new();
    for node in &plan.nodes {
        nodes.push(Process::start(&layout, node)?);
    }
    let mut dev = Dev { args, layout, plan, nodes };
    let outcome = tokio::select! {
        outcome = dev.supervise() => outcome,
        () = stop.received() => Ok(()),
    };
    tokio::select! {
        () = dev.stop() => {}
        // A second signal: whatever still runs is killed with `dev`.
        () = stop.received() => {}
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

/// The cluster that the directory holds, or a new one.
fn plan(args: &Args, layout: &Layout) -> anyhow::Result<Plan> {
    let Some(plan) = layout.load()? else {
        let cluster_id = uuid::Uuid::new_v4().to_string();
        return Ok(Plan::new(cluster_id, args.nodes.unwrap_or(3)));
    };
    match args.nodes {
        Some(nodes) if usize::from(nodes) != plan.nodes.len() => bail!(
            "{} holds a cluster of {} nodes, not {nodes}; use another --dir for another cluster",
            layout.dir().display(),
            plan.nodes.len()
        ),
        _ => Ok(plan),
    }
}

struct Dev {
    args: Args,
    layout: Layout,
    plan: Plan,
    nodes: Vec<Process>,
}

impl Dev {
    async fn supervise(&mut self) -> anyhow::Result<()> {
        self.announce()?;
        let bootstrap = self.plan.bootstrap();
        let ended = tokio::select! {
            ready = until_healthy(&bootstrap) => {
                ready?;
                None
            }
            ended = next_end(&mut self.nodes) => Some(ended),
        };
        if let Some((index, status)) = ended {
            let node = &self.nodes[index];
            bail!(
                "node {} did not come up ({}); its log ends with:\n{}",
                node.node.node_id,
                told(&status),
                node.log_tail()
            );
        }
        match self.args.format {
            Format::Text => output::line("ready")?,
            Format::Json => output::json(&json!({ "event": "ready", "bootstrap": bootstrap }))?,
        }
        self.watch().await
    }

    /// Prints every address.
    fn announce(&self) -> anyhow::Result<()> {
        let dir = self.layout.dir().display().to_string();
        let cluster_id = &self.plan.cluster_id;
        match self.args.format {
            Format::Text => output::line(&format!("cluster {cluster_id} in {dir}"))?,
            Format::Json => output::json(&json!({
                "event": "cluster", "cluster_id": cluster_id, "dir": dir,
            }))?,
        }
        self.nodes.iter().try_for_each(|node| self.announce_node(node))
    }

    fn announce_node(&self, process: &Process) -> anyhow::Result<()> {
        let node = &process.node;
        let (grpc, http) = (node.grpc(), node.http());
        let dir = self.layout.node_dir(node).display().to_string();
        let pid = process.pid;
        match self.args.format {
            Format::Text => {
                let id = node.node_id;
                output::line(&format!("node {id}  pid {pid}  gRPC {grpc}  HTTP {http}  {dir}"))?;
            }
            Format::Json => output::json(&json!({
                "event": "node", "node": node.node_id, "pid": pid,
                "grpc": grpc, "http": http, "dir": dir,
            }))?,
        }
        Ok(())
    }

    /// Reports nodes that die, and restarts them if asked to. Ends when none is
    /// left.
    async fn watch(&mut self) -> anyhow::Result<()> {
        loop {
            let (index, status) = next_end(&mut self.nodes).await;
            let dead = self.nodes.remove(index);
            self.announce_death(&dead, &told(&status))?;
            let node = dead.node.clone();
            drop(dead);
            if self.args.restart {
                sleep(RESTART_PAUSE).await;
                let process = Process::start(&self.layout, &node)?;
                self.announce_node(&process)?;
                self.nodes.push(process);
            }
            if self.nodes.is_empty() {
                bail!("no node is left");
            }
        }
    }

    fn announce_death(&self, dead: &Process, status: &str) -> anyhow::Result<()> {
        let (id, pid, restart) = (dead.node.node_id, dead.pid, self.args.restart);
        match self.args.format {
            Format::Json => output::json(&json!({
                "event": "gone", "node": id, "pid": pid, "status": status, "restart": restart,
            }))?,
            Format::Text if restart => {
                diagnose(&format!("node {id} (pid {pid}) is gone: {status}; restarting it"));
            }
            Format::Text => {
                let config = self.layout.config_path(&dead.node);
                diagnose(&format!(
                    "node {id} (pid {pid}) is gone: {status}; bring it back with: \
                     ottla node --config {}",
                    config.display()
                ));
            }
        }
        Ok(())
    }

    /// Stops all nodes at the same time, in good order if they can.
    async fn stop(&mut self) {
        self.nodes.iter_mut().for_each(Process::stop);
        let killed = join_all(self.nodes.iter_mut().map(|node| async {
            if node.stopped(STOP_TIMEOUT).await { None } else { Some(node.node.node_id) }
        }));
        for id in killed.await.into_iter().flatten() {
            let seconds = STOP_TIMEOUT.as_secs();
            diagnose(&format!("node {id} did not stop within {seconds} s and was killed"));
        }
    }
}

/// The first process to end, and how.
async fn next_end(nodes: &mut [Process]) -> (usize, std::io::Result<ExitStatus>) {
    let ends = nodes.iter_mut().map(|node| node.ended().boxed());
    let (status, index, _) = select_all(ends).await;
    (index, status)
}

fn told(status: &std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) if status.success() => "it stopped in good order".to_owned(),
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

/// Returns when the cluster says that all is well.
pub(crate) async fn until_healthy(bootstrap: &str) -> anyhow::Result<()> {
    let endpoints = HostPort::parse_list(bootstrap)?;
    let deadline = Instant::now() + READY_TIMEOUT;
    let mut last = "no node answers".to_owned();
    while Instant::now() < deadline {
        match health(&endpoints).await {
            Ok(None) => return Ok(()),
            Ok(Some(wrong)) => last = wrong,
            Err(error) => last = error.to_string(),
        }
        sleep(READY_INTERVAL).await;
    }
    bail!("the cluster is not ready after {} s: {last}", READY_TIMEOUT.as_secs())
}

/// What is wrong with the cluster, if something is.
async fn health(endpoints: &[HostPort]) -> anyhow::Result<Option<String>> {
    let options = ClientOptions {
        bootstrap_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(1),
        ..ClientOptions::default()
    };
    let client = Client::connect(endpoints, options).await?;
    let health = client.admin().cluster_health().await?;
    Ok((!health.healthy).then(|| {
        format!(
            "fenced nodes {:?}, unregistered nodes {:?}, {} partitions without leader, {} \
             under-replicated",
            health.fenced_nodes,
            health.unregistered_nodes,
            health.leaderless_partitions.len(),
            health.under_replicated_partitions.len()
        )
    }))
}

/// SIGINT, SIGTERM or SIGHUP (the terminal was closed).
struct StopSignals([Signal; 3]);

impl StopSignals {
    fn new() -> anyhow::Result<Self> {
        let watch = |kind| signal(kind).context("cannot watch for signals");
        Ok(Self([
            watch(SignalKind::interrupt())?,
            watch(SignalKind::terminate())?,
            watch(SignalKind::hangup())?,
        ]))
    }

    async fn received(&mut self) {
        select_all(self.0.iter_mut().map(|signal| signal.recv().boxed())).await;
    }
}
