//! `ottla bench catch-up`: how quickly a node that was away gets what it missed, and
//! what writers notice of it.
//!
//! Beside it a floor, in the same run and under the same load: a program that only
//! sends the same bytes over loopback, checksums them and writes them to a file. All
//! nodes run on this machine, and share its processors and its disk with this program.

mod load;
mod report;

use super::cluster::{LocalCluster, Seen};
use super::floor::{Sync, Work, work};
use super::setting::Setting;
use crate::output::Format;
use anyhow::ensure;
use clap::value_parser;
use load::{Load, write_all};
use ottla_client::NewTopic;
use report::{Report, Window};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What is missed.
const BULK: &str = "bench-bulk";

/// What is written to all the time.
const LIVE: &str = "bench-live";

/// How often the ISRs of what is missed are looked at: well below what is measured.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Longest wait for them. A cluster that needs longer is broken.
const PATIENCE: Duration = Duration::from_secs(300);

/// Between the last change and a measurement: what follows from the change should be
/// over.
const SETTLE: Duration = Duration::from_secs(2);

const MEGABYTE: u64 = 1_000_000;

/// Bytes in one write of the floor: as a node sends and writes them.
const FLOOR_CHUNK_BYTES: usize = 512 * 1024;

/// Measure how a node that was away catches up, on a local cluster.
///
/// Starts three nodes as `ottla dev` does, in a temporary directory and on free ports.
/// Writers send acks=all records of 1 KiB to one topic at a fixed rate all the time,
/// whether earlier ones are answered or not; latency is counted from when a record was
/// due. A node is stopped, another topic is written to, and the node is started again:
/// measured is how long it takes until the node is in sync on every partition of that
/// topic, and the writers' latency before and meanwhile. Then the same bytes are sent
/// over loopback TCP to a thread that checksums them and writes them to a file, with an
/// fdatasync at the end: the floor, with its own effect on the writers' latency.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla bench catch-up
  ottla bench catch-up --megabytes 200 --rate 100 --watch 3s --format json")]
pub(crate) struct Args {
    /// What the node misses, in millions of bytes.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u64).range(1..=100_000))]
    megabytes: u64,

    /// Partitions of each of the two topics.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = value_parser!(u32).range(1..=1000))]
    partitions: u32,

    /// Records a second of the writers, all together.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = value_parser!(u32).range(1..=100_000))]
    rate: u32,

    /// How long the writers are watched before.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = crate::connection::duration)]
    watch: Duration,

    #[command(flatten)]
    setting: Setting,
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        self.setting.format
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let measure = async |cluster: &mut LocalCluster, dir: &Path| {
        Bench { args: &args, cluster, dir }.measure().await
    };
    args.setting.show(&args.setting.on_nodes(3, measure).await?)
}

struct Bench<'a> {
    args: &'a Args,
    cluster: &'a mut LocalCluster,
    dir: &'a Path,
}

impl Bench<'_> {
    async fn measure(&mut self) -> anyhow::Result<Report> {
        let (partitions, bytes) = (self.args.partitions, self.args.megabytes * MEGABYTE);
        for name in [BULK, LIVE] {
            let name = name.to_owned();
            let topic = NewTopic { name, partitions, replication_factor: 3, ..NewTopic::default() };
            self.cluster.admin().create_topic(topic).await?;
        }
        self.cluster
            .until("leader of every partition", |seen| seen.accepting == 2 * partitions)
            .await?;
        // The one that decides about ISRs stays.
        let controller = self.cluster.controller().await?;
        let away = if controller == 3 { 2 } else { 3 };
        let load = Load::start(&self.cluster.client, LIVE, self.args.rate).await?;
        sleep(SETTLE).await;
        let before = self.watch().await;

        self.cluster.stop_node(away).await?;
        write_all(&self.cluster.client, BULK, bytes).await?;
        sleep(SETTLE).await;
        let started = Instant::now();
        self.cluster.restart(away)?;
        let begun = self.follows(away).await?;
        let in_sync = self.in_sync(away).await?;
        let catching_up = Window { from: begun, to: in_sync };

        sleep(SETTLE).await;
        let dir = self.dir.to_owned();
        let (chunk_bytes, window_bytes) = (FLOOR_CHUNK_BYTES, bytes);
        let floor = Work { bytes, chunk_bytes, copies: 1, sync: Sync::AtEnd, window_bytes };
        let from = Instant::now();
        let floor = tokio::task::spawn_blocking(move || work(&dir, floor)).await??.time;
        let beside_floor = Window { from, to: Instant::now() };
        let history = load.finish().await?;
        Ok(Report {
            bytes,
            partitions,
            rate: self.args.rate,
            started_to_begun: begun - started,
            caught_up: in_sync - begun,
            floor,
            failed: history.failed,
            before: history.latencies(before)?,
            during: history.latencies(catching_up)?,
            beside_floor: history.latencies(beside_floor)?,
        })
    }

    async fn watch(&self) -> Window {
        let from = Instant::now();
        sleep(self.args.watch).await;
        Window { from, to: Instant::now() }
    }

    /// Waits until the node's replicas follow: its process is up, its logs are open,
    /// and it knows whom to follow.
    async fn follows(&self, node: u64) -> anyhow::Result<Instant> {
        let replicas = 3 * 2 * self.args.partitions;
        let what = format!("replica that follows on node {node}");
        let all = |seen: &Seen| seen.silent == 0 && seen.in_touch == replicas;
        self.cluster.until(&what, all).await
    }

    /// Waits until a node is in sync on every partition of what it missed.
    async fn in_sync(&self, node: u64) -> anyhow::Result<Instant> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let topic = self.cluster.admin().describe_topic(BULK).await?.topic;
            let now = Instant::now();
            ensure!(!topic.partitions.is_empty(), "{BULK} has no partitions");
            if topic.partitions.iter().all(|partition| partition.isr.contains(&node)) {
                return Ok(now);
            }
            ensure!(now < deadline, "node {node} is not in sync after {PATIENCE:?}");
            sleep(LOOK_INTERVAL).await;
        }
    }
}
