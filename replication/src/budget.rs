//! Memory for produce requests: a bound in bytes that can be changed while it is
//! used. What a smaller bound has no room for is taken back as it is returned.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// The bytes that a node may hold.
pub(crate) struct Budget {
    free: Arc<Semaphore>,
    /// The bound. Locked while it, or the debt, changes.
    bytes: Mutex<usize>,
    /// Bytes that are held over the bound.
    debt: AtomicUsize,
}

/// A share of a budget, returned when it is dropped.
pub(crate) struct Share {
    budget: Arc<Budget>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(bytes));
        Arc::new(Self { free, bytes: Mutex::new(bytes), debt: AtomicUsize::new(0) })
    }

    /// The bound.
    pub(crate) fn bytes(&self) -> usize {
        *self.bytes.lock()
    }

    /// From now on another bound holds.
    pub(crate) fn resize(&self, bytes: usize) {
        let mut bound = self.bytes.lock();
        let debt = self.debt.load(Ordering::Relaxed);
        let (more, less) = (bytes.saturating_sub(*bound), bound.saturating_sub(bytes));
        // What is owed is forgiven before anything is added.
        let forgiven = more.min(debt);
        self.free.add_permits(more - forgiven);
        let taken = self.free.forget_permits(less);
        self.debt.store(debt - forgiven + (less - taken), Ordering::Relaxed);
        *bound = bytes;
    }

    /// Waits for so many bytes, or for all there are if the bound is smaller.
    pub(crate) async fn take(self: &Arc<Self>, bytes: usize) -> Result<Share, AcquireError> {
        let permits = u32::try_from(bytes.min(self.bytes())).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.free).acquire_many_owned(permits).await?;
        Ok(Share { budget: Arc::clone(self), permit: Some(permit) })
    }

    /// Waits until nothing is held, and lets nothing be taken any more.
    pub(crate) async fn drain(self: &Arc<Self>) -> Result<(), AcquireError> {
        let mut share = self.take(usize::MAX).await?;
        if let Some(all) = share.permit.take() {
            all.forget();
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(mut permit) = self.permit.take() else { return };
        if self.budget.debt.load(Ordering::Relaxed) == 0 {
            return;
        }
        let _bound = self.budget.bytes.lock();
        let debt = self.budget.debt.load(Ordering::Relaxed);
        let paid = debt.min(permit.num_permits());
        if let Some(gone) = permit.split(paid) {
            gone.forget();
        }
        self.budget.debt.store(debt - paid, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn take(budget: &Arc<Budget>, bytes: usize) -> Option<Share> {
        budget.take(bytes).now_or_never().map(|share| share.expect("never closed"))
    }

    #[test]
    fn a_smaller_bound_is_reached_as_shares_return() {
        let budget = Budget::new(100);
        let (first, second) = (take(&budget, 60).expect("room"), take(&budget, 30).expect("room"));
        budget.resize(50);
        assert_eq!(budget.bytes(), 50);
        assert!(take(&budget, 1).is_none(), "90 of 50 are held");
        drop(second);
        assert!(take(&budget, 1).is_none(), "60 of 50 are held");
        drop(first);
        let all = take(&budget, 50).expect("all of the new bound");
        assert!(take(&budget, 1).is_none());
        drop(all);
    }

    #[test]
    fn a_larger_bound_makes_room_at_once_beyond_what_is_owed() {
        let budget = Budget::new(100);
        let held = take(&budget, 100).expect("room");
        budget.resize(20);
        budget.resize(130);
        let rest = take(&budget, 30).expect("100 of 130 are held");
        assert!(take(&budget, 1).is_none());
        drop((held, rest));
        assert!(take(&budget, 130).is_some());
        assert!(take(&budget, 130).is_some(), "nothing was lost");
    }

    #[test]
    fn more_than_the_bound_is_all_of_it_and_after_a_drain_there_is_none() {
        let budget = Budget::new(10);
        let share = take(&budget, 1000).expect("all there is");
        assert!(budget.drain().now_or_never().is_none(), "it is held");
        drop(share);
        assert!(budget.drain().now_or_never().is_some());
        assert!(take(&budget, 1).is_none());
    }
}
