//! Which leaderships a command would take from nodes that could go on leading: their
//! leaders can be asked to finish first, so that nobody's write is left in doubt.
//!
//! Only for commands of operators and of good order. Where a leader is gone, there is
//! nobody to ask.

use super::draft::Draft;
use super::{Command, balance, drain, elect, reassign};
use crate::image::Image;
use crate::records::MetadataRecord;
use ottla_proto::{LeaderEpoch, NodeId, PartitionId};

/// Who leads a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The partition.
    pub partition: PartitionId,
    /// Its leader.
    pub leader: NodeId,
    /// The epoch in which it leads.
    pub epoch: LeaderEpoch,
}

/// The leaderships that would go elsewhere if `command` were decided on this image.
/// None for a command that would be refused.
#[must_use]
pub fn leaderships_moved_by(image: &Image, command: &Command) -> Vec<Leadership> {
    let mut draft = Draft::on(image);
    let before = draft.mark();
    let decided = match command {
        Command::BalanceLeaders => Ok(balance::give_back(&mut draft)),
        Command::ElectLeader(request) => elect::elect(&mut draft, request),
        Command::Reassign(request) => reassign::begin(&mut draft, request),
        Command::CancelReassignment(request) => reassign::cancel(&mut draft, request),
        Command::CancelDrain { node_id } => drain::cancel(&mut draft, *node_id),
        Command::Requested(request) => return leaderships_moved_by(image, &request.command),
        _ => return Vec::new(),
    };
    if decided.is_err() {
        return Vec::new();
    }
    let changed = draft.records_since(&before).iter().filter_map(|record| match record {
        MetadataRecord::PartitionChanged(change) => Some(change.partition),
        _ => None,
    });
    let moved = |partition: PartitionId| {
        let before = image.partitions.get(&partition)?;
        let after = draft.image().partitions.get(&partition)?;
        let (leader, epoch) = (before.leader?, before.leader_epoch);
        (after.leader != Some(leader)).then_some(Leadership { partition, leader, epoch })
    };
    changed.filter_map(moved).collect()
}
