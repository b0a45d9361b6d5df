//! The story of who may vote: what the leader of the quorum sees, what is asked,
//! and the answer.

use super::script::options;
use crate::controller::{
    Command, Controller, Heartbeat, Member, Quorum, RegisterBroker, check_departure, check_gone,
    check_promotion,
};
use crate::image::Image;
use crate::records::FeatureLevels;
use ottla_proto::{ApiError, BrokerEpoch, DirectoryId, IncarnationId, NodeId};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use uuid::Uuid;

#[test]
fn who_may_vote() {
    let script = include_str!("../scripts/members.txt");
    let mut scene = (Quorum::nobody(), Image::default());
    let mut actual = String::new();
    for line in script.lines().filter(|line| !line.starts_with("= ")) {
        writeln!(actual, "{line}").expect("into memory");
        let Some(step) = line.strip_prefix("> ") else { continue };
        let (word, rest) = step.split_once(' ').expect("a word and more");
        if word == "quorum" {
            scene = see(rest);
            continue;
        }
        let (quorum, image) = &scene;
        let node = NodeId(rest.parse().expect("a node"));
        let answer = match word {
            "promote" => told(check_promotion(quorum, image, node)),
            "depart" => told(check_departure(quorum, node)),
            "gone" => told(check_gone(quorum, image, node).map(|()| true)),
            other => panic!("there is no step `{other}`"),
        };
        writeln!(actual, "= {answer}").expect("into memory");
    }
    assert!(actual == script, "members.txt went differently:\n-----\n{actual}-----");
}

fn told(answer: Result<bool, ApiError>) -> String {
    match answer {
        Ok(true) => "yes".to_owned(),
        Ok(false) => "nothing to do".to_owned(),
        Err(error) => error.to_string(),
    }
}

impl Quorum {
    fn nobody() -> Self {
        Self { leader: NodeId(1), changing: false, last: 0, members: BTreeMap::new() }
    }
}

/// `last=N voters=N,… learners=N,… down=N,… at=N:INDEX,… unknown=N,… active=N,… changing`
fn see(words: &str) -> (Quorum, Image) {
    let named: BTreeMap<&str, &str> = words.split(' ').filter_map(|w| w.split_once('=')).collect();
    let list = |name: &str| -> Vec<NodeId> {
        let text = named.get(name).into_iter().flat_map(|text| text.split(','));
        text.map(|node| NodeId(node.parse().expect("a node"))).collect()
    };
    let at = |node: NodeId| {
        let pairs = named.get("at").into_iter().flat_map(|text| text.split(','));
        let mut pairs = pairs.filter_map(|pair| pair.split_once(':'));
        pairs.find(|(id, _)| *id == node.to_string()).map(|(_, at)| at.parse().expect("an index"))
    };
    let (voters, down) = (list("voters"), list("down"));
    let member = |node: NodeId| Member {
        voter: voters.contains(&node),
        matched: at(node),
        up: !down.contains(&node),
    };
    let all = voters.iter().copied().chain(list("learners"));
    let quorum = Quorum {
        changing: words.contains("changing"),
        last: named["last"].parse().expect("an index"),
        members: all.clone().map(|node| (node, member(node))).collect(),
        ..Quorum::nobody()
    };
    let known: Vec<NodeId> = all.filter(|node| !list("unknown").contains(node)).collect();
    (quorum, cluster(&known, &list("active")))
}

/// Nodes whose directories are known, some of them brokers that are unfenced.
fn cluster(known: &[NodeId], active: &[NodeId]) -> Image {
    let mut image = Image::default();
    let mut controller = Controller::activate(options(FeatureLevels::SUPPORTED), &image, 0);
    for &node_id in known {
        let directory = DirectoryId(Uuid::from_u128(node_id.0.into()));
        let record = Command::RecordVoterDirectory { node_id, directory };
        image = controller.decide_batch(&image, vec![record], 0).image;
        if !active.contains(&node_id) {
            continue;
        }
        let register = Command::RegisterBroker(RegisterBroker {
            cluster_id: options(FeatureLevels::SUPPORTED).cluster_id,
            node_id,
            incarnation: IncarnationId(Uuid::from_u128(node_id.0.into())),
            directory,
            host: "localhost".to_owned(),
            port: 7401,
            rack: None,
            levels: FeatureLevels::SUPPORTED,
            previous_broker_epoch: None,
            previous_stream_open: false,
        });
        image = controller.decide_batch(&image, vec![register], 0).image;
        let beat = Command::Heartbeat(Heartbeat {
            node_id,
            broker_epoch: BrokerEpoch(image.offset.0),
            metadata_offset: image.offset,
            want_fence: false,
            want_shutdown: false,
        });
        image = controller.decide_batch(&image, vec![beat], 0).image;
    }
    image
}
