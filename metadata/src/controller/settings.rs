//! Options of the cluster (defaults of all nodes and topics) and of single nodes.
//!
//! A change is made as a whole or not at all. What follows from it for topics is
//! what follows when the same is set on each of them (`topics`).

use super::draft::Draft;
use super::members::unknown;
use super::partitions::settle_where;
use super::topics::{give_up_eligible, invalid_config};
use super::{AlterConfig, Reply};
use crate::image::{Image, Settings};
use crate::records::{
    ConfigChanged, ConfigError, ConfigResource, OPTION_NAMES, node_option, node_options,
    topic_option,
};
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, NodeId, TopicId};
use std::collections::{BTreeMap, BTreeSet};

/// Sets and unsets options; what is so already makes no record.
pub(super) fn alter(draft: &mut Draft, request: &AlterConfig) -> Result<Reply, ApiError> {
    let resource = request.resource;
    if let ConfigResource::Node(node) = resource
        && !draft.image().brokers.contains_key(&node)
    {
        return Err(unknown(node));
    }
    let before = draft.image().settings_of(resource);
    let after = altered(&before, request).map_err(invalid_config)?;
    if before.topics != after.topics {
        check_topics(draft.image(), &after)?;
    }
    if *before != after && !request.validate_only {
        write_down(draft, resource, after.clone());
    }
    Ok(Reply::ConfigAltered { options: after.set_options() })
}

/// A node that leaves takes its options along: another may get its number.
pub(super) fn forget_node(draft: &mut Draft, node: NodeId) {
    let resource = ConfigResource::Node(node);
    if draft.image().settings.contains_key(&resource) {
        write_down(draft, resource, Settings::default());
    }
}

fn write_down(draft: &mut Draft, resource: ConfigResource, settings: Settings) {
    let before = draft.image().topics.clone();
    let Settings { topics, nodes } = settings;
    draft.push(ConfigChanged { resource, topics, nodes });
    let mut changed: BTreeSet<TopicId> = BTreeSet::new();
    for (id, old) in &before {
        let new = draft.image().topics[id].config.clone();
        if new != old.config {
            changed.insert(*id);
            give_up_eligible(draft, *id, &old.config, &new);
        }
    }
    if !changed.is_empty() {
        settle_where(draft, None, |partition, _| changed.contains(&partition.topic));
    }
}

fn altered(before: &Settings, request: &AlterConfig) -> Result<Settings, ConfigError> {
    let mut nodes = before.nodes.clone();
    let (mut set, mut unset) = (BTreeMap::new(), BTreeSet::new());
    for name in &request.unset {
        if request.set.contains_key(name) {
            return Err(ConfigError::SetAndUnset { name: name.clone() });
        }
        match owner(request.resource, name)? {
            Owner::Topics => drop(unset.insert(name.clone())),
            Owner::Nodes => nodes.unset(name)?,
        }
    }
    for (name, value) in &request.set {
        match owner(request.resource, name)? {
            Owner::Topics => drop(set.insert(name.clone(), value.clone())),
            Owner::Nodes => nodes.set(name, value)?,
        }
    }
    Ok(Settings { topics: before.topics.altered(&set, &unset)?, nodes })
}

enum Owner {
    Topics,
    Nodes,
}

/// Whose option this is, if the resource can have it.
fn owner(resource: ConfigResource, name: &str) -> Result<Owner, ConfigError> {
    if node_option(name).is_some() {
        return Ok(Owner::Nodes);
    }
    match (topic_option(name), resource) {
        (Some(_), ConfigResource::Cluster) => Ok(Owner::Topics),
        (Some(name), ConfigResource::Node(_)) => Err(ConfigError::OfTopics { name }),
        (None, _) => Err(unknown_option(resource, name)),
    }
}

fn unknown_option(resource: ConfigResource, name: &str) -> ConfigError {
    let nodes = node_options().filter(|option| option.dynamic).map(|option| option.name);
    let (what, topics) = match resource {
        ConfigResource::Cluster => ("cluster", OPTION_NAMES),
        ConfigResource::Node(_) => ("node", &[][..]),
    };
    let known = nodes.chain(topics.iter().copied()).collect();
    ConfigError::Unknown { what, name: name.to_owned(), known }
}

/// Defaults must fit what topics have set already.
fn check_topics(image: &Image, settings: &Settings) -> Result<(), ApiError> {
    let defaults = settings.topics.options().clone().into();
    for topic in image.topics.values() {
        if let Err(error) = topic.config.with_defaults(&defaults).check() {
            let message =
                format!("with this default topic `{}` would not fit: {error}", topic.name);
            return Err(ApiError::new(ErrorReason::InvalidConfig, message)
                .with("option", error.option())
                .with("topic", &topic.name));
        }
    }
    Ok(())
}
