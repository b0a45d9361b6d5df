//! What this node knows of the cluster: partitions, brokers, the quorum.
//!
//! Figures of partitions are told by who leads them, and of those without a leader by the
//! active controller: over all nodes they add up.

use crate::changes::Changes;
use ottla_metadata::Metadata;
use ottla_metadata::image::Image;
use ottla_proto::NodeId;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;
use std::sync::Arc;

/// See the module.
pub(super) struct Cluster {
    pub(super) node_id: NodeId,
    pub(super) metadata: Metadata,
    pub(super) changes: Arc<Changes>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cluster")
    }
}

/// Partitions, as one node counts them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    hosted: u64,
    led: u64,
    under_replicated: u64,
    under_min_isr: u64,
    leaderless: u64,
}

fn count(image: &Image, node: NodeId, active: bool) -> Counts {
    let mut counts = Counts::default();
    for (&id, partition) in &image.partitions {
        counts.hosted += u64::from(partition.replicas.contains(&node));
        let led = partition.leader == Some(node);
        counts.led += u64::from(led);
        counts.leaderless += u64::from(active && partition.leader.is_none());
        if led {
            let behind = partition.isr.len() < partition.replication_factor();
            let below = image.effective_min_isr(id).is_some_and(|min| partition.isr.len() < min);
            counts.under_replicated += u64::from(behind);
            counts.under_min_isr += u64::from(below);
        }
    }
    counts
}

impl Collector for Cluster {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let (image, quorum) = (self.metadata.image(), self.metadata.quorum());
        let active = quorum.active_here;
        let counts = count(&image, self.node_id, active);
        let fenced = self.metadata.broker().borrow().fenced;
        let brokers = image.brokers.values().filter(|broker| active && !broker.fenced).count();
        let away = image.brokers.values().filter(|broker| active && broker.fenced).count();
        let gauges = [
            ("partitions_hosted", "Partitions that this node has a replica of", counts.hosted),
            ("partitions_led", "Partitions that this node leads", counts.led),
            (
                "partitions_under_replicated",
                "Partitions led here with replicas that are not in sync",
                counts.under_replicated,
            ),
            (
                "partitions_under_min_isr",
                "Partitions led here that refuse acks=all: fewer in sync than min.insync.replicas",
                counts.under_min_isr,
            ),
            (
                "partitions_leaderless",
                "Partitions without a leader; told by the active controller",
                counts.leaderless,
            ),
            ("controller_active", "1 if the active controller is here", u64::from(active)),
            (
                "controller_known",
                "1 if this node knows of an active controller",
                u64::from(quorum.leader.is_some()),
            ),
            ("broker_fenced", "1 if this node is fenced", u64::from(fenced)),
            (
                "brokers_active",
                "Brokers that are not fenced; told by the active controller",
                brokers as u64,
            ),
            ("brokers_fenced", "Fenced brokers; told by the active controller", away as u64),
            ("raft_term", "Term of the metadata quorum", quorum.term),
            ("raft_voters", "Voters of the metadata quorum", quorum.voters.len() as u64),
            (
                "raft_failed",
                "1 if Raft on this node has ended; only a restart helps",
                u64::from(quorum.failure.is_some()),
            ),
            ("metadata_applied_offset", "Records of metadata applied here", image.offset.0),
        ];
        for (name, help, value) in gauges {
            to.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        let changes = self.changes.so_far();
        let counters = [
            ("isr_shrinks", "Replicas that left the ISR of partitions led here", changes.shrinks),
            ("isr_expands", "Replicas that joined the ISR of partitions led here", changes.expands),
            ("partition_elections", "Leaderships that came to this node", changes.elected),
        ];
        for (name, help, value) in counters {
            to.encode_descriptor(name, help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }
}
