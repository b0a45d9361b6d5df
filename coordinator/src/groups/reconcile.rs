//! One step of a member towards what it is to have (KIP-848's
//! `CurrentAssignmentBuilder`): first it gives back, then it takes what is free.

use super::facts::CurrentFact;
use super::group::Member;
use ottla_proto::PartitionId;
use std::collections::BTreeSet;

/// Where the member is next, in a group at `epoch`.
///
/// `owned`: what it says that it reads; `None` if it says nothing, and then it may still
/// read everything. `is_free`: no other member may read the partition.
///
/// A member that has something to give back keeps its epoch until it has; else it takes
/// the group's. So who is at the group's epoch reads nothing that is another's.
pub(super) fn step(
    member: &Member,
    epoch: u32,
    owned: Option<&BTreeSet<PartitionId>>,
    is_free: impl Fn(PartitionId) -> bool,
) -> CurrentFact {
    let (current, target) = (&member.current, &member.target);
    let reads = |id: &PartitionId| owned.is_none_or(|owned| owned.contains(id));
    if current.revoking.iter().any(reads) {
        return current.clone();
    }
    let keeps: BTreeSet<_> = current.assigned.intersection(target).copied().collect();
    let revoking: BTreeSet<_> =
        current.assigned.difference(target).copied().filter(reads).collect();
    if !revoking.is_empty() {
        return CurrentFact { assigned: keeps, revoking, ..current.clone() };
    }
    let takes = target.iter().copied().filter(|id| is_free(*id));
    CurrentFact {
        epoch,
        previous_epoch: if current.epoch == epoch { current.previous_epoch } else { current.epoch },
        assigned: keeps.iter().copied().chain(takes).collect(),
        revoking: BTreeSet::new(),
        away: false,
        sequence: current.sequence,
    }
}
