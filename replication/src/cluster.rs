//! The narrow door to the metadata: what replication needs of it. Production
//! goes through [`Metadata`], tests through a double.

use futures::FutureExt;
use futures::future::BoxFuture;
use ottla_metadata::Metadata;
use ottla_metadata::controller::{PartitionAlteration, PartitionOutcome};
use ottla_metadata::image::Image;
use ottla_proto::{ApiError, BrokerEpoch, PartitionId};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

/// The cluster's metadata, as seen from this node.
pub trait Cluster: Send + Sync + 'static {
    /// The images, in order; a reader may skip some but never sees an older one.
    fn images(&self) -> watch::Receiver<Arc<Image>>;

    /// The image with everything that was committed when this was called; an error if a
    /// majority of the quorum cannot be asked until `deadline`.
    fn current_image(&self, deadline: Instant) -> BoxFuture<'_, Result<Arc<Image>, ApiError>>;

    /// This process's registration; waits for it. It stays the same for as long
    /// as the process lives.
    fn registered(&self) -> BoxFuture<'_, BrokerEpoch>;

    /// Proposes ISRs to the active controller under this broker's registration.
    /// Must end within a few seconds. An outer error, or a missing outcome:
    /// nothing is known.
    fn alter_partition(
        &self,
        changes: Vec<PartitionAlteration>,
    ) -> BoxFuture<'_, Result<Vec<PartitionOutcome>, ApiError>>;

    /// Tells the active controller that the disk under these replicas of this node
    /// failed, under this broker's registration. Must end within a few seconds.
    fn report_offline(&self, partitions: Vec<PartitionId>) -> BoxFuture<'_, Result<(), ApiError>>;
}

impl Cluster for Metadata {
    fn images(&self) -> watch::Receiver<Arc<Image>> {
        Metadata::images(self)
    }

    fn current_image(&self, deadline: Instant) -> BoxFuture<'_, Result<Arc<Image>, ApiError>> {
        Metadata::current_image(self, deadline).boxed()
    }

    fn registered(&self) -> BoxFuture<'_, BrokerEpoch> {
        let mut broker = self.broker();
        async move {
            let status = broker.wait_for(|status| status.epoch.is_some()).await;
            match status.ok().and_then(|status| status.epoch) {
                Some(epoch) => epoch,
                // The metadata has been torn down: there will be none.
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn alter_partition(
        &self,
        changes: Vec<PartitionAlteration>,
    ) -> BoxFuture<'_, Result<Vec<PartitionOutcome>, ApiError>> {
        Metadata::alter_partition(self, changes).boxed()
    }

    fn report_offline(&self, partitions: Vec<PartitionId>) -> BoxFuture<'_, Result<(), ApiError>> {
        Metadata::report_offline(self, partitions).boxed()
    }
}
