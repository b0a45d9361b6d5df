//! What goes into the socket next: those in sync first.
//!
//! Two short queues, because what is in one cannot be overtaken any more. gRPC takes
//! from them when the connection has room.

use futures::Stream;
use ottla_proto::internal::v1::ReplicateResponse;
use ottla_proto::internal::v1::replicate_response::Message as Body;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tonic::Status;

/// Responses to those in sync between their reading and the socket. Each is at most
/// a turn of a partition, or one batch.
const LIVE_ON_THE_WAY: usize = 4;

/// The same for all others: what waits here is what the next record in sync may
/// find before it, so it is no more than one.
const CATCH_UP_ON_THE_WAY: usize = 1;

type Answer = Result<ReplicateResponse, Status>;

/// The ends that are filled.
#[derive(Clone)]
pub(super) struct Queues {
    pub(super) live: Sender<Answer>,
    pub(super) catch_up: Sender<Answer>,
}

/// The end that gRPC takes from.
pub(super) struct Outgoing {
    live: Receiver<Answer>,
    catch_up: Receiver<Answer>,
}

pub(super) fn queues() -> (Queues, Outgoing) {
    let (live, from_live) = mpsc::channel(LIVE_ON_THE_WAY);
    let (catch_up, from_catch_up) = mpsc::channel(CATCH_UP_ON_THE_WAY);
    let outgoing = Outgoing { live: from_live, catch_up: from_catch_up };
    (Queues { live, catch_up }, outgoing)
}

pub(super) fn answer(body: Body) -> Answer {
    Ok(ReplicateResponse { message: Some(body) })
}

impl Stream for Outgoing {
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Answer>> {
        if let Poll::Ready(Some(answer)) = self.live.poll_recv(context) {
            return Poll::Ready(Some(answer));
        }
        match self.catch_up.poll_recv(context) {
            // Both are closed together.
            Poll::Ready(None) if self.live.is_closed() && self.live.is_empty() => Poll::Ready(None),
            Poll::Ready(None) => Poll::Pending,
            ready => ready,
        }
    }
}
