//! Replicas whose disk failed, on their way to the controller: gathered from all
//! partitions, said again until the controller has heard.
//!
//! Until it has, it believes that this node leads them, and nobody else does.

use crate::env::Env;
use ottla_metadata::controller::MAX_OFFLINE_REPLICAS;
use ottla_proto::PartitionId;
use ottla_proto::v1::ErrorReason as R;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Wait before a report that was not taken is made again: short beside the time
/// in which a dead node is replaced, long beside a call.
const RETRY_BACKOFF: Duration = Duration::from_millis(100);

/// What is to be reported. Bounded by the number of local partitions.
#[derive(Default)]
pub(crate) struct OfflineReports {
    waiting: Mutex<BTreeSet<PartitionId>>,
    added: Notify,
}

impl OfflineReports {
    pub(crate) fn add(&self, partition: PartitionId) {
        self.waiting.lock().insert(partition);
        self.added.notify_one();
    }

    async fn take(&self) -> Vec<PartitionId> {
        loop {
            let added = self.added.notified();
            {
                let mut waiting = self.waiting.lock();
                let taken: Vec<PartitionId> =
                    waiting.iter().take(MAX_OFFLINE_REPLICAS).copied().collect();
                if !taken.is_empty() {
                    for id in &taken {
                        waiting.remove(id);
                    }
                    return taken;
                }
            }
            added.await;
        }
    }
}

/// Makes the reports until the node stops.
pub(crate) async fn run(env: Arc<Env>) {
    let work = async {
        // Under a registration only: the controller forgets what came before it.
        env.cluster.registered().await;
        loop {
            let partitions = env.offline.take().await;
            loop {
                match env.cluster.report_offline(partitions.clone()).await {
                    Ok(()) => {
                        tracing::info!(replicas = partitions.len(), "offline replicas reported");
                        break;
                    }
                    // Another process has this node's id: its disks count now.
                    Err(error) if error.reason == R::StaleBrokerEpoch => {
                        tracing::warn!(%error, "offline replicas are not this process's to report");
                        break;
                    }
                    Err(error) => tracing::warn!(%error, "offline replicas not reported yet"),
                }
                tokio::time::sleep(RETRY_BACKOFF).await;
            }
        }
    };
    env.stop.run_until_cancelled(work).await;
}
