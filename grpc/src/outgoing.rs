//! Messages on their way out: the body of a request or of an answer.

use crate::layer::Offer;
use crate::rope::Rope;
use bytes::{BufMut, Bytes};
use futures::stream::{BoxStream, Fuse};
use futures::{Stream, StreamExt as _};
use http::HeaderMap;
use http_body::Frame;
use parking_lot::Mutex;
use prost::Message;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::{Code, Request, Response, Status};

/// So many bytes of messages that are ready go on together, if not one of them alone has
/// more. What tonic has.
const TOGETHER_BYTES: usize = 32 * 1024;

/// Messages that are sent by whoever polls first: this crate, or tonic.
pub struct Shared<T>(Arc<Mutex<BoxStream<'static, T>>>);

/// The messages of an answer.
pub type Answers<M> = Shared<Result<M, Status>>;

impl<T> Shared<T> {
    /// Twice the same.
    fn twice(items: impl Stream<Item = T> + Send + 'static) -> (Self, Self) {
        let items = Arc::new(Mutex::new(items.boxed()));
        (Self(Arc::clone(&items)), Self(items))
    }
}

impl<T> Stream for Shared<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.lock().poll_next_unpin(context)
    }
}

/// What a service answers with a stream of messages, each at most `limit` bytes long. A
/// longer one ends the stream with an error.
pub fn answer<M: Message + 'static>(
    messages: impl Stream<Item = Result<M, Status>> + Send + 'static,
    limit: usize,
) -> Response<Answers<M>> {
    let (ours, tonics) = Shared::twice(messages);
    let mut response = Response::new(tonics);
    let body = Outgoing::new(ours.boxed(), Role::Server, limit);
    response.extensions_mut().insert(Offer::new(body));
    response
}

/// What a caller asks with a stream of messages, each at most `limit` bytes long. A longer
/// one breaks the call off.
pub fn ask<M: Message + 'static>(
    messages: impl Stream<Item = M> + Send + 'static,
    limit: usize,
) -> Request<Shared<M>> {
    let (ours, tonics) = Shared::twice(messages);
    let mut request = Request::new(tonics);
    let body = Outgoing::new(ours.map(Ok).boxed(), Role::Client, limit);
    request.extensions_mut().insert(Offer::new(body));
    request
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    /// Says with trailers how it ended.
    Server,
}

enum State {
    Open,
    /// How it ends, once what is ready is gone.
    Ending(Status),
    Over,
}

/// The body.
pub(crate) struct Outgoing<M> {
    messages: Fuse<BoxStream<'static, Result<M, Status>>>,
    /// Encoded, and on their way.
    ready: Rope,
    role: Role,
    limit: usize,
    state: State,
}

impl<M: Message> Outgoing<M> {
    pub(crate) fn new(
        messages: BoxStream<'static, Result<M, Status>>,
        role: Role,
        limit: usize,
    ) -> Self {
        let (ready, state) = (Rope::default(), State::Open);
        Self { messages: messages.fuse(), ready, role, limit, state }
    }

    fn encode(&mut self, message: &M) -> Result<(), Status> {
        let len = message.encoded_len();
        let prefix = u32::try_from(len).ok().filter(|_| len <= self.limit).ok_or_else(|| {
            let limit = self.limit;
            Status::out_of_range(format!("a message of {len} bytes; the limit is {limit} bytes"))
        })?;
        self.ready.put_u8(0);
        self.ready.put_u32(prefix);
        let encoded = message.encode(&mut self.ready);
        // The length was asked for above, and a rope grows.
        encoded.map_err(|error| Status::internal(format!("not encoded: {error}")))
    }

    /// Encodes what is there, until it is enough for once.
    fn fill(&mut self, context: &mut Context<'_>) {
        while matches!(self.state, State::Open) && self.ready.len() < TOGETHER_BYTES {
            let end = match self.messages.poll_next_unpin(context) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(message))) => match self.encode(&message) {
                    Ok(()) => continue,
                    Err(status) => status,
                },
                Poll::Ready(Some(Err(status))) => status,
                Poll::Ready(None) => Status::ok(""),
            };
            self.state = State::Ending(end);
        }
    }

    fn end(&mut self, status: Status) -> Option<Result<Frame<Bytes>, Status>> {
        self.state = State::Over;
        match self.role {
            Role::Client if status.code() == Code::Ok => None,
            Role::Client => Some(Err(status)),
            Role::Server => {
                let mut trailers = HeaderMap::new();
                // What cannot be said as a header is an error of its own, which can.
                if let Err(unsaid) = status.add_header(&mut trailers) {
                    return Some(Err(unsaid));
                }
                Some(Ok(Frame::trailers(trailers)))
            }
        }
    }
}

impl<M: Message> http_body::Body for Outgoing<M> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ready.len() == 0 {
            self.fill(context);
        }
        if let Some(part) = self.ready.take_part() {
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        Poll::Ready(match std::mem::replace(&mut self.state, State::Over) {
            State::Open => {
                self.state = State::Open;
                return Poll::Pending;
            }
            State::Ending(status) => self.end(status),
            State::Over => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Over)
    }
}
