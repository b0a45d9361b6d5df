//! The cluster's feature level (KIP-584): raised by an operator once every node's
//! release supports it, and never written beyond.
//!
//! A command whose records need a higher level is refused as a whole, whatever it
//! is: an older node that read them would have to stop. So what has to be decided
//! whatever happens (fencing, elections) is written in records of the first level.

use super::Reply;
use super::draft::{Draft, Mark};
use crate::image::Image;
use crate::records::{FeatureLevel, FeatureLevelFinalised, FeatureLevels, MetadataRecord};
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, MetadataOffset, NodeId};

/// A new cluster starts at the newest level that its first controller knows.
pub(super) fn begin(draft: &mut Draft, levels: FeatureLevels) {
    let is_new = draft.image().offset == MetadataOffset(0);
    if is_new && levels.max > FeatureLevel::FIRST {
        draft.push(FeatureLevelFinalised { level: levels.max });
    }
}

/// Takes back what a command decided if the cluster's level does not allow it.
pub(super) fn within_level(
    draft: &mut Draft,
    before: &Mark,
    reply: Result<Reply, ApiError>,
) -> Result<Reply, ApiError> {
    let needed = draft.records_since(before).iter().map(MetadataRecord::level).max();
    let finalised = draft.image().feature_level;
    match needed.filter(|needed| *needed > finalised) {
        None => reply,
        Some(needed) => {
            draft.restore(before);
            Err(too_low(finalised, needed))
        }
    }
}

fn too_low(finalised: FeatureLevel, needed: FeatureLevel) -> ApiError {
    let message = format!(
        "this needs feature level {needed}, and the cluster is at {finalised}: once every node \
         has a release that supports it, run `ottla cluster features --upgrade {needed}`"
    );
    let error = ApiError::new(ErrorReason::FeatureLevelTooLow, message);
    error.with("finalised", finalised).with("needed", needed)
}

/// A node of another release may be too old for the cluster, or too new.
pub(super) fn check_supported(
    finalised: FeatureLevel,
    node: NodeId,
    levels: FeatureLevels,
) -> Result<(), ApiError> {
    if levels.contains(finalised) {
        return Ok(());
    }
    let advice = if levels.max < finalised {
        "start it with a newer release"
    } else {
        "raise the level with the release before it first"
    };
    let message = format!(
        "the cluster is at feature level {finalised}, and the release of node {node} supports \
         {levels}: {advice}"
    );
    Err(unsupported(message).with("finalised", finalised))
}

pub(super) fn finalise(
    draft: &mut Draft,
    levels: FeatureLevels,
    level: Option<FeatureLevel>,
) -> Result<Reply, ApiError> {
    let (image, level) = (draft.image(), level.unwrap_or(levels.max));
    let finalised = image.feature_level;
    if level == finalised {
        return Ok(Reply::LevelFinalised { level, changed: false });
    }
    if level < finalised {
        let message = format!(
            "the cluster is at feature level {finalised} and cannot go back to {level}: its \
             metadata may hold what only {finalised} allows"
        );
        return Err(ApiError::new(ErrorReason::InvalidRequest, message));
    }
    check_all_support(image, levels, level)?;
    draft.push(FeatureLevelFinalised { level });
    Ok(Reply::LevelFinalised { level, changed: true })
}

/// Fenced nodes count: they may come back with the release they had.
fn check_all_support(
    image: &Image,
    levels: FeatureLevels,
    level: FeatureLevel,
) -> Result<(), ApiError> {
    if !levels.contains(level) {
        let message = format!(
            "feature level {level} is not known to the controller's release, which supports \
             {levels}"
        );
        return Err(unsupported(message));
    }
    let behind = image.brokers.values().filter(|broker| !broker.levels.contains(level));
    let behind: Vec<String> = behind
        .map(|broker| format!("node {} (supports {})", broker.node_id, broker.levels))
        .collect();
    if behind.is_empty() {
        return Ok(());
    }
    let message = format!(
        "feature level {level} is not supported by {}: start every node with a release that \
         supports it first, or remove the node",
        behind.join(", ")
    );
    Err(unsupported(message))
}

fn unsupported(message: String) -> ApiError {
    ApiError::new(ErrorReason::UnsupportedFeatureLevel, message)
}
