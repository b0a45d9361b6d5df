//! Producer ids of this node: a block from the controller, given away one by one.
//!
//! Not its job: remembering them. What is left of a block when the node stops is
//! given to nobody.

use ottla_metadata::Metadata;
use ottla_proto::ApiError;
use ottla_proto::v1::ErrorReason;
use std::ops::Range;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Gives out producer ids.
pub(crate) struct ProducerIds {
    metadata: Metadata,
    /// Held while a new block is asked for: those who wait share it.
    left: Mutex<Range<i64>>,
}

impl ProducerIds {
    pub(crate) fn new(metadata: Metadata) -> Self {
        Self { metadata, left: Mutex::new(0..0) }
    }

    /// An id that no other producer has.
    ///
    /// # Errors
    /// No controller gave this node a block until `deadline`, or it refused:
    /// FEATURE_LEVEL_TOO_LOW.
    pub(crate) async fn next(&self, deadline: Instant) -> Result<i64, ApiError> {
        let waiting = tokio::time::timeout_at(deadline, self.left.lock());
        let mut left = waiting.await.map_err(|_| none_in_time())?;
        loop {
            if let Some(id) = left.next() {
                return Ok(id);
            }
            *left = self.metadata.allocate_producer_ids(deadline).await?;
        }
    }
}

fn none_in_time() -> ApiError {
    let message = "the controller gave this node no producer ids in time";
    ApiError::new(ErrorReason::ControllerNotAvailable, message)
}
