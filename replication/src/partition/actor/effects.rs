//! Carrying out what the replica says.

use super::Actor;
use crate::core::{Effect, SessionRef};
use crate::partition::Message;
use crate::partition::ops::{Copy, Op, Write};
use ottla_metadata::controller::PartitionAlteration;
use ottla_proto::Offset;

/// What came with the event at hand.
pub(super) enum Payload {
    Write(Write),
    Copy(Copy),
}

impl Actor {
    pub(super) fn apply(&mut self, effects: Vec<Effect>, mut payload: Option<Payload>) {
        for effect in effects {
            self.carry_out(effect, &mut payload);
        }
    }

    fn carry_out(&mut self, effect: Effect, payload: &mut Option<Payload>) {
        let id = self.partition.id;
        match effect {
            Effect::Sync => self.sync_wanted = true,
            Effect::Answer { id: request, result } => {
                // Who hears that a record is committed must find it committed.
                self.publish();
                self.requests.answer(&self.env, id, request, result);
            }
            Effect::AlterPartition { leader_epoch, partition_epoch, isr } => {
                tracing::info!(partition = %id, %leader_epoch, ?isr, "ISR proposed");
                let (partition, new_isr) = (id, isr);
                self.env.proposals.add(PartitionAlteration {
                    partition,
                    leader_epoch,
                    partition_epoch,
                    new_isr,
                    // Nothing is proposed before this leadership has started.
                    recovered: true,
                });
            }
            Effect::Serve { peer, of, from } => self.serve(peer.stream, of, from),
            Effect::Diverge { peer, of, epoch, end } => {
                if let Some(session) = self.env.sessions.get(peer.stream) {
                    session.diverge(id, of, epoch, end);
                }
            }
            Effect::Refuse { peer, of, refusal } => {
                if let Some(session) = self.env.sessions.get(peer.stream) {
                    session.refuse(id, of, refusal);
                }
            }
            Effect::Reconsider(follow) => self.on_message(Message::Follow(follow)),
            Effect::Follow { leader, of, log } => {
                self.env.links.follow(&self.env, leader, &self.partition, of, log);
            }
            Effect::Unfollow { leader } => self.env.links.unfollow(leader, id),
            Effect::Acknowledge { leader, of, end, synced, start } => {
                self.env.links.acknowledge(leader, id, of, (end, synced, start));
            }
            Effect::AnswerDeletion { id: request, result } => {
                self.publish();
                self.requests.answer_deletion(&self.env, id, request, result);
            }
            on_the_log => {
                if let Some(op) = self.op(on_the_log, payload) {
                    self.ops.push(op);
                }
            }
        }
    }

    /// The operation on the log that an effect asks for.
    fn op(&self, effect: Effect, payload: &mut Option<Payload>) -> Option<Op> {
        let id = self.partition.id;
        match (effect, payload.take()) {
            (Effect::Inspect { stage }, _) => Some(Op::Inspect(stage)),
            (Effect::StartEpoch { stage, epoch }, _) => Some(Op::StartEpoch(stage, epoch)),
            (Effect::Truncate { stage, to }, _) => {
                // Often only the memory of an epoch without records goes.
                if to < self.log.bounds().end {
                    tracing::info!(partition = %id, to, "log truncated: it parts from the leader's");
                }
                Some(Op::Truncate(stage, to))
            }
            (Effect::Reset { stage, start }, _) => {
                tracing::info!(partition = %id, start, "log reset to the leader's start");
                Some(Op::Reset(stage, start))
            }
            (Effect::RaiseStart { stage, to }, _) => Some(Op::RaiseStart(stage, to)),
            (Effect::Write { stage, epoch, .. }, Some(Payload::Write(write))) => {
                Some(Op::Write(stage, epoch, vec![write]))
            }
            (Effect::Copy { stage }, Some(Payload::Copy(copy))) => {
                Some(Op::Copy(stage, vec![copy]))
            }
            _ => None,
        }
    }

    fn serve(&mut self, stream: u64, of: SessionRef, from: Offset) {
        let Some(session) = self.env.sessions.get(stream) else { return };
        // What the follower may be sent must be visible before it is asked for.
        self.publish();
        session.serve(&self.partition, of, from);
        if !self.served.iter().any(|known| known.stream() == stream) {
            self.served.push(session);
        }
    }
}
