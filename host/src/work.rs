//! Work that blocks a thread: everything that touches a disk.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
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

thread_local! {
    static DELAY: RefCell<Option<Box<dyn FnMut() -> Duration>>> = const { RefCell::new(None) };
}

/// Lets all work of this thread's runtimes of one thread wait before it is done, by their
/// clock, each for what `delay` says; `None`: no longer. For simulations, whose disks
/// take no time by themselves.
pub fn delay_work(delay: Option<Box<dyn FnMut() -> Duration>>) {
    DELAY.set(delay);
}

/// Runs `work` on a thread where blocking hurts nobody.
///
/// A runtime of one thread, as the simulation has it, does it itself, at once or after a
/// delay ([`delay_work`]): there is nobody else to keep free, and the order does not
/// depend on the operating system.
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Blocking<T> {
    if Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread {
        return Blocking(State::Elsewhere(tokio::task::spawn_blocking(work)));
    }
    match DELAY.with_borrow_mut(|delay| delay.as_mut().map(|next| next())) {
        None => Blocking(State::Done(Some(work()))),
        Some(delay) => Blocking(State::Elsewhere(tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            work()
        }))),
    }
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

    #[tokio::test(start_paused = true)]
    async fn delayed_work_is_done_in_its_time() {
        delay_work(Some(Box::new(|| Duration::from_secs(5))));
        let started = tokio::time::Instant::now();
        assert_eq!(blocking(|| 7).await.expect("it ran"), 7);
        assert_eq!(started.elapsed(), Duration::from_secs(5));
        delay_work(None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn many_threads_share_the_work_and_a_panic_is_an_error() {
        assert_eq!(blocking(|| 7).await.expect("it ran"), 7);
        blocking(|| panic!("on purpose")).await.map(drop).expect_err("it panicked");
    }
}
