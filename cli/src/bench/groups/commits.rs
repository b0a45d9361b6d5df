//! Many groups, each of which commits an offset a second, by plain gRPC to its coordinator:
//! without members, or with one each that is heard of as often as it is told to be.

use super::super::cluster::LocalCluster;
use super::super::proc::cpu_time;
use super::member::Member;
use anyhow::{Context as _, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
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

/// Longest wait for one commit, or one heartbeat.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Members that join at the same time, before anything is measured.
const JOINS_AT_ONCE: usize = 64;

/// Measured of all groups.
pub(super) struct Commits {
    pub(super) groups: u32,
    pub(super) duration: Duration,
    /// From when it was due to its acknowledgement.
    pub(super) latencies: Vec<Duration>,
    /// The same of heartbeats, if the groups have members.
    pub(super) heartbeats: Option<Vec<Duration>>,
    /// How late the last round of all was begun: what falls behind falls ever more behind.
    pub(super) latest_start: Duration,
    pub(super) failed: u64,
    pub(super) last_failure: Option<String>,
    /// Processor time of all nodes in the measured time.
    pub(super) nodes_cpu: Duration,
}

/// What one task has seen in the measured time.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) latencies: Vec<Duration>,
    pub(super) latest_start: Duration,
    pub(super) failures: Vec<String>,
}

impl Outcome {
    /// An answer to what was due at one moment and begun at another.
    pub(super) fn note(
        &mut self,
        window: Window,
        due: Instant,
        started: Instant,
        answer: Result<Result<(), tonic::Status>, tokio::time::error::Elapsed>,
    ) {
        if due < window.from {
            return;
        }
        self.latest_start = started - due;
        match answer {
            Ok(Ok(())) => self.latencies.push(due.elapsed()),
            Ok(Err(status)) => self.failures.push(status.to_string()),
            Err(_) => self.failures.push(format!("no answer within {PATIENCE:?}")),
        }
    }

    fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.latest_start = self.latest_start.max(other.latest_start);
        self.failures.extend(other.failures);
    }
}

/// When it is measured.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) from: Instant,
    pub(super) until: Instant,
}

impl Commits {
    /// `members`: whether the groups have any.
    pub(super) async fn measure(
        cluster: &LocalCluster,
        topic: &str,
        groups: u32,
        members: bool,
        duration: Duration,
    ) -> anyhow::Result<Self> {
        let places = places(cluster, topic, groups, members).await?;
        let begun = Instant::now();
        let from = begun + WARM_UP;
        let window = Window { from, until: from + duration };
        let (mut commits, mut beats) = (JoinSet::new(), JoinSet::new());
        for (number, (group, client, member)) in (0_u32..).zip(places) {
            // Spread over the second.
            let first = begun + EVERY * number / groups;
            let who = member.as_ref().map(Member::who);
            commits.spawn(commit(client, group, who, topic.to_owned(), first, window));
            if let Some(member) = member {
                beats.spawn(member.beat(number, groups, window));
            }
        }
        sleep_until(window.from).await;
        let cpu_before = cpu(cluster)?;
        sleep_until(window.until).await;
        let nodes_cpu = cpu(cluster)?.saturating_sub(cpu_before);
        let mut committed = all(commits).await?;
        let mut heard = all(beats).await?;
        committed.failures.append(&mut heard.failures);
        Ok(Self {
            groups,
            duration,
            latencies: committed.latencies,
            heartbeats: members.then_some(heard.latencies),
            latest_start: committed.latest_start.max(heard.latest_start),
            failed: committed.failures.len() as u64,
            last_failure: committed.failures.pop(),
            nodes_cpu,
        })
    }
}

/// A group: its name, its coordinator, and its member if it has one.
type GroupPlace = (String, GroupServiceClient<Channel>, Option<Member>);

async fn places(
    cluster: &LocalCluster,
    topic: &str,
    groups: u32,
    members: bool,
) -> anyhow::Result<Vec<GroupPlace>> {
    let nodes = &channels(cluster).await?;
    let prefix = if members { "members" } else { "commits" };
    let names = stream::iter((0..groups).map(|group| format!("{prefix}-{group}")));
    let places = names.map(|name| async move {
        let client = coordinator(nodes, name.clone()).await?;
        let member = match members {
            true => Some(Member::join(client.clone(), &name, topic).await?),
            false => None,
        };
        anyhow::Ok((name, client, member))
    });
    places.buffered(JOINS_AT_ONCE).try_collect().await
}

async fn all(mut tasks: JoinSet<Outcome>) -> anyhow::Result<Outcome> {
    let mut all = Outcome::default();
    while let Some(outcome) = tasks.join_next().await {
        all.add(outcome.context("a group failed")?);
    }
    Ok(all)
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
    member: Option<(String, u32)>,
    topic: String,
    first: Instant,
    window: Window,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut due = first;
    let (member_id, member_epoch) = member.unzip();
    while due < window.until {
        sleep_until(due).await;
        let started = Instant::now();
        let offset = v1::OffsetCommit { topic: topic.clone(), ..Default::default() };
        let request = v1::CommitOffsetsRequest {
            group: group.clone(),
            member_id: member_id.clone(),
            member_epoch: member_epoch.unwrap_or_default(),
            offsets: vec![offset],
        };
        let answer = timeout(PATIENCE, client.commit_offsets(request)).await;
        outcome.note(window, due, started, answer.map(|answer| answer.map(drop)));
        due += EVERY;
    }
    outcome
}
