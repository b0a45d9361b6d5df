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
struct Mark {
    at: Millis,
    end: Offset,
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
    mark: Option<Mark>,
}

impl FollowerState {
    /// Of a follower that has acknowledged nothing to this leadership.
    pub(super) fn unheard(caught_up: Option<Millis>) -> Self {
        Self { caught_up, ..Self::default() }
    }

    /// Whether it counts up to `end`.
    pub(super) fn reaches(&self, end: Offset, durability: Durability) -> bool {
        self.acked.is_some_and(|acked| acked.position(durability) >= end)
    }

    /// It had everything until `now`, and has yet to reach `end`.
    pub(super) fn has_until(&mut self, now: Millis, end: Offset) {
        self.caught_up = Some(now);
        self.mark = Some(Mark { at: now, end });
    }

    /// The log, which ended at `before`, is longer from `now` on.
    pub(super) fn log_grew(&mut self, before: Offset, now: Millis) {
        if let Some(mark) = &mut self.mark
            && mark.end == before
        {
            mark.at = now;
        }
    }

    /// When it had everything no longer counts.
    pub(super) fn start_over(&mut self) {
        (self.caught_up, self.mark) = (None, None);
    }

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
