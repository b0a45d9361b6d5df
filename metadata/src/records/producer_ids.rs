//! Facts about the ids of idempotent producers.

use serde::{Deserialize, Serialize};

/// Producer ids up to here were given to a node, which gives them to producers: no
/// other ever gets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerIdsAllocated {
    /// The first that nobody has.
    pub next_producer_id: i64,
}
