//! Administration: topics, and the cluster itself. Any node takes these calls.

use crate::channel::Connection;
use crate::client::{Asked, with_timeout};
use crate::{Client, ClientError, HostPort};
use bytes::Bytes;
use futures::future::join_all;
use ottla_proto::{RequestId, v1};
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Response, Status};

/// How long one node may take to say that it is there.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A topic to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// 1 to 249 of `[A-Za-z0-9._-]`.
    pub name: String,
    /// Number of partitions; 0 means the cluster's default.
    pub partitions: u32,
    /// Replicas of each partition; 0 means the cluster's default.
    pub replication_factor: u32,
    /// Options such as `min.insync.replicas`.
    pub configs: HashMap<String, String>,
    /// Check everything, create nothing.
    pub validate_only: bool,
}

/// A topic's options are to be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicChange {
    /// Options to set, such as `retention.ms`.
    pub set: HashMap<String, String>,
    /// Options to put back to their defaults.
    pub unset: Vec<String>,
    /// Check everything, change nothing.
    pub validate_only: bool,
}

/// A topic that was asked to grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grown {
    /// With all its partitions as they are now, or as they would be.
    pub topic: v1::TopicMetadata,
    /// How many of them are new, the last ones. 0: it had as many already.
    pub added: u32,
}

/// A topic with everything that is to be said of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopicDescription {
    /// Its partitions.
    pub topic: v1::TopicMetadata,
    /// Every option with the value in force, by name.
    pub options: Vec<v1::TopicOption>,
}

/// Who may lead after an election by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// The first replica of the assignment, if it is in the ISR.
    Preferred,
    /// If nobody leads: any replica that is there. Acknowledged records that it
    /// lacks are lost.
    Unclean,
}

/// A partition after an election by hand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Elected {
    /// As it is now.
    pub partition: v1::PartitionMetadata,
    /// False: who should lead did already.
    pub changed: bool,
}

/// A node of the cluster and whether it answers this client.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The node, as the rest of the cluster knows it.
    pub node: v1::ClusterNode,
    /// What it answered, or why it did not.
    pub answer: Result<v1::GetClusterInfoResponse, ClientError>,
}

/// An id of its own for one request: under it the cluster carries it out once,
/// however often this client has to send it.
pub(crate) fn request_id() -> Bytes {
    RequestId::random().to_wire().into()
}

/// Administration of topics and cluster. Every call takes at most
/// `ClientOptions::request_timeout`.
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates a topic. Returns when the node that took the call knows it.
    ///
    /// # Errors
    /// Such as TOPIC_ALREADY_EXISTS. An indefinite error says that the topic
    /// may have been created; it has been asked for until the time was over.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<v1::TopicMetadata, ClientError> {
        let request = v1::CreateTopicRequest {
            name: topic.name,
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            configs: topic.configs,
            validate_only: topic.validate_only,
            request_id: request_id(),
        };
        let call = |connection: Connection, request| async move {
            connection.topics().create_topic(request).await
        };
        let answer = self.ask("creating the topic", Asked::ToChange, request, call).await?;
        answer.topic.ok_or_else(|| ClientError::UnexpectedAnswer("no topic in it".to_owned()))
    }

    /// Deletes a topic and everything in it.
    ///
    /// # Errors
    /// Such as UNKNOWN_TOPIC.
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClientError> {
        let request = v1::DeleteTopicRequest { name: name.to_owned(), request_id: request_id() };
        let call = |connection: Connection, request| async move {
            connection.topics().delete_topic(request).await
        };
        self.ask("deleting the topic", Asked::ToChange, request, call).await.map(drop)
    }

    /// Sets some options of a topic and puts others back to their defaults.
    /// Returns the topic as it is then.
    ///
    /// # Errors
    /// Such as UNKNOWN_TOPIC or INVALID_CONFIG; nothing is changed then.
    pub async fn alter_topic(
        &self,
        name: &str,
        change: TopicChange,
    ) -> Result<v1::TopicMetadata, ClientError> {
        let request = v1::AlterTopicConfigRequest {
            name: name.to_owned(),
            set: change.set,
            unset: change.unset,
            validate_only: change.validate_only,
            request_id: request_id(),
        };
        let call = |connection: Connection, request| async move {
            connection.topics().alter_topic_config(request).await
        };
        let answer = self.ask("altering the topic", Asked::ToChange, request, call).await?;
        answer.topic.ok_or_else(|| ClientError::UnexpectedAnswer("no topic in it".to_owned()))
    }

    /// Adds partitions to a topic, so that there are `partitions` in all.
    /// Producers and whole-topic readers that run find them by themselves. Keys
    /// move: which partition a key goes to follows from the number of partitions.
    ///
    /// # Errors
    /// Such as UNKNOWN_TOPIC, or INVALID_PARTITIONS for fewer than there are;
    /// nothing is changed then.
    pub async fn create_partitions(
        &self,
        name: &str,
        partitions: u32,
        validate_only: bool,
    ) -> Result<Grown, ClientError> {
        let name = name.to_owned();
        let request_id = request_id();
        let request = v1::CreatePartitionsRequest { name, partitions, validate_only, request_id };
        let call = |connection: Connection, request| async move {
            connection.topics().create_partitions(request).await
        };
        let answer = self.ask("adding partitions", Asked::ToChange, request, call).await?;
        let topic = answer
            .topic
            .ok_or_else(|| ClientError::UnexpectedAnswer("no topic in it".to_owned()))?;
        Ok(Grown { topic, added: answer.added })
    }

    /// Has a partition led by its preferred replica, or, if it has no leader, by
    /// whatever replica is there.
    ///
    /// # Errors
    /// Such as UNKNOWN_PARTITION, or LEADER_NOT_AVAILABLE if who should lead
    /// cannot now.
    pub async fn elect_leader(
        &self,
        topic: &str,
        partition: u32,
        election: Election,
    ) -> Result<Elected, ClientError> {
        let election = match election {
            Election::Preferred => v1::ElectionType::Preferred,
            Election::Unclean => v1::ElectionType::Unclean,
        };
        let (topic, election) = (topic.to_owned(), election.into());
        let request_id = request_id();
        let request = v1::ElectLeaderRequest { topic, partition, election, request_id };
        let call = |connection: Connection, request| async move {
            connection.topics().elect_leader(request).await
        };
        let answer = self.ask("electing the leader", Asked::ToChange, request, call).await?;
        let partition = answer
            .partition
            .ok_or_else(|| ClientError::UnexpectedAnswer("no partition in it".to_owned()))?;
        Ok(Elected { partition, changed: answer.changed })
    }

    /// Deletes a partition's records below an offset; `None`: all that are
    /// committed. Returns where every in-sync replica then starts at least.
    ///
    /// # Errors
    /// Such as UNKNOWN_TOPIC, or OFFSET_OUT_OF_RANGE above the high watermark.
    pub async fn delete_records(
        &self,
        topic: &str,
        partition: u32,
        before: Option<u64>,
    ) -> Result<u64, ClientError> {
        self.client.delete_records(topic, partition, before).await
    }

    /// Every topic, by name.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn list_topics(&self) -> Result<Vec<v1::TopicSummary>, ClientError> {
        let call = |connection: Connection, request| async move {
            connection.topics().list_topics(request).await
        };
        let request = v1::ListTopicsRequest {};
        let mut topics = self.ask("listing topics", Asked::ToTell, request, call).await?.topics;
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// One topic with its partitions and options.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription, ClientError> {
        let request = v1::DescribeTopicRequest { name: name.to_owned() };
        let call = |connection: Connection, request| async move {
            connection.topics().describe_topic(request).await
        };
        let answer = self.ask("describing the topic", Asked::ToTell, request, call).await?;
        let topic = answer
            .topic
            .ok_or_else(|| ClientError::UnexpectedAnswer("no topic in it".to_owned()))?;
        Ok(TopicDescription { topic, options: answer.options })
    }

    /// Nodes, and some topics with their leaders; all topics, if none is named.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn metadata(&self, topics: &[String]) -> Result<v1::ClusterMetadata, ClientError> {
        let request = v1::GetMetadataRequest { topics: topics.to_vec() };
        let call = |connection: Connection, request| async move {
            connection.metadata().get_metadata(request).await
        };
        let answer = self.ask("asking for metadata", Asked::ToTell, request, call).await?;
        answer.metadata.ok_or_else(|| ClientError::UnexpectedAnswer("no metadata in it".to_owned()))
    }

    /// The cluster, with everything that was committed when this was asked.
    ///
    /// # Errors
    /// When no node answers that reaches a majority of the metadata quorum.
    pub async fn cluster_info(&self) -> Result<v1::GetClusterInfoResponse, ClientError> {
        self.info(v1::GetClusterInfoRequest { local: false }).await
    }

    /// The cluster as the first node that answers sees it: perhaps as it was.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn local_cluster_info(&self) -> Result<v1::GetClusterInfoResponse, ClientError> {
        self.info(v1::GetClusterInfoRequest { local: true }).await
    }

    async fn info(
        &self,
        request: v1::GetClusterInfoRequest,
    ) -> Result<v1::GetClusterInfoResponse, ClientError> {
        let call = |connection: Connection, request| async move {
            connection.cluster().get_cluster_info(request).await
        };
        self.ask("asking for the cluster", Asked::ToTell, request, call).await
    }

    /// What is not as it should be.
    ///
    /// # Errors
    /// When no node answers that reaches a majority of the metadata quorum.
    pub async fn cluster_health(&self) -> Result<v1::GetClusterHealthResponse, ClientError> {
        let call = |connection: Connection, request| async move {
            connection.cluster().get_cluster_health(request).await
        };
        let request = v1::GetClusterHealthRequest {};
        self.ask("asking for the cluster's health", Asked::ToTell, request, call).await
    }

    /// The metadata quorum as its leader sees it.
    ///
    /// # Errors
    /// When nobody leads it.
    pub async fn describe_quorum(&self) -> Result<v1::DescribeQuorumResponse, ClientError> {
        let call = |connection: Connection, request| async move {
            connection.cluster().describe_quorum(request).await
        };
        let request = v1::DescribeQuorumRequest {};
        self.ask("asking for the quorum", Asked::ToTell, request, call).await
    }

    /// Gives a node that follows the metadata quorum a vote in it.
    ///
    /// # Errors
    /// Such as UNKNOWN_NODE; LEARNER_BEHIND, TOO_FEW_VOTERS and
    /// MEMBERSHIP_CHANGE_RUNNING where that lasted until the timeout.
    pub async fn add_voter(&self, node_id: u64) -> Result<v1::AddVoterResponse, ClientError> {
        let call = |connection: Connection, request| async move {
            connection.cluster().add_voter(request).await
        };
        // To vote twice is to vote once.
        self.ask("adding the voter", Asked::ToChange, v1::AddVoterRequest { node_id }, call).await
    }

    /// Takes a node out of the cluster for good. `force`: a dead node that still
    /// has replicas loses its vote and its disk at once, and stays registered
    /// until they are moved.
    ///
    /// # Errors
    /// Such as NODE_IN_USE while it has replicas.
    pub async fn remove_node(
        &self,
        node_id: u64,
        force: bool,
    ) -> Result<v1::RemoveNodeResponse, ClientError> {
        let call = |connection: Connection, request| async move {
            connection.cluster().remove_node(request).await
        };
        let request = v1::RemoveNodeRequest { node_id, force };
        // Who has left has left.
        self.ask("removing the node", Asked::ToChange, request, call).await
    }

    /// Gives up the data directory of a node that is stopped, so that it can come
    /// back with a blank one.
    ///
    /// # Errors
    /// Such as NODE_IN_USE while it runs.
    pub async fn replace_disk(&self, node_id: u64) -> Result<v1::ReplaceDiskResponse, ClientError> {
        let call = |connection: Connection, request| async move {
            connection.cluster().replace_disk(request).await
        };
        // What is given up is given up.
        let request = v1::ReplaceDiskRequest { node_id };
        self.ask("giving up the disk", Asked::ToChange, request, call).await
    }

    /// Has the replicas of a node moved elsewhere, or, with `cancel`, no more of them.
    /// Returns when that has begun; [`Self::cluster_info`] says how many are left.
    ///
    /// # Errors
    /// Such as UNKNOWN_NODE, or INVALID_REPLICATION_FACTOR where too few nodes would
    /// be left.
    pub async fn drain_node(
        &self,
        node_id: u64,
        cancel: bool,
    ) -> Result<v1::DrainNodeResponse, ClientError> {
        let call = |connection: Connection, request| async move {
            connection.cluster().drain_node(request).await
        };
        let request = v1::DrainNodeRequest { node_id, cancel, request_id: request_id() };
        self.ask("draining the node", Asked::ToChange, request, call).await
    }

    /// Raises the cluster's feature level; `None`: to the newest that the controller's
    /// release knows.
    ///
    /// # Errors
    /// UNSUPPORTED_FEATURE_LEVEL, with the nodes whose release does not support it.
    pub async fn upgrade_features(
        &self,
        level: Option<u32>,
    ) -> Result<v1::UpgradeFeaturesResponse, ClientError> {
        let call = |connection: Connection, request| async move {
            connection.cluster().upgrade_features(request).await
        };
        let (level, request_id) = (level.unwrap_or(0), request_id());
        let request = v1::UpgradeFeaturesRequest { level, request_id };
        self.ask("raising the feature level", Asked::ToChange, request, call).await
    }

    /// Asks every one of these nodes, at the same time, whether it is there.
    pub async fn probe(&self, nodes: Vec<v1::ClusterNode>) -> Vec<Probe> {
        join_all(nodes.into_iter().map(|node| async {
            let endpoint = node.endpoint.as_ref().and_then(HostPort::from_wire);
            let answer = match endpoint {
                Some(endpoint) => self.probe_endpoint(&endpoint).await,
                None => Err(ClientError::UnexpectedAnswer(format!(
                    "the cluster knows no address of node {}",
                    node.node_id
                ))),
            };
            Probe { node, answer }
        }))
        .await
    }

    async fn probe_endpoint(
        &self,
        endpoint: &HostPort,
    ) -> Result<v1::GetClusterInfoResponse, ClientError> {
        let request = with_timeout(v1::GetClusterInfoRequest { local: true }, PROBE_TIMEOUT);
        let call = |connection: Connection| async move {
            connection.cluster().get_cluster_info(request).await.map(Response::into_inner)
        };
        self.client.attempt(endpoint, PROBE_TIMEOUT, call).await
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) async fn ask<Q, A, F>(
        &self,
        what: &str,
        asked: Asked,
        request: Q,
        call: impl Fn(Connection, tonic::Request<Q>) -> F,
    ) -> Result<A, ClientError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let deadline = self.client.deadline();
        self.client
            .ask_any(what, deadline, asked, |connection, timeout| {
                let answer = call(connection, with_timeout(request.clone(), timeout));
                async move { answer.await.map(|response| Ok(response.into_inner())) }
            })
            .await
    }
}
