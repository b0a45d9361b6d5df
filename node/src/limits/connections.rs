//! The connections that there are, and what each may still take.
//!
//! Nobody is kept out by others who were there first: where there are as many as there may
//! be, a new one is let in and the one that has been silent longest is closed. Other nodes
//! come by the same port, many times a second, and are never that one.

use super::hold::Allowance;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Bounds of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionLimits {
    /// Connections.
    pub(crate) connections: usize,
    /// Requests and streams that one connection has open.
    pub(crate) requests: usize,
    /// Bytes of requests that are held for one connection, and as many of answers.
    pub(crate) bytes: u32,
}

/// The connections of a port.
#[derive(Debug)]
pub(crate) struct Connections {
    limits: ConnectionLimits,
    open: Mutex<Open>,
    /// Counts what was heard, on whichever connection: a clock that nobody has to look at.
    heard: AtomicU64,
    closed: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    by_id: BTreeMap<u64, Arc<Connection>>,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    id: u64,
    all: Arc<Connections>,
    /// When something was heard last, as `Connections::heard` counts.
    heard: AtomicU64,
    is_closed: AtomicBool,
    /// Of who reads from it.
    reader: AtomicWaker,
    requests: AtomicUsize,
    /// Bytes that came by it.
    pub(super) incoming: Allowance,
    /// Bytes that are to go by it.
    pub(super) outgoing: Allowance,
}

/// A request that is open.
#[derive(Debug)]
pub(super) struct OpenRequest(Arc<Connection>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

impl Connections {
    pub(crate) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            open: Mutex::default(),
            heard: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.open.lock().by_id.len()
    }

    /// How many were closed for others.
    pub(crate) fn closed(&self) -> u64 {
        self.closed.load(Relaxed)
    }

    /// Requests that were refused because their connection had too many open.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// One more. To be taken out again ([`Connection::gone`]).
    pub(super) fn add(self: &Arc<Self>) -> Arc<Connection> {
        let mut open = self.open.lock();
        while open.by_id.len() >= self.limits.connections.max(1) {
            let heard = |(_, one): &(&u64, &Arc<Connection>)| one.heard.load(Relaxed);
            let Some((&silent, _)) = open.by_id.iter().min_by_key(heard) else { break };
            if let Some(silent) = open.by_id.remove(&silent) {
                silent.close();
                self.closed.fetch_add(1, Relaxed);
            }
        }
        let id = open.next;
        open.next += 1;
        let connection = Arc::new(Connection {
            id,
            all: Arc::clone(self),
            heard: AtomicU64::new(self.heard.fetch_add(1, Relaxed)),
            is_closed: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            requests: AtomicUsize::new(0),
            incoming: Allowance::new(self.limits.bytes),
            outgoing: Allowance::new(self.limits.bytes),
        });
        open.by_id.insert(id, Arc::clone(&connection));
        connection
    }
}

impl Connection {
    /// Bytes of answers that may be held for it.
    pub(crate) fn answers(&self) -> &Allowance {
        &self.outgoing
    }

    /// Something came by it.
    pub(super) fn was_heard(&self) {
        self.heard.store(self.all.heard.fetch_add(1, Relaxed), Relaxed);
    }

    fn close(&self) {
        self.is_closed.store(true, Relaxed);
        self.reader.wake();
    }

    /// Whether it is to end; otherwise who reads is woken when it is.
    pub(super) fn is_closed(&self, reader: &std::task::Waker) -> bool {
        self.reader.register(reader);
        self.is_closed.load(Relaxed)
    }

    /// It has ended.
    pub(super) fn gone(&self) {
        self.all.open.lock().by_id.remove(&self.id);
    }

    /// `None`: it has as many open as it may.
    pub(super) fn open_request(self: &Arc<Self>) -> Option<OpenRequest> {
        let request = OpenRequest(Arc::clone(self));
        if self.requests.fetch_add(1, Relaxed) < self.all.limits.requests {
            return Some(request);
        }
        self.all.refused.fetch_add(1, Relaxed);
        None
    }

    /// Requests that it may have open.
    pub(super) fn most_requests(&self) -> usize {
        self.all.limits.requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections: usize) -> ConnectionLimits {
        ConnectionLimits { connections, requests: 2, bytes: 100 }
    }

    fn closed(connection: &Connection) -> bool {
        connection.is_closed(futures::task::noop_waker_ref())
    }

    #[test]
    fn the_one_that_was_silent_longest_makes_room() {
        let all = Connections::new(limits(3));
        let connections: Vec<_> = (0..3).map(|_| all.add()).collect();
        connections[0].was_heard();
        let fourth = all.add();
        assert_eq!(
            connections.iter().map(|one| closed(one)).collect::<Vec<_>>(),
            [false, true, false]
        );
        // Whoever has just come is not silent.
        let fifth = all.add();
        assert!(closed(&connections[2]) && !closed(&connections[0]) && !closed(&fourth));
        assert_eq!((all.count(), all.closed()), (3, 2));
        fifth.gone();
        fifth.gone();
        assert_eq!(all.count(), 2);
        assert!(!closed(&all.add()) && !closed(&connections[0]));
    }

    #[test]
    fn a_connection_has_so_many_requests_open() {
        let all = Connections::new(limits(1));
        let connection = all.add();
        let first = connection.open_request().expect("one");
        let _second = connection.open_request().expect("two");
        assert!(connection.open_request().is_none());
        assert!(connection.open_request().is_none(), "who is refused does not count");
        drop(first);
        assert!(connection.open_request().is_some());
        assert_eq!(all.refused(), 2);
    }
}
