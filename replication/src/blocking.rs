//! Work that blocks a thread: everything that touches a disk.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;

/// Work that was given away, to be awaited. Dropping it does not stop the work.
pub(crate) struct Blocking<T>(JoinHandle<T>);

/// The work panicked.
#[derive(Debug, thiserror::Error)]
#[error("blocking work did not end: {0}")]
pub(crate) struct WorkLost(#[from] tokio::task::JoinError);

/// Runs `work` on a thread where blocking hurts nobody.
pub(crate) fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Blocking<T> {
    Blocking(tokio::task::spawn_blocking(work))
}

impl<T> Future for Blocking<T> {
    type Output = Result<T, WorkLost>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_err(WorkLost)
    }
}
