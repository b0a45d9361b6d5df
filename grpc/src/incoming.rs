//! Messages on their way in: read from the body of a request or of an answer.

use crate::HEADER_BYTES;
use crate::layer::Slot;
use crate::pieces::Pieces;
use bytes::Buf;
use futures::{Stream, StreamExt as _};
use http_body::Body as _;
use parking_lot::Mutex;
use prost::Message;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::body::Body;
use tonic::{Code, Request, Response, Status, Streaming};

/// The messages that the other side sends, one after the other, until it ends or fails.
pub struct Messages<M>(From<M>);

enum From<M> {
    Body(Incoming<M>),
    /// There is no layer: tonic's, with its copies.
    Tonic(Streaming<M>),
}

impl<M: Message + Default> Messages<M> {
    /// Of a request with a stream of messages, each at most `limit` bytes long.
    #[must_use]
    pub fn of_request(mut request: Request<Streaming<M>>, limit: usize) -> Self {
        let slot = request.extensions_mut().remove();
        Self::new(slot, request.into_inner(), Side::Server, limit)
    }

    /// Of an answer with a stream of messages, each at most `limit` bytes long.
    #[must_use]
    pub fn of_response(mut response: Response<Streaming<M>>, limit: usize) -> Self {
        let slot = response.extensions_mut().remove();
        Self::new(slot, response.into_inner(), Side::Client, limit)
    }

    fn new(slot: Option<Slot>, streaming: Streaming<M>, side: Side, limit: usize) -> Self {
        Self(match slot.and_then(|slot| slot.take()) {
            Some(body) => From::Body(Incoming::new(body, side, limit)),
            None => From::Tonic(streaming),
        })
    }

    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// What the other side ended with, a connection that broke, what is no message, or is
    /// too long. Nothing comes after it.
    pub async fn message(&mut self) -> Result<Option<M>, Status> {
        self.next().await.transpose()
    }
}

impl<M: Message + Default> Stream for Messages<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.0 {
            From::Body(incoming) => incoming.poll_message(context),
            From::Tonic(streaming) => streaming.poll_next_unpin(context),
        }
    }
}

/// Who reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// A body, and what came of it.
pub(crate) struct Incoming<M> {
    /// Never locked: it makes a body that only one may look at one that all may hold.
    body: Mutex<Body>,
    pieces: Pieces,
    /// Of the message whose header was read, in bytes.
    len: Option<usize>,
    side: Side,
    limit: usize,
    over: bool,
    of: PhantomData<fn() -> M>,
}

impl<M: Message + Default> Incoming<M> {
    pub(crate) fn new(body: Body, side: Side, limit: usize) -> Self {
        let (pieces, len, over) = (Pieces::default(), None, false);
        let body = Mutex::new(body);
        Self { body, pieces, len, side, limit, over, of: PhantomData }
    }

    pub(crate) fn poll_message(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<M, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        loop {
            match self.decode() {
                Ok(None) => {}
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Err(status) => return Poll::Ready(self.end(Err(status))),
            }
            let end = match ready!(Pin::new(self.body.get_mut()).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => {
                        self.pieces.push(piece);
                        continue;
                    }
                    Err(frame) => {
                        match frame.into_trailers().map(|map| Status::from_header_map(&map)) {
                            Ok(Some(status)) if status.code() != Code::Ok => Err(status),
                            _ => self.whole(),
                        }
                    }
                },
                // So a caller's end is told that has gone away.
                Some(Err(status)) if self.is_callers_end(&status) => Ok(()),
                Some(Err(status)) => Err(status),
                None => self.whole(),
            };
            return Poll::Ready(self.end(end));
        }
    }

    fn is_callers_end(&self, status: &Status) -> bool {
        self.side == Side::Server && status.code() == Code::Cancelled
    }

    fn end(&mut self, how: Result<(), Status>) -> Option<Result<M, Status>> {
        self.over = true;
        how.err().map(Err)
    }

    fn whole(&self) -> Result<(), Status> {
        if self.pieces.has_remaining() || self.len.is_some() {
            return Err(Status::internal("the stream ended within a message"));
        }
        Ok(())
    }

    /// The next message, if all of it is here.
    fn decode(&mut self) -> Result<Option<M>, Status> {
        let len = match self.len {
            Some(len) => len,
            None if self.pieces.remaining() < HEADER_BYTES => return Ok(None),
            None => self.header()?,
        };
        self.len = Some(len);
        if self.pieces.remaining() < len {
            return Ok(None);
        }
        self.len = None;
        let message = M::decode((&mut self.pieces).take(len));
        message.map(Some).map_err(|error| Status::internal(format!("not a message: {error}")))
    }

    fn header(&mut self) -> Result<usize, Status> {
        let compressed = self.pieces.get_u8();
        let len = self.pieces.get_u32() as usize;
        if compressed != 0 {
            return Err(Status::internal(format!(
                "a compressed message (flag {compressed}), and no compression was agreed on"
            )));
        }
        if len > self.limit {
            let limit = self.limit;
            return Err(Status::out_of_range(format!(
                "a message of {len} bytes; the limit is {limit} bytes"
            )));
        }
        Ok(len)
    }
}
