//! Which directory a member of the quorum keeps its log in, and how a directory,
//! or its node, leaves the cluster for good.
//!
//! A directory that is replaced takes the broker's partitions with it: the
//! broker is fenced with the same decision, and counts as having lost everything.
//! Left in an ISR or eligible until it registers again, others could be given up
//! for its sake meanwhile.

use super::Reply;
use super::draft::Draft;
use super::members::unknown;
use super::partitions::{Loss, settle_all_of};
use super::settings::forget_node;
use crate::image::{Image, Partition};
use crate::records::{BrokerFenced, BrokerUnregistered, DirectoryRetired, VoterDirectoryRecorded};
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, DirectoryId, NodeId};
use std::sync::Arc;

/// The first directory is recorded; the same again is fine; another one is a
/// disk that has lost what the voter promised.
pub(super) fn record_directory(
    draft: &mut Draft,
    node_id: NodeId,
    directory: DirectoryId,
) -> Result<Reply, ApiError> {
    check_not_retired(draft.image(), node_id, directory)?;
    match draft.image().voter_directories.get(&node_id) {
        Some(known) if *known == directory => return Ok(Reply::Done),
        Some(known) => {
            let message = format!(
                "node {node_id} is a voter with data directory {known} and came with {directory}: \
                 its votes and its log are lost"
            );
            return Err(ApiError::new(ErrorReason::BlankDiskOfKnownVoter, message));
        }
        None => {}
    }
    draft.push(VoterDirectoryRecorded { node_id, directory });
    Ok(Reply::Done)
}

/// A directory that was given up never comes back.
pub(super) fn check_not_retired(
    image: &Image,
    node: NodeId,
    directory: DirectoryId,
) -> Result<(), ApiError> {
    if !image.retired_directories.contains_key(&directory) {
        return Ok(());
    }
    let message = format!(
        "data directory {directory} of node {node} was removed from the cluster, or replaced: \
         what is in it is out of date for good"
    );
    Err(ApiError::new(ErrorReason::NodeRemoved, message))
}

/// The disk of a node is given up, and all that is on it. Its replicas stay
/// assigned: they are copied to the disk with which the node comes back.
pub(super) fn retire_directory(draft: &mut Draft, node_id: NodeId) -> Result<Reply, ApiError> {
    let image = draft.image();
    let opened = || image.brokers.get(&node_id).map(|broker| broker.directory);
    let directory = image.voter_directories.get(&node_id).copied().or_else(opened);
    let directory = directory.ok_or_else(|| unknown(node_id))?;
    if image.retired_directories.contains_key(&directory) {
        return Ok(Reply::Done);
    }
    check_replaceable(draft.image(), node_id)?;
    fence_blank(draft, node_id);
    draft.push(DirectoryRetired { node_id, directory });
    Ok(Reply::Done)
}

/// The node leaves for good, if it has no replicas. What has left is left.
pub(super) fn remove_node(draft: &mut Draft, node_id: NodeId) -> Result<Reply, ApiError> {
    check_removable(draft.image(), node_id)?;
    let image = draft.image();
    let broker = image.brokers.get(&node_id).map(|broker| (broker.epoch, broker.directory));
    let recorded = image.voter_directories.get(&node_id).copied();
    if let Some((epoch, _)) = broker {
        forget_node(draft, node_id);
        draft.push(BrokerUnregistered { node_id, epoch });
    }
    for directory in recorded.into_iter().chain(broker.map(|(_, directory)| directory)) {
        if !draft.image().retired_directories.contains_key(&directory) {
            draft.push(DirectoryRetired { node_id, directory });
        }
    }
    Ok(Reply::Done)
}

/// Whether a node may leave, as far as its replicas go.
///
/// # Errors
/// UNKNOWN_NODE, or NODE_IN_USE with the number of its replicas.
pub fn check_removable(image: &Image, node: NodeId) -> Result<(), ApiError> {
    let known = image.brokers.contains_key(&node) || image.voter_directories.contains_key(&node);
    if !known && !image.retired_directories.values().any(|owner| *owner == node) {
        return Err(unknown(node));
    }
    let hosts = |partition: &&Arc<Partition>| partition.replicas.contains(&node);
    let replicas = image.partitions.values().filter(hosts).count();
    if replicas == 0 {
        return Ok(());
    }
    let message = format!(
        "node {node} has replicas, {replicas} in all: move them away first, with `ottla cluster \
         drain {node}`"
    );
    Err(ApiError::new(ErrorReason::NodeInUse, message).with("replicas", replicas))
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
///
/// # Errors
/// BLANK_DISK_OF_KNOWN_VOTER, with the number of such partitions.
pub fn check_replaceable(image: &Image, node_id: NodeId) -> Result<(), ApiError> {
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
