//! Bodies that wait for room, and give it back.

use super::answer::{Encoded, Outgoing};
use super::connections::{Connection, ConnectionLimits, Connections};
use super::request::{Call, Incoming};
use bytes::Bytes;
use futures::FutureExt as _;
use http_body::{Body as _, Frame};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;

/// What comes, piece by piece.
struct Pieces(VecDeque<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

fn pieces(pieces: impl IntoIterator<Item = Vec<u8>>) -> Body {
    Body::new(Pieces(pieces.into_iter().map(Bytes::from).collect()))
}

/// A connection that may hold a hundred bytes in each direction.
fn connection() -> Arc<Connection> {
    let limits = ConnectionLimits { connections: 1, requests: 10, bytes: 100 };
    Connections::new(limits).add()
}

fn call(connection: &Arc<Connection>) -> Arc<Call> {
    Call::new(Arc::clone(connection), connection.open_request().expect("one of ten"))
}

fn free(connection: &Connection, incoming: bool, bytes: usize) -> bool {
    let allowance = if incoming { &connection.incoming } else { &connection.outgoing };
    allowance.try_hold(bytes).is_some()
}

/// A message of so many bytes, with its header.
fn message(len: u8) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, len];
    bytes.extend(std::iter::repeat_n(7, usize::from(len)));
    bytes
}

/// The next piece, if it is there at once; of a body that has not ended.
fn next(body: &mut (impl http_body::Body<Data = Bytes, Error = Status> + Unpin)) -> Option<Bytes> {
    let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
    let frame = frame.now_or_never()?.expect("more comes").expect("no error");
    Some(frame.into_data().expect("data"))
}

fn has_ended(body: &mut (impl http_body::Body<Data = Bytes, Error = Status> + Unpin)) -> bool {
    let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
    frame.now_or_never().is_some_and(|frame| frame.is_none())
}

/// However a message is cut, it is counted from its header to its answer.
#[test]
fn a_request_is_held_until_its_answer() {
    for cut in 1..message(60).len() {
        let connection = connection();
        let call = call(&connection);
        let whole = message(60);
        let body = pieces([whole[..cut].to_vec(), whole[cut..].to_vec()]);
        let mut incoming = Incoming::new(body, Arc::clone(&call), false);
        let mut seen = next(&mut incoming).expect("the beginning").to_vec();
        assert_eq!(free(&connection, true, 41), cut < 5, "cut at {cut}");
        seen.extend(next(&mut incoming).expect("the end"));
        assert_eq!(seen, whole);
        assert!(has_ended(&mut incoming) && !free(&connection, true, 41), "cut at {cut}");
        drop(incoming);
        assert!(!free(&connection, true, 41), "it is being answered");
        drop(call);
        assert!(free(&connection, true, 100));
    }
}

/// Whoever reads on has taken in what there was.
#[test]
fn a_stream_holds_one_message_at_a_time() {
    let connection = connection();
    let mut incoming =
        Incoming::new(pieces([message(60), message(90), message(0)]), call(&connection), true);
    next(&mut incoming).expect("the first");
    assert!(!free(&connection, true, 41));
    next(&mut incoming).expect("the second: it does not wait for the first");
    assert!(free(&connection, true, 10) && !free(&connection, true, 11));
    next(&mut incoming).expect("an empty one");
    assert!(has_ended(&mut incoming) && free(&connection, true, 100));
}

/// Without room a message waits at its beginning; with room it goes on as it was. One
/// that is too long for anybody passes, for others refuse it.
#[test]
fn a_message_waits_for_room() {
    let connection = connection();
    let held = connection.incoming.try_hold(50).expect("room");
    let mut incoming = Incoming::new(pieces([message(60)[..5].to_vec()]), call(&connection), false);
    assert_eq!(next(&mut incoming), None);
    assert!(!incoming.is_end_stream());
    drop(held);
    assert_eq!(next(&mut incoming).as_deref(), Some(&message(60)[..5]));
    assert!(!free(&connection, true, 41));
    let mut absurd =
        Incoming::new(pieces([vec![0, 0xff, 0xff, 0xff, 0xff]]), call(&connection), false);
    next(&mut absurd).expect("it passes");
}

/// What goes out is counted while anybody has its bytes; what is not encoded yet, until it
/// is.
#[test]
fn an_answer_is_held_until_the_socket_has_it() {
    let limits = ConnectionLimits { connections: 1, requests: 10, bytes: 10_000 };
    let connection = Connections::new(limits).add();
    let unencoded = Encoded::new(connection.outgoing.try_hold(6000).expect("room"));
    let body = pieces([vec![7; 8000], vec![8; 3000], vec![9; 5000]]);
    let mut outgoing = Outgoing::new(body, call(&connection), Some(unencoded));
    let first = next(&mut outgoing).expect("it does not wait for itself");
    assert!(free(&connection, false, 2000) && !free(&connection, false, 2001));
    let _small = next(&mut outgoing).expect("small ones pass");
    assert_eq!(next(&mut outgoing), None, "5000 of 2000");
    let rest = first.slice(..10);
    drop(first);
    assert_eq!(next(&mut outgoing), None, "some of it is still there");
    drop(rest);
    let last = next(&mut outgoing).expect("there is room");
    assert!(last == vec![9; 5000] && !free(&connection, false, 5001));
    assert!(has_ended(&mut outgoing));
}
