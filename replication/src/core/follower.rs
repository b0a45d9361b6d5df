//! Following: one session after another, each from a log that stands still.
//!
//! A session begins once every operation ordered before it is done, so that what
//! the leader is told about the log is true. Whatever shakes the session (a new
//! epoch, a new connection, a divergence, a refusal) ends it and begins another.

use super::events::{Effect, Event};
use super::local::Local;
use super::types::{Durability, EpochEnd, FollowRefusal, Millis, SessionRef};
use ottla_proto::{LeaderEpoch, NodeId, Offset};

#[derive(Clone, Debug, Hash)]
enum Phase {
    /// Waiting for the log to stand still.
    Settling,
    /// The leader was asked; answers to this session count.
    Following {
        of: SessionRef,
        /// The end of the log once all that was ordered is appended.
        next: Offset,
    },
    /// Refused for now.
    Waiting { retry_at: Millis },
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Follower {
    leader: NodeId,
    phase: Phase,
    /// The highest watermark heard; the local one follows as the log grows.
    heard: Offset,
    /// The highest log start heard. What is below is gone on the leader.
    leader_start: Offset,
    /// To where removing was ordered.
    raised_to: Offset,
}

impl Follower {
    pub(super) fn new(leader: NodeId, local: &Local) -> Self {
        let (heard, start) = (local.watermark, local.log.start);
        Self { leader, phase: Phase::Settling, heard, leader_start: start, raised_to: start }
    }

    pub(super) fn leader(&self) -> NodeId {
        self.leader
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        match self.phase {
            Phase::Waiting { retry_at } => Some(retry_at),
            Phase::Settling | Phase::Following { .. } => None,
        }
    }

    pub(super) fn on_settled(&mut self, local: &mut Local, out: &mut Vec<Effect>) {
        // What was heard may have been about records that are gone.
        self.heard = local.watermark;
        (self.leader_start, self.raised_to) = (local.log.start, local.log.start);
        let of = local.next_session();
        self.phase = Phase::Following { of, next: local.log.end };
        out.push(Effect::Follow { leader: self.leader, of, log: local.log });
    }

    pub(super) fn on_synced(&mut self, local: &Local, out: &mut Vec<Effect>) {
        if local.view.durability == Durability::Disk {
            self.acknowledge(local, out);
        }
    }

    pub(super) fn on_event(
        &mut self,
        local: &mut Local,
        event: Event,
        now: Millis,
        out: &mut Vec<Effect>,
    ) {
        match event {
            Event::LinkOpened { leader } if leader == self.leader => self.begin_again(local, out),
            Event::Tick if self.next_deadline().is_some_and(|retry_at| retry_at <= now) => {
                self.begin_again(local, out);
            }
            Event::Data { of, base, end, watermark, log_start } if self.belongs(of) => {
                if self.accepts(base, end) {
                    out.push(Effect::Copy { stage: local.stage });
                    self.hear(local, watermark);
                    self.hear_start(local, log_start, out);
                } else {
                    self.pause(local, now, out);
                }
            }
            Event::Watermark { of, watermark, log_start } if self.belongs(of) => {
                self.hear(local, watermark);
                self.hear_start(local, log_start, out);
            }
            Event::Diverging { of, epoch, end, local: known } if self.belongs(of) => {
                self.on_diverging(local, epoch, end, known, out);
            }
            Event::FollowRefused { of, refusal } if self.is_session(of.session) => {
                match refusal {
                    // Dropping the log is for the leader of this epoch to order.
                    FollowRefusal::OutOfRange { log_start } if self.belongs(of) => {
                        self.phase = Phase::Settling;
                        out.push(Effect::Reset { stage: local.next_stage(), start: log_start });
                    }
                    _ => self.wait(local, now),
                }
            }
            Event::Copied { stage, end } if stage == local.stage => {
                self.on_copied(local, end, out);
            }
            Event::CopyRejected { stage } if stage == local.stage => self.pause(local, now, out),
            _ => {}
        }
    }

    /// An answer counts only for the session and the epoch that it was asked in
    /// (KAFKA-13207).
    fn belongs(&self, answer: SessionRef) -> bool {
        matches!(self.phase, Phase::Following { of, .. } if of == answer)
    }

    /// A refusal names the epoch that the leader knows, which may be another.
    fn is_session(&self, session: u64) -> bool {
        matches!(self.phase, Phase::Following { of, .. } if of.session == session)
    }

    fn begin_again(&mut self, local: &mut Local, out: &mut Vec<Effect>) {
        // A truncation under way leads to a session of its own.
        if !matches!(self.phase, Phase::Settling) {
            self.phase = Phase::Settling;
            out.push(Effect::Inspect { stage: local.next_stage() });
        }
    }

    fn wait(&mut self, local: &mut Local, now: Millis) {
        local.next_stage();
        self.phase = Phase::Waiting { retry_at: now + local.config.retry_backoff };
    }

    /// Ends a session that the leader goes on with.
    fn pause(&mut self, local: &mut Local, now: Millis, out: &mut Vec<Effect>) {
        self.wait(local, now);
        out.push(Effect::Unfollow { leader: self.leader });
    }

    /// Records that fit are counted at once, before they are appended: the next
    /// ones follow them.
    fn accepts(&mut self, base: Offset, end: Offset) -> bool {
        match &mut self.phase {
            Phase::Following { next, .. } if *next == base && base < end => {
                *next = end;
                true
            }
            _ => false,
        }
    }

    fn on_copied(&mut self, local: &mut Local, end: Offset, out: &mut Vec<Effect>) {
        local.appended_to(end);
        self.hear(local, self.heard);
        self.hear_start(local, self.leader_start, out);
        match local.view.durability {
            Durability::Disk => out.push(Effect::Sync),
            Durability::Memory => self.acknowledge(local, out),
        }
    }

    /// Says where the log stands now.
    pub(super) fn acknowledge(&self, local: &Local, out: &mut Vec<Effect>) {
        if let Phase::Following { of, .. } = self.phase {
            let (leader, start) = (self.leader, local.log.start);
            let (end, synced) = (local.log.end, local.log.synced.min(local.log.end));
            out.push(Effect::Acknowledge { leader, of, end, synced, start });
        }
    }

    /// Up to its end the log equals the leader's: the session began without a
    /// divergence. So what is committed there is committed here.
    fn hear(&mut self, local: &mut Local, watermark: Offset) {
        self.heard = self.heard.max(watermark);
        local.watermark = local.watermark.max(self.heard.min(local.log.end));
    }

    /// What the leader has removed goes here too, as far as this log reaches.
    fn hear_start(&mut self, local: &Local, log_start: Offset, out: &mut Vec<Effect>) {
        self.leader_start = self.leader_start.max(log_start);
        let to = self.leader_start.min(local.log.end);
        if to > local.log.start && to > self.raised_to {
            self.raised_to = to;
            out.push(Effect::RaiseStart { stage: local.stage, to });
        }
    }

    /// Cuts the log where it parts from the leader's: at the end of the newest
    /// epoch both know, whichever log ends it earlier. If the leader's answer
    /// names an epoch unknown here, the next session asks with an older one
    /// (KIP-279). Even where no record goes, the log's memory of epochs is cut.
    fn on_diverging(
        &mut self,
        local: &mut Local,
        epoch: Option<LeaderEpoch>,
        end: Offset,
        known: Option<EpochEnd>,
        out: &mut Vec<Effect>,
    ) {
        let own = match (epoch, known) {
            (Some(_), Some(known)) => known.end,
            // Nothing here is as old as what the leader has.
            (Some(_), None) => local.log.start,
            (None, _) => local.log.end,
        };
        let to = own.min(end).min(local.log.end);
        let stage = local.next_stage();
        self.phase = Phase::Settling;
        out.push(if to < local.log.start {
            Effect::Reset { stage, start: to }
        } else {
            Effect::Truncate { stage, to }
        });
    }
}
