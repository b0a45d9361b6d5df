//! Work that blocks a thread: everything that touches a disk.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinHandle;

/// Work that was given away, to be awaited. Dropping it does not stop the work.
pub struct Blocking<T>(State<T>);

enum State<T> {
    Elsewhere(JoinHandle<T>),
    Done(Option<T>),
}

/// The work panicked.
#[derive(Debug, thiserror::Error)]
#[error("blocking work did not end: {0}")]
pub struct WorkLost(#[from] tokio::task::JoinError);

/// Runs `work` on a thread where blocking hurts nobody.
///
/// A runtime of one thread, as the simulation has it, does it at once, in the order of
/// the calls: there is nobody else to keep free, and the order does not depend on the
/// operating system.
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Blocking<T> {
    Blocking(match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => State::Done(Some(work())),
        _ => State::Elsewhere(tokio::task::spawn_blocking(work)),
    })
}

/// The result is moved out, never pinned.
impl<T> Unpin for Blocking<T> {}

impl<T> Future for Blocking<T> {
    type Output = Result<T, WorkLost>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Elsewhere(work) => Pin::new(work).poll(context).map_err(WorkLost),
            State::Done(result) => {
                Poll::Ready(Ok(result.take().expect("not polled after it was ready")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_thread_works_in_the_order_of_the_calls() {
        let (order, seen) = std::sync::mpsc::channel();
        let second = order.clone();
        let works = [blocking(move || order.send(1)), blocking(move || second.send(2))];
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [1, 2], "done before anybody waits");
        for work in works {
            work.await.expect("it ran").expect("somebody listens");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn many_threads_share_the_work_and_a_panic_is_an_error() {
        assert_eq!(blocking(|| 7).await.expect("it ran"), 7);
        blocking(|| panic!("on purpose")).await.map(drop).expect_err("it panicked");
    }
}
