//! The end of a snapshot.

use ottla_proto::MetadataOffset;
use serde::{Deserialize, Serialize};

/// Last record of a snapshot: the image that the records before it make stands
/// for all records of the log up to this offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEnded {
    /// Number of log records the snapshot stands for.
    pub offset: MetadataOffset,
}
