//! What a heartbeat makes of a broker.
//!
//! | state | input | next |
//! |---|---|---|
//! | fenced | wants shutdown | may stop |
//! | fenced | wants no fence, and has applied its own registration | unfenced |
//! | unfenced | wants fence and shutdown | fenced, may stop |
//! | unfenced | wants fence | fenced |
//! | unfenced | wants shutdown, leads what another can lead | controlled shutdown |
//! | unfenced | wants shutdown, leads nothing of the kind | fenced, may stop |
//! | controlled shutdown | all active brokers know who leads instead | fenced, may stop |
//!
//! A broker in controlled shutdown goes on leading what nobody else can until
//! it is told to stop; it does not wait for somebody to catch up.

use super::brokers::{current_broker, fence};
use super::draft::Draft;
use super::partitions::settle_all_of;
use super::{Controller, Heartbeat, Reply};
use crate::image::{Broker, Image};
use crate::records::{BrokerShutdownStarted, BrokerUnfenced};
use ottla_proto::{ApiError, NodeId};

/// The states of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fenced,
    Unfenced,
    ControlledShutdown,
}

impl State {
    fn of(broker: &Broker) -> Self {
        if broker.fenced {
            Self::Fenced
        } else if broker.shutting_down {
            Self::ControlledShutdown
        } else {
            Self::Unfenced
        }
    }
}

const FENCED: Reply = Reply::Heartbeat { fenced: true, should_shutdown: false };
const UNFENCED: Reply = Reply::Heartbeat { fenced: false, should_shutdown: false };
const MAY_STOP: Reply = Reply::Heartbeat { fenced: true, should_shutdown: true };

impl Controller {
    pub(super) fn heartbeat(
        &mut self,
        draft: &mut Draft,
        beat: Heartbeat,
        now_ms: u64,
    ) -> Result<Reply, ApiError> {
        let broker = current_broker(draft.image(), beat.node_id, beat.broker_epoch)?;
        self.sessions.renew(beat.node_id, beat.broker_epoch, beat.metadata_offset, now_ms);
        let reply = match State::of(&broker) {
            State::Fenced => from_fenced(draft, &broker, beat),
            State::Unfenced if beat.want_fence || beat.want_shutdown => {
                self.leave(draft, &broker, beat)
            }
            State::Unfenced => UNFENCED,
            State::ControlledShutdown => self.finish_shutdown(draft, &broker),
        };
        Ok(reply)
    }

    fn leave(&mut self, draft: &mut Draft, broker: &Broker, beat: Heartbeat) -> Reply {
        let (node_id, epoch) = (broker.node_id, broker.epoch);
        if !beat.want_shutdown {
            fence(draft, node_id, epoch);
            return FENCED;
        }
        let replaceable = leads_what_another_can(draft.image(), node_id);
        // Recorded even if it stops at once: its successor must not be taken
        // for a duplicate.
        draft.push(BrokerShutdownStarted { node_id, epoch });
        if beat.want_fence || !replaceable {
            fence(draft, node_id, epoch);
            return MAY_STOP;
        }
        settle_all_of(draft, node_id, None);
        self.sessions.leaderships_moved(node_id, draft.image().offset);
        UNFENCED
    }

    fn finish_shutdown(&mut self, draft: &mut Draft, broker: &Broker) -> Reply {
        if !self.sessions.others_know_of_shutdown(draft.image(), broker.node_id) {
            return UNFENCED;
        }
        fence(draft, broker.node_id, broker.epoch);
        MAY_STOP
    }
}

fn from_fenced(draft: &mut Draft, broker: &Broker, beat: Heartbeat) -> Reply {
    if beat.want_shutdown {
        return MAY_STOP;
    }
    // Until it has applied its registration it acts on metadata of the process
    // before it. A broker that was told to stop, or whose directory was
    // replaced, comes back as a new one.
    let caught_up = beat.metadata_offset.0 >= broker.epoch.0;
    let known = draft.image().voter_directories.get(&broker.node_id);
    let replaced = known.is_some_and(|directory| *directory != broker.directory)
        || draft.image().retired_directories.contains_key(&broker.directory);
    if beat.want_fence || !caught_up || broker.shutting_down || replaced {
        return FENCED;
    }
    draft.push(BrokerUnfenced { node_id: broker.node_id, epoch: broker.epoch });
    settle_all_of(draft, broker.node_id, None);
    UNFENCED
}

fn leads_what_another_can(image: &Image, node: NodeId) -> bool {
    image.partitions.iter().any(|(&id, partition)| {
        partition.leader == Some(node)
            && partition.isr.iter().any(|&member| member != node && image.can_serve(member, id))
    })
}
