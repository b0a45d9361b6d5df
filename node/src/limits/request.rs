//! Bodies of requests: bytes of a message are held from its first on. A message waits at
//! its beginning where there is no room for all of it, so whoever has begun can end.

use super::connections::{Connection, OpenRequest};
use super::hold::{Held, Waiting};
use bytes::{Buf as _, Bytes};
use futures::FutureExt as _;
use http_body::{Frame, SizeHint};
use ottla_proto::MAX_GRPC_MESSAGE_BYTES;
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tonic::Status;
use tonic::body::Body;

/// What comes before each message: whether it is compressed, and its length in bytes
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, Length-Prefixed-Message).
const HEADER_BYTES: usize = 5;

/// A call as long as anything of it is here: its body, or who answers.
pub(super) struct Call {
    pub(super) connection: Arc<Connection>,
    pub(super) _open: OpenRequest,
    /// Of the message that is coming in, or is being answered.
    held: Mutex<Option<Held>>,
}

impl Call {
    pub(super) fn new(connection: Arc<Connection>, open: OpenRequest) -> Arc<Self> {
        Arc::new(Self { connection, _open: open, held: Mutex::new(None) })
    }
}

/// Where a body is within its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// So many bytes of a header are here, and what they say of the length so far.
    Header { bytes: usize, len: usize },
    /// So many bytes of a message are to come.
    Message { left: usize },
}

const BEGINNING: At = At::Header { bytes: 0, len: 0 };

/// See the module.
pub(super) struct Incoming {
    body: Body,
    at: At,
    call: Arc<Call>,
    /// Several messages come by it: who asks for more is done with what there was.
    several: bool,
    /// What came, and is handed on when there is room for the message that begins in it.
    waiting: Option<Waiting>,
}

impl Incoming {
    pub(super) fn new(body: Body, call: Arc<Call>, several: bool) -> Self {
        Self { body, at: BEGINNING, call, several, waiting: None }
    }

    /// Goes through a piece. Returns the length of the longest message that begins in it.
    fn advance(&mut self, mut piece: &[u8]) -> Option<usize> {
        let mut longest = None;
        while !piece.is_empty() {
            match &mut self.at {
                At::Header { bytes, len } => {
                    // The first byte is no part of the length.
                    let next = usize::from(piece.get_u8());
                    if *bytes > 0 {
                        *len = *len << 8 | next;
                    }
                    *bytes += 1;
                    if *bytes == HEADER_BYTES {
                        let left = *len;
                        longest = longest.max(Some(left));
                        self.at = At::Message { left };
                    }
                }
                At::Message { left } => {
                    let here = piece.len().min(*left);
                    piece.advance(here);
                    *left -= here;
                }
            }
            if self.at == (At::Message { left: 0 }) {
                self.at = BEGINNING;
            }
        }
        longest
    }

    fn admit(&mut self, piece: Bytes) -> Result<Bytes, Waiting> {
        // What is longer is refused by who decodes it, before it has come.
        let longest = self.advance(&piece).filter(|len| *len <= MAX_GRPC_MESSAGE_BYTES);
        let Some(len) = longest else { return Ok(piece) };
        let mut held = self.call.held.lock();
        // First that of the message before: it must not wait for itself.
        *held = None;
        *held = self.call.connection.incoming.try_hold(len);
        if held.is_some() {
            return Ok(piece);
        }
        Err((piece, self.call.connection.incoming.clone().wait(len)))
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.several && this.at == BEGINNING && this.waiting.is_none() {
            *this.call.held.lock() = None;
        }
        loop {
            if let Some((_, room)) = &mut this.waiting {
                let held = ready!(room.poll_unpin(context));
                *this.call.held.lock() = Some(held);
            }
            if let Some((piece, _)) = this.waiting.take() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
                Ok(piece) => match this.admit(piece) {
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
