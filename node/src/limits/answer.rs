//! Bodies of answers: what goes out is held until the socket has taken it.

use super::connections::Connection;
use super::hold::{Held, Waiting, kept};
use super::request::Call;
use bytes::Bytes;
use futures::FutureExt as _;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tonic::Status;
use tonic::body::Body;

/// Frames below are not held one by one: there are no more of them on their way than
/// requests, each with a fraction of what a stream costs anyway.
const LEAST_BYTES: usize = 4096;

/// What is held for an answer before it is encoded; among the extensions of a response.
#[derive(Clone)]
pub(crate) struct Encoded(#[expect(dead_code, reason = "returned when dropped")] Arc<Held>);

impl Encoded {
    pub(crate) fn new(held: Held) -> Self {
        Self(Arc::new(held))
    }
}

/// See the module.
pub(super) struct Outgoing {
    body: Body,
    call: Arc<Call>,
    unencoded: Option<Encoded>,
    waiting: Option<Waiting>,
}

impl Outgoing {
    pub(super) fn new(body: Body, call: Arc<Call>, unencoded: Option<Encoded>) -> Self {
        Self { body, call, unencoded, waiting: None }
    }
}

fn admit(connection: &Connection, piece: Bytes) -> Result<Bytes, Waiting> {
    if piece.len() < LEAST_BYTES {
        return Ok(piece);
    }
    match connection.outgoing.try_hold(piece.len()) {
        Some(held) => Ok(kept(piece, held)),
        None => {
            let room = connection.outgoing.clone().wait(piece.len());
            Err((piece, room))
        }
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some((_, room)) = &mut this.waiting {
                let held = ready!(room.poll_unpin(context));
                let waited = this.waiting.take();
                let piece = waited.map(|(piece, _)| Frame::data(kept(piece, held)));
                return Poll::Ready(piece.map(Ok));
            }
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            // It is encoded, and must not wait for its own room.
            this.unencoded = None;
            match frame.into_data() {
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
                Ok(piece) => match admit(&this.call.connection, piece) {
                    Ok(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                    Err(waiting) => this.waiting = Some(waiting),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.waiting {
            None => self.body.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}
