//! Bytes that are held for a connection, and how many more may be.

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// A bound in bytes. What is larger than the bound takes all of it: it must get through.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    free: Arc<Semaphore>,
    bytes: usize,
}

/// So many bytes are held, as long as this lives.
#[derive(Debug)]
pub(crate) struct Held(OwnedSemaphorePermit);

impl Held {
    /// Gives so many of them back, as far as there are.
    pub(crate) fn but_for(mut self, bytes: usize) -> Self {
        drop(self.0.split(bytes.min(self.0.num_permits())));
        self
    }
}

/// Bytes that came or are to go, and the room that they wait for.
pub(super) type Waiting = (Bytes, BoxFuture<'static, Held>);

impl Allowance {
    pub(crate) fn new(bytes: u32) -> Self {
        let bytes = bytes as usize;
        Self { free: Arc::new(Semaphore::new(bytes)), bytes }
    }

    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.bytes)).unwrap_or(u32::MAX)
    }

    /// `None`: there is no room now.
    pub(crate) fn try_hold(&self, bytes: usize) -> Option<Held> {
        let free = Arc::clone(&self.free);
        free.try_acquire_many_owned(self.permits(bytes)).ok().map(Held)
    }

    /// Waits for room.
    pub(crate) async fn hold(&self, bytes: usize) -> Held {
        let permit = Arc::clone(&self.free).acquire_many_owned(self.permits(bytes)).await;
        Held(permit.expect("never closed"))
    }

    /// The same, for whoever polls.
    pub(super) fn wait(self, bytes: usize) -> BoxFuture<'static, Held> {
        async move { self.hold(bytes).await }.boxed()
    }

    /// The same until then. `None`: there was no room in time.
    pub(crate) async fn hold_until(&self, bytes: usize, until: Instant) -> Option<Held> {
        timeout_at(until, self.hold(bytes)).await.ok()
    }
}

/// Bytes that hold their room until nobody has them any more: the socket has taken them.
pub(super) fn kept(bytes: Bytes, held: Held) -> Bytes {
    struct Kept {
        bytes: Bytes,
        _held: Held,
    }
    impl AsRef<[u8]> for Kept {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(Kept { bytes, _held: held })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_comes_back_with_the_last_who_has_it() {
        let allowance = Allowance::new(10);
        let bytes = kept(Bytes::from_static(b"123456"), allowance.try_hold(6).expect("room"));
        let part = bytes.slice(2..4);
        drop(bytes);
        assert!(allowance.try_hold(5).is_none(), "6 of 10 are held");
        assert_eq!(&part[..], b"34");
        drop(part);
        let held = allowance.try_hold(8).expect("room").but_for(5);
        let rest = allowance.try_hold(7).expect("3 of 10 are held");
        assert!(allowance.try_hold(1).is_none());
        drop((held.but_for(100), rest));
        let all = allowance.try_hold(1000).expect("what is larger takes all there is");
        assert!(allowance.try_hold(1).is_none());
        drop(all);
        assert!(allowance.try_hold(10).is_some());
    }
}
