//! What a leader knows of one follower: how much it has acknowledged, and when it last had
//! everything.

use super::types::{Durability, Millis, Peer};
use ottla_proto::{BrokerEpoch, Offset};

/// What a follower has acknowledged to this leadership.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Acked {
    pub(super) end: Offset,
    pub(super) synced: Offset,
    /// Where its log starts, durably.
    pub(super) start: Offset,
}

impl Acked {
    /// The offset up to which the follower counts.
    pub(super) fn position(self, durability: Durability) -> Offset {
        match durability {
            Durability::Disk => self.synced.min(self.end),
            Durability::Memory => self.end,
        }
    }
}

/// A point that a follower has yet to reach, and when the log last ended there:
/// once it is reached, the follower was caught up at that time. It stays until reached, so
/// that a follower with much on the way, always a little behind, is not taken for a stuck one.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Mark {
    pub(super) at: Millis,
    pub(super) end: Offset,
}

#[derive(Clone, Debug, Default, Hash)]
pub(super) struct FollowerState {
    pub(super) session: Option<(Peer, u64)>,
    /// The newest connection heard from. What an older one still delivers is old.
    pub(super) stream: u64,
    /// The registration under which it acknowledged (KIP-903).
    pub(super) broker_epoch: Option<BrokerEpoch>,
    /// Nothing of an earlier leadership counts.
    pub(super) acked: Option<Acked>,
    /// When it was last known to have everything.
    pub(super) caught_up: Option<Millis>,
    pub(super) mark: Option<Mark>,
}

impl FollowerState {
    /// Takes what the follower has acknowledged, and from it whether it is caught up with a
    /// log that ends at `end`.
    pub(super) fn record(
        &mut self,
        acked: Acked,
        durability: Durability,
        end: Offset,
        now: Millis,
    ) {
        let position = acked.position(durability);
        self.acked = Some(acked);
        if position >= end {
            self.caught_up = Some(now);
            self.mark = None;
        } else if self.mark.is_none_or(|mark| position >= mark.end) {
            self.caught_up = self.caught_up.max(self.mark.map(|mark| mark.at));
            self.mark = Some(Mark { at: now, end });
        }
    }
}
