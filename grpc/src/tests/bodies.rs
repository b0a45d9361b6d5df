use super::{LIMIT, append, payload, payload_of};
use crate::incoming::{Incoming, Side};
use crate::outgoing::{Outgoing, Role};
use crate::rope::MIN_PAYLOAD_BYTES;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{FutureExt as _, StreamExt as _};
use http_body::{Body as _, Frame};
use ottla_proto::internal::v1::ReplicateResponse;
use proptest::prelude::*;
use prost::Message as _;
use std::collections::VecDeque;
use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::{Code, Status};

/// Nothing here waits for anything.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("ready")
}

type Answer = Result<ReplicateResponse, Status>;

/// A body that was cut into frames by hand.
struct Frames(VecDeque<Result<Frame<Bytes>, Status>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.pop_front())
    }
}

fn sent(messages: Vec<Answer>, role: Role) -> Vec<Result<Frame<Bytes>, Status>> {
    let mut body = Outgoing::new(futures::stream::iter(messages).boxed(), role, LIMIT);
    let mut frames = Vec::new();
    while let Some(frame) = now(poll_fn(|context| Pin::new(&mut body).poll_frame(context))) {
        frames.push(frame);
    }
    assert!(body.is_end_stream());
    frames
}

fn data(frames: Vec<Result<Frame<Bytes>, Status>>) -> Vec<Bytes> {
    frames.into_iter().filter_map(|frame| frame.expect("no error").into_data().ok()).collect()
}

fn received(
    frames: impl IntoIterator<Item = Result<Frame<Bytes>, Status>>,
    side: Side,
) -> Vec<Answer> {
    let body = tonic::body::Body::new(Frames(frames.into_iter().collect()));
    let mut incoming = Incoming::new(body, side, LIMIT);
    let mut messages = Vec::new();
    while let Some(message) = now(poll_fn(|context| incoming.poll_message(context))) {
        messages.push(message);
    }
    messages
}

/// As the specification of gRPC has it.
fn framed(message: &ReplicateResponse) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.put_u32(message.encoded_len() as u32);
    message.encode(&mut bytes).expect("a vector grows");
    bytes
}

fn only_error(mut messages: Vec<Answer>) -> Status {
    assert_eq!(messages.len(), 1, "{messages:?}");
    messages.remove(0).expect_err("an error")
}

#[test]
fn a_large_payload_is_the_same_bytes_on_both_sides() {
    let records = payload(MIN_PAYLOAD_BYTES);
    let frames = data(sent(vec![Ok(append(records.clone()))], Role::Client));
    assert!(frames.iter().any(|frame| frame.as_ptr() == records.as_ptr()), "copied when sent");
    let messages = received(frames.into_iter().map(|data| Ok(Frame::data(data))), Side::Server);
    let message = messages[0].as_ref().expect("a message");
    assert_eq!(message, &append(records.clone()));
    assert_eq!(payload_of(message).as_ptr(), records.as_ptr(), "copied when received");
}

#[test]
fn small_messages_go_together() {
    let messages: Vec<_> = (0..100).map(|len| append(payload(len))).collect();
    let frames = data(sent(messages.iter().cloned().map(Ok).collect(), Role::Client));
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0], messages.iter().flat_map(framed).collect::<Vec<_>>());
}

#[test]
fn a_server_says_how_it_ended() {
    let good = sent(vec![Ok(append(payload(3)))], Role::Server);
    let bad = sent(vec![Ok(append(payload(3))), Err(Status::aborted("why"))], Role::Server);
    assert_eq!(received(good, Side::Client).len(), 1);
    let bad = received(bad, Side::Client);
    assert_eq!(bad[0].as_ref().expect("came before"), &append(payload(3)));
    let error = bad[1].as_ref().expect_err("the end");
    assert_eq!((error.code(), error.message()), (Code::Aborted, "why"));
}

#[test]
fn a_message_above_the_limit_is_neither_sent_nor_received() {
    let long = append(payload(LIMIT));
    let frames = sent(vec![Ok(long.clone())], Role::Server);
    assert_eq!(only_error(received(frames, Side::Client)).code(), Code::OutOfRange);
    // Only its header: nobody should wait for what will be refused.
    let header = Bytes::from(framed(&long)).slice(..5);
    let error = only_error(received([Ok(Frame::data(header))], Side::Server));
    assert_eq!(error.code(), Code::OutOfRange);
    assert!(error.message().contains("1048576"), "{error}");
}

#[test]
fn what_is_no_message_is_an_error() {
    let whole = Bytes::from(framed(&append(payload(5_000))));
    let cut = whole.slice(..whole.len() - 1);
    let mut compressed = BytesMut::from(&whole[..]);
    compressed[0] = 1;
    let mut nonsense = BytesMut::from(&whole[..]);
    nonsense[5] = 0xff;
    for (what, bytes) in
        [("within", cut), ("compressed", compressed.freeze()), ("not a", nonsense.freeze())]
    {
        let error = only_error(received([Ok(Frame::data(bytes))], Side::Server));
        assert_eq!(error.code(), Code::Internal);
        assert!(error.message().contains(what), "{error}");
    }
}

#[test]
fn a_caller_that_goes_away_is_the_end_and_a_server_that_does_is_an_error() {
    let gone = || [Err(Status::cancelled("reset"))];
    assert!(received(gone(), Side::Server).is_empty());
    assert_eq!(only_error(received(gone(), Side::Client)).code(), Code::Cancelled);
}

proptest! {
    /// However frames are cut, and however large payloads are, what comes is what was
    /// sent, and on the way it is what the specification says.
    #[test]
    fn what_is_sent_comes(
        lens in prop::collection::vec(prop_oneof![0..64usize, 0..3 * MIN_PAYLOAD_BYTES], 0..8),
        cuts in prop::collection::vec(1..2 * MIN_PAYLOAD_BYTES, 1..40),
    ) {
        let messages: Vec<_> = lens.into_iter().map(|len| append(payload(len))).collect();
        let wire: Bytes = data(sent(messages.iter().cloned().map(Ok).collect(), Role::Client)).concat().into();
        prop_assert_eq!(&wire[..], &messages.iter().flat_map(framed).collect::<Vec<_>>()[..]);
        let (mut rest, mut frames, mut cuts) = (wire, Vec::new(), cuts.into_iter().cycle());
        while !rest.is_empty() {
            let at = cuts.next().expect("a cycle").min(rest.len());
            frames.push(Ok(Frame::data(rest.split_to(at))));
        }
        let came: Vec<_> = received(frames, Side::Server).into_iter().map(Result::unwrap).collect();
        prop_assert_eq!(came, messages);
    }

    /// No bytes of anybody's are worse than an error.
    #[test]
    fn anybodys_bytes_are_read(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2_000), 0..8)) {
        received(frames.into_iter().map(|bytes| Ok(Frame::data(bytes.into()))), Side::Server);
    }
}
