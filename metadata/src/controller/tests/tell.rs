//! How the stories tell records and answers.

use super::script::Stage;
use crate::controller::{PartitionState, Reply};
use crate::records::{MetadataRecord, ReassignmentChange};
use ottla_proto::{ApiError, NodeId, PartitionId, reason_name};
use std::fmt::Write as _;

impl Stage {
    pub(super) fn name_of(&self, id: PartitionId) -> String {
        match self.image.topics.get(&id.topic) {
            Some(topic) => format!("{}-{}", topic.name, id.index),
            None => format!("?-{}", id.index),
        }
    }

    pub(super) fn describe(&self, record: &MetadataRecord) -> String {
        match record {
            MetadataRecord::BrokerRegistered(r) => {
                let flags = if r.fenced { ", fenced" } else { "" };
                format!("node {} registered with epoch {}{flags}", r.node_id, r.epoch)
            }
            MetadataRecord::BrokerFenced(r) => format!("node {} fenced", r.node_id),
            MetadataRecord::BrokerUnfenced(r) => format!("node {} unfenced", r.node_id),
            MetadataRecord::BrokerShutdownStarted(r) => {
                format!("node {} shutting down", r.node_id)
            }
            MetadataRecord::ReplicasOffline(r) => {
                let names = r.partitions.iter().map(|id| self.name_of(*id)).collect::<Vec<_>>();
                format!("node {} offline {}", r.node_id, names.join(","))
            }
            MetadataRecord::TopicCreated(r) => {
                format!("topic {} {:?}", r.name, r.config.set_options())
            }
            MetadataRecord::TopicConfigChanged(r) => {
                let name = &self.image.topics[&r.id].name;
                format!("topic {name} now {:?}", r.config.set_options())
            }
            MetadataRecord::ConfigChanged(r) => {
                let (topics, nodes) = (r.topics.set_options(), r.nodes.set_options());
                format!("{} now {nodes:?}, topics {topics:?}", r.resource)
            }
            MetadataRecord::TopicGrown(r) => {
                format!("topic {} of {} partitions", self.image.topics[&r.id].name, r.partitions)
            }
            MetadataRecord::TopicDeleted(r) => {
                format!("topic {} deleted", self.image.topics[&r.id].name)
            }
            MetadataRecord::PartitionCreated(r) => format!(
                "partition {} replicas {} isr {} leader {}",
                r.partition.index,
                list(&r.replicas),
                list(&r.isr),
                leader(r.leader)
            ),
            MetadataRecord::PartitionChanged(r) => {
                let mut line = self.name_of(r.partition);
                if let Some(replicas) = &r.replicas {
                    write!(line, " replicas {}", list(replicas)).expect("into memory");
                }
                match &r.reassignment {
                    Some(ReassignmentChange::UnderWay(moving)) => {
                        write!(line, " from {} to {}", list(&moving.from), list(&moving.to))
                            .expect("into memory");
                    }
                    Some(ReassignmentChange::Ended) => line += " moved",
                    None => {}
                }
                if let Some(isr) = &r.isr {
                    write!(line, " isr {}", list(isr)).expect("into memory");
                }
                if let Some(elr) = &r.elr {
                    write!(line, " elr {}", list(elr)).expect("into memory");
                }
                if let Some(known) = &r.last_known_elr {
                    write!(line, " once {}", list(known)).expect("into memory");
                }
                if let Some(last) = r.last_leader {
                    write!(line, " led-last {}", leader(last.into())).expect("into memory");
                }
                if let Some(new) = r.leader {
                    write!(line, " leader {}", leader(new.into())).expect("into memory");
                }
                if let Some(recovering) = r.recovering {
                    line += if recovering { " recovering" } else { " recovered" };
                }
                line + &format!(" (epochs {}/{})", r.leader_epoch, r.partition_epoch)
            }
            MetadataRecord::VoterDirectoryRecorded(r) => {
                format!("voter {} directory {}", r.node_id, r.directory.0.as_u128())
            }
            MetadataRecord::DirectoryRetired(r) => {
                format!("node {} directory {} retired", r.node_id, r.directory.0.as_u128())
            }
            MetadataRecord::BrokerDraining(r) => {
                format!(
                    "node {} {}",
                    r.node_id,
                    if r.draining { "draining" } else { "takes replicas again" }
                )
            }
            MetadataRecord::BrokerUnregistered(r) => format!("node {} unregistered", r.node_id),
            MetadataRecord::RequestCarriedOut(r) => {
                let forgotten = match r.forgotten.len() {
                    0 => String::new(),
                    count => format!(", {count} forgotten"),
                };
                format!("request {} carried out: {}{forgotten}", r.id.0.as_u128(), r.what)
            }
            MetadataRecord::ProducerIdsAllocated(r) => {
                format!("producer ids up to {} are taken", r.next_producer_id)
            }
            MetadataRecord::FeatureLevelFinalised(r) => format!("feature level {}", r.level),
            MetadataRecord::SnapshotEnded(r) => format!("snapshot of {}", r.offset),
        }
    }

    pub(super) fn answer(&self, reply: &Result<Reply, ApiError>) -> String {
        match reply {
            Err(error) => failure(error),
            Ok(Reply::Done) => "done".to_owned(),
            Ok(Reply::Registered { broker_epoch, clean_restart }) => {
                format!("epoch {broker_epoch}{}", if *clean_restart { ", clean" } else { "" })
            }
            Ok(Reply::Heartbeat { fenced, should_shutdown }) => {
                let state = if *fenced { "fenced" } else { "unfenced" };
                format!("{state}{}", if *should_shutdown { ", may stop" } else { "" })
            }
            Ok(Reply::TopicCreated(planned)) => {
                format!("{} partitions planned", planned.partitions.len())
            }
            Ok(Reply::TopicConfigAltered(planned)) => {
                format!("options {:?}", planned.topic.config.set_options())
            }
            Ok(Reply::ConfigAltered { options }) => format!("options {options:?}"),
            Ok(Reply::TopicGrown { planned, added }) => {
                format!("{added} added, {} partitions", planned.partitions.len())
            }
            Ok(Reply::Reassigned { changed, .. }) => format!("changed {changed:?}"),
            Ok(Reply::ReassignmentCancelled { cancelled, .. }) => {
                format!("cancelled {cancelled:?}")
            }
            Ok(Reply::TopicDeleted { .. }) => "deleted".to_owned(),
            Ok(Reply::Elected { partition, changed, .. }) => {
                let how = if *changed { "elected" } else { "leads already" };
                format!("{} {how}", leader(partition.leader))
            }
            Ok(Reply::Drain { changed, replicas, taken_back }) => {
                let news = if *changed { "" } else { "no news, " };
                format!("{news}{replicas} replicas, {taken_back} taken back")
            }
            Ok(Reply::LevelFinalised { level, changed }) => {
                format!("level {level}{}", if *changed { "" } else { " already" })
            }
            Ok(Reply::ProducerIds { ids }) => format!("ids {ids:?}"),
            Ok(Reply::Balanced { moved }) => format!("{moved} moved"),
            Ok(Reply::Altered(outcomes)) => outcomes
                .iter()
                .map(|outcome| outcome.result.as_ref().map_or_else(failure, describe_state))
                .collect::<Vec<_>>()
                .join("; "),
        }
    }
}

pub(super) fn list(nodes: &[NodeId]) -> String {
    if nodes.is_empty() {
        return "none".to_owned();
    }
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(",")
}

pub(super) fn leader(node: Option<NodeId>) -> String {
    node.map_or("none".to_owned(), |node| node.to_string())
}

fn failure(error: &ApiError) -> String {
    format!("{}: {}", reason_name(error.reason), error.message)
}

fn describe_state(state: &PartitionState) -> String {
    format!(
        "isr {} leader {} (epochs {}/{})",
        list(&state.isr),
        leader(state.leader),
        state.leader_epoch,
        state.partition_epoch
    )
}
