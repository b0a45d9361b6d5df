//! The door that writes come through. Each holds an entry until it is answered, so
//! whoever closes the door knows that nobody is inside any more.
//!
//! Not its job: who may write; it only counts.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Writes inside at once, on one partition: beyond what the node's produce memory has
/// room for, so this never is what a write waits for.
const ROOM: u32 = 1 << 20;

/// Open unless somebody holds [`Closed`].
pub(crate) struct Gate {
    room: Arc<Semaphore>,
}

/// A write's place inside.
pub(crate) struct Entry {
    _place: OwnedSemaphorePermit,
}

/// Nobody is inside, and nobody gets in before this is dropped.
pub(crate) struct Closed {
    _all: OwnedSemaphorePermit,
}

impl Default for Gate {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(ROOM as usize)) }
    }
}

impl Gate {
    /// An entry; `None` while the door is closed, or somebody waits to close it.
    pub(crate) fn enter(&self) -> Option<Entry> {
        let place = Arc::clone(&self.room).try_acquire_owned().ok()?;
        Some(Entry { _place: place })
    }

    /// Waits until the door is open.
    pub(crate) async fn opened(&self) {
        let place = self.room.acquire().await;
        drop(place.expect("the semaphore is never closed"));
    }

    /// Lets nobody in any more, from now on, and waits until all who are inside have
    /// left. Dropping the future opens the door again.
    pub(crate) async fn close(&self) -> Closed {
        let all = Arc::clone(&self.room).acquire_many_owned(ROOM).await;
        Closed { _all: all.expect("the semaphore is never closed") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn who_is_inside_is_waited_for_and_nobody_comes_after() {
        let gate = Gate::default();
        let inside = gate.enter().expect("it is open");
        {
            let mut closing = Box::pin(gate.close());
            assert!(closing.as_mut().now_or_never().is_none(), "somebody is inside");
            assert!(gate.enter().is_none(), "somebody waits to close it");
            drop(inside);
            let closed = closing.now_or_never().expect("nobody is inside");
            assert!(gate.enter().is_none() && gate.opened().now_or_never().is_none());
            drop(closed);
        }
        assert!(gate.opened().now_or_never().is_some());
        let inside = gate.enter().expect("it is open");
        // Given up: open again.
        assert!(gate.close().now_or_never().is_none());
        assert!(gate.enter().is_some());
        drop(inside);
    }
}
