//! This node as a broker: it registers with the active controller, stays in
//! touch over a heartbeat stream, follows the controller when it moves, and
//! registers again under the same incarnation when its epoch is not accepted.
//!
//! Not its job: what being fenced means for the node.

use super::controller_client::{self, Place};
use super::controller_service;
use super::evicted::Evicted;
use super::inner::Inner;
use super::streams::OpenStream;
use super::{BrokerStatus, succession, wire};
use crate::controller::{Heartbeat, RegisterBroker};
use ottla_proto::internal::v1 as internal;
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, BrokerEpoch, MetadataOffset};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Pauses after a failure, in milliseconds; the last one repeats. Short at
/// first, because usually a controller is about to become active. A change of
/// the quorum's leader ends any pause.
const PAUSES_MS: [u64; 5] = [10, 20, 50, 100, 200];

/// Interval of heartbeats while this broker waits for leave to stop.
const SHUTDOWN_BEAT: Duration = Duration::from_millis(20);

/// Heartbeats on the way; one is sent when the last one is answered.
const QUEUED_BEATS: usize = 1;

/// Keeps this node registered until it shuts down.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut failures = 0_usize;
    loop {
        let leader = inner.quorum.borrow().leader;
        let error = tokio::select! {
            () = inner.stop.cancelled() => return,
            outcome = attend(&inner, &mut failures) => match outcome {
                Ok(()) => continue,
                Err(error) => error,
            },
        };
        if let Some(evicted) = Evicted::by(&error) {
            return inner.evict(evicted);
        }
        if matches!(error.reason, ErrorReason::StaleBrokerEpoch | ErrorReason::BrokerNotRegistered)
        {
            tracing::info!(%error, "registering again");
            inner.broker.send_modify(|status| *status = BrokerStatus::default());
        } else if failures == PAUSES_MS.len() {
            tracing::warn!(%error, "this broker is not in touch with the controller");
        }
        let pause = Duration::from_millis(PAUSES_MS[failures.min(PAUSES_MS.len() - 1)]);
        failures = failures.saturating_add(1);
        let mut quorum = inner.quorum.subscribe();
        tokio::select! {
            () = inner.stop.cancelled() => return,
            _ = quorum.wait_for(|status| status.leader != leader) => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// In touch with one controller, until there is another (`Ok`) or something
/// goes wrong.
async fn attend(inner: &Arc<Inner>, failures: &mut usize) -> Result<(), ApiError> {
    let mut quorum = inner.quorum.subscribe();
    let leader = match quorum.wait_for(|status| status.leader.is_some()).await {
        Ok(status) => status.leader,
        Err(_) => return Err(inner.control.not_controller()),
    };
    let place = inner.place_of(leader).ok_or_else(|| inner.control.not_controller())?;
    let moved = async {
        let _ = quorum.wait_for(|status| status.leader != leader).await;
    };
    tokio::select! {
        () = moved => Ok(()),
        error = stay(inner, place, failures) => Err(error),
    }
}

/// Registers if need be, and sends heartbeats until something goes wrong.
async fn stay(inner: &Arc<Inner>, place: Place, failures: &mut usize) -> ApiError {
    let epoch = match registered(inner, &place).await {
        Ok(epoch) => epoch,
        Err(error) => return error,
    };
    let mut link = match Link::open(inner, &place, epoch).await {
        Ok(link) => link,
        Err(error) => return error,
    };
    let mut worked = false;
    loop {
        let sent = Sent { offset: inner.image().offset, leaving: *inner.leaving.borrow() };
        let error = match link.beat(inner, epoch, sent).await {
            Ok(answer) => {
                worked = true;
                *failures = 0;
                publish(inner, epoch, &answer);
                match wait(inner, epoch, &mut link, sent).await {
                    Ok(()) => continue,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if let Place::There(leader, _) = place
            && worked
        {
            succession::start(inner, leader);
        }
        return error;
    }
}

/// What the last heartbeat said.
#[derive(Clone, Copy)]
struct Sent {
    offset: MetadataOffset,
    leaving: bool,
}

/// Waits until the next heartbeat is due, or the link is broken.
async fn wait(
    inner: &Inner,
    epoch: BrokerEpoch,
    link: &mut Link,
    sent: Sent,
) -> Result<(), ApiError> {
    let mut images = inner.images.clone();
    images.mark_changed();
    let mut leaving = inner.leaving.subscribe();
    let interval =
        if sent.leaving { SHUTDOWN_BEAT } else { inner.options.timings.broker_heartbeat };
    let due = Instant::now() + interval;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due) => return Ok(()),
            error = link.broken() => return Err(error),
            _ = leaving.wait_for(|leaving| *leaving != sent.leaving) => return Ok(()),
            changed = images.changed() => {
                if changed.is_err() {
                    return Err(ApiError::new(ErrorReason::ShuttingDown, "the quorum has ended here"));
                }
                if news_is_urgent(inner, &mut images, epoch, sent.offset) {
                    return Ok(());
                }
            }
        }
    }
}

/// Whether somebody waits for what this broker has applied: itself, to be
/// unfenced, or another, to be let go.
fn news_is_urgent(
    inner: &Inner,
    images: &mut tokio::sync::watch::Receiver<Arc<crate::image::Image>>,
    epoch: BrokerEpoch,
    told: MetadataOffset,
) -> bool {
    let image = images.borrow_and_update();
    let unfenceable = inner.broker.borrow().fenced && told.0 < epoch.0 && image.offset.0 >= epoch.0;
    let awaited = || image.brokers.values().any(|broker| broker.shutting_down && !broker.fenced);
    unfenceable || (image.offset > told && awaited())
}

fn publish(inner: &Inner, epoch: BrokerEpoch, answer: &internal::HeartbeatResponse) {
    let status = BrokerStatus {
        epoch: Some(epoch),
        fenced: answer.fenced,
        may_stop: answer.should_shutdown,
    };
    inner.broker.send_if_modified(|known| {
        let changed = *known != status;
        *known = status;
        changed
    });
}

/// The epoch of this process, asked for if there is none.
async fn registered(inner: &Inner, place: &Place) -> Result<BrokerEpoch, ApiError> {
    if let Some(epoch) = inner.broker.borrow().epoch {
        return Ok(epoch);
    }
    let options = &inner.options;
    let request = RegisterBroker {
        cluster_id: options.cluster_id.clone(),
        node_id: options.node_id,
        incarnation: options.incarnation_id,
        directory: options.directory_id,
        host: options.advertised.0.clone(),
        port: options.advertised.1,
        rack: options.rack.clone(),
        levels: options.levels,
        previous_broker_epoch: options.previous_broker_epoch,
        previous_stream_open: false,
    };
    let within = options.timings.broker_session_timeout;
    let register = controller_client::register(inner, place, &request);
    let epoch = tokio::time::timeout(within, register).await.unwrap_or_else(|_| Err(silent()))?;
    tracing::info!(%epoch, "registered as a broker");
    let status = BrokerStatus { epoch: Some(epoch), ..BrokerStatus::default() };
    inner.broker.send_replace(status);
    Ok(epoch)
}

fn ended() -> ApiError {
    ApiError::new(ErrorReason::ControllerNotAvailable, "the heartbeat stream ended")
}

fn silent() -> ApiError {
    ApiError::new(ErrorReason::RequestTimedOut, "the controller is silent")
}

/// How heartbeats get to the controller.
enum Link {
    /// The controller is on this node.
    Here { _open: OpenStream },
    /// A stream to another node.
    There {
        beats: mpsc::Sender<internal::HeartbeatRequest>,
        answers: Box<Streaming<internal::HeartbeatResponse>>,
    },
}

impl Link {
    async fn open(inner: &Inner, place: &Place, epoch: BrokerEpoch) -> Result<Self, ApiError> {
        let Place::There(node_id, peer) = place else {
            let open = inner.streams.opened(inner.options.node_id, epoch);
            return Ok(Self::Here { _open: open });
        };
        let open = async {
            let mut client =
                controller_client::connect(&inner.options.network, *node_id, peer).await?;
            let (beats, queue) = mpsc::channel(QUEUED_BEATS);
            let answers = client.heartbeat(ReceiverStream::new(queue)).await;
            let answers = answers.map_err(|status| ApiError::from_status(&status))?.into_inner();
            Ok(Self::There { beats, answers: Box::new(answers) })
        };
        let within = inner.options.timings.broker_session_timeout;
        tokio::time::timeout(within, open).await.unwrap_or_else(|_| Err(silent()))
    }

    /// Completes when the stream has ended. No answer comes unasked.
    async fn broken(&mut self) -> ApiError {
        match self {
            Self::Here { .. } => std::future::pending().await,
            Self::There { answers, .. } => match answers.message().await {
                Ok(_) => ended(),
                Err(status) => ApiError::from_status(&status),
            },
        }
    }

    async fn beat(
        &mut self,
        inner: &Inner,
        broker_epoch: BrokerEpoch,
        sent: Sent,
    ) -> Result<internal::HeartbeatResponse, ApiError> {
        let beat = Heartbeat {
            node_id: inner.options.node_id,
            broker_epoch,
            metadata_offset: sent.offset,
            want_fence: false,
            want_shutdown: sent.leaving,
        };
        let (beats, answers) = match self {
            Self::Here { .. } => return controller_service::beat(inner, beat).await,
            Self::There { beats, answers } => (beats, answers),
        };
        let exchange = async {
            beats.send(wire::heartbeat_request(&beat)).await.map_err(|_| ended())?;
            let answer = answers.message().await;
            answer.map_err(|status| ApiError::from_status(&status))?.ok_or_else(ended)
        };
        let within = inner.options.timings.broker_session_timeout;
        tokio::time::timeout(within, exchange).await.unwrap_or_else(|_| Err(silent()))
    }
}
