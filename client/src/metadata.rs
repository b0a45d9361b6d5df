//! What this client knows of the cluster: its nodes, and who leads what. Never
//! certain; it only saves asking. Newer knowledge replaces older, never the
//! other way round, whichever node an answer comes from.
//!
//! Not its job: asking. That is `client.rs`.

use crate::leader::FoundLeader;
use crate::{ClientError, HostPort};
use bytes::Bytes;
use ottla_proto::{Leader, TopicId, v1};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use tokio::sync::watch;

/// `max.message.bytes` of a topic that does not set it, in bytes.
const DEFAULT_MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// The option that bounds a batch of a topic.
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

/// A partition's leadership, as far as known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeaderLookup {
    /// This node, in this epoch.
    Known(FoundLeader),
    /// There is none at the moment, or its address is not known.
    None,
    /// The topic has only this many partitions.
    UnknownPartition { partitions: u32 },
    /// Not in the cache, or not in the cluster.
    UnknownTopic,
}

/// What a producer needs to know of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicShape {
    /// Its id, for ever.
    pub(crate) id: Option<TopicId>,
    /// Number of partitions.
    pub(crate) partitions: u32,
    /// Largest batch the topic takes, in bytes.
    pub(crate) max_batch_bytes: usize,
}

/// Shared by everything a client does.
#[derive(Debug)]
pub(crate) struct MetadataCache {
    state: Mutex<State>,
    /// Counts what was learnt, so that one can wait for news and can tell
    /// whether somebody else has just asked.
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    cluster_id: Option<String>,
    /// The highest metadata offset that an answer was as of.
    offset: u64,
    nodes: BTreeMap<u64, Node>,
    topics: HashMap<String, Topic>,
}

#[derive(Debug)]
struct Topic {
    id: Bytes,
    max_batch_bytes: usize,
    partitions: Vec<Partition>,
}

#[derive(Clone, Debug)]
struct Node {
    endpoint: HostPort,
    rack: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Partition {
    leader: Option<u64>,
    epoch: u32,
    isr: Vec<u64>,
}

impl MetadataCache {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), version: watch::Sender::new(0) }
    }

    /// Grows with everything learnt.
    pub(crate) fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(crate) fn current_version(&self) -> u64 {
        *self.version.borrow()
    }

    pub(crate) fn nodes(&self) -> Vec<HostPort> {
        self.state.lock().nodes.values().map(|node| node.endpoint.clone()).collect()
    }

    pub(crate) fn topic(&self, name: &str) -> Option<TopicShape> {
        let state = self.state.lock();
        let topic = state.topics.get(name)?;
        Some(TopicShape {
            id: TopicId::from_wire(&topic.id),
            partitions: u32::try_from(topic.partitions.len()).ok()?,
            max_batch_bytes: topic.max_batch_bytes,
        })
    }

    pub(crate) fn leader(&self, topic: &str, partition: u32) -> LeaderLookup {
        let state = self.state.lock();
        let Some(topic) = state.topics.get(topic) else {
            return LeaderLookup::UnknownTopic;
        };
        let Some(found) = topic.partitions.get(partition as usize) else {
            let partitions = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
            return LeaderLookup::UnknownPartition { partitions };
        };
        match found.leader.and_then(|leader| state.nodes.get(&leader)) {
            Some(node) => {
                let (endpoint, epoch) = (node.endpoint.clone(), found.epoch);
                LeaderLookup::Known(FoundLeader { endpoint, epoch })
            }
            None => LeaderLookup::None,
        }
    }

    /// An in-sync follower in a rack, with the epoch of its leader; `None` if the
    /// leader is there too, or nobody is. Readers are spread over several.
    pub(crate) fn follower_in(
        &self,
        rack: &str,
        topic: &str,
        partition: u32,
    ) -> Option<FoundLeader> {
        let state = self.state.lock();
        let found = state.topics.get(topic)?.partitions.get(partition as usize)?;
        let leader = found.leader?;
        let here = |node: &u64| {
            let node = state.nodes.get(node)?;
            (node.rack.as_deref() == Some(rack)).then(|| node.endpoint.clone())
        };
        if here(&leader).is_some() {
            return None;
        }
        let near: Vec<HostPort> = found.isr.iter().filter_map(here).collect();
        let endpoint = near.get(partition as usize % near.len().max(1))?.clone();
        Some(FoundLeader { endpoint, epoch: found.epoch })
    }

    /// Waits until the partition has a leader of a later epoch than this one;
    /// without one, until it has any.
    pub(crate) async fn leader_after(&self, topic: &str, partition: u32, epoch: Option<u32>) {
        let mut version = self.version.subscribe();
        let later = |_: &u64| match self.leader(topic, partition) {
            LeaderLookup::Known(leader) => epoch.is_none_or(|epoch| leader.epoch > epoch),
            _ => false,
        };
        version.wait_for(later).await.expect("the sender lives as long as the cache");
    }

    /// Takes in an answer to a question about `asked` topics (all, if empty).
    ///
    /// # Errors
    /// [`ClientError::WrongCluster`] if it comes from another cluster than the
    /// first answer did, [`ClientError::Stale`] if it knows less than this
    /// cache: another node should be asked.
    pub(crate) fn learn(
        &self,
        from: &HostPort,
        header: &v1::ResponseHeader,
        answer: v1::ClusterMetadata,
        asked: &[String],
    ) -> Result<(), ClientError> {
        let mut state = self.state.lock();
        let expected = state.cluster_id.get_or_insert_with(|| header.cluster_id.clone());
        if *expected != header.cluster_id {
            return Err(ClientError::WrongCluster {
                endpoint: from.clone(),
                expected: expected.clone(),
                found: header.cluster_id.clone(),
            });
        }
        if header.metadata_offset < state.offset {
            return Err(ClientError::Stale { endpoint: from.clone() });
        }
        state.offset = header.metadata_offset;
        let endpoint = |node: &v1::NodeMetadata| {
            let endpoint = HostPort::from_wire(node.endpoint.as_ref()?)?;
            Some((node.node_id, Node { endpoint, rack: node.rack.clone() }))
        };
        state.nodes = answer.nodes.iter().filter_map(endpoint).collect();
        for name in asked {
            if !answer.topics.iter().any(|topic| topic.name == *name) {
                state.topics.remove(name);
            }
        }
        for topic in answer.topics {
            state.learn_topic(topic);
        }
        drop(state);
        self.version.send_modify(|version| *version += 1);
        Ok(())
    }

    /// Takes in where a NOT_LEADER error points. False if it is no news, that
    /// is, if following it could lead in a circle.
    pub(crate) fn learn_leader(&self, topic: &str, partition: u32, leader: &Leader) -> bool {
        let mut state = self.state.lock();
        let Some(known) =
            state.topics.get_mut(topic).and_then(|t| t.partitions.get_mut(partition as usize))
        else {
            return false;
        };
        let (node, epoch) = (leader.node_id.0, leader.epoch.0);
        if epoch < known.epoch || (known.leader, known.epoch) == (Some(node), epoch) {
            return false;
        }
        // Who is in sync with it is not known yet.
        *known = Partition { leader: Some(node), epoch, isr: Vec::new() };
        let endpoint = HostPort::new(leader.host.clone(), leader.port);
        match state.nodes.get_mut(&node) {
            Some(known) => known.endpoint = endpoint,
            None => drop(state.nodes.insert(node, Node { endpoint, rack: None })),
        }
        drop(state);
        self.version.send_modify(|version| *version += 1);
        true
    }
}

impl State {
    fn learn_topic(&mut self, topic: v1::TopicMetadata) {
        let before = self.topics.get(&topic.name).filter(|known| known.id == topic.topic_id);
        let max_batch_bytes = topic
            .configs
            .get(MAX_MESSAGE_BYTES)
            .and_then(|text| text.parse().ok())
            .unwrap_or(DEFAULT_MAX_MESSAGE_BYTES);
        let count = topic.partitions.len();
        let unknown = Partition { leader: None, epoch: 0, isr: Vec::new() };
        let mut partitions = vec![unknown; count];
        for partition in topic.partitions {
            let index = partition.partition as usize;
            let Some(slot) = partitions.get_mut(index) else { continue };
            let (leader, epoch) = (partition.leader_id, partition.leader_epoch);
            *slot = Partition { leader, epoch, isr: partition.isr };
            // A leader's hint may be ahead of the node that answered.
            if let Some(known) = before.and_then(|known| known.partitions.get(index))
                && known.epoch > slot.epoch
            {
                slot.clone_from(known);
            }
        }
        self.topics.insert(topic.name, Topic { id: topic.topic_id, max_batch_bytes, partitions });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_proto::{LeaderEpoch, NodeId};

    fn cluster(topic_id: u8, leader: Option<u64>, epoch: u32) -> v1::ClusterMetadata {
        let node = |node_id: u64| v1::NodeMetadata {
            node_id,
            endpoint: Some(v1::Endpoint { host: format!("n{node_id}"), port: 7400 }),
            ..Default::default()
        };
        let partition =
            v1::PartitionMetadata { leader_id: leader, leader_epoch: epoch, ..Default::default() };
        let topic = v1::TopicMetadata {
            name: "orders".to_owned(),
            topic_id: vec![topic_id; 16].into(),
            partitions: vec![partition],
            ..Default::default()
        };
        v1::ClusterMetadata {
            nodes: vec![node(1), node(2), node(3)],
            topics: vec![topic],
            controller_id: None,
        }
    }

    fn header(cluster_id: &str, metadata_offset: u64) -> v1::ResponseHeader {
        v1::ResponseHeader { cluster_id: cluster_id.to_owned(), metadata_offset, node_id: 1 }
    }

    fn learn(cache: &MetadataCache, answer: v1::ClusterMetadata) {
        let from = HostPort::new("n1", 7400);
        let asked = ["orders".to_owned()];
        cache.learn(&from, &header("c", 0), answer, &asked).expect("the same cluster");
    }

    fn leader(node: u64, epoch: u32) -> LeaderLookup {
        let endpoint = HostPort::new(format!("n{node}"), 7400);
        LeaderLookup::Known(FoundLeader { endpoint, epoch })
    }

    fn hint(node: u64, epoch: u32) -> Leader {
        let (node_id, epoch) = (NodeId(node), LeaderEpoch(epoch));
        Leader { node_id, epoch, host: format!("n{node}"), port: 7400 }
    }

    /// A node that has just started knows of no topic yet.
    #[test]
    fn a_node_that_knows_less_is_not_listened_to() {
        let cache = MetadataCache::new();
        let from = HostPort::new("n1", 7400);
        let asked = ["orders".to_owned()];
        cache.learn(&from, &header("c", 9), cluster(1, Some(2), 5), &asked).expect("news");
        let nothing = v1::ClusterMetadata::default();
        let error = cache.learn(&from, &header("c", 8), nothing, &asked).expect_err("stale");
        assert!(error.is_retriable(), "another node is asked");
        assert_eq!(cache.leader("orders", 0), leader(2, 5));
        assert_eq!(cache.nodes().len(), 3);
    }

    #[tokio::test]
    async fn news_of_a_later_leader_wake_those_who_wait_for_them() {
        let cache = MetadataCache::new();
        learn(&cache, cluster(1, Some(2), 5));
        cache.leader_after("orders", 0, Some(4)).await;
        let later = cache.leader_after("orders", 0, Some(5));
        tokio::pin!(later);
        assert!(futures::poll!(&mut later).is_pending());
        learn(&cache, cluster(1, None, 6));
        assert!(futures::poll!(&mut later).is_pending(), "there is no leader yet");
        learn(&cache, cluster(1, Some(3), 7));
        later.await;
    }

    #[test]
    fn a_lagging_node_does_not_bring_an_old_leader_back() {
        let cache = MetadataCache::new();
        learn(&cache, cluster(1, Some(2), 5));
        learn(&cache, cluster(1, Some(1), 4));
        assert_eq!(cache.leader("orders", 0), leader(2, 5));
        assert!(!cache.learn_leader("orders", 0, &hint(1, 4)));
        assert_eq!(cache.leader("orders", 0), leader(2, 5));
    }

    #[test]
    fn a_hint_is_news_once() {
        let cache = MetadataCache::new();
        learn(&cache, cluster(1, None, 5));
        assert_eq!(cache.leader("orders", 0), LeaderLookup::None);
        assert!(cache.learn_leader("orders", 0, &hint(3, 6)));
        assert!(!cache.learn_leader("orders", 0, &hint(3, 6)));
        assert_eq!(cache.leader("orders", 0), leader(3, 6));
    }

    #[test]
    fn a_follower_is_found_in_its_rack_and_none_where_the_leader_is() {
        let cache = MetadataCache::new();
        let mut answer = cluster(1, Some(1), 5);
        for (node, rack) in answer.nodes.iter_mut().zip(["a", "b", "b"]) {
            node.rack = Some(rack.to_owned());
        }
        answer.topics[0].partitions[0].isr = vec![1, 3];
        learn(&cache, answer);
        let found = cache.follower_in("b", "orders", 0).map(|found| found.endpoint);
        assert_eq!(found, Some(HostPort::new("n3", 7400)), "node 2 is not in sync");
        assert_eq!(cache.follower_in("a", "orders", 0), None);
        assert_eq!(cache.follower_in("c", "orders", 0), None);
        // Until more is known, nobody is known to be in sync with a new leader.
        assert!(cache.learn_leader("orders", 0, &hint(1, 6)));
        assert_eq!(cache.follower_in("b", "orders", 0), None);
    }

    /// The epochs of a topic that was deleted say nothing about its successor.
    #[test]
    fn a_topic_created_again_starts_from_its_own_epochs() {
        let cache = MetadataCache::new();
        learn(&cache, cluster(1, Some(2), 5));
        learn(&cache, cluster(2, Some(1), 0));
        assert_eq!(cache.leader("orders", 0), leader(1, 0));
        learn(&cache, v1::ClusterMetadata::default());
        assert_eq!(cache.leader("orders", 0), LeaderLookup::UnknownTopic);
    }

    #[test]
    fn another_cluster_is_not_listened_to() {
        let cache = MetadataCache::new();
        learn(&cache, cluster(1, Some(2), 5));
        let from = HostPort::new("elsewhere", 1);
        let foreign = cluster(9, Some(1), 9);
        let error = cache.learn(&from, &header("d", 9), foreign, &[]).expect_err("refused");
        assert_eq!(error.reason_name(), "WRONG_CLUSTER");
        assert_eq!(cache.leader("orders", 0), leader(2, 5));
    }

    #[test]
    fn the_topic_says_how_large_a_batch_may_be() {
        let cache = MetadataCache::new();
        let mut answer = cluster(1, None, 0);
        learn(&cache, answer.clone());
        let shape = cache.topic("orders").expect("known");
        assert_eq!((shape.partitions, shape.max_batch_bytes), (1, DEFAULT_MAX_MESSAGE_BYTES));
        answer.topics[0].configs.insert(MAX_MESSAGE_BYTES.to_owned(), "4096".to_owned());
        learn(&cache, answer);
        assert_eq!(cache.topic("orders").expect("known").max_batch_bytes, 4096);
    }
}
