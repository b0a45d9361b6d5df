//! The options of the cluster and of nodes as they are shown: every one, with the
//! value in force and who set it.

use crate::config::{Given, Origin};
use ottla_metadata::controller::unknown_node;
use ottla_metadata::image::Image;
use ottla_metadata::records::{
    ConfigResource, NodeOption, OptionInfo, TopicSource, node_options, topic_options,
};
use ottla_proto::v1::ConfigSource as S;
use ottla_proto::{ApiError, NodeId, v1};
use std::collections::BTreeMap;

/// What the configuration of this node says.
pub(crate) type Own = BTreeMap<&'static str, Given>;

/// The options of a node as this node, `me`, knows them, by name.
pub(super) fn of_node(
    image: &Image,
    node: NodeId,
    me: NodeId,
    own: &Own,
) -> Result<Vec<v1::ConfigOption>, ApiError> {
    if !image.brokers.contains_key(&node) && node != me {
        return Err(unknown_node(node));
    }
    let [here, everywhere] = [ConfigResource::Node(node), ConfigResource::Cluster]
        .map(|resource| image.settings_of(resource));
    let in_force = |option: &NodeOption| {
        let set = here.nodes.get(option.name).map(|value| (value, S::Node));
        let set = set.or_else(|| Some((everywhere.nodes.get(option.name)?, S::Cluster)));
        match (set, own.get(option.name)) {
            (Some((value, source)), _) => (Some(value), source),
            (None, Some(given)) if node == me => (Some(given.value.clone()), source(given.origin)),
            (None, None) if node == me => (None, S::Default),
            // Its file is its own affair.
            (None, _) => (None, S::Unspecified),
        }
    };
    Ok(sorted(node_options().map(|option| shown(option.info(), in_force(option))).collect()))
}

/// The defaults of all nodes and of all topics, by name.
pub(super) fn of_cluster(image: &Image) -> Vec<v1::ConfigOption> {
    let settings = image.settings_of(ConfigResource::Cluster);
    let mut options = Vec::new();
    for option in node_options().filter(|option| option.dynamic) {
        let info = option.info();
        let set = settings.nodes.get(option.name).map(|value| (Some(value), S::Cluster));
        let in_force = set.unwrap_or_else(|| (info.default.clone(), S::Default));
        options.push(shown(info, in_force));
    }
    for (info, (_, value, source)) in topic_options().into_iter().zip(settings.topics.entries()) {
        // What is set there is set on the cluster.
        let source = if source == TopicSource::Default { S::Default } else { S::Cluster };
        options.push(shown(info, (Some(value), source)));
    }
    sorted(options)
}

fn source(origin: Origin) -> S {
    match origin {
        Origin::Default => S::Default,
        Origin::File => S::File,
        Origin::Environment => S::Environment,
        Origin::Flag => S::Flag,
    }
}

fn shown(info: OptionInfo, (value, source): (Option<String>, S)) -> v1::ConfigOption {
    v1::ConfigOption {
        name: info.name.to_owned(),
        value,
        source: source.into(),
        dynamic: info.dynamic,
        unit: info.unit.to_owned(),
        takes: info.takes,
    }
}

fn sorted(mut options: Vec<v1::ConfigOption>) -> Vec<v1::ConfigOption> {
    options.sort_by(|a, b| a.name.cmp(&b.name));
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_metadata::records::{ConfigChanged, NodeOptions, TopicConfig};

    fn set(resource: ConfigResource, topics: &[(&str, &str)], nodes: &[(&str, &str)]) -> Image {
        let mut options = NodeOptions::default();
        for (name, value) in nodes {
            options.set(name, value).expect("an option");
        }
        let topics = TopicConfig::parse(topics.iter().copied()).expect("options");
        let mut image = Image::default();
        let record = ConfigChanged { resource, topics, nodes: options };
        image.replay(&record.into()).expect("makes sense");
        image
    }

    fn find(options: &[v1::ConfigOption], name: &str) -> (Option<String>, S) {
        let option = options.iter().find(|option| option.name == name).expect("listed");
        (option.value.clone(), option.source())
    }

    /// NODE before CLUSTER before flag, environment and file before the default.
    #[test]
    fn the_value_in_force_is_shown_with_who_set_it() {
        let name = "replica_lag_max_ms";
        let given = |value: &str, origin| Given { value: value.to_owned(), origin };
        let own: Own = [
            (name, given("4", Origin::Environment)),
            ("listen", given("127.0.0.1:7401", Origin::File)),
        ]
        .into();
        let me = NodeId(1);
        let nobody = of_node(&Image::default(), me, me, &own).expect("this node");
        assert_eq!(find(&nobody, name), (Some("4".to_owned()), S::Environment));
        assert_eq!(find(&nobody, "listen"), (Some("127.0.0.1:7401".to_owned()), S::File));
        assert_eq!(find(&nobody, "rack"), (None, S::Default));

        let all = set(ConfigResource::Cluster, &[("retention.ms", "7")], &[(name, "5")]);
        let shown = of_node(&all, me, me, &own).expect("this node");
        assert_eq!(find(&shown, name), (Some("5".to_owned()), S::Cluster));
        let cluster = of_cluster(&all);
        assert_eq!(find(&cluster, name), (Some("5".to_owned()), S::Cluster));
        assert_eq!(find(&cluster, "retention.ms"), (Some("7".to_owned()), S::Cluster));
        assert_eq!(find(&cluster, "segment.ms"), (Some("604800000".to_owned()), S::Default));
        assert!(cluster.iter().all(|option| option.dynamic), "nothing that needs a restart");

        let one = set(ConfigResource::Node(me), &[], &[(name, "6")]);
        let shown = of_node(&one, me, me, &own).expect("this node");
        assert_eq!(find(&shown, name), (Some("6".to_owned()), S::Node));
    }

    #[test]
    fn of_another_node_only_the_metadata_is_known() {
        let (me, other) = (NodeId(1), NodeId(2));
        let image = Image::default();
        let error = of_node(&image, other, me, &Own::new()).expect_err("unknown");
        assert_eq!(error.reason, v1::ErrorReason::UnknownNode);
    }
}
