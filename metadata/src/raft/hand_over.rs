//! Before leaderships move for no better reason than order, their leaders are asked to
//! finish what they were given: nobody's write is left in doubt, and nothing is lost
//! that only a leader had.
//!
//! Not its job: moving them. Whether a leader was done in time or not, the controller
//! decides as it would have: safety never depends on this.

use super::channel;
use super::inner::Inner;
use super::types::Peer;
use crate::controller::{Command, Leadership, leaderships_moved_by};
use futures::future::join_all;
use ottla_proto::NodeId;
use ottla_proto::internal::v1::replication_service_client::ReplicationServiceClient;
use ottla_proto::internal::v1::{self as internal, HoldWritesRequest};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

/// How long a leader may take to finish: many times a sync, and no more than a client
/// notices.
const WITHIN: Duration = Duration::from_millis(500);

/// How long its answer may take beyond that, the connection included.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);

/// Asks the leaders of all partitions that `command` would move, at the same time.
/// Returns when they have finished, or are given up. For the active controller only:
/// it alone is sure to know who leads.
pub(super) async fn prepare(inner: &Inner, command: &Command) {
    let image = inner.image();
    let mut by_leader: BTreeMap<NodeId, Vec<Leadership>> = BTreeMap::new();
    for leadership in leaderships_moved_by(&image, command) {
        by_leader.entry(leadership.leader).or_default().push(leadership);
    }
    let asked = by_leader.into_iter().filter_map(|(leader, leaderships)| {
        let broker = image.brokers.get(&leader)?;
        let peer = Peer { host: broker.host.clone(), port: broker.port };
        Some(async move {
            let wanted = leaderships.len();
            match timeout(WITHIN + ANSWER_WITHIN, ask(inner, &peer, leaderships)).await {
                Ok(Ok(finished)) if finished == wanted => {}
                Ok(Ok(finished)) => {
                    tracing::info!(%leader, wanted, finished, "not every leadership was finished");
                }
                Ok(Err(error)) => tracing::info!(%leader, %error, "a leader was not told"),
                Err(_) => tracing::info!(%leader, "a leader did not answer in time"),
            }
        })
    });
    join_all(asked).await;
}

async fn ask(inner: &Inner, peer: &Peer, moving: Vec<Leadership>) -> anyhow::Result<usize> {
    let channel = channel::connect(&inner.options.network, peer).await?;
    let leaderships = moving.into_iter().map(|leadership| internal::Leadership {
        partition: Some(internal::PartitionKey {
            topic_id: leadership.partition.topic.to_wire().into(),
            partition: leadership.partition.index,
        }),
        leader_epoch: leadership.epoch.0,
    });
    let request = HoldWritesRequest {
        cluster_id: inner.options.cluster_id.clone(),
        leaderships: leaderships.collect(),
        within_ms: u32::try_from(WITHIN.as_millis()).unwrap_or(u32::MAX),
    };
    let answer = ReplicationServiceClient::new(channel).hold_writes(request).await?;
    Ok(answer.into_inner().finished.len())
}
