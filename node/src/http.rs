//! The HTTP port: probes for whoever supervises the process, and its figures.
//!
//! `/livez` says that the process serves; it must not fail because a leader is
//! missing or a disk is full, or a supervisor would kill nodes for nothing.
//! `/readyz` says whether clients should be sent here; `/startupz` says that it was so once:
//! until then a supervisor has patience. `/public_metrics` has what `/metrics` has, without
//! the figures of each group and partition.

use crate::metrics::{CONTENT_TYPE, Metrics};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use ottla_host::{Listener, Stream};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Why this node is not ready; or, if it is, what is wrong with it all the same.
pub(crate) type Readiness = Arc<dyn Fn() -> Result<Vec<String>, String> + Send + Sync>;

/// What is to be done before the figures are shown.
pub(crate) type BeforeScrape = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Pause after a connection could not be accepted, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener as axum wants it.
struct Served(Listener);

impl axum::serve::Listener for Served {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the HTTP port was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.0.local_addr())
    }
}

/// Serves until `stop`.
pub(crate) async fn serve(
    listener: Listener,
    ready: Readiness,
    (metrics, before_scrape): (Metrics, BeforeScrape),
    stop: CancellationToken,
) -> std::io::Result<()> {
    let readyz = {
        let ready = Arc::clone(&ready);
        move || std::future::ready(answer(&ready))
    };
    let started = AtomicBool::new(false);
    let startupz = move || {
        if started.load(Ordering::Relaxed) {
            return std::future::ready((StatusCode::OK, "started\n".to_owned()));
        }
        let answer = answer(&ready);
        started.store(answer.0 == StatusCode::OK, Ordering::Relaxed);
        std::future::ready(answer)
    };
    let startupz = Arc::new(startupz);
    let metrics = Arc::new(metrics);
    let public = Arc::clone(&metrics);
    let router = axum::Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/startupz", get(move || startupz()))
        .route("/public_metrics", get(move || std::future::ready(shown(public.public_text()))))
        .route(
            "/metrics",
            get(move || {
                let (before, metrics) = (before_scrape(), Arc::clone(&metrics));
                async move {
                    before.await;
                    shown(metrics.text())
                }
            }),
        );
    axum::serve(Served(listener), router).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn answer(ready: &Readiness) -> (StatusCode, String) {
    match ready() {
        Ok(troubles) => {
            let lines = troubles.iter().map(|trouble| format!("{trouble}\n"));
            (StatusCode::OK, "ready\n".to_owned() + &lines.collect::<String>())
        }
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

fn shown(text: Result<String, fmt::Error>) -> Response {
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
