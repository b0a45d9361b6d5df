//! Many groups without members, each of which commits an offset a second, by plain gRPC
//! to its coordinator.

use super::super::cluster::LocalCluster;
use super::super::proc::cpu_time;
use anyhow::{Context as _, ensure};
use ottla_proto::v1;
use ottla_proto::v1::group_service_client::GroupServiceClient;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::transport::{Channel, Endpoint};

/// How often each group commits.
const EVERY: Duration = Duration::from_secs(1);

/// Left out of the figures: the groups come into being, connections warm up.
const WARM_UP: Duration = Duration::from_secs(5);

/// Longest wait for one commit.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measured of all groups.
pub(super) struct Commits {
    pub(super) groups: u32,
    pub(super) duration: Duration,
    /// From when it was due to its acknowledgement.
    pub(super) latencies: Vec<Duration>,
    /// How late the last round of all was begun: what falls behind falls ever more behind.
    pub(super) latest_start: Duration,
    pub(super) failed: u64,
    pub(super) last_failure: Option<String>,
    /// Processor time of all nodes in the measured time.
    pub(super) nodes_cpu: Duration,
}

#[derive(Default)]
struct Outcome {
    latencies: Vec<Duration>,
    latest_start: Duration,
    failures: Vec<String>,
}

impl Commits {
    pub(super) async fn measure(
        cluster: &LocalCluster,
        topic: &str,
        groups: u32,
        duration: Duration,
    ) -> anyhow::Result<Self> {
        let nodes = channels(cluster).await?;
        let mut coordinators = Vec::new();
        for group in 0..groups {
            let name = format!("commits-{group}");
            coordinators.push((name.clone(), coordinator(&nodes, name).await?));
        }
        let begun = Instant::now();
        let from = begun + WARM_UP;
        let mut tasks = JoinSet::new();
        for (number, (group, client)) in (0_u32..).zip(coordinators) {
            // Spread over the second.
            let first = begun + EVERY * number / groups;
            tasks.spawn(commit(client, group, topic.to_owned(), first, from, from + duration));
        }
        sleep_until(from).await;
        let cpu_before = cpu(cluster)?;
        sleep_until(from + duration).await;
        let nodes_cpu = cpu(cluster)?.saturating_sub(cpu_before);
        let mut all = Outcome::default();
        while let Some(outcome) = tasks.join_next().await {
            let outcome = outcome.context("a group failed")?;
            all.latencies.extend(outcome.latencies);
            all.latest_start = all.latest_start.max(outcome.latest_start);
            all.failures.extend(outcome.failures);
        }
        Ok(Self {
            groups,
            duration,
            latencies: all.latencies,
            latest_start: all.latest_start,
            failed: all.failures.len() as u64,
            last_failure: all.failures.pop(),
            nodes_cpu,
        })
    }
}

fn cpu(cluster: &LocalCluster) -> anyhow::Result<Duration> {
    cluster.pids().into_iter().map(|(_, pid)| cpu_time(pid)).sum()
}

async fn channels(
    cluster: &LocalCluster,
) -> anyhow::Result<BTreeMap<u64, GroupServiceClient<Channel>>> {
    let mut channels = BTreeMap::new();
    for node in cluster.admin().cluster_info().await?.nodes {
        let endpoint = node.endpoint.context("a node without an address")?;
        let address = format!("http://{}:{}", endpoint.host, endpoint.port);
        let channel = Endpoint::from_shared(address)?.connect().await?;
        channels.insert(node.node_id, GroupServiceClient::new(channel));
    }
    ensure!(!channels.is_empty(), "a cluster without nodes");
    Ok(channels)
}

async fn coordinator(
    nodes: &BTreeMap<u64, GroupServiceClient<Channel>>,
    group: String,
) -> anyhow::Result<GroupServiceClient<Channel>> {
    let mut any = nodes.values().next().context("a node")?.clone();
    let request = v1::FindCoordinatorRequest { group };
    let found = any.find_coordinator(request).await?.into_inner().node_id;
    Ok(nodes.get(&found).context("a coordinator that is no node")?.clone())
}

/// One group, until the end.
async fn commit(
    mut client: GroupServiceClient<Channel>,
    group: String,
    topic: String,
    first: Instant,
    from: Instant,
    until: Instant,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut due = first;
    while due < until {
        sleep_until(due).await;
        let started = Instant::now();
        let offset = v1::OffsetCommit { topic: topic.clone(), ..Default::default() };
        let request = v1::CommitOffsetsRequest {
            group: group.clone(),
            offsets: vec![offset],
            ..Default::default()
        };
        let answer = timeout(PATIENCE, client.commit_offsets(request)).await;
        if due >= from {
            outcome.latest_start = started - due;
            match answer {
                Ok(Ok(_)) => outcome.latencies.push(due.elapsed()),
                Ok(Err(status)) => outcome.failures.push(status.to_string()),
                Err(_) => outcome.failures.push(format!("no answer within {PATIENCE:?}")),
            }
        }
        due += EVERY;
    }
    outcome
}
