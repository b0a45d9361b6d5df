//! Leaderships go home: after a restart the other nodes lead everything, until
//! the preferred replicas are back in the ISRs and take their share again.

use super::Reply;
use super::draft::Draft;
use super::partitions::changed;
use crate::image::{Image, Partition};
use crate::records::PartitionChanged;
use ottla_proto::PartitionId;

/// Most leaderships that one command moves. Clients of each of them have to
/// find the new leader, and all records go into one entry of the metadata log:
/// the bound keeps both short.
pub const MAX_LEADER_MOVES: usize = 1000;

/// Moves leaderships to preferred replicas that are in the ISR and active.
pub(super) fn give_back(draft: &mut Draft) -> Reply {
    let image = draft.image();
    let moves: Vec<PartitionChanged> = image
        .partitions
        .iter()
        .filter_map(|(&id, partition)| go_home(image, id, partition))
        .take(MAX_LEADER_MOVES)
        .collect();
    let moved = moves.len();
    for change in moves {
        draft.push(change);
    }
    Reply::Balanced { moved }
}

/// The change that makes the preferred replica the leader; `None` if it leads
/// already, or cannot.
pub(super) fn go_home(
    image: &Image,
    id: PartitionId,
    partition: &Partition,
) -> Option<PartitionChanged> {
    let preferred = *partition.replicas.first()?;
    if !partition.isr.contains(&preferred) || !image.can_serve(preferred, id) {
        return None;
    }
    let after = Partition { leader: Some(preferred), ..Partition::clone(partition) };
    changed(id, partition, &after)
}
