//! Where commands are handed to the controller of this node, and how whoever waits
//! for one is answered.
//!
//! Not its job: deciding them (`active`).

use super::addresses::Addresses;
use super::types::LeaderId;
use crate::controller::{Command, Reply};
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, Leader, LeaderEpoch, MetadataOffset, NodeId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Commands waiting for the active controller. A cluster of five brokers sends
/// about thirty a second; more than this waiting means overload.
const QUEUED_COMMANDS: usize = 1024;

/// Pause suggested to a caller that found the queue full.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(100);

/// A command that was decided, and the image offset at which its effect is in
/// force.
#[derive(Clone, Debug)]
pub(super) struct Submitted {
    pub(super) reply: Reply,
    pub(super) offset: MetadataOffset,
}

type Answer = Result<Submitted, ApiError>;

/// A command and who waits for it.
pub(super) struct Queued {
    pub(super) command: Command,
    pub(super) answer: Option<oneshot::Sender<Answer>>,
}

impl Queued {
    pub(super) fn answer(self, answer: Answer) {
        match (self.answer, answer) {
            // A caller that gave up needs no answer.
            (Some(waiting), answer) => drop(waiting.send(answer)),
            (None, Err(error)) => tracing::debug!(%error, command = ?self.command, "refused"),
            (None, Ok(_)) => {}
        }
    }
}

/// Where commands are handed to the controller of this node.
pub(super) struct Control {
    node_id: NodeId,
    queue: mpsc::Sender<Queued>,
    /// The term in which this node's controller is active.
    pub(super) active: watch::Receiver<Option<LeaderId>>,
    quorum: watch::Receiver<super::QuorumStatus>,
    addresses: Arc<Addresses>,
}

impl Control {
    /// The queue's other end goes to [`run`].
    pub(super) fn new(
        node_id: NodeId,
        active: watch::Receiver<Option<LeaderId>>,
        quorum: watch::Receiver<super::QuorumStatus>,
        addresses: Arc<Addresses>,
    ) -> (Self, mpsc::Receiver<Queued>) {
        let (queue, commands) = mpsc::channel(QUEUED_COMMANDS);
        (Self { node_id, queue, active, quorum, addresses }, commands)
    }

    /// NOT_CONTROLLER with who is, or CONTROLLER_NOT_AVAILABLE.
    pub(super) fn not_controller(&self) -> ApiError {
        let leader = self.quorum.borrow().leader.filter(|leader| *leader != self.node_id);
        let Some(leader) = leader else {
            let what = "the metadata quorum has no leader that could decide";
            return ApiError::new(ErrorReason::ControllerNotAvailable, what);
        };
        let what = format!("node {} is not the controller, node {leader} is", self.node_id);
        let hint = self.addresses.of(leader).map(|peer| Leader {
            node_id: leader,
            epoch: LeaderEpoch(0),
            host: peer.host,
            port: peer.port,
        });
        ApiError::new(ErrorReason::NotController, what).with_leader(hint)
    }

    /// Waits while this node leads the quorum but has not applied everything
    /// up to its own term yet.
    pub(super) async fn until_active(&self) -> Result<(), ApiError> {
        let (mut active, mut quorum) = (self.active.clone(), self.quorum.clone());
        loop {
            if active.borrow_and_update().is_some() {
                return Ok(());
            }
            if quorum.borrow_and_update().leader != Some(self.node_id) {
                return Err(self.not_controller());
            }
            let changed = tokio::select! {
                changed = active.changed() => changed,
                changed = quorum.changed() => changed,
            };
            if changed.is_err() {
                return Err(self.not_controller());
            }
        }
    }

    /// Has a command decided by the controller on this node and waits until
    /// its effect is applied here. Fails with NOT_CONTROLLER or
    /// CONTROLLER_NOT_AVAILABLE where this node does not lead the quorum:
    /// then nothing was done.
    pub(super) async fn submit_here(&self, command: Command) -> Answer {
        self.until_active().await?;
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Queued { command, answer: Some(answer) }).map_err(
            |error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    ApiError::new(ErrorReason::Overloaded, "the controller's queue is full")
                        .with_retry_after(OVERLOAD_PAUSE)
                }
                mpsc::error::TrySendError::Closed(_) => {
                    ApiError::new(ErrorReason::ShuttingDown, "this node is shutting down")
                }
            },
        )?;
        answered.await.unwrap_or_else(|_| Err(unknown_fate()))
    }

    /// Hands in a command that nobody waits for. Lost if the queue is full:
    /// for what would be noticed again later.
    pub(super) fn notify(&self, command: Command) {
        if let Err(error) = self.queue.try_send(Queued { command, answer: None }) {
            tracing::warn!(%error, "a command for the controller was dropped");
        }
    }
}

pub(super) fn unknown_fate() -> ApiError {
    let what = "the controller lost its leadership before the change was known to be committed";
    ApiError::new(ErrorReason::LeadershipLost, what)
}
