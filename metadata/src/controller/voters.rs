//! Which directory a voter of the quorum keeps its log in.
//!
//! A directory that is replaced takes the broker's partitions with it: the
//! broker is fenced with the same decision. Left in an ISR until it registers
//! again, it could become the last member meanwhile, and be elected blank.

use super::Reply;
use super::brokers::fence;
use super::draft::Draft;
use crate::image::Image;
use crate::records::VoterDirectoryRecorded;
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, DirectoryId, NodeId};

/// The first directory is recorded; the same again is fine; another one is a
/// disk that has lost what the voter promised.
pub(super) fn record_directory(
    draft: &mut Draft,
    node_id: NodeId,
    directory: DirectoryId,
    replace: bool,
) -> Result<Reply, ApiError> {
    match draft.image().voter_directories.get(&node_id) {
        Some(known) if *known == directory => return Ok(Reply::Done),
        Some(known) if !replace => {
            let message = format!(
                "node {node_id} is a voter with data directory {known} and came with {directory}: \
                 its votes and its log are lost"
            );
            return Err(ApiError::new(ErrorReason::BlankDiskOfKnownVoter, message));
        }
        Some(_) => {
            check_replaceable(draft.image(), node_id)?;
            fence_blank(draft, node_id);
        }
        None => {}
    }
    draft.push(VoterDirectoryRecorded { node_id, directory });
    Ok(Reply::Done)
}

fn fence_blank(draft: &mut Draft, node_id: NodeId) {
    let broker = draft.image().brokers.get(&node_id).filter(|broker| !broker.fenced);
    if let Some(epoch) = broker.map(|broker| broker.epoch) {
        fence(draft, node_id, epoch);
    }
}

/// A node that is the last in-sync replica of a partition cannot come back
/// blank: it would be elected, and the others would cut their logs to its
/// empty one. A partition that never had another replica has nothing to lose.
fn check_replaceable(image: &Image, node_id: NodeId) -> Result<(), ApiError> {
    let needed = image
        .partitions
        .values()
        .filter(|partition| partition.replicas.len() > 1 && partition.isr == [node_id])
        .count();
    if needed == 0 {
        return Ok(());
    }
    let message = format!(
        "node {node_id} is the last in-sync replica of {needed} partitions that other nodes have \
         copies of: it is needed with its old data directory"
    );
    Err(ApiError::new(ErrorReason::BlankDiskOfKnownVoter, message).with("partitions", needed))
}
