//! Options that were set for the cluster and for single nodes: what follows from
//! them for topics and for nodes.

use super::{Image, Topic};
use crate::records::{
    ConfigChanged, ConfigResource, NodeOptions, TopicConfig, TopicConfigChanged, TopicOptions,
};
use ottla_proto::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Options that were set for the cluster, or for one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Defaults of topics: of the cluster only.
    pub topics: TopicConfig,
    /// Options of the node, or defaults of all nodes.
    pub nodes: NodeOptions,
}

impl Settings {
    /// Nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is set, by name.
    #[must_use]
    pub fn set_options(&self) -> BTreeMap<String, String> {
        let mut all = self.nodes.set_options();
        all.append(&mut self.topics.set_options());
        all
    }
}

impl Image {
    /// What is set for the cluster, or for one node.
    #[must_use]
    pub fn settings_of(&self, resource: ConfigResource) -> Arc<Settings> {
        self.settings.get(&resource).map(Arc::clone).unwrap_or_default()
    }

    /// What this node is to follow beside its own configuration: its own options,
    /// and where it has none those of all nodes.
    #[must_use]
    pub fn node_options(&self, node: NodeId) -> NodeOptions {
        let cluster = self.settings_of(ConfigResource::Cluster);
        self.settings_of(ConfigResource::Node(node)).nodes.or(&cluster.nodes)
    }

    /// The cluster's defaults of topics.
    pub(crate) fn topic_defaults(&self) -> Arc<TopicOptions> {
        let cluster = self.settings.get(&ConfigResource::Cluster);
        cluster.map(|cluster| Arc::new(cluster.topics.options().clone())).unwrap_or_default()
    }

    pub(super) fn replay_config(&mut self, r: &TopicConfigChanged) -> Result<(), String> {
        let known = self.topics.get(&r.id).ok_or_else(|| format!("unknown topic {}", r.id))?;
        let config = r.config.with_defaults(&self.topic_defaults());
        let topic = Topic { config, ..Topic::clone(known) };
        self.topics.insert(r.id, Arc::new(topic));
        Ok(())
    }

    pub(super) fn replay_settings(&mut self, r: &ConfigChanged) -> Result<(), String> {
        let settings = Settings { topics: r.topics.clone(), nodes: r.nodes.clone() };
        if r.resource != ConfigResource::Cluster && settings.topics != TopicConfig::default() {
            return Err(format!("{} has options of topics", r.resource));
        }
        if settings.is_empty() {
            self.settings.remove(&r.resource);
        } else {
            self.settings.insert(r.resource, Arc::new(settings));
        }
        if r.resource == ConfigResource::Cluster {
            self.hand_down();
        }
        Ok(())
    }

    /// Gives every topic the cluster's defaults.
    fn hand_down(&mut self) {
        let defaults = self.topic_defaults();
        let changed: Vec<Topic> = self
            .topics
            .values()
            .filter_map(|topic| {
                let config = topic.config.with_defaults(&defaults);
                (config != topic.config).then(|| Topic { config, ..Topic::clone(topic) })
            })
            .collect();
        for topic in changed {
            self.topics.insert(topic.id, Arc::new(topic));
        }
    }
}
