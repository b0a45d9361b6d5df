//! Registration of brokers, and fencing of those that fell silent.
//!
//! A node id belongs to one process at a time. Another incarnation is refused
//! while the current one shows that it lives: its session has not expired *and*
//! its heartbeat stream is open here. Either alone would lock out the wrong
//! one: a killed process's session outlives it, though its stream breaks at
//! once; a frozen host's stream stays open, though its session expires. A
//! process pushed aside by mistake does no harm: all its calls carry an epoch
//! that is refused from then on.
//!
//! A new incarnation starts fenced, hence outside every ISR. Whether it can lead
//! for want of an ISR depends on what it may have lost: one that did not leave in
//! order (KAFKA-15586), what it had not synced; one with another data directory,
//! everything (KAFKA-18106).

use super::draft::Draft;
use super::features::check_supported;
use super::partitions::{Loss, concerns, settle_all_of};
use super::parts::MAX_TOGETHER;
use super::voters::check_not_retired;
use super::{Controller, RegisterBroker, Reply};
use crate::image::{Broker, Image};
use crate::records::{BrokerFenced, BrokerRegistered};
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, BrokerEpoch, MetadataOffset, NodeId};
use std::sync::Arc;
use std::time::Duration;

/// Longest host name, in bytes: what the domain name system allows.
pub const MAX_HOST_BYTES: usize = 255;

/// Longest rack name, in bytes. Rack names go into every image of every node.
pub const MAX_RACK_BYTES: usize = 255;

impl Controller {
    pub(super) fn register(
        &mut self,
        draft: &mut Draft,
        request: RegisterBroker,
        now_ms: u64,
    ) -> Result<Reply, ApiError> {
        self.check_registration(draft.image(), &request)?;
        let node_id = request.node_id;
        let existing = draft.image().brokers.get(&node_id).map(Arc::clone);
        match existing {
            Some(broker) if broker.incarnation == request.incarnation => {
                Ok(self.register_again(draft, &broker, request, now_ms))
            }
            Some(broker) if self.still_lives(&broker, &request, now_ms) => {
                Err(duplicate(&broker, &request, self.options.session_timeout_ms))
            }
            existing => Ok(self.register_new(draft, existing.as_deref(), request, now_ms)),
        }
    }

    fn check_registration(&self, image: &Image, request: &RegisterBroker) -> Result<(), ApiError> {
        if request.cluster_id != self.options.cluster_id {
            let message = format!(
                "node {} belongs to cluster `{}`, this is cluster `{}`",
                request.node_id, request.cluster_id, self.options.cluster_id
            );
            return Err(ApiError::new(ErrorReason::WrongCluster, message));
        }
        let problem = if request.node_id == NodeId(0) {
            "node ids start from 1".to_owned()
        } else if request.host.is_empty() || request.host.len() > MAX_HOST_BYTES {
            format!("a host name has 1 to {MAX_HOST_BYTES} bytes")
        } else if request.port == 0 {
            "a port is 1 to 65535".to_owned()
        } else if request.rack.as_ref().is_some_and(|r| r.is_empty() || r.len() > MAX_RACK_BYTES) {
            format!("a rack name has 1 to {MAX_RACK_BYTES} bytes")
        } else {
            check_supported(image.feature_level, request.node_id, request.levels)?;
            return check_directory(image, request);
        };
        Err(ApiError::new(ErrorReason::InvalidRequest, problem))
    }

    fn still_lives(&self, broker: &Broker, request: &RegisterBroker, now_ms: u64) -> bool {
        // In controlled shutdown the next process may come before the session
        // of the last one ends (KAFKA-19047).
        !broker.shutting_down
            && request.previous_stream_open
            && self.sessions.is_live(broker.node_id, broker.epoch, now_ms)
    }

    /// The same process asks again: its epoch and its state stay
    /// (KAFKA-16952, KAFKA-16757).
    fn register_again(
        &mut self,
        draft: &mut Draft,
        broker: &Broker,
        request: RegisterBroker,
        now_ms: u64,
    ) -> Reply {
        let unchanged = broker.directory == request.directory
            && broker.host == request.host
            && broker.port == request.port
            && broker.rack == request.rack
            && broker.levels == request.levels;
        let clean_restart = request.previous_broker_epoch == Some(broker.epoch);
        if !unchanged {
            draft.push(record(request, broker.epoch, broker.fenced, broker.shutting_down));
        }
        self.sessions.renew(broker.node_id, broker.epoch, MetadataOffset(0), now_ms);
        Reply::Registered { broker_epoch: broker.epoch, clean_restart }
    }

    fn register_new(
        &mut self,
        draft: &mut Draft,
        before: Option<&Broker>,
        request: RegisterBroker,
        now_ms: u64,
    ) -> Reply {
        let node_id = request.node_id;
        let clean_restart =
            before.is_some_and(|broker| request.previous_broker_epoch == Some(broker.epoch));
        let loss = match before {
            Some(broker) if broker.directory != request.directory => Some(Loss::Everything),
            Some(_) if !clean_restart => Some(Loss::Unsynced),
            _ => None,
        };
        if let (Some(broker), Some(_)) = (before, loss) {
            lose_first(draft, broker, loss);
        }
        let broker_epoch = BrokerEpoch(draft.image().offset.0 + 1);
        draft.push(record(request, broker_epoch, true, false));
        if before.is_some() {
            settle_all_of(draft, node_id, loss);
        }
        self.sessions.renew(node_id, broker_epoch, MetadataOffset(0), now_ms);
        Reply::Registered { broker_epoch, clean_restart }
    }

    /// Fences a broker whose session has expired.
    pub(super) fn fence_silent(
        &self,
        draft: &mut Draft,
        node_id: NodeId,
        broker_epoch: BrokerEpoch,
        now_ms: u64,
    ) -> Reply {
        let current = draft.image().brokers.get(&node_id);
        let unfenced = current.is_some_and(|b| b.epoch == broker_epoch && !b.fenced);
        if unfenced && !self.sessions.is_live(node_id, broker_epoch, now_ms) {
            fence(draft, node_id, broker_epoch);
        }
        Reply::Done
    }
}

/// Fences a broker: out of every ISR and every leadership. Its epoch stays, and
/// where it is eligible it remains so.
pub(super) fn fence(draft: &mut Draft, node_id: NodeId, epoch: BrokerEpoch) {
    draft.push(BrokerFenced { node_id, epoch });
    settle_all_of(draft, node_id, None);
}

/// Where what follows from a loss may not fit one entry it goes before the
/// registration: once that is known, nothing else says that something was lost.
fn lose_first(draft: &mut Draft, broker: &Broker, loss: Option<Loss>) {
    let (node_id, epoch) = (broker.node_id, broker.epoch);
    let all = draft.image().partitions.values();
    if all.filter(|partition| concerns(partition, node_id)).count() <= MAX_TOGETHER {
        return;
    }
    if !broker.fenced {
        draft.push(BrokerFenced { node_id, epoch });
    }
    settle_all_of(draft, node_id, loss);
}

/// The registration that a call claims to come from.
pub(super) fn current_broker(
    image: &Image,
    node: NodeId,
    epoch: BrokerEpoch,
) -> Result<Arc<Broker>, ApiError> {
    let broker = image.brokers.get(&node).ok_or_else(|| {
        let message = format!("node {node} is not registered");
        ApiError::new(ErrorReason::BrokerNotRegistered, message)
    })?;
    if broker.epoch != epoch {
        let message = format!("node {node} is registered with epoch {}, not {epoch}", broker.epoch);
        return Err(ApiError::new(ErrorReason::StaleBrokerEpoch, message)
            .with("broker_epoch", broker.epoch));
    }
    Ok(Arc::clone(broker))
}

/// A voter must come with the directory the quorum knows: in another one the
/// log it answered for is missing.
fn check_directory(image: &Image, request: &RegisterBroker) -> Result<(), ApiError> {
    check_not_retired(image, request.node_id, request.directory)?;
    match image.voter_directories.get(&request.node_id) {
        Some(known) if *known != request.directory => {
            let message = format!(
                "node {} is known with data directory {known} and came with {}",
                request.node_id, request.directory
            );
            Err(ApiError::new(ErrorReason::BlankDiskOfKnownVoter, message))
        }
        _ => Ok(()),
    }
}

fn duplicate(broker: &Broker, request: &RegisterBroker, session_timeout_ms: u64) -> ApiError {
    let message = format!(
        "node {} is alive at {}:{} as incarnation {}; incarnation {} at {}:{} was refused",
        broker.node_id,
        broker.host,
        broker.port,
        broker.incarnation,
        request.incarnation,
        request.host,
        request.port
    );
    ApiError::new(ErrorReason::DuplicateBrokerRegistration, message)
        .with_retry_after(Duration::from_millis(session_timeout_ms))
}

fn record(
    request: RegisterBroker,
    epoch: BrokerEpoch,
    fenced: bool,
    shutting_down: bool,
) -> BrokerRegistered {
    BrokerRegistered {
        node_id: request.node_id,
        epoch,
        incarnation: request.incarnation,
        directory: request.directory,
        host: request.host,
        port: request.port,
        rack: request.rack,
        fenced,
        shutting_down,
        levels: request.levels,
    }
}
