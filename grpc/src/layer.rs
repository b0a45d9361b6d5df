//! Where bodies are exchanged: around a channel, and around a server.
//!
//! A call that brings a body of its own has an [`Offer`] among its extensions; it takes the
//! place of tonic's. A body that comes in lies in a [`Slot`] there: who takes it reads it;
//! otherwise tonic does.

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

/// A body to be sent.
#[derive(Clone)]
pub(crate) struct Offer(Slot);

impl Offer {
    pub(crate) fn new(
        body: impl http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
    ) -> Self {
        Self(Slot::new(Body::new(body)))
    }
}

/// A body, and who comes first has it. Extensions must be clones of each other.
#[derive(Clone)]
pub(crate) struct Slot(Arc<Mutex<Option<Body>>>);

impl Slot {
    fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Some(body))))
    }

    pub(crate) fn take(&self) -> Option<Body> {
        self.0.lock().take()
    }

    fn with<T>(&self, of_none: T, look: impl FnOnce(&mut Body) -> T) -> T {
        self.0.lock().as_mut().map_or(of_none, look)
    }
}

/// What tonic reads: whatever lies in the slot.
impl http_body::Body for Slot {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.with(Poll::Ready(None), |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.with(true, |body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.with(SizeHint::with_exact(0), |body| body.size_hint())
    }
}

/// The body that is offered, or this.
fn offered(extensions: &mut http::Extensions, body: Body) -> Body {
    extensions.remove::<Offer>().and_then(|Offer(slot)| slot.take()).unwrap_or(body)
}

/// Lays a body into a slot, unless it is one that only tonic understands.
fn laid(extensions: &mut http::Extensions, headers: &HeaderMap, body: Body) -> Body {
    // Compressed, or there is no body: the status is among the headers.
    let only_tonic = headers.contains_key("grpc-encoding") || headers.contains_key("grpc-status");
    if only_tonic || body.is_end_stream() {
        return body;
    }
    let slot = Slot::new(body);
    extensions.insert(slot.clone());
    Body::new(slot)
}

/// A channel for generated clients whose calls may bring bodies of their own.
#[derive(Clone, Debug)]
pub struct Client<C>(C);

impl<C> Client<C> {
    /// Around a channel.
    pub fn new(channel: C) -> Self {
        Self(channel)
    }
}

impl<C> Service<http::Request<Body>> for Client<C>
where
    C: Service<http::Request<Body>, Response = http::Response<Body>>,
    C::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = C::Error;
    type Future = BoxFuture<'static, Result<Self::Response, C::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let body = offered(&mut parts.extensions, body);
        let answered = self.0.call(http::Request::from_parts(parts, body));
        Box::pin(async move {
            let (mut parts, body) = answered.await?.into_parts();
            // What is no gRPC is told by tonic.
            let body = match parts.status {
                http::StatusCode::OK => laid(&mut parts.extensions, &parts.headers, body),
                _ => body,
            };
            Ok(http::Response::from_parts(parts, body))
        })
    }
}

/// Makes a [`Server`] of a service, for `tonic::transport::Server::layer`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerLayer;

impl<S> Layer<S> for ServerLayer {
    type Service = Server<S>;

    fn layer(&self, inner: S) -> Server<S> {
        Server(inner)
    }
}

/// Services whose answers may bring bodies of their own.
#[derive(Clone, Debug)]
pub struct Server<S>(S);

impl<S> Service<http::Request<Body>> for Server<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let body = laid(&mut parts.extensions, &parts.headers, body);
        let answered = self.0.call(http::Request::from_parts(parts, body));
        Box::pin(async move {
            let (mut parts, body) = answered.await?.into_parts();
            let body = offered(&mut parts.extensions, body);
            Ok(http::Response::from_parts(parts, body))
        })
    }
}
