//! `ottla bench failover`: how long nobody can write, when a leader is killed, when a
//! node is stopped on purpose, and when leaderships go home.
//!
//! Measured by writers as a user has them, one a partition, that go on all the time.
//! In the end everything acknowledged is read back. All nodes run on this machine,
//! and share its processors and its disk with this program.

mod report;
mod writers;

use super::cluster::LocalCluster;
use super::setting::Setting;
use crate::output::Format;
use anyhow::Context as _;
use clap::value_parser;
use ottla_client::{Election, NewTopic};
use report::{Planned, Report};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use writers::Writers;

const TOPIC: &str = "bench-failover";

/// How long the writers are watched while nothing happens, for comparison.
const CALM: Duration = Duration::from_secs(2);

/// Measure how long a partition cannot be written to, on a local cluster.
///
/// Starts nodes as `ottla dev` does, in a temporary directory and on free ports. A
/// writer for each partition sends acks=all records one after the other. Meanwhile
/// leaders are killed with SIGKILL (measured: from the kill to the acknowledgement of
/// the first record sent after it, on each partition that the node led), and nodes are
/// stopped in good order and started again, whereupon the leaderships return to them
/// (measured: the longest time without an acknowledgement on any partition). At the
/// end every acknowledged record is read back from its offset.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla bench failover
  ottla bench failover --kills 5 --restarts 1 --partitions 12 --format json")]
pub(crate) struct Args {
    /// Number of nodes.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u16).range(3..=5))]
    nodes: u16,

    /// Partitions, each with a writer of its own and three replicas.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u32).range(1..=1000))]
    partitions: u32,

    /// How often a leader is killed.
    #[arg(long, value_name = "N", default_value_t = 30)]
    kills: u32,

    /// How often a node is stopped in good order and started again.
    #[arg(long, value_name = "N", default_value_t = 9)]
    restarts: u32,

    /// Shortest time between two records of a writer.
    #[arg(long, value_name = "DURATION", default_value = "2ms", value_parser = crate::connection::duration)]
    interval: Duration,

    #[command(flatten)]
    setting: Setting,
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        self.setting.format
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let measure =
        async |cluster: &mut LocalCluster, _: &Path| Bench { args: &args, cluster }.measure().await;
    args.setting.show(&args.setting.on_nodes(args.nodes, measure).await?)
}

struct Bench<'a> {
    args: &'a Args,
    cluster: &'a mut LocalCluster,
}

impl Bench<'_> {
    async fn measure(&mut self) -> anyhow::Result<Report> {
        let (name, partitions) = (TOPIC.to_owned(), self.args.partitions);
        let topic = NewTopic { name, partitions, replication_factor: 3, ..NewTopic::default() };
        self.cluster.admin().create_topic(topic).await?;
        self.whole_again().await?;
        let writers =
            Writers::start(&self.cluster.client, TOPIC, partitions, self.args.interval).await?;
        let everywhere: Vec<u32> = (0..partitions).collect();

        writers.acknowledged_since(Instant::now(), &everywhere).await?;
        let calm_began = Instant::now();
        sleep(CALM).await;
        let calm = writers.longest_gap(calm_began, Instant::now());

        let mut kills = Vec::new();
        for round in 0..self.args.kills {
            kills.extend(self.kill(&writers, round).await?);
        }
        let mut planned = Planned::default();
        for round in 0..self.args.restarts {
            self.restart_as_planned(&writers, round, &mut planned).await?;
        }
        let written = writers.finish(&self.cluster.client).await?;
        let (nodes, interval) = (self.args.nodes, self.args.interval);
        Ok(Report { nodes, partitions, interval, calm, kills, planned, written })
    }

    /// Which partitions a node leads.
    async fn led_by(&self, node: u64) -> anyhow::Result<Vec<u32>> {
        let topic = self.cluster.admin().describe_topic(TOPIC).await?.topic;
        let led = topic.partitions.iter().filter(|p| p.leader_id == Some(node));
        Ok(led.map(|p| p.partition).collect())
    }

    /// Kills the leader of one partition after the other. Returns how long each
    /// partition that it led could not be written to.
    async fn kill(&mut self, writers: &Writers, round: u32) -> anyhow::Result<Vec<Duration>> {
        let topic = self.cluster.admin().describe_topic(TOPIC).await?.topic;
        let chosen = round % self.args.partitions;
        let partition = topic.partitions.iter().find(|p| p.partition == chosen);
        let node = partition.and_then(|p| p.leader_id).context("a partition without a leader")?;
        let led = self.led_by(node).await?;
        let killed = self.cluster.kill(node).await?;
        let times = writers.acknowledged_since(killed, &led).await?;
        self.cluster.restart(node)?;
        self.whole_again().await?;
        self.leaders_go_home().await?;
        Ok(times.into_iter().map(|at| at - killed).collect())
    }

    /// Stops one node after the other in good order, starts it, and gives its
    /// leaderships back to it.
    async fn restart_as_planned(
        &mut self,
        writers: &Writers,
        round: u32,
        planned: &mut Planned,
    ) -> anyhow::Result<()> {
        let node = u64::from(round % u32::from(self.args.nodes)) + 1;
        let everywhere: Vec<u32> = (0..self.args.partitions).collect();
        let failed = writers.failed();
        let doubts = writers.in_doubt();

        let stopping = Instant::now();
        self.cluster.stop_node(node).await?;
        self.cluster.restart(node)?;
        self.whole_again().await?;
        writers.acknowledged_since(Instant::now(), &everywhere).await?;
        planned.restarts.push(writers.longest_gap(stopping, Instant::now()));

        let moving = Instant::now();
        planned.moved += self.leaders_go_home().await?;
        writers.acknowledged_since(Instant::now(), &everywhere).await?;
        planned.moves.push(writers.longest_gap(moving, Instant::now()));

        planned.failed += writers.failed() - failed;
        planned.in_doubt += writers.in_doubt() - doubts;
        Ok(())
    }

    /// The preferred replica of every partition leads it. Returns how many had to
    /// be moved.
    async fn leaders_go_home(&self) -> anyhow::Result<u32> {
        let mut moved = 0;
        for partition in 0..self.args.partitions {
            let admin = self.cluster.admin();
            let elected = admin.elect_leader(TOPIC, partition, Election::Preferred).await?;
            moved += u32::from(elected.changed);
        }
        Ok(moved)
    }

    /// Every replica is in its ISR, and in touch.
    async fn whole_again(&self) -> anyhow::Result<()> {
        let (partitions, replicas) = (self.args.partitions, self.args.partitions * 3);
        self.cluster
            .until("replica everywhere", |seen| {
                seen.silent == 0 && seen.accepting == partitions && seen.in_touch == replicas
            })
            .await?;
        self.cluster.until_healthy().await
    }
}
