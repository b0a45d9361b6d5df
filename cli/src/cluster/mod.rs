//! `ottla cluster`: who is there, what is wrong, who comes and goes, and options.

mod bundle;
mod config;
mod disk;
mod drain;
mod features;
mod info;
mod members;
mod restart;

use crate::connection::Connection;
use crate::failure::diagnose;
use crate::output::{self, Format, list};
use clap::Subcommand;
use ottla_client::{Admin, ClientError, Probe, v1};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait for each answer while it watches: of a machine that has much else to do.
const WATCH_PATIENCE: Duration = Duration::from_secs(3);

/// Longest wait for a majority of the metadata quorum to confirm its leader: an
/// election takes less than a second.
const HEALTH_PATIENCE: Duration = Duration::from_secs(5);

/// Partitions told by name in text. JSON has them all.
const PARTITIONS_SHOWN: usize = 8;

/// Show the cluster's nodes and its health, change who belongs to it, and its options.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Info(Info),
    Health(Health),
    Config(config::Config),
    Disk(disk::Disk),
    Add(members::Add),
    Remove(members::Remove),
    ReplaceDisk(members::ReplaceDisk),
    Drain(drain::Drain),
    Features(features::Features),
    RestartCheck(restart::RestartCheck),
    DebugBundle(bundle::DebugBundle),
    NewId(NewId),
}

/// Show the nodes, the active controller, and who can be reached from here.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla cluster info
  ottla cluster info --bootstrap ottla-1.example.net:7401 --format json")]
struct Info {
    #[command(flatten)]
    connection: Connection,
}

/// Tell what is not as it should be. Exits with 1 unless all is well.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla cluster health
  ottla cluster health --watch
  ottla cluster health --watch --exit-when-healthy --timeout 60s")]
struct Health {
    /// Look again every second and tell what has changed.
    #[arg(long)]
    watch: bool,

    /// With --watch: exit with 0 as soon as all is well, with 1 when it is not
    /// within --timeout.
    #[arg(long, requires = "watch")]
    exit_when_healthy: bool,

    #[command(flatten)]
    connection: Connection,
}

/// Make up an id for a new cluster, for `ottla node format`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla cluster new-id
  ottla node format --config node-1.toml --cluster-id $(ottla cluster new-id)")]
struct NewId {
    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        match &self.command {
            Command::Info(args) => args.connection.format,
            Command::Health(args) => args.connection.format,
            Command::Config(args) => args.connection.format,
            Command::Disk(args) => args.connection.format,
            Command::Add(args) => args.connection.format,
            Command::Remove(args) => args.connection.format,
            Command::ReplaceDisk(args) => args.connection.format,
            Command::Drain(args) => args.connection.format,
            Command::Features(args) => args.connection.format,
            Command::RestartCheck(args) => args.connection.format,
            Command::DebugBundle(args) => args.connection.format,
            Command::NewId(args) => args.format,
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Info(args) => info::run(&args.connection).await,
        Command::Health(args) if args.watch => watch(&args).await,
        Command::Health(args) => {
            let status = Status::of(&args.connection).await?;
            status.show(args.connection.format)?;
            Ok(if status.is_healthy() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Config(args) => config::run(args).await,
        Command::Disk(args) => disk::run(&args).await,
        Command::Add(args) => members::add(&args).await,
        Command::Remove(args) => members::remove(&args).await,
        Command::ReplaceDisk(args) => members::replace_disk(&args).await,
        Command::Drain(args) => drain::run(&args).await,
        Command::Features(args) => features::run(&args).await,
        Command::RestartCheck(args) => restart::run(&args).await,
        Command::DebugBundle(args) => bundle::run(&args).await,
        Command::NewId(args) => {
            let id = uuid::Uuid::new_v4().to_string();
            match args.format {
                Format::Text => output::line(&id)?,
                Format::Json => output::json(&json!({ "cluster_id": id }))?,
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn node_json(Probe { node, answer }: &Probe) -> Value {
    json!({
        "node": node.node_id,
        "address": address(node),
        "rack": node.rack,
        "state": state(node),
        "reachable": answer.is_ok(),
        "error": answer.as_ref().err().map(ToString::to_string),
        "version": answer.as_ref().ok().map(|info| &info.version),
        "local_replicas": answer.as_ref().ok().and_then(|info| info.local_replicas).map(counts_json),
        "data_directories": answer.as_ref().ok().map(|info| {
            info.data_directories.iter().map(directory_json).collect::<Vec<_>>()
        }),
        "broker_epoch": node.broker_epoch,
        "leaders": node.leaders,
        "replicas": node.replicas,
        "draining": node.draining,
        "leaving_replicas": node.leaving_replicas,
    })
}

fn counts_json(counts: v1::LocalReplicas) -> Value {
    json!({
        "opening": counts.opening,
        "leading": counts.leading,
        "accepting": counts.accepting,
        "following": counts.following,
        "leaderless": counts.leaderless,
        "offline": counts.offline,
    })
}

fn directory_json(directory: &v1::DataDirectory) -> Value {
    json!({
        "path": directory.path,
        "partitions": directory.partitions,
        "state": directory_state(directory),
        "reason": directory.reason,
    })
}

fn directory_state(directory: &v1::DataDirectory) -> &'static str {
    match directory.state() {
        v1::DataDirectoryState::Online => "online",
        v1::DataDirectoryState::Suspect => "suspect",
        v1::DataDirectoryState::Offline => "offline",
        v1::DataDirectoryState::Unspecified => "unknown",
    }
}

/// Directories that are not simply online, a line each.
fn bad_directories(probe: &Probe) -> Vec<String> {
    let directories = probe.answer.iter().flat_map(|info| &info.data_directories);
    let bad = directories.filter(|directory| !directory.reason.is_empty());
    let line = |directory: &v1::DataDirectory| {
        let (node, path) = (probe.node.node_id, &directory.path);
        let (state, reason) = (directory_state(directory), &directory.reason);
        format!("  node {node}: data directory {path} is {state}: {reason}")
    };
    bad.map(line).collect()
}

fn address(node: &v1::ClusterNode) -> String {
    node.endpoint
        .as_ref()
        .map_or_else(|| "-".to_owned(), |endpoint| format!("{}:{}", endpoint.host, endpoint.port))
}

fn state(node: &v1::ClusterNode) -> &'static str {
    match (node.registered, node.fenced) {
        (false, _) => "unregistered",
        (true, true) => "fenced",
        (true, false) => "active",
    }
}

/// The cluster's own view of its health, and this program's of its nodes.
struct Status {
    health: v1::GetClusterHealthResponse,
    nodes: Vec<Probe>,
}

impl Status {
    async fn of(connection: &Connection) -> Result<Self, ClientError> {
        let timeout = connection.timeout.min(HEALTH_PATIENCE);
        let connection = Connection { timeout, ..connection.clone() };
        Self::ask(&connection.client().await?.admin()).await
    }

    async fn ask(admin: &Admin) -> Result<Self, ClientError> {
        let nodes = admin.probe(admin.local_cluster_info().await?.nodes).await;
        let health = match admin.cluster_health().await {
            // Without a majority nobody knows more than who can be reached.
            Err(ClientError::DeadlineExceeded { .. }) => v1::GetClusterHealthResponse::default(),
            health => health?,
        };
        Ok(Self { health, nodes })
    }

    fn unreachable(&self) -> Vec<u64> {
        let gone = self.nodes.iter().filter(|probe| probe.answer.is_err());
        gone.map(|probe| probe.node.node_id).collect()
    }

    fn is_healthy(&self) -> bool {
        self.health.healthy && self.unreachable().is_empty()
    }

    fn show(&self, format: Format) -> std::io::Result<()> {
        match format {
            Format::Text => output::line(&self.text()),
            Format::Json => output::json(&self.json()),
        }
    }

    fn text(&self) -> String {
        let mut lines = vec![if self.is_healthy() { "healthy" } else { "unhealthy" }.to_owned()];
        if self.health.controller_id.is_none() {
            lines.push("  no active controller that a majority confirms".to_owned());
        }
        let nodes: [(&str, &[u64]); 5] = [
            ("unreachable nodes", &self.unreachable()),
            ("fenced nodes", &self.health.fenced_nodes),
            ("nodes that never registered", &self.health.unregistered_nodes),
            ("voters that are silent", &self.health.silent_voters),
            ("learners that have not caught up", &self.health.learners_behind),
        ];
        for (what, ids) in nodes {
            if !ids.is_empty() {
                lines.push(format!("  {what}: {}", list(ids)));
            }
        }
        let partitions = [
            ("partitions without leader", &self.health.leaderless_partitions),
            ("partitions below min.insync.replicas", &self.health.under_min_isr_partitions),
            ("under-replicated partitions", &self.health.under_replicated_partitions),
        ];
        for (what, refs) in partitions {
            if !refs.is_empty() {
                lines.push(format!("  {} {what}: {}", refs.len(), names(refs)));
            }
        }
        lines.extend(self.nodes.iter().flat_map(bad_directories));
        lines.join("\n")
    }

    fn json(&self) -> Value {
        let names = |refs: &[v1::PartitionRef]| refs.iter().map(name).collect::<Vec<_>>();
        json!({
            "healthy": self.is_healthy(),
            "controller": self.health.controller_id,
            "unreachable_nodes": self.unreachable(),
            "fenced_nodes": self.health.fenced_nodes,
            "unregistered_nodes": self.health.unregistered_nodes,
            "silent_voters": self.health.silent_voters,
            "learners_behind": self.health.learners_behind,
            "leaderless_partitions": names(&self.health.leaderless_partitions),
            "under_min_isr_partitions": names(&self.health.under_min_isr_partitions),
            "under_replicated_partitions": names(&self.health.under_replicated_partitions),
            "nodes": self.nodes.iter().map(node_json).collect::<Vec<_>>(),
        })
    }
}

fn name(partition: &v1::PartitionRef) -> String {
    format!("{}-{}", partition.topic, partition.partition)
}

fn names(refs: &[v1::PartitionRef]) -> String {
    let shown: Vec<String> = refs.iter().take(PARTITIONS_SHOWN).map(name).collect();
    let dots = if refs.len() > PARTITIONS_SHOWN { ", …" } else { "" };
    shown.join(", ") + dots
}

/// Tells the health whenever it has changed. Only --exit-when-healthy ends it.
async fn watch(args: &Health) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let connection = Connection { timeout: WATCH_PATIENCE, ..args.connection.clone() };
    let format = connection.format;
    let mut told = String::new();
    loop {
        let (view, healthy) = match Status::of(&connection).await {
            Ok(status) => {
                let healthy = status.is_healthy();
                let view =
                    if format == Format::Json { status.json().to_string() } else { status.text() };
                (view, healthy)
            }
            // A wrong address will not become right.
            Err(error @ ClientError::InvalidArgument(_)) => return Err(error.into()),
            Err(error) if format == Format::Json => {
                let view = json!({ "healthy": false, "error": error.to_string() });
                (view.to_string(), false)
            }
            Err(error) => (format!("unhealthy\n  {error}"), false),
        };
        if view != told {
            output::line(&view)?;
            told = view;
        }
        if args.exit_when_healthy {
            if healthy {
                return Ok(ExitCode::SUCCESS);
            }
            if started.elapsed() >= args.connection.timeout {
                diagnose("ottla: the cluster did not become healthy in time");
                return Ok(ExitCode::FAILURE);
            }
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_client::HostPort;

    fn probe(node_id: u64, reachable: bool) -> Probe {
        let node = v1::ClusterNode { node_id, registered: true, ..v1::ClusterNode::default() };
        let endpoint = HostPort::new("localhost", 7401);
        let answer = if reachable {
            Ok(v1::GetClusterInfoResponse::default())
        } else {
            Err(ClientError::Connect { endpoint, message: "refused".to_owned() })
        };
        Probe { node, answer }
    }

    /// A node that answers nobody makes a cluster unhealthy, whatever the
    /// cluster has noticed so far, and is seen in the JSON.
    #[test]
    fn unreachable_nodes_count_and_are_shown() {
        let health = v1::GetClusterHealthResponse {
            healthy: true,
            controller_id: Some(1),
            ..v1::GetClusterHealthResponse::default()
        };
        let mut status = Status { health, nodes: vec![probe(1, true), probe(2, false)] };
        assert!(!status.is_healthy());
        assert_eq!(status.text(), "unhealthy\n  unreachable nodes: 2");
        assert_eq!(status.json()["nodes"][1]["reachable"], false);
        status.nodes.pop();
        assert_eq!((status.is_healthy(), status.text()), (true, "healthy".to_owned()));
    }

    #[test]
    fn a_few_partitions_are_named() {
        let refs: Vec<_> = (0..100)
            .map(|partition| v1::PartitionRef { topic: "t".to_owned(), partition })
            .collect();
        assert_eq!(names(&refs[..2]), "t-0, t-1");
        assert!(names(&refs).ends_with("t-7, …"));
    }
}
