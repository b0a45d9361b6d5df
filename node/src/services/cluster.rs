//! `ClusterService`: nodes, quorum, and what is not as it should be.

use super::Context;
use super::settings::{self, Own};
use ottla_commitlog::data_dir::DirectoryState;
use ottla_metadata::QuorumStatus;
use ottla_metadata::controller::MAX_MEMBER_LAG;
use ottla_metadata::image::{Image, Partition};
use ottla_proto::v1::cluster_service_server::ClusterService;
use ottla_proto::{NodeId, PartitionId, v1};
use ottla_replication::{DiskStatus, ReplicaCounts, Replicas, Room};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// Longest wait for the leader of the quorum to say how it stands: more than an
/// election, and less than whoever asks for the cluster's health waits.
const QUORUM_TIMEOUT: Duration = Duration::from_millis(800);

/// The service.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) context: Context,
    /// Configured addresses of the voters: known before they register.
    pub(crate) voters: BTreeMap<NodeId, (String, u16)>,
    pub(crate) replicas: Replicas,
    /// What this node's own configuration says.
    pub(crate) own: Arc<Own>,
}

impl Cluster {
    fn nodes(&self, image: &Image, members: &[NodeId]) -> Vec<v1::ClusterNode> {
        let mut leaders: BTreeMap<NodeId, u32> = BTreeMap::new();
        let mut replicas: BTreeMap<NodeId, u32> = BTreeMap::new();
        let mut leaving: BTreeMap<NodeId, u32> = BTreeMap::new();
        for partition in image.partitions.values() {
            for replica in partition.removing() {
                *leaving.entry(replica).or_default() += 1;
            }
            if let Some(leader) = partition.leader {
                *leaders.entry(leader).or_default() += 1;
            }
            for replica in &partition.replicas {
                *replicas.entry(*replica).or_default() += 1;
            }
        }
        let known: BTreeSet<NodeId> = members.iter().chain(image.brokers.keys()).copied().collect();
        known
            .into_iter()
            .map(|id| {
                let broker = image.brokers.get(&id);
                let endpoint = broker
                    .map(|broker| (broker.host.clone(), broker.port))
                    .or_else(|| self.voters.get(&id).cloned());
                v1::ClusterNode {
                    node_id: id.0,
                    endpoint: endpoint.map(|(host, port)| v1::Endpoint { host, port: port.into() }),
                    rack: broker.and_then(|broker| broker.rack.clone()),
                    registered: broker.is_some(),
                    fenced: broker.is_none_or(|broker| broker.fenced),
                    broker_epoch: broker.map_or(0, |broker| broker.epoch.0),
                    leaders: leaders.get(&id).copied().unwrap_or(0),
                    replicas: replicas.get(&id).copied().unwrap_or(0),
                    draining: image.draining.contains(&id),
                    leaving_replicas: leaving.get(&id).copied().unwrap_or(0),
                    min_feature_level: broker.map_or(0, |broker| broker.levels.min.0.into()),
                    max_feature_level: broker.map_or(0, |broker| broker.levels.max.0.into()),
                }
            })
            .collect()
    }
}

/// Voters and learners of the quorum, as this node knows them.
fn members(quorum: &QuorumStatus) -> Vec<NodeId> {
    quorum.voters.iter().chain(&quorum.learners).copied().collect()
}

fn directory(disk: &DiskStatus) -> v1::DataDirectory {
    use v1::DataDirectoryState as S;
    let status = &disk.directory;
    let (state, reason) = match &status.state {
        DirectoryState::Online => (S::Online, String::new()),
        DirectoryState::Suspect { reason } => (S::Suspect, reason.clone()),
        DirectoryState::Offline { reason } => (S::Offline, reason.clone()),
    };
    v1::DataDirectory {
        path: status.path.display().to_string(),
        partitions: u32::try_from(status.partitions).unwrap_or(u32::MAX),
        state: state.into(),
        reason,
        free_bytes: disk.space.map(|space| space.free),
        total_bytes: disk.space.map(|space| space.total),
        room: match (disk.space, disk.room) {
            (None, _) => v1::DiskRoom::Unspecified,
            (Some(_), Room::Enough) => v1::DiskRoom::Enough,
            (Some(_), Room::Low) => v1::DiskRoom::Low,
            (Some(_), Room::NoWrites) => v1::DiskRoom::NoWrites,
            (Some(_), Room::NoCopies) => v1::DiskRoom::NoCopies,
        }
        .into(),
        alert_free_bytes: disk.levels.alert,
        refuse_free_bytes: disk.levels.writes,
        refuse_copies_free_bytes: disk.levels.copies,
        log_bytes: disk.space.map(|_| disk.log_bytes),
    }
}

fn local_replicas(counts: ReplicaCounts) -> v1::LocalReplicas {
    let ReplicaCounts { opening, leading, accepting, following, leaderless, offline } = counts;
    v1::LocalReplicas { opening, leading, accepting, following, leaderless, offline }
}

fn select(image: &Image, wrong: impl Fn(PartitionId, &Partition) -> bool) -> Vec<v1::PartitionRef> {
    image
        .partitions
        .iter()
        .filter(|(id, partition)| wrong(**id, partition))
        .filter_map(|(id, _)| {
            let topic = image.topics.get(&id.topic)?;
            Some(v1::PartitionRef { topic: topic.name.clone(), partition: id.index })
        })
        .collect()
}

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn get_cluster_info(
        &self,
        request: Request<v1::GetClusterInfoRequest>,
    ) -> Result<Response<v1::GetClusterInfoResponse>, Status> {
        let image = match request.get_ref().local {
            true => self.context.metadata.image(),
            false => self.context.current_image(request.metadata()).await?,
        };
        let quorum = self.context.metadata.quorum();
        Ok(Response::new(v1::GetClusterInfoResponse {
            header: self.context.header(),
            controller_id: quorum.leader.map(|id| id.0),
            controller_term: quorum.term,
            nodes: self.nodes(&image, &members(&quorum)),
            voters: quorum.voters.iter().map(|id| id.0).collect(),
            learners: quorum.learners.iter().map(|id| id.0).collect(),
            version: crate::VERSION.to_owned(),
            data_directories: self.replicas.disks().iter().map(directory).collect(),
            feature_level: image.feature_level.0.into(),
            local_replicas: Some(local_replicas(self.replicas.counts())),
        }))
    }

    async fn describe_quorum(
        &self,
        request: Request<v1::DescribeQuorumRequest>,
    ) -> Result<Response<v1::DescribeQuorumResponse>, Status> {
        self.context.administer(request).await
    }

    async fn add_voter(
        &self,
        request: Request<v1::AddVoterRequest>,
    ) -> Result<Response<v1::AddVoterResponse>, Status> {
        self.context.administer(request).await
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        self.context.administer(request).await
    }

    async fn replace_disk(
        &self,
        request: Request<v1::ReplaceDiskRequest>,
    ) -> Result<Response<v1::ReplaceDiskResponse>, Status> {
        self.context.administer(request).await
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        self.context.administer(request).await
    }

    async fn upgrade_features(
        &self,
        request: Request<v1::UpgradeFeaturesRequest>,
    ) -> Result<Response<v1::UpgradeFeaturesResponse>, Status> {
        self.context.administer(request).await
    }

    async fn alter_config(
        &self,
        request: Request<v1::AlterConfigRequest>,
    ) -> Result<Response<v1::AlterConfigResponse>, Status> {
        self.context.administer(request).await
    }

    async fn describe_config(
        &self,
        request: Request<v1::DescribeConfigRequest>,
    ) -> Result<Response<v1::DescribeConfigResponse>, Status> {
        let image = self.context.current_image(request.metadata()).await?;
        let options = match request.get_ref().node_id {
            None => settings::of_cluster(&image),
            Some(id) => settings::of_node(&image, NodeId(id), self.context.node_id, &self.own)?,
        };
        Ok(Response::new(v1::DescribeConfigResponse { header: self.context.header(), options }))
    }

    async fn get_cluster_health(
        &self,
        request: Request<v1::GetClusterHealthRequest>,
    ) -> Result<Response<v1::GetClusterHealthResponse>, Status> {
        let image = self.context.current_image(request.metadata()).await?;
        let quorum = self.context.metadata.quorum();
        let controller_id = quorum.leader.map(|id| id.0);
        let fenced: Vec<u64> = image
            .brokers
            .values()
            .filter(|broker| broker.fenced)
            .map(|broker| broker.node_id.0)
            .collect();
        let unregistered: Vec<u64> = members(&quorum)
            .into_iter()
            .filter(|id| !image.brokers.contains_key(id))
            .map(|id| id.0)
            .collect();
        let leaderless = select(&image, |_, partition| partition.leader.is_none());
        let under_replicated =
            select(&image, |_, partition| partition.isr.len() < partition.replication_factor());
        let under_min_isr = select(&image, |id, partition| {
            image.topics.get(&id.topic).is_some_and(|topic| {
                partition.isr.len() < topic.config.effective_min_isr(partition.replication_factor())
            })
        });
        let deadline = Instant::now() + QUORUM_TIMEOUT;
        let members = self.context.metadata.administer(v1::DescribeQuorumRequest {}, deadline);
        let members = members.await.map(|quorum| quorum.members);
        // Nobody leads it, or nobody can say how it stands.
        let led = controller_id.is_some() && members.is_ok();
        let members = members.unwrap_or_default();
        let silent: Vec<u64> = members
            .iter()
            .filter(|member| member.voter && !member.up)
            .map(|member| member.node_id)
            .collect();
        let behind: Vec<u64> = members
            .iter()
            .filter(|member| !member.voter && (!member.up || member.lag > MAX_MEMBER_LAG))
            .map(|member| member.node_id)
            .collect();
        let healthy = led
            && silent.is_empty()
            && behind.is_empty()
            && fenced.is_empty()
            && unregistered.is_empty()
            && leaderless.is_empty()
            && under_replicated.is_empty();
        Ok(Response::new(v1::GetClusterHealthResponse {
            header: self.context.header(),
            healthy,
            controller_id: controller_id.filter(|_| led),
            fenced_nodes: fenced,
            unregistered_nodes: unregistered,
            leaderless_partitions: leaderless,
            under_replicated_partitions: under_replicated,
            under_min_isr_partitions: under_min_isr,
            silent_voters: silent,
            learners_behind: behind,
        }))
    }
}
