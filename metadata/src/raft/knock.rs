//! A node with a log that does not serve as a broker for a while asks around why:
//! it may have been removed while it was away, and then nobody sends it the entry
//! that says so.
//!
//! Not its job: what becomes of a node that was removed.

use super::evicted::Evicted;
use super::inner::Inner;
use super::introduction;
use std::sync::Arc;
use std::time::Duration;

/// How long it waits to be unfenced before it asks, and between two rounds.
/// Many elections: usually a leader turns up by itself.
const PAUSE: Duration = Duration::from_secs(2);

/// Asks while this node is fenced, until it shuts down.
pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        if !inner.broker.borrow().fenced {
            continue;
        }
        if let Some(evicted) = ask(&inner).await {
            inner.evict(evicted);
            return;
        }
    }
}

async fn ask(inner: &Inner) -> Option<Evicted> {
    let others = inner.addresses.others(inner.options.node_id);
    let answers =
        futures::future::join_all(others.values().map(|peer| introduction::ask(inner, peer, true)));
    answers.await.into_iter().flatten().find_map(|answer| introduction::verdict(&answer))
}
