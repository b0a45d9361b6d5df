//! The HTTP port: probes for whoever supervises the process, and its figures.
//!
//! `/livez` says that the process serves; it must not fail because a leader is
//! missing or a disk is full, or a supervisor would kill nodes for nothing.
//! `/readyz` says whether clients should be sent here.

use crate::metrics::{CONTENT_TYPE, Metrics};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Why this node is not ready; or, if it is, what is wrong with it all the same.
pub(crate) type Readiness = Arc<dyn Fn() -> Result<Vec<String>, String> + Send + Sync>;

/// Serves until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    ready: Readiness,
    metrics: Metrics,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let readyz = move || {
        let answer = match ready() {
            Ok(troubles) => {
                let lines = troubles.iter().map(|trouble| format!("{trouble}\n"));
                (StatusCode::OK, "ready\n".to_owned() + &lines.collect::<String>())
            }
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        };
        async { answer }
    };
    let metrics = Arc::new(metrics);
    let router = axum::Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(move || std::future::ready(shown(&metrics))));
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn shown(metrics: &Metrics) -> Response {
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
