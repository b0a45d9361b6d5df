//! How many members all groups of a node have: each partition's shard tells its share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Members of the groups that a node coordinates.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeMembers(Arc<AtomicUsize>);

impl NodeMembers {
    /// All of them.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A share, of nobody yet.
    pub(crate) fn share(&self) -> Share {
        Share { of: self.clone(), count: 0 }
    }
}

/// One leadership's share. With it they go.
#[derive(Debug)]
pub(crate) struct Share {
    of: NodeMembers,
    count: usize,
}

impl Share {
    /// So many are in it now.
    pub(crate) fn set(&mut self, count: usize) {
        let before = std::mem::replace(&mut self.count, count);
        // Added first: in between there may be some too many, never less than none.
        self.of.0.fetch_add(count, Ordering::Relaxed);
        self.of.0.fetch_sub(before, Ordering::Relaxed);
    }

    /// Of all.
    pub(crate) fn of_node(&self) -> usize {
        self.of.count()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_go_with_the_leadership() {
        let all = NodeMembers::default();
        let (mut one, mut other) = (all.share(), all.share());
        one.set(5);
        other.set(7);
        one.set(3);
        assert_eq!((all.count(), one.of_node()), (10, 10));
        drop(other);
        assert_eq!(all.count(), 3);
        one.set(0);
        assert_eq!(all.count(), 0);
    }
}
