//! The replica: takes events, hands them to its role, changes roles.

use super::events::{Effect, Event};
use super::follower::Follower;
use super::leader::Leader;
use super::local::{Local, ReplicaConfig};
use super::parked::Parked;
use super::types::{
    Acks, DeletionRefusal, Follow, FollowRefusal, LogState, Millis, ProduceRefusal, ReplicaStatus,
    RequestId, RoleKind, SessionRef, Stage, View,
};
use ottla_proto::{LeaderEpoch, NodeId, Offset};
use std::collections::BTreeSet;

#[derive(Clone, Debug, Hash)]
pub(super) enum Role {
    Leader(Leader),
    Follower(Follower),
    NoLeader,
    Offline,
}

/// One replica of one partition. Two that are equal go on equally, which is what
/// a model checker asks of a state.
#[derive(Clone, Debug, Hash)]
pub struct Replica {
    local: Local,
    role: Role,
    /// They are heard once this replica has caught up with the metadata.
    parked: Parked,
    /// The newest epoch in the log when it was opened. An epoch that an earlier
    /// run of this node may have led is never led again: what it appended and
    /// did not sync may be gone here and present elsewhere.
    opened_with: Option<LeaderEpoch>,
}

impl Replica {
    /// A replica that has just opened its log and reads the metadata for the
    /// first time. `watermark`: records below are known to be committed; clamped
    /// to the log.
    #[must_use]
    pub fn open(
        config: ReplicaConfig,
        log: LogState,
        watermark: Offset,
        view: View,
        now: Millis,
    ) -> (Self, Vec<Effect>) {
        let mut replica = Self {
            local: Local::new(config, log, watermark, view),
            role: Role::NoLeader,
            parked: Parked::default(),
            opened_with: log.last_epoch,
        };
        let mut out = Vec::new();
        replica.take_role(now, &mut out);
        (replica, out)
    }

    /// Takes one event at time `now` (which never goes back) and says what is to
    /// be done.
    pub fn step(&mut self, event: Event, now: Millis) -> Vec<Effect> {
        let mut out = Vec::new();
        let (epoch, led_to) = (self.local.epoch(), self.leads_to());
        match event {
            Event::Metadata(view) => self.on_metadata(view, now, &mut out),
            Event::DiskFailed => self.on_disk_failed(&mut out),
            Event::Settled { stage, log } => self.on_settled(stage, log, now, &mut out),
            Event::Follow { follow, local } => self.on_follow(follow, local, now, &mut out),
            Event::Unfollow { peer } => {
                self.parked.unfollow(peer);
                if let Role::Leader(leader) = &mut self.role {
                    leader.on_unfollow(peer);
                }
            }
            Event::Produce { id, acks, deadline } => self.on_produce(id, acks, deadline, &mut out),
            Event::Synced { up_to } => self.on_synced(up_to, &mut out),
            Event::StartRaised { start } => self.on_start_raised(start, &mut out),
            Event::DeleteRecords { id, before, deadline } => {
                self.on_delete_records(id, before, deadline, &mut out);
            }
            Event::Progress(progress) if self.parked.holds(&progress) => {
                self.parked.note(&progress)
            }
            other => match &mut self.role {
                Role::Leader(leader) => leader.on_event(&mut self.local, other, now, &mut out),
                Role::Follower(follower) => {
                    follower.on_event(&mut self.local, other, now, &mut out);
                }
                Role::NoLeader | Role::Offline => {}
            },
        }
        if let Role::Leader(leader) = &mut self.role {
            leader.maintain(&mut self.local, now, &mut out);
        }
        self.check(epoch, led_to);
        out
    }

    /// When the next [`Event::Tick`] is due. `None`: not before something else
    /// happens, as in an idle partition that is fully replicated.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        match &self.role {
            Role::Leader(leader) => leader.next_deadline(&self.local),
            Role::Follower(follower) => follower.next_deadline(),
            Role::NoLeader | Role::Offline => None,
        }
    }

    /// The current stage: an operation on the log that was ordered in an earlier
    /// one must not begin.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.local.stage
    }

    /// A picture for readers.
    #[must_use]
    pub fn status(&self) -> ReplicaStatus {
        let local = &self.local;
        let leader = self.leader();
        let role = match &self.role {
            Role::Leader(leader) if leader.has_started() => RoleKind::Leader,
            Role::Leader(_) | Role::NoLeader => RoleKind::NoLeader,
            Role::Follower(_) => RoleKind::Follower,
            Role::Offline => RoleKind::Offline,
        };
        ReplicaStatus {
            role,
            leader_epoch: local.epoch(),
            partition_epoch: leader.map_or(local.view.partition_epoch, Leader::partition_epoch),
            leader: local.view.leader,
            log_start: local.log.start,
            log_end: local.log.end,
            synced: local.log.synced.min(local.log.end),
            high_watermark: local.watermark,
            watermark_is_current: leader.is_some_and(|l| l.watermark_is_current(local)),
            can_commit: leader.is_some_and(|l| l.can_commit(local)),
        }
    }

    /// The committed in-sync replicas, as far as known here.
    #[must_use]
    pub fn isr(&self) -> &BTreeSet<NodeId> {
        match &self.role {
            Role::Leader(leader) => leader.committed_isr(),
            Role::Follower(_) | Role::NoLeader | Role::Offline => &self.local.view.isr,
        }
    }

    /// Leader only: where the log of each other replica ends, as far as it has
    /// acknowledged to this leadership.
    pub fn followers(&self) -> impl Iterator<Item = (NodeId, Option<Offset>)> {
        let all = self.leader().into_iter().flat_map(|leader| &leader.followers);
        all.map(|(node, state)| (*node, state.acked.map(|acked| acked.end)))
    }

    /// Leader only: the followers that what is committed waits for, sorted: all that
    /// may be in the ISR, and those that are about to join.
    pub fn waited_for(&self) -> impl Iterator<Item = NodeId> {
        self.leader().into_iter().flat_map(|leader| leader.waited_for(&self.local))
    }

    fn leader(&self) -> Option<&Leader> {
        match &self.role {
            Role::Leader(leader) => Some(leader),
            Role::Follower(_) | Role::NoLeader | Role::Offline => None,
        }
    }

    fn on_metadata(&mut self, view: View, now: Millis, out: &mut Vec<Effect>) {
        let known = self.local.epoch();
        assert!(view.leader_epoch >= known, "the metadata's leader epoch went back");
        let before = std::mem::replace(&mut self.local.view, view);
        if matches!(self.role, Role::Offline) {
            return;
        }
        if self.local.epoch() > known {
            self.leave_role(before.leader, out);
            return self.take_role(now, out);
        }
        if let Role::Leader(leader) = &mut self.role {
            leader.on_metadata(&self.local, before.durability, now);
        }
        // What was enough in memory is now owed on disk, and nothing else may
        // come that would sync it.
        let owed = before.durability != self.local.view.durability && self.local.owes_sync();
        if owed && matches!(self.role, Role::Leader(_) | Role::Follower(_)) {
            out.push(Effect::Sync);
        }
    }

    fn leave_role(&mut self, old_leader: Option<NodeId>, out: &mut Vec<Effect>) {
        match &mut self.role {
            Role::Leader(leader) => leader.fail_waits(out),
            Role::Follower(_) => {
                if let Some(leader) = old_leader
                    && self.local.view.leader != Some(leader)
                {
                    out.push(Effect::Unfollow { leader });
                }
            }
            Role::NoLeader | Role::Offline => {}
        }
    }

    fn take_role(&mut self, now: Millis, out: &mut Vec<Effect>) {
        let stage = self.local.next_stage();
        let epoch = self.local.epoch();
        self.role = match self.local.view.leader {
            Some(node) if node == self.local.me() => {
                if self.opened_with.is_some_and(|opened| opened >= epoch) {
                    Role::NoLeader
                } else {
                    out.push(Effect::StartEpoch { stage, epoch });
                    Role::Leader(Leader::new(&self.local, now))
                }
            }
            Some(node) => {
                out.push(Effect::Inspect { stage });
                Role::Follower(Follower::new(node, &self.local))
            }
            None => Role::NoLeader,
        };
        if !matches!(self.role, Role::Leader(_)) {
            self.hear_parked(out);
        }
    }

    fn on_settled(&mut self, stage: Stage, log: LogState, now: Millis, out: &mut Vec<Effect>) {
        if stage != self.local.stage {
            return;
        }
        self.local.settle(log);
        if self.local.owes_sync() {
            out.push(Effect::Sync);
        }
        match &mut self.role {
            Role::Leader(leader) => {
                leader.on_started(&self.local, now);
                self.hear_parked(out);
            }
            Role::Follower(follower) => follower.on_settled(&mut self.local, out),
            Role::NoLeader | Role::Offline => {}
        }
    }

    fn on_produce(&mut self, id: RequestId, acks: Acks, deadline: Millis, out: &mut Vec<Effect>) {
        let refusal = match &mut self.role {
            Role::Leader(leader) => {
                return leader.on_produce(&self.local, id, acks, deadline, out);
            }
            Role::Offline => ProduceRefusal::Offline,
            Role::Follower(_) | Role::NoLeader => ProduceRefusal::NotLeader,
        };
        out.push(Effect::Answer { id, result: Err(refusal) });
    }

    fn on_delete_records(
        &mut self,
        id: RequestId,
        before: Option<Offset>,
        deadline: Millis,
        out: &mut Vec<Effect>,
    ) {
        let refusal = match &mut self.role {
            Role::Leader(leader) if leader.has_started() => {
                return leader.on_delete_records(&self.local, id, before, deadline, out);
            }
            Role::Offline => DeletionRefusal::Offline,
            Role::Leader(_) | Role::Follower(_) | Role::NoLeader => DeletionRefusal::NotLeader,
        };
        out.push(Effect::AnswerDeletion { id, result: Err(refusal) });
    }

    fn on_synced(&mut self, up_to: Offset, out: &mut Vec<Effect>) {
        self.local.synced_to(up_to);
        if let Role::Follower(follower) = &mut self.role {
            follower.on_synced(&self.local, out);
        }
    }

    /// Only what is committed is ever removed, so the watermark goes along. A
    /// start that does not fit the log belongs to one that is gone; the next
    /// [`Event::Settled`] says more.
    fn on_start_raised(&mut self, start: Offset, out: &mut Vec<Effect>) {
        let local = &mut self.local;
        if start <= local.log.start || start > local.log.end {
            return;
        }
        local.log.start = start;
        local.watermark = local.watermark.max(start);
        if let Role::Follower(follower) = &self.role {
            follower.acknowledge(local, out);
        }
    }

    fn on_disk_failed(&mut self, out: &mut Vec<Effect>) {
        self.local.next_stage();
        match std::mem::replace(&mut self.role, Role::Offline) {
            Role::Leader(mut leader) => leader.fail_waits(out),
            Role::Follower(follower) => out.push(Effect::Unfollow { leader: follower.leader() }),
            Role::NoLeader | Role::Offline => {}
        }
        self.hear_parked(out);
    }

    fn on_follow(
        &mut self,
        follow: Follow,
        local: Option<super::EpochEnd>,
        now: Millis,
        out: &mut Vec<Effect>,
    ) {
        let of = SessionRef { session: follow.session, leader_epoch: self.local.epoch() };
        let refusal = match &mut self.role {
            Role::Offline => FollowRefusal::Offline,
            _ if follow.leader_epoch < self.local.epoch() => FollowRefusal::FencedLeaderEpoch,
            _ if follow.leader_epoch > self.local.epoch() => return self.park(follow, out),
            Role::Leader(leader) if leader.has_started() => {
                return leader.on_follow(&mut self.local, &follow, local, now, out);
            }
            Role::Leader(_) => return self.park(follow, out),
            Role::Follower(_) | Role::NoLeader => FollowRefusal::NotLeader,
        };
        out.push(Effect::Refuse { peer: follow.peer, of, refusal });
    }

    /// Only replicas are kept waiting.
    fn park(&mut self, follow: Follow, out: &mut Vec<Effect>) {
        if self.local.view.member(follow.peer.node).is_some() {
            self.parked.keep(follow);
        } else {
            let of = SessionRef { session: follow.session, leader_epoch: self.local.epoch() };
            let refusal = FollowRefusal::UnknownLeaderEpoch;
            out.push(Effect::Refuse { peer: follow.peer, of, refusal });
        }
    }

    fn hear_parked(&mut self, out: &mut Vec<Effect>) {
        out.extend(self.parked.take().map(Effect::Reconsider));
    }

    /// The watermark, once this replica leads: from then on it only rises.
    fn leads_to(&self) -> Option<Offset> {
        match &self.role {
            Role::Leader(leader) if leader.has_started() => Some(self.local.watermark),
            _ => None,
        }
    }

    fn check(&self, epoch: LeaderEpoch, led_to: Option<Offset>) {
        let local = &self.local;
        assert!(local.epoch() >= epoch, "the leader epoch went back");
        assert!(
            local.watermark >= local.log.start && local.watermark <= local.log.end,
            "the high watermark {} lies outside the log {}..{}",
            local.watermark,
            local.log.start,
            local.log.end
        );
        if local.epoch() == epoch
            && let (Some(before), Some(after)) = (led_to, self.leads_to())
        {
            assert!(after >= before, "a leader's high watermark went back");
        }
    }
}

/// For whoever checks that the watermark waits for the right ones.
#[cfg(test)]
impl Replica {
    /// The committed in-sync replicas, and whom this leader has proposed to add.
    pub(crate) fn maximal_isr(&self) -> &BTreeSet<NodeId> {
        match &self.role {
            Role::Leader(leader) => leader.isr.maximal(),
            Role::Follower(_) | Role::NoLeader | Role::Offline => &self.local.view.isr,
        }
    }
}
