//! Leading: who has how much, what is committed, who waits for it.

use super::deletions::Deletions;
use super::events::{Effect, Event};
use super::isr::{IsrState, is_eligible};
use super::local::Local;
use super::progress::{Acked, FollowerState};
use super::standing::{Standing, judge};
use super::types::{
    Acks, DeletionRefusal, Durability, EpochEnd, Follow, FollowRefusal, LogState, Millis, Peer,
    ProduceRefusal, Progress, RequestId, SessionRef,
};
use super::waits::Waits;
use ottla_proto::{LeaderEpoch, NodeId, Offset, PartitionEpoch};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Hash)]
pub(super) struct Leader {
    epoch: LeaderEpoch,
    /// Where this leadership starts in the log, once that is recorded.
    pub(super) start: Option<Offset>,
    pub(super) isr: IsrState,
    pub(super) partition_epoch: PartitionEpoch,
    pub(super) followers: BTreeMap<NodeId, FollowerState>,
    /// No new ISR is proposed before.
    pub(super) propose_at: Millis,
    /// Members of the committed ISR below which nothing is committed.
    pub(super) min_isr: usize,
    /// The controller does not know yet that this leader has recovered.
    pub(super) recovering: bool,
    pub(super) waits: Waits,
    deletions: Deletions,
}

impl Leader {
    pub(super) fn new(local: &Local, now: Millis) -> Self {
        let me = local.me();
        let isr = local.view.isr.clone();
        // A member has the whole lag time to show up; others have never been seen.
        let state = |node| FollowerState::unheard(isr.contains(&node).then_some(now));
        let others = local.view.replicas.iter().map(|member| member.node).filter(|n| *n != me);
        Self {
            epoch: local.epoch(),
            start: None,
            followers: others.map(|node| (node, state(node))).collect(),
            isr: IsrState::Committed(isr),
            partition_epoch: local.view.partition_epoch,
            propose_at: now,
            min_isr: local.view.min_isr,
            recovering: local.view.recovering,
            waits: Waits::default(),
            deletions: Deletions::default(),
        }
    }

    pub(super) fn has_started(&self) -> bool {
        self.start.is_some()
    }

    pub(super) fn committed_isr(&self) -> &BTreeSet<NodeId> {
        self.isr.committed()
    }

    pub(super) fn partition_epoch(&self) -> PartitionEpoch {
        self.partition_epoch
    }

    /// Below the start of its epoch a new leader may know less than the last one.
    pub(super) fn watermark_is_current(&self, local: &Local) -> bool {
        self.start.is_some_and(|start| local.watermark >= start)
    }

    /// Whether an acks=all write would be taken, and committed as soon as the
    /// followers have it: all whom the watermark waits for are connected and have
    /// been heard of in this leadership.
    pub(super) fn can_commit(&self, local: &Local) -> bool {
        let follows = |node: &NodeId| {
            let connected = |f: &FollowerState| f.session.is_some() && f.acked.is_some();
            *node == local.me() || self.followers.get(node).is_some_and(connected)
        };
        self.has_started()
            && self.isr.committed().len() >= self.min_isr
            && self.isr.maximal().iter().all(follows)
    }

    pub(super) fn next_deadline(&self, local: &Local) -> Option<Millis> {
        let waits = [self.waits.next_deadline(), self.deletions.next_deadline()];
        waits.into_iter().chain([self.isr_deadline(local)]).flatten().min()
    }

    /// Newer metadata of the same leadership overrides what was proposed.
    pub(super) fn on_metadata(&mut self, local: &Local, before: Durability, now: Millis) {
        let view = &local.view;
        if view.durability != before {
            self.on_durability(local, before, now);
        }
        self.followers.retain(|node, _| view.member(*node).is_some());
        if view.partition_epoch >= self.partition_epoch {
            (self.min_isr, self.recovering) = (view.min_isr, view.recovering);
        }
        if view.partition_epoch > self.partition_epoch {
            self.commit_isr(local, view.partition_epoch, view.isr.clone(), now);
        }
        for member in view.replicas.iter().filter(|member| member.node != local.me()) {
            let state = self.followers.entry(member.node).or_default();
            // A follower that was fenced starts over: until it has everything
            // again it must not hold back the watermark.
            if !member.eligible && !self.isr.maximal().contains(&member.node) {
                state.start_over();
            }
        }
    }

    /// Who had everything as it was counted until now has the whole lag time to
    /// have it as it is counted from now on: nothing was asked of it before.
    fn on_durability(&mut self, local: &Local, before: Durability, now: Millis) {
        let end = local.log.end;
        for state in self.followers.values_mut().filter(|state| state.reaches(end, before)) {
            state.has_until(now, end);
        }
    }

    pub(super) fn on_started(&mut self, local: &Local, now: Millis) {
        assert!(self.start.is_none(), "a leadership starts once");
        self.start = Some(local.log.end);
        self.propose_at = now;
    }

    pub(super) fn on_event(
        &mut self,
        local: &mut Local,
        event: Event,
        now: Millis,
        out: &mut Vec<Effect>,
    ) {
        match event {
            Event::Wrote { stage, end, writes } if stage == local.stage => {
                let grew = self.on_appended(local, end, now);
                for (id, outcome) in writes {
                    match outcome {
                        Ok(next) => self.waits.appended(id, next, out),
                        Err(refusal) => {
                            self.waits.fail(id, ProduceRefusal::Producer(refusal), out);
                        }
                    }
                }
                if grew && local.view.durability == Durability::Disk {
                    out.push(Effect::Sync);
                }
            }
            Event::WriteRejected { stage, ids } if stage == local.stage => {
                for id in ids {
                    self.waits.fail(id, ProduceRefusal::DiskFull, out);
                }
            }
            Event::Progress(progress) => self.on_progress(local, progress, now),
            Event::AlterAnswered { leader_epoch, partition_epoch, outcome }
                if leader_epoch == self.epoch =>
            {
                self.on_alter_answered(local, partition_epoch, outcome, now);
            }
            _ => {}
        }
    }

    pub(super) fn on_produce(
        &mut self,
        local: &Local,
        id: RequestId,
        acks: Acks,
        deadline: Millis,
        out: &mut Vec<Effect>,
    ) {
        if acks == Acks::All && self.is_below_min_isr(local) {
            let result = Err(ProduceRefusal::NotEnoughReplicas);
            return out.push(Effect::Answer { id, result });
        }
        out.push(Effect::Write { stage: local.stage, id, epoch: self.epoch });
        if acks == Acks::None {
            out.push(Effect::Answer { id, result: Ok(()) });
        } else {
            self.waits.add(id, acks, deadline);
        }
    }

    /// Takes records away from the start; answered when they are gone from every
    /// member of the ISR. (KIP-107)
    pub(super) fn on_delete_records(
        &mut self,
        local: &Local,
        id: RequestId,
        before: Option<Offset>,
        deadline: Millis,
        out: &mut Vec<Effect>,
    ) {
        let (start, watermark) = (local.log.start, local.watermark);
        let before = before.unwrap_or(watermark);
        if before > watermark {
            let result = Err(DeletionRefusal::OutOfRange { start, watermark });
            return out.push(Effect::AnswerDeletion { id, result });
        }
        if before > start {
            out.push(Effect::RaiseStart { stage: local.stage, to: before });
        }
        self.deletions.add(id, before, deadline);
    }

    /// Below this offset nothing is left on any replica that may be in the ISR;
    /// unknown while one of them has not been heard of.
    fn low_watermark(&self, local: &Local) -> Option<Offset> {
        let mut low = local.log.start;
        for node in self.isr.maximal().iter().filter(|node| **node != local.me()) {
            low = low.min(self.followers.get(node)?.acked?.start);
        }
        Some(low)
    }

    /// The leadership has ended: whoever waits for it is told.
    pub(super) fn fail_waits(&mut self, out: &mut Vec<Effect>) {
        self.waits.fail_all(ProduceRefusal::LeadershipLost, out);
        self.deletions.fail_all(DeletionRefusal::LeadershipLost, out);
    }

    /// Returns whether the log has grown.
    fn on_appended(&mut self, local: &mut Local, end: Offset, now: Millis) -> bool {
        let (before, durability) = (local.log.end, local.view.durability);
        if end == before {
            return false; // all were repeated or refused
        }
        local.appended_to(end);
        for state in self.followers.values_mut() {
            if state.reaches(before, durability) {
                // It had everything until now: nobody fetches from an idle partition.
                state.has_until(now, end);
            } else {
                state.log_grew(before, now);
            }
        }
        true
    }

    /// The order of the checks is Kafka's: an offset out of range comes before a
    /// divergence (KAFKA-12996), and only a request that is served counts as an
    /// acknowledgement (KAFKA-13141).
    pub(super) fn on_follow(
        &mut self,
        local: &mut Local,
        follow: &Follow,
        known: Option<EpochEnd>,
        now: Millis,
        out: &mut Vec<Effect>,
    ) {
        let (peer, node) = (follow.peer, follow.peer.node);
        let of = SessionRef { session: follow.session, leader_epoch: self.epoch };
        let refuse = |refusal| Effect::Refuse { peer, of, refusal };
        let newest = local.view.member(node).and_then(|member| member.broker_epoch);
        let Some(state) = self.followers.get_mut(&node) else {
            return out.push(refuse(FollowRefusal::UnknownPartition));
        };
        if newest.max(state.broker_epoch) > Some(follow.broker_epoch) {
            return out.push(refuse(FollowRefusal::StaleBrokerEpoch));
        }
        if peer.stream < state.stream {
            return;
        }
        let log = local.log;
        match judge(follow.log, log.start, log.end, known) {
            Standing::OutOfRange => {
                let refusal = FollowRefusal::OutOfRange { log_start: log.start };
                return out.push(refuse(refusal));
            }
            Standing::Diverging { epoch, end } => {
                return out.push(Effect::Diverge { peer, of, epoch, end });
            }
            Standing::Prefix => {}
        }
        state.session = Some((peer, follow.session));
        state.stream = peer.stream;
        state.broker_epoch = Some(follow.broker_epoch);
        if !self.isr.maximal().contains(&node) {
            state.start_over();
        }
        let LogState { start, end, synced, .. } = follow.log;
        let acked = Acked { end, synced, start };
        self.record(local, node, acked, now);
        out.push(Effect::Serve { peer, of, from: follow.log.end });
    }

    pub(super) fn on_unfollow(&mut self, peer: Peer) {
        if let Some(state) = self.followers.get_mut(&peer.node)
            && state.session.is_some_and(|(of, _)| of == peer)
        {
            state.session = None;
        }
    }

    fn on_progress(&mut self, local: &mut Local, progress: Progress, now: Millis) {
        let Some(state) = self.followers.get(&progress.peer.node) else { return };
        let in_session = state.session == Some((progress.peer, progress.session));
        let possible = progress.end <= local.log.end
            && state.acked.is_none_or(|acked| {
                progress.end >= acked.end && progress.synced >= acked.synced.min(acked.end)
            });
        if in_session && progress.leader_epoch == self.epoch && possible {
            let Progress { end, synced, start, .. } = progress;
            let acked = Acked { end, synced, start };
            self.record(local, progress.peer.node, acked, now);
        }
    }

    fn record(&mut self, local: &Local, node: NodeId, acked: Acked, now: Millis) {
        let state = self.followers.get_mut(&node).expect("only a known follower is recorded");
        state.record(acked, local.view.durability, local.log.end, now);
    }

    /// The followers that what is committed waits for: see [`Self::committed_to`]. Who
    /// has stopped joining since the last event is still among them.
    pub(super) fn waited_for(&self, local: &Local) -> impl Iterator<Item = NodeId> {
        let maximal = self.isr.maximal();
        let joins = |node, state: &FollowerState| {
            state.caught_up.is_some() && is_eligible(local, node, state)
        };
        let followers = self.followers.iter();
        followers
            .filter(move |(node, state)| maximal.contains(node) || joins(**node, state))
            .map(|(node, _)| *node)
    }

    /// What follows from any event: the ISR, the watermark, who need not wait.
    pub(super) fn maintain(&mut self, local: &mut Local, now: Millis, out: &mut Vec<Effect>) {
        if self.has_started() {
            self.forget_laggards(local, now);
            // First, so that who has just left the ISR is measured by what is
            // committed without it. A growing ISR moves no watermark.
            if let Some(to) = self.committed_to(local, now) {
                local.watermark = local.watermark.max(to);
            }
            self.maintain_isr(local, now, out);
            self.waits.committed(local.watermark, out);
        }
        if !self.deletions.is_empty() {
            if let Some(low) = self.low_watermark(local) {
                self.deletions.gone(low, out);
            }
            self.deletions.expire(now, out);
        }
        self.waits.expire(now, self.is_below_min_isr(local), out);
    }

    pub(super) fn is_below_min_isr(&self, local: &Local) -> bool {
        self.isr.committed().len() < self.min_isr.max(local.view.min_isr)
    }

    /// How far the log is committed. Nothing is, beyond what was, while the
    /// committed ISR is below the minimum (KIP-966) or a member of the maximal
    /// ISR has not acknowledged to this leadership. A follower outside that has
    /// caught up and may join counts too: else the watermark could run ahead of
    /// it for ever.
    fn committed_to(&self, local: &Local, now: Millis) -> Option<Offset> {
        if self.is_below_min_isr(local) {
            return None;
        }
        let maximal = self.isr.maximal();
        let mut lowest = local.own_position();
        for (node, state) in &self.followers {
            let position = state.acked.map(|acked| acked.position(local.view.durability));
            if maximal.contains(node) {
                lowest = lowest.min(position?);
            } else if let Some(position) = position
                && self.is_joining(local, *node, state, now)
            {
                lowest = lowest.min(position);
            }
        }
        let known = |node: &NodeId| *node == local.me() || self.followers.contains_key(node);
        maximal.iter().all(known).then_some(lowest)
    }
}
