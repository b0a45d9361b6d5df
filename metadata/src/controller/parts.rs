//! Decisions that are larger than one entry of the metadata log.
//!
//! Fencing a broker must work however many partitions it has. So what is decided
//! because of a broker may be written in several entries, one after the other. The
//! leader may die between two of them. What is left then are partitions that do not
//! fit their brokers any more, and the next controller settles those first
//! ([`settle_rest`]). Facts that say why are written behind those that follow from
//! them where nothing else would tell that there is something left to do: see
//! `Controller::register`.
//!
//! What an operator asks for is one entry or nothing.

use super::draft::Draft;
use super::partitions::settle_where;
use super::{Command, Reply};
use crate::image::Partition;

/// Partitions up to which all that follows from the loss of a disk certainly fits
/// one entry: it takes 8 MiB, and a change of a partition some hundred bytes.
pub(super) const MAX_TOGETHER: usize = 5_000;

impl Command {
    /// Whether what it decides may be written in parts.
    #[must_use]
    pub fn may_be_split(&self) -> bool {
        match self {
            Self::RegisterBroker(_)
            | Self::Heartbeat(_)
            | Self::BrokerGone { .. }
            | Self::SessionExpired { .. }
            | Self::AlterPartition(_)
            | Self::ReportOffline(_)
            | Self::RetireDirectory { .. }
            | Self::Settle => true,
            Self::CreateTopic(_)
            | Self::DeleteTopic { .. }
            | Self::AlterTopicConfig(_)
            | Self::AlterConfig(_)
            | Self::GrowTopic(_)
            | Self::Reassign(_)
            | Self::CancelReassignment(_)
            | Self::ElectLeader(_)
            | Self::RecordVoterDirectory { .. }
            | Self::RemoveNode { .. }
            | Self::BalanceLeaders
            | Self::AllocateProducerIds { .. }
            | Self::FinaliseLevel { .. }
            | Self::Drain { .. }
            | Self::CancelDrain { .. }
            | Self::ContinueDrains
            | Self::Requested(_) => false,
        }
    }
}

/// Applies the rules to every partition that may not have been brought in line with
/// its brokers. Usually there is none.
pub(super) fn settle_rest(draft: &mut Draft) -> Reply {
    let image = draft.image().clone();
    let left_over = |id, partition: &Partition| {
        partition.leader.is_none() || partition.isr.iter().any(|node| !image.can_serve(*node, id))
    };
    settle_where(draft, None, left_over);
    Reply::Done
}
