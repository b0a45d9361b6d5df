//! Around all services: counts what each connection has open and holds.

use super::answer::{Encoded, Outgoing};
use super::connections::Connection;
use super::request::{Call, Incoming};
use super::streaming::brings_several;
use futures::future::BoxFuture;
use ottla_proto::ApiError;
use ottla_proto::v1::ErrorReason;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::Status;
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

/// What a caller with too many requests open is told to wait.
const REFUSED_RETRY: Duration = Duration::from_millis(100);

/// Makes a [`Limited`] of a service, for `tonic::transport::Server::layer`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LimitLayer;

impl<S> Layer<S> for LimitLayer {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited(inner)
    }
}

/// See the module. Requests of connections that nobody counts pass.
#[derive(Clone, Debug)]
pub(crate) struct Limited<S>(S);

fn refused(most: usize) -> Status {
    let message = format!("{most} requests of this connection are open already");
    ApiError::new(ErrorReason::Overloaded, message)
        .with("max_requests_per_connection", most)
        .with_retry_after(REFUSED_RETRY)
        .into()
}

impl<S> Service<http::Request<Body>> for Limited<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Some(connection) = request.extensions().get::<Arc<Connection>>().cloned() else {
            return Box::pin(self.0.call(request));
        };
        let Some(open) = connection.open_request() else {
            let answer = refused(connection.most_requests()).into_http();
            return Box::pin(std::future::ready(Ok(answer)));
        };
        let call = Call::new(connection, open);
        let several = brings_several(request.uri().path());
        let request = request.map(|body| Body::new(Incoming::new(body, call.clone(), several)));
        let answered = self.0.call(request);
        Box::pin(async move {
            let mut response = answered.await?;
            let unencoded = response.extensions_mut().remove::<Encoded>();
            Ok(response.map(|body| Body::new(Outgoing::new(body, call, unencoded))))
        })
    }
}
