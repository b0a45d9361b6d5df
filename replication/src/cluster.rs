//! The narrow door to the metadata: what replication needs of it. Production
//! goes through [`ottla_metadata::Metadata`], tests through a double.

use futures::future::BoxFuture;
use ottla_metadata::Metadata;
use ottla_metadata::controller::PartitionAlteration;
use ottla_metadata::image::Image;
use ottla_proto::{ApiError, BrokerEpoch, LeaderEpoch, NodeId, PartitionEpoch, PartitionId};
use std::sync::Arc;
use tokio::sync::watch;

/// The ISR that a leader wants for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrChange {
    /// The partition.
    pub partition: PartitionId,
    /// Generation in which this node leads.
    pub leader_epoch: LeaderEpoch,
    /// Version of the state that the proposal builds upon.
    pub partition_epoch: PartitionEpoch,
    /// Members, each with the broker epoch under which it caught up.
    pub new_isr: Vec<(NodeId, BrokerEpoch)>,
}

/// A partition's state as the controller wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrChanged {
    /// Generation of the leadership.
    pub leader_epoch: LeaderEpoch,
    /// Version of the state.
    pub partition_epoch: PartitionEpoch,
    /// In-sync replicas.
    pub isr: Vec<NodeId>,
}

/// The cluster's metadata, as seen from this node.
pub trait Cluster: Send + Sync + 'static {
    /// The images, in order; a reader may skip some but never sees an older one.
    fn images(&self) -> watch::Receiver<Arc<Image>>;

    /// This process's registration; waits for it. It stays the same for as long
    /// as the process lives.
    fn registered(&self) -> BoxFuture<'_, BrokerEpoch>;

    /// Proposes ISRs to the active controller under this broker's registration.
    /// One outcome for each change, in their order; must end within a few
    /// seconds. An outer error: nothing is known about any of them.
    fn alter_partition(
        &self,
        changes: Vec<IsrChange>,
    ) -> BoxFuture<'_, Result<Vec<Result<IsrChanged, ApiError>>, ApiError>>;
}

impl Cluster for Metadata {
    fn images(&self) -> watch::Receiver<Arc<Image>> {
        Metadata::images(self)
    }

    fn registered(&self) -> BoxFuture<'_, BrokerEpoch> {
        Box::pin(async {
            let mut broker = self.broker();
            let registered = broker.wait_for(|status| status.epoch.is_some()).await;
            match registered.map(|status| status.epoch) {
                Ok(Some(epoch)) => epoch,
                // The node is being torn down before it had a registration.
                _ => std::future::pending().await,
            }
        })
    }

    fn alter_partition(
        &self,
        changes: Vec<IsrChange>,
    ) -> BoxFuture<'_, Result<Vec<Result<IsrChanged, ApiError>>, ApiError>> {
        let proposals = changes.into_iter().map(|change| PartitionAlteration {
            partition: change.partition,
            leader_epoch: change.leader_epoch,
            partition_epoch: change.partition_epoch,
            new_isr: change.new_isr,
        });
        let proposals: Vec<_> = proposals.collect();
        Box::pin(async {
            let outcomes = Metadata::alter_partition(self, proposals).await?;
            let changed = outcomes.into_iter().map(|outcome| {
                outcome.result.map(|state| IsrChanged {
                    leader_epoch: state.leader_epoch,
                    partition_epoch: state.partition_epoch,
                    isr: state.isr,
                })
            });
            Ok(changed.collect())
        })
    }
}
