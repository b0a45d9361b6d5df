//! `ottla bench controller`: what the controller can do with many partitions.
//!
//! Every node's own view is asked, as often as [`super::cluster`] looks; what is
//! measured includes the asking. All nodes run on this machine, and share its
//! processors, its disk and its memory with this program.

mod report;

use super::cluster::{LocalCluster, Seen};
use super::proc::{cpu_time, resident_bytes};
use super::setting::Setting;
use crate::output::Format;
use anyhow::{Context, ensure};
use clap::value_parser;
use ottla_client::{NewTopic, Producer, ProducerOptions, ProducerRecord, TopicChange};
use report::{Creation, Failover, Idle, NodeUse, Report};
use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Most partitions of one topic: what the cluster takes.
const PARTITIONS_PER_TOPIC: u32 = 10_000;

/// Partitions that are written to, once each, to see that those that are said to
/// accept do: enough to meet every leader, few enough to change nothing.
const PROBED_PARTITIONS: u32 = 30;

/// The topic that is altered to see whether the controller decides.
const SMALL_TOPIC: &str = "bench-controller";

/// Between the last change and the measurement of idleness: what follows from the
/// change, such as snapshots, should be over.
const SETTLE: Duration = Duration::from_secs(5);

/// Measure the controller with many partitions, on a local cluster.
///
/// Starts nodes as `ottla dev` does, in a temporary directory and on free ports,
/// and measures: creating the partitions (until the metadata has them, and until
/// every one of them accepts acks=all writes), processor time and memory of the
/// idle nodes, the kill of a node (until other nodes lead its partitions in the
/// metadata, and until those accept acks=all writes), and the kill of the active
/// controller (until the next change of metadata is made).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla bench controller
  ottla bench controller --partitions 1000 --idle 5s --controller-kills 3 --format json")]
pub(crate) struct Args {
    /// Number of nodes.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u16).range(1..=5))]
    nodes: u16,

    /// Partitions in all, each with a replica on every node, or on three.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = value_parser!(u32).range(1..=100_000))]
    partitions: u32,

    /// Topics that they belong to. Default: as few as there can be.
    #[arg(long, value_name = "N")]
    topics: Option<u32>,

    /// How long the idle nodes are watched.
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = crate::connection::duration)]
    idle: Duration,

    /// How often the active controller is killed.
    #[arg(long, value_name = "N", default_value_t = 30)]
    controller_kills: u32,

    #[command(flatten)]
    setting: Setting,
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        self.setting.format
    }

    /// How many partitions each topic gets.
    fn per_topic(&self) -> anyhow::Result<Vec<u32>> {
        let least = self.partitions.div_ceil(PARTITIONS_PER_TOPIC);
        let topics = self.topics.unwrap_or(least);
        ensure!(
            (least..=self.partitions).contains(&topics),
            "{} partitions are those of {least} to {} topics, not {topics}",
            self.partitions,
            self.partitions
        );
        let (each, more) = (self.partitions / topics, self.partitions % topics);
        Ok((0..topics).map(|topic| each + u32::from(topic < more)).collect())
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let per_topic = args.per_topic()?;
    let measure = async |cluster: &mut LocalCluster, _: &Path| {
        Bench { args: &args, cluster, per_topic }.measure().await
    };
    args.setting.show(&args.setting.on_nodes(args.nodes, measure).await?)
}

struct Bench<'a> {
    args: &'a Args,
    cluster: &'a mut LocalCluster,
    per_topic: Vec<u32>,
}

impl Bench<'_> {
    async fn measure(&mut self) -> anyhow::Result<Report> {
        let creation = self.create().await?;
        let idle = self.idle().await?;
        let mut failovers = Vec::new();
        if self.args.nodes >= 3 {
            for controller in [false, true] {
                failovers.push(self.fail_over(controller).await?);
            }
        }
        let mut successions = Vec::new();
        if self.args.nodes >= 3 {
            for round in 0..self.args.controller_kills {
                successions.push(self.lose_controller(round).await?);
            }
        }
        Ok(Report {
            nodes: self.args.nodes,
            partitions: self.args.partitions,
            topics: self.per_topic.len(),
            replication_factor: self.args.nodes.min(3),
            creation,
            idle,
            failovers,
            successions,
        })
    }

    fn all_accept(&self, seen: &Seen) -> bool {
        // And the small topic.
        seen.silent == 0 && seen.accepting == self.args.partitions + 1
    }

    async fn create(&self) -> anyhow::Result<Creation> {
        let topic = |name: String, partitions| NewTopic { name, partitions, ..NewTopic::default() };
        let admin = self.cluster.admin();
        admin.create_topic(topic(SMALL_TOPIC.to_owned(), 1)).await?;
        self.cluster.until("leader of one partition", |seen| seen.accepting == 1).await?;
        let started = Instant::now();
        for (index, partitions) in self.per_topic.iter().enumerate() {
            admin.create_topic(topic(name(index), *partitions)).await?;
        }
        let committed = started.elapsed();
        let accepting =
            self.cluster.until("leader of every partition", |seen| self.all_accept(seen)).await?;
        let probes = self.probe().await?;
        Ok(Creation { committed, accepting: accepting - started, probes })
    }

    /// Writes a record to some partitions; says how long each took.
    async fn probe(&self) -> anyhow::Result<Vec<Duration>> {
        let options = ProducerOptions { linger: Duration::ZERO, ..ProducerOptions::default() };
        let producer = Producer::new(&self.cluster.client, options);
        let topic = producer.topic(&name(0)).await?;
        let partitions = topic.partitions();
        let step = partitions.div_ceil(PROBED_PARTITIONS);
        let mut times = Vec::new();
        for partition in (0..partitions).step_by(step as usize) {
            let record = ProducerRecord {
                partition: Some(partition),
                ..ProducerRecord::value("is anybody there?")
            };
            let started = Instant::now();
            topic.send(record).await?.await?;
            times.push(started.elapsed());
        }
        producer.shutdown().await;
        Ok(times)
    }

    async fn idle(&self) -> anyhow::Result<Idle> {
        sleep(SETTLE.min(self.args.idle)).await;
        let pids = self.cluster.pids();
        let used = || pids.iter().map(|(_, pid)| cpu_time(*pid)).collect::<Result<Vec<_>, _>>();
        let (started, before) = (Instant::now(), used()?);
        sleep(self.args.idle).await;
        let (watched, after) = (started.elapsed(), used()?);
        let mut nodes = Vec::new();
        for ((node, pid), (before, after)) in pids.iter().zip(before.into_iter().zip(after)) {
            let cpu = (after - before).as_secs_f64() / watched.as_secs_f64();
            nodes.push(NodeUse { node: *node, cpu, resident_bytes: resident_bytes(*pid)? });
        }
        Ok(Idle { watched, nodes })
    }

    /// Kills a node, the active controller or another; others lead what it led.
    async fn fail_over(&mut self, controller: bool) -> anyhow::Result<Failover> {
        let active = self.cluster.controller().await?;
        let other = self.cluster.pids().into_iter().map(|(node, _)| node).find(|n| *n != active);
        let node = if controller { active } else { other.context("there is one node only")? };
        let info = self.cluster.admin().cluster_info().await?;
        let led = info.nodes.iter().find(|known| known.node_id == node).map_or(0, |n| n.leaders);
        let killed = self.cluster.kill(node).await?;
        let all = self.args.partitions + 1;
        let elected = self
            .cluster
            .until("new leaders in the metadata", |seen| seen.silent == 0 && seen.led == all)
            .await?;
        let accepting = self.cluster.until("new leaders", |seen| self.all_accept(seen)).await?;
        let probes = self.probe().await?;
        let started = Instant::now();
        self.cluster.restart(node)?;
        self.whole_again().await?;
        Ok(Failover {
            controller,
            partitions: led,
            elected: elected - killed,
            accepting: accepting - killed,
            probes,
            rejoined: started.elapsed(),
        })
    }

    /// Kills the active controller; returns when the next change was made.
    async fn lose_controller(&mut self, round: u32) -> anyhow::Result<Duration> {
        let node = self.cluster.controller().await?;
        let killed = self.cluster.kill(node).await?;
        let value = (1_000_000 + round).to_string();
        let set = HashMap::from([("retention.ms".to_owned(), value)]);
        let change = TopicChange { set, ..TopicChange::default() };
        self.cluster.admin().alter_topic(SMALL_TOPIC, change).await?;
        let took = killed.elapsed();
        self.cluster.restart(node)?;
        self.whole_again().await?;
        Ok(took)
    }

    /// Every replica is in its ISR again, and in touch.
    async fn whole_again(&self) -> anyhow::Result<()> {
        let replicas = (self.args.partitions + 1) * u32::from(self.args.nodes.min(3));
        self.cluster
            .until("replica everywhere", |seen| self.all_accept(seen) && seen.in_touch == replicas)
            .await?;
        self.cluster.until_healthy().await
    }
}

fn name(topic: usize) -> String {
    format!("bench-{topic}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn per_topic(line: &str) -> anyhow::Result<Vec<u32>> {
        let line = std::iter::once("bench").chain(line.split_whitespace());
        Line::try_parse_from(line).expect("well-formed").args.per_topic()
    }

    #[test]
    fn partitions_are_spread_over_topics() {
        assert_eq!(per_topic("").expect("fits"), [10_000]);
        assert_eq!(per_topic("--partitions 10001").expect("fits"), [5001, 5000]);
        assert_eq!(per_topic("--partitions 7 --topics 3").expect("fits"), [3, 2, 2]);
        let error = per_topic("--partitions 7 --topics 8").expect_err("too many").to_string();
        assert!(error.contains("1 to 7 topics, not 8"), "{error}");
        assert!(per_topic("--partitions 30000 --topics 2").is_err());
    }
}
