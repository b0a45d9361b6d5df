//! `ottla bench groups`: how long nobody reads what a dead member of a group had, what the
//! others notice of it, and whether a cluster keeps up with the commits of many groups.
//!
//! All nodes run on this machine, and share its processors and its disk with this program,
//! which is all of the members, too.

mod commits;
mod ledger;
mod member;
mod members;
mod report;

use super::cluster::LocalCluster;
use super::setting::Setting;
use crate::output::Format;
use anyhow::{Context as _, bail, ensure};
use clap::value_parser;
use commits::Commits;
use members::Members;
use ottla_client::NewTopic;
use report::{Rebalance, Report, SlowRead};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

const TOPIC: &str = "bench-groups";
const GROUP: &str = "bench-groups";

/// What the many groups read: one partition.
const ONE: &str = "bench-groups-one";

/// How long the members are watched while nothing happens: as long as a session, in which
/// they are watched after a crash.
const CALM: Duration = Duration::from_secs(10);

/// How often the coordinator is asked whether it has noticed that a member is gone.
const DETECTION_INTERVAL: Duration = Duration::from_millis(10);

/// Longest wait for any one state. A cluster that needs longer is broken.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measure what the death of a member does to its group, and the commits of many groups.
///
/// Starts nodes as `ottla dev` does, in a temporary directory and on free ports. The
/// members of one group read a topic into whose every partition something is written all
/// the time. One member after the other dies without a word. Measured from when the
/// coordinator has noticed that: until each partition that it read is read again; and, of
/// those that it did not read, the longest time in which nothing came, and the longest that
/// a record waited for its reader once it was acknowledged, beside the same while nothing
/// happened. Then many groups commit an offset each second; measured from
/// when a commit was due to its acknowledgement. These groups have no members; then as many
/// others do the same that have one each, which is heard of as often as it is told to be.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla bench groups
  ottla bench groups --members 5 --partitions 20 --crashes 1 --groups 100 --format json")]
pub(crate) struct Args {
    /// Members of the group.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(2..=1000))]
    members: u32,

    /// Partitions that they read.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = value_parser!(u32).range(2..=10_000))]
    partitions: u32,

    /// How many of the members die.
    #[arg(long, value_name = "N", default_value_t = 3)]
    crashes: u32,

    /// Time between two records of a partition.
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = crate::connection::duration)]
    interval: Duration,

    /// Groups that commit; 0: none do.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    groups: u32,

    /// How long they do, after a warm-up of five seconds.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::connection::duration)]
    duration: Duration,

    #[command(flatten)]
    setting: Setting,
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        self.setting.format
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    ensure!(args.crashes < args.members, "somebody has to be left");
    let run = async |cluster: &mut LocalCluster, _: &Path| measure(&args, cluster).await;
    args.setting.show(&args.setting.on_nodes(3, run).await?)
}

async fn measure(args: &Args, cluster: &LocalCluster) -> anyhow::Result<Report> {
    for (name, partitions) in [(TOPIC, args.partitions), (ONE, 1)] {
        let topic = NewTopic {
            name: name.to_owned(),
            partitions,
            replication_factor: 3,
            ..NewTopic::default()
        };
        cluster.admin().create_topic(topic).await?;
    }
    cluster.until_healthy().await?;
    let rebalance = rebalance(args, cluster).await?;
    let commits = match args.groups {
        0 => None,
        groups => Some(Commits::measure(cluster, ONE, groups, false, args.duration).await?),
    };
    let with_members = match args.groups {
        0 => None,
        groups => Some(Commits::measure(cluster, ONE, groups, true, args.duration).await?),
    };
    let (members, partitions, interval) = (args.members, args.partitions, args.interval);
    Ok(Report { members, partitions, interval, rebalance, commits, with_members })
}

async fn rebalance(args: &Args, cluster: &LocalCluster) -> anyhow::Result<Rebalance> {
    let mut members = Members::start(cluster.bootstrap(), args.partitions, args.interval).await?;
    let joining = Instant::now();
    for member in 0..args.members {
        members.join(member, member < args.crashes)?;
    }
    settled(cluster, &members, args).await?;
    let settled_in = joining.elapsed();
    let calm = Instant::now();
    // Asked for as often as after a death, so that one is like the other but for that.
    if let Ok(lost) = timeout(CALM, gone(cluster, &Members::name(0))).await {
        lost?;
        bail!("a member that lives was put out");
    }
    let mut measured = Rebalance {
        settled_in,
        calm: members.seen(calm, Instant::now(), &[]),
        ..Rebalance::default()
    };
    for victim in 0..args.crashes {
        let given_back = members.given_back();
        let had = members.crash(victim)?;
        let crashed = Instant::now();
        let detected = gone(cluster, &Members::name(victim)).await?;
        let resumed = members.read_since(crashed, &had).await?;
        let now = Instant::now();
        measured.detections.push(detected - crashed);
        measured.resumed.extend(resumed.iter().map(|at| at.saturating_duration_since(detected)));
        measured.kept.extend(members.seen(crashed, now, &had));
        let slowest = members.slowest(crashed, now, &had);
        measured.slowest.extend(slowest.into_iter().map(|(slow, took_over)| SlowRead {
            slow,
            detected,
            took_over,
        }));
        settled(cluster, &members, args).await?;
        measured.moved_without_need += members.given_back() - given_back;
    }
    measured.records = members.stop().await?;
    Ok(measured)
}

/// Waits until every member has its share, and something of everything was read.
async fn settled(cluster: &LocalCluster, members: &Members, args: &Args) -> anyhow::Result<()> {
    let all: Vec<u32> = (0..args.partitions).collect();
    let mut looks = interval(DETECTION_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stable = async {
        loop {
            looks.tick().await;
            members.check()?;
            let group = cluster.admin().describe_group(GROUP).await;
            let is_stable = |group: &ottla_client::v1::DescribeGroupResponse| {
                group.state() == ottla_client::v1::GroupState::Stable
                    && group.members.len() == members.alive()
            };
            if group.is_ok_and(|group| is_stable(&group)) {
                return anyhow::Ok(());
            }
        }
    };
    timeout(PATIENCE, stable).await.context("the group does not come to rest")??;
    members.read_since(Instant::now(), &all).await.map(drop)
}

/// When the coordinator has noticed that a member is gone.
async fn gone(cluster: &LocalCluster, name: &str) -> anyhow::Result<Instant> {
    let mut looks = interval(DETECTION_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let noticed = async {
        loop {
            looks.tick().await;
            let group = cluster.admin().describe_group(GROUP).await?;
            if !group.members.iter().any(|member| member.client_id == name) {
                return anyhow::Ok(Instant::now());
            }
        }
    };
    timeout(PATIENCE, noticed).await.context("nobody notices that a member is gone")?
}
