//! What is remembered of operators' requests.

use ottla_proto::{RequestId, TopicId};
use serde::{Deserialize, Serialize};

/// A request was carried out, by the records before it in the same batch: sent
/// again it must not be carried out twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCarriedOut {
    /// Made up by whoever asked.
    pub id: RequestId,
    /// What was asked of what, such as `create topic orders`.
    pub what: String,
    /// The topic it was about, if it was about one.
    pub topic: Option<TopicId>,
    /// Partitions that it added to a topic that was there.
    pub added: u32,
    /// When, in milliseconds since the Unix epoch; never before the requests
    /// that are remembered already.
    pub at_ms: u64,
    /// Requests that are not remembered any more from here on.
    pub forgotten: Vec<RequestId>,
}
