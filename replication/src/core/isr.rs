//! The in-sync replicas: who is to join, who is to leave, what the controller
//! says to it (KIP-497).

use super::events::Effect;
use super::leader::Leader;
use super::local::Local;
use super::progress::FollowerState;
use super::types::{AlterOutcome, Millis};
use ottla_proto::{BrokerEpoch, NodeId, PartitionEpoch};
use std::collections::BTreeSet;

/// How a proposal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sent {
    /// The controller was asked.
    InFlight,
    /// Nobody knows what became of it: ask again then.
    RetryAt(Millis),
    /// Newer metadata is on its way and decides.
    AwaitingMetadata,
}

/// The ISR as the controller has it, and what this leader has proposed. What is
/// proposed may be true already, so it stays until something definite is known.
#[derive(Clone, Debug, Hash)]
pub(super) enum IsrState {
    Committed(BTreeSet<NodeId>),
    PendingExpand {
        committed: BTreeSet<NodeId>,
        proposed: BTreeSet<NodeId>,
        sent: Sent,
    },
    PendingShrink {
        committed: BTreeSet<NodeId>,
        proposed: BTreeSet<NodeId>,
        sent: Sent,
    },
    /// Who was to join cannot, but another copy of what was sent may still be on its
    /// way, and be granted when it can again. The committed ISR is proposed anew: that
    /// takes a version, and what was sent under the one before counts no more.
    PendingWithdrawal {
        committed: BTreeSet<NodeId>,
        proposed: BTreeSet<NodeId>,
        sent: Sent,
    },
}

impl IsrState {
    pub(super) fn committed(&self) -> &BTreeSet<NodeId> {
        match self {
            Self::Committed(isr)
            | Self::PendingExpand { committed: isr, .. }
            | Self::PendingShrink { committed: isr, .. }
            | Self::PendingWithdrawal { committed: isr, .. } => isr,
        }
    }

    /// Every node that may be in the ISR as far as the leader knows: none of
    /// them may lack a committed record.
    pub(super) fn maximal(&self) -> &BTreeSet<NodeId> {
        match self {
            Self::Committed(isr)
            | Self::PendingExpand { proposed: isr, .. }
            | Self::PendingWithdrawal { proposed: isr, .. }
            | Self::PendingShrink { committed: isr, .. } => isr,
        }
    }

    /// What the controller is asked for, and how that stands.
    fn pending(&mut self) -> Option<(&BTreeSet<NodeId>, &mut Sent)> {
        match self {
            Self::Committed(_) => None,
            Self::PendingExpand { proposed: isr, sent, .. }
            | Self::PendingShrink { proposed: isr, sent, .. }
            | Self::PendingWithdrawal { committed: isr, sent, .. } => Some((isr, sent)),
        }
    }
}

impl Leader {
    pub(super) fn maintain_isr(&mut self, local: &Local, now: Millis, out: &mut Vec<Effect>) {
        if matches!(self.isr, IsrState::Committed(_)) && now >= self.propose_at {
            self.propose(local, now);
        }
        let Some((proposed, sent)) = self.isr.pending() else { return };
        if matches!(sent, Sent::RetryAt(at) if *at <= now) {
            let Some(isr) = with_registrations(local, proposed) else {
                *sent = Sent::RetryAt(now + local.config.retry_backoff);
                return;
            };
            *sent = Sent::InFlight;
            let (leader_epoch, partition_epoch) = (local.epoch(), self.partition_epoch);
            out.push(Effect::AlterPartition { leader_epoch, partition_epoch, isr });
        }
    }

    /// Those who are stuck leave first: they hold back everybody. A leader that
    /// may lack committed records has begun without them once it has started; it
    /// says so even if nobody joins.
    fn propose(&mut self, local: &Local, now: Millis) {
        let committed = self.isr.committed().clone();
        let sent = Sent::RetryAt(now);
        let stuck = |(_, state): &(&NodeId, &FollowerState)| self.lags_at(local, state) <= now;
        let members = self.followers.iter().filter(|(node, _)| committed.contains(node));
        let leaving: BTreeSet<NodeId> = members
            .filter(|(_, state)| is_behind(local, state))
            .filter(stuck)
            .map(|(node, _)| *node)
            .collect();
        if !leaving.is_empty() {
            let proposed = committed.difference(&leaving).copied().collect();
            self.isr = IsrState::PendingShrink { committed, proposed, sent };
            return;
        }
        let outside = self.followers.iter().filter(|(node, _)| !committed.contains(node));
        let joining: BTreeSet<NodeId> = outside
            .filter(|(node, state)| self.may_join(local, **node, state))
            .map(|(node, _)| *node)
            .collect();
        if !joining.is_empty() || self.recovering {
            let proposed = committed.union(&joining).copied().collect();
            self.isr = IsrState::PendingExpand { committed, proposed, sent };
        }
    }

    /// All of: acknowledged to this leadership; has all that is committed, and
    /// all up to the start of this leadership (KAFKA-7128: until then the
    /// watermark may be behind the truth); eligible, under the registration it
    /// acknowledged with (KIP-841, KIP-903). Both come from one view.
    fn may_join(&self, local: &Local, node: NodeId, state: &FollowerState) -> bool {
        let position = state.acked.map(|acked| acked.position(local.view.durability));
        let (Some(position), Some(start)) = (position, self.start) else { return false };
        position >= local.watermark && position >= start && is_eligible(local, node, state)
    }

    /// Caught up of late, and eligible: it will join as soon as it reaches the
    /// watermark, which must not run away from it.
    pub(super) fn is_joining(
        &self,
        local: &Local,
        node: NodeId,
        state: &FollowerState,
        now: Millis,
    ) -> bool {
        state.caught_up.is_some()
            && self.lags_at(local, state) > now
            && is_eligible(local, node, state)
    }

    /// From then on a follower that is behind counts as stuck.
    fn lags_at(&self, local: &Local, state: &FollowerState) -> Millis {
        state.caught_up.unwrap_or_default().saturating_add(local.view.lag_max)
    }

    /// A follower outside the ISR that has not kept up no longer counts as joining.
    pub(super) fn forget_laggards(&mut self, local: &Local, now: Millis) {
        let lag_max = local.view.lag_max;
        let maximal = self.isr.maximal();
        for (node, state) in &mut self.followers {
            let stale = state.caught_up.is_some_and(|at| at.saturating_add(lag_max) <= now);
            if stale && !maximal.contains(node) {
                state.caught_up = None;
            }
        }
    }

    /// When time alone would change the ISR or the watermark.
    pub(super) fn isr_deadline(&self, local: &Local) -> Option<Millis> {
        self.start?;
        let (committed, maximal) = (self.isr.committed(), self.isr.maximal());
        let behind = self.followers.iter().filter(|(_, state)| is_behind(local, state));
        let (members, others): (Vec<_>, Vec<_>) =
            behind.partition(|(node, _)| committed.contains(node));
        let lag = |(_, state): &(&NodeId, &FollowerState)| self.lags_at(local, state);
        // Who is proposed holds the watermark however late it is: its time changes nothing
        // before the answer.
        let others = others.iter().filter(|(node, _)| !maximal.contains(node));
        let joining = others.filter(|(_, state)| state.caught_up.is_some()).map(lag).min();
        let own = match &self.isr {
            IsrState::Committed(_) => {
                let stuck = members.iter().map(lag).min();
                let news = self.recovering || self.someone_may_join(local);
                let join = news.then_some(self.propose_at);
                stuck.map(|at| at.max(self.propose_at)).into_iter().chain(join).min()
            }
            IsrState::PendingExpand { sent, .. }
            | IsrState::PendingShrink { sent, .. }
            | IsrState::PendingWithdrawal { sent, .. } => match sent {
                Sent::RetryAt(at) => Some(*at),
                Sent::InFlight | Sent::AwaitingMetadata => None,
            },
        };
        joining.into_iter().chain(own).min()
    }

    fn someone_may_join(&self, local: &Local) -> bool {
        let committed = self.isr.committed();
        let mut outside = self.followers.iter().filter(|(node, _)| !committed.contains(node));
        outside.any(|(node, state)| self.may_join(local, *node, state))
    }

    /// The controller's word. Who is new in the ISR has the whole lag time from
    /// now. Who left it with something missing has to be heard again: what it
    /// acknowledged long ago is no reason to take it back.
    pub(super) fn commit_isr(
        &mut self,
        local: &Local,
        version: PartitionEpoch,
        isr: BTreeSet<NodeId>,
        now: Millis,
    ) {
        for (node, state) in &mut self.followers {
            match (self.isr.committed().contains(node), isr.contains(node)) {
                (false, true) => state.caught_up = Some(now),
                (true, false) if is_behind(local, state) => state.acked = None,
                _ => {}
            }
        }
        self.partition_epoch = version;
        self.isr = IsrState::Committed(isr);
    }

    /// The reaction to each answer decides what may be lost: only a proposal that
    /// certainly was not written may be taken back.
    pub(super) fn on_alter_answered(
        &mut self,
        local: &Local,
        asked_at: PartitionEpoch,
        outcome: AlterOutcome,
        now: Millis,
    ) {
        let retry_at = now + local.config.retry_backoff;
        match outcome {
            AlterOutcome::Changed { leader_epoch, partition_epoch, isr, min_isr } => {
                let newer = leader_epoch == local.epoch() && partition_epoch > self.partition_epoch;
                if newer && isr.contains(&local.me()) {
                    // A larger minimum that this node has not heard of yet: others
                    // may be eligible already, who must not miss what is committed.
                    self.min_isr = self.min_isr.max(min_isr);
                    self.recovering = false;
                    self.commit_isr(local, partition_epoch, isr, now);
                }
            }
            _ if asked_at != self.partition_epoch => {}
            AlterOutcome::NotApplied => self.take_back(now, retry_at),
            AlterOutcome::Superseded => self.set_sent(Sent::AwaitingMetadata),
            AlterOutcome::Unknown => self.set_sent(Sent::RetryAt(retry_at)),
        }
    }

    /// The proposal was refused, and nothing came of it. That is known of one copy of
    /// it only: an earlier attempt, or the same call delivered twice, may be granted yet.
    /// So who was to join is waited for until that cannot happen any more. (A member
    /// that is to leave may do so late: it is waited for in any case.)
    fn take_back(&mut self, now: Millis, retry_at: Millis) {
        let committed = self.isr.committed().clone();
        self.isr = match &self.isr {
            IsrState::PendingExpand { proposed, .. } => {
                let (proposed, sent) = (proposed.clone(), Sent::RetryAt(now));
                IsrState::PendingWithdrawal { committed, proposed, sent }
            }
            IsrState::PendingWithdrawal { proposed, .. } => {
                let (proposed, sent) = (proposed.clone(), Sent::RetryAt(retry_at));
                IsrState::PendingWithdrawal { committed, proposed, sent }
            }
            _ => IsrState::Committed(committed),
        };
        self.propose_at = retry_at;
    }

    fn set_sent(&mut self, to: Sent) {
        if let Some((_, sent)) = self.isr.pending() {
            *sent = to;
        }
    }
}

fn is_behind(local: &Local, state: &FollowerState) -> bool {
    state.acked.is_none_or(|acked| acked.position(local.view.durability) < local.log.end)
}

pub(super) fn is_eligible(local: &Local, node: NodeId, state: &FollowerState) -> bool {
    local.view.member(node).is_some_and(|member| {
        member.eligible
            && member.broker_epoch.is_some()
            && member.broker_epoch == state.broker_epoch
    })
}

/// The members with the registrations in the view at hand: the one in which
/// those who join were found eligible (KAFKA-15221).
fn with_registrations(local: &Local, isr: &BTreeSet<NodeId>) -> Option<Vec<(NodeId, BrokerEpoch)>> {
    isr.iter().map(|node| Some((*node, local.view.member(*node)?.broker_epoch?))).collect()
}
