//! The HTTP port: probes for whoever supervises the process.
//!
//! `/livez` says that the process serves; it must not fail because a leader is
//! missing or a disk is full, or a supervisor would kill nodes for nothing.
//! `/readyz` says whether clients should be sent here.

use axum::http::StatusCode;
use axum::routing::get;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Why this node is not ready, or nothing if it is.
pub(crate) type Readiness = Arc<dyn Fn() -> Result<(), &'static str> + Send + Sync>;

/// Serves until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    ready: Readiness,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let readyz = move || {
        let answer = match ready() {
            Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        };
        async { answer }
    };
    let router = axum::Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz));
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}
