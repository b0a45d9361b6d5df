//! Why a node cannot be part of its cluster any more, and how that is found out.

use super::incompatible::Incompatible;
use super::inner::Inner;
use super::metadata::MetadataError;
use super::options::MetadataOptions;
use ottla_proto::ApiError;
use ottla_proto::v1::ErrorReason;
use std::sync::Arc;
use tokio::sync::watch;

/// Why a node is no part of the cluster, in the words of the controller.
#[derive(Clone, Debug)]
pub(super) enum Evicted {
    /// It lost its disk, and its vote with it.
    BlankDisk(String),
    /// It was removed, or its disk given up.
    Removed(String),
    /// Its release is too old for the cluster, or too new.
    Incompatible(String),
}

impl Evicted {
    /// If that is what an error of the controller means.
    pub(super) fn by(error: &ApiError) -> Option<Self> {
        match error.reason {
            ErrorReason::BlankDiskOfKnownVoter => Some(Self::BlankDisk(error.message.clone())),
            ErrorReason::NodeRemoved => Some(Self::Removed(error.message.clone())),
            ErrorReason::UnsupportedFeatureLevel => Some(Self::Incompatible(error.message.clone())),
            _ => None,
        }
    }

    pub(super) fn into_error(self, options: &MetadataOptions) -> MetadataError {
        let (node_id, directory) = (options.node_id, options.directory_id);
        match self {
            Self::BlankDisk(detail) => {
                MetadataError::BlankDiskOfKnownVoter { node_id, directory, detail }
            }
            Self::Removed(detail) => MetadataError::Removed { node_id, detail },
            Self::Incompatible(detail) => MetadataError::Incompatible { node_id, detail },
        }
    }
}

/// Has this node stop when its release cannot apply what is committed.
pub(super) async fn look_for_another_release(
    inner: Arc<Inner>,
    mut incompatible: watch::Receiver<Option<Incompatible>>,
) {
    tokio::select! {
        () = inner.stop.cancelled() => {}
        found = incompatible.wait_for(Option::is_some) => {
            if let Some(why) = found.ok().and_then(|why| why.clone()) {
                inner.evict(Evicted::Incompatible(why.to_string()));
            }
        }
    }
}
