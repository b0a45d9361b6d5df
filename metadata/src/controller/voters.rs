//! Which directory a voter of the quorum keeps its log in.
//!
//! A directory that is replaced takes the broker's partitions with it: the
//! broker is fenced with the same decision, and counts as having lost everything.
//! Left in an ISR or eligible until it registers again, others could be given up
//! for its sake meanwhile.

use super::Reply;
use super::draft::Draft;
use super::partitions::{Loss, settle_all_of};
use crate::image::{Image, Partition};
use crate::records::{BrokerFenced, VoterDirectoryRecorded};
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
        draft.push(BrokerFenced { node_id, epoch });
    }
    settle_all_of(draft, node_id, Some(Loss::Everything));
}

/// A node that alone is known to have all of a partition, or is the best guess,
/// cannot come back blank: the others would have to do without what only it has.
/// A partition that never had another replica has nothing to lose.
fn check_replaceable(image: &Image, node_id: NodeId) -> Result<(), ApiError> {
    let needed = image
        .partitions
        .values()
        .filter(|partition| partition.replicas.len() > 1 && is_needed(partition, node_id))
        .count();
    if needed == 0 {
        return Ok(());
    }
    let message = format!(
        "node {node_id} alone has all of {needed} partitions that other nodes have copies of: it \
         is needed with its old data directory"
    );
    Err(ApiError::new(ErrorReason::BlankDiskOfKnownVoter, message).with("partitions", needed))
}

fn is_needed(partition: &Partition, node: NodeId) -> bool {
    let mut complete = partition.isr.iter().chain(&partition.elr).peekable();
    match complete.peek() {
        Some(_) => complete.all(|member| *member == node),
        None => partition.last_leader == Some(node),
    }
}
