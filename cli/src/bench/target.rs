//! What a load is put on: a topic of a cluster that is there, or of one started for it.

use super::cluster::LocalCluster;
use super::proc::{cpu_time, peak_bytes};
use super::setting::Setting;
use crate::topic::{each_once, key_value};
use anyhow::Context as _;
use clap::value_parser;
use ottla_client::{Client, ClientOptions, HostPort, NewTopic};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// The flags that say where to.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Target {
    /// Load this cluster instead of one started for the purpose. Only the command line
    /// says so: neither OTTLA_BOOTSTRAP nor a profile does.
    // Named otherwise than the flag of other commands, so that profiles do not give it.
    #[arg(id = "cluster", long = "bootstrap", value_name = "HOST:PORT[,…]")]
    bootstrap: Option<String>,

    /// A topic of that cluster. It stays as it is, but for what is written. Default: a
    /// new one, which is deleted afterwards.
    #[arg(long, value_name = "NAME", requires = "cluster", conflicts_with_all = ["partitions", "replication_factor", "configs"])]
    topic: Option<String>,

    /// Nodes of the cluster that is started.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u16).range(1..=5), conflicts_with = "cluster")]
    nodes: u16,

    /// Partitions of the new topic.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = value_parser!(u32).range(1..=10_000))]
    partitions: u32,

    /// Replicas of each of them. Default: 3, or all nodes if they are fewer.
    #[arg(long, value_name = "R", value_parser = value_parser!(u32).range(1..))]
    replication_factor: Option<u32>,

    /// An option of the new topic, such as durability=memory. May be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
    configs: Vec<(String, String)>,

    #[command(flatten)]
    pub(super) setting: Setting,
}

/// A topic to be loaded, and who keeps it.
pub(super) struct Bed {
    pub(super) client: Client,
    pub(super) bootstrap: Vec<HostPort>,
    pub(super) topic: String,
    /// Nobody else writes to it.
    pub(super) is_own: bool,
    /// Node id and process id, of nodes of our own.
    pids: Vec<(u64, u32)>,
    described: Value,
}

/// Processor time used so far.
#[derive(Clone, Debug)]
pub(super) struct Processor {
    nodes: Vec<(u64, Duration)>,
    client: Duration,
}

impl Target {
    /// The name of the topic that is there already, if it is to be one.
    pub(super) fn existing_topic(&self) -> Option<&str> {
        self.topic.as_deref()
    }

    /// Has a topic of the cluster loaded.
    pub(super) async fn on_topic<R>(
        &self,
        load: impl AsyncFnOnce(&Bed) -> anyhow::Result<R>,
    ) -> anyhow::Result<R> {
        let Some(bootstrap) = &self.bootstrap else {
            let run = async |cluster: &mut LocalCluster, _: &Path| {
                load(&self.make_bed(cluster.bootstrap(), cluster.pids()).await?).await
            };
            return self.setting.on_nodes(self.nodes, run).await;
        };
        let bed = self.make_bed(HostPort::parse_list(bootstrap)?, Vec::new()).await?;
        let loaded = load(&bed).await;
        if !bed.is_own {
            return loaded;
        }
        let deleted = bed.client.admin().delete_topic(&bed.topic).await;
        let loaded = loaded?;
        deleted.with_context(|| format!("cannot delete {}, which is to go", bed.topic))?;
        Ok(loaded)
    }

    async fn make_bed(
        &self,
        bootstrap: Vec<HostPort>,
        pids: Vec<(u64, u32)>,
    ) -> anyhow::Result<Bed> {
        let client = Client::connect(&bootstrap, ClientOptions::default()).await?;
        let is_own = self.topic.is_none();
        let topic = match &self.topic {
            Some(topic) => topic.clone(),
            None => self.create_topic(&client, &pids).await?,
        };
        let shape = client.admin().describe_topic(&topic).await?.topic.partitions;
        let described = json!({
            "nodes": client.admin().cluster_info().await?.nodes.len(),
            "own_nodes": pids.len(),
            "partitions": shape.len(),
            "replication_factor": shape.first().map_or(0, |partition| partition.replicas.len()),
            "configs": self.configs.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        });
        Ok(Bed { client, bootstrap, topic, is_own, pids, described })
    }

    async fn create_topic(&self, client: &Client, pids: &[(u64, u32)]) -> anyhow::Result<String> {
        let name = format!("ottla-bench-{}", uuid::Uuid::new_v4().simple());
        let own = u32::try_from(pids.len().min(3)).unwrap_or(3);
        let topic = NewTopic {
            name: name.clone(),
            partitions: self.partitions,
            // None of our own: the cluster's default.
            replication_factor: self.replication_factor.unwrap_or(own),
            configs: each_once(self.configs.clone())?,
            validate_only: false,
        };
        client.admin().create_topic(topic).await?;
        Ok(name)
    }
}

impl Bed {
    /// As it is told: nodes, partitions, replicas, options given.
    pub(super) fn json(&self) -> Value {
        self.described.clone()
    }

    /// One connection of its own to the cluster.
    pub(super) async fn another_client(&self) -> anyhow::Result<Client> {
        Ok(Client::connect(&self.bootstrap, ClientOptions::default()).await?)
    }

    /// Processor time of nodes of our own, and of this process.
    pub(super) fn processor(&self) -> anyhow::Result<Processor> {
        let node = |(node, pid): &(u64, u32)| Ok((*node, cpu_time(*pid)?));
        Ok(Processor {
            nodes: self.pids.iter().map(node).collect::<anyhow::Result<_>>()?,
            client: cpu_time(std::process::id())?,
        })
    }

    /// The most memory each of them has had.
    pub(super) fn memory(&self) -> anyhow::Result<Value> {
        let node =
            |(node, pid): &(u64, u32)| Ok(json!({ "node": node, "peak_bytes": peak_bytes(*pid)? }));
        Ok(json!({
            "nodes": self.pids.iter().map(node).collect::<anyhow::Result<Vec<_>>>()?,
            "client_peak_bytes": peak_bytes(std::process::id())?,
        }))
    }
}

impl Processor {
    /// What was used since an earlier moment.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let used = |(now, before): (&(u64, Duration), &(u64, Duration))| {
            (now.0, now.1.saturating_sub(before.1))
        };
        Self {
            nodes: self.nodes.iter().zip(&earlier.nodes).map(used).collect(),
            client: self.client.saturating_sub(earlier.client),
        }
    }

    /// Nodes of our own, and this process.
    pub(super) fn total(&self) -> Duration {
        self.client + self.nodes.iter().map(|(_, time)| *time).sum::<Duration>()
    }

    /// This process alone.
    pub(super) fn client(&self) -> Duration {
        self.client
    }

    /// Beside so many bytes of records.
    pub(super) fn json(&self, bytes: u64) -> Value {
        use super::figures::{per_gigabyte, seconds};
        let node =
            |(node, time): &(u64, Duration)| json!({ "node": node, "seconds": seconds(*time) });
        json!({
            "nodes": self.nodes.iter().map(node).collect::<Vec<_>>(),
            "client_seconds": seconds(self.client),
            "seconds": seconds(self.total()),
            "seconds_per_gb": per_gigabyte(self.total(), bytes),
        })
    }
}

/// The peaks of nodes and client, for people.
pub(super) fn memory_text(memory: &Value) -> String {
    let megabytes = |bytes: &Value| bytes.as_u64().unwrap_or(0) / 1_000_000;
    let nodes = memory["nodes"].as_array().into_iter().flatten();
    let nodes: Vec<String> = nodes
        .map(|node| format!("node {} {} MB", node["node"], megabytes(&node["peak_bytes"])))
        .collect();
    let client = megabytes(&memory["client_peak_bytes"]);
    format!(
        "{}{}this program {client} MB at most",
        nodes.join(", "),
        if nodes.is_empty() { "" } else { ", " }
    )
}
