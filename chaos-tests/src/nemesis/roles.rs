//! Who does what in a cluster at the moment, as far as one node knows.

use super::load::{PARTITIONS, STRICT};
use super::plan::Who;
use crate::process::{Cluster, Node};
use anyhow::Context as _;
use futures::future;
use ottla_proto::v1;
use ottla_proto::v1::cluster_service_client::ClusterServiceClient;
use ottla_proto::v1::metadata_service_client::MetadataServiceClient;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

/// How long nodes are given to answer. One that is cut off does not.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// A partition's leader, if it has one, and its replicas.
pub(super) type Hosts = (Option<u64>, Vec<u64>);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Roles {
    pub(super) controller: Option<u64>,
    /// By partition of the topic that is judged strictest.
    pub(super) partitions: BTreeMap<u32, Hosts>,
}

impl Roles {
    /// As the first node that answers knows them.
    pub(super) async fn now(cluster: &Cluster) -> anyhow::Result<Self> {
        let asked = running(cluster).map(|node| Box::pin(ask(node))).collect::<Vec<_>>();
        anyhow::ensure!(!asked.is_empty(), "no node runs");
        let answer = timeout(ANSWERS_WITHIN, future::select_ok(asked)).await;
        let (metadata, _) = answer.context("no node answers")??;
        let topic = metadata.topics.into_iter().next().context("no topic")?;
        let hosts = |partition: v1::PartitionMetadata| {
            (partition.partition, (partition.leader_id, partition.replicas))
        };
        let partitions = topic.partitions.into_iter().map(hosts).collect();
        Ok(Self { controller: metadata.controller_id, partitions })
    }

    /// The node that is meant.
    pub(super) fn node(&self, who: Who, cluster: &Cluster) -> anyhow::Result<u64> {
        let hosts = |partition| self.partitions.get(&partition).context("no such partition");
        match who {
            Who::Leader(partition) => hosts(partition % PARTITIONS)?.0.context("no leader"),
            Who::Follower(partition) => {
                let (leader, replicas) = hosts(partition % PARTITIONS)?;
                let follower = replicas.iter().find(|id| Some(**id) != *leader);
                follower.copied().context("no follower")
            }
            Who::Controller => self.controller.context("no controller"),
            Who::Any(number) => {
                let members: Vec<u64> = cluster.members().map(Node::id).collect();
                let chosen = members.get(number as usize % members.len().max(1));
                chosen.copied().context("no node")
            }
        }
    }
}

fn running(cluster: &Cluster) -> impl Iterator<Item = &Node> {
    cluster.members().filter(|node| node.is_running())
}

async fn ask(node: &Node) -> anyhow::Result<v1::ClusterMetadata> {
    let mut client = MetadataServiceClient::new(node.channel()?);
    let request = v1::GetMetadataRequest { topics: vec![STRICT.to_owned()] };
    client.get_metadata(request).await?.into_inner().metadata.context("an empty answer")
}

/// Whether every node runs and finds the cluster healthy: all replicas in sync.
pub(super) async fn healthy(cluster: &Cluster) -> anyhow::Result<()> {
    for node in cluster.members() {
        anyhow::ensure!(node.is_running(), "node {} does not run", node.id());
        let mut client = ClusterServiceClient::new(node.channel()?);
        let asked = client.get_cluster_health(v1::GetClusterHealthRequest {});
        let health = timeout(ANSWERS_WITHIN, asked).await.context("no answer in time")??;
        let health = health.into_inner();
        anyhow::ensure!(health.healthy, "node {}: {health:?}", node.id());
    }
    Ok(())
}
