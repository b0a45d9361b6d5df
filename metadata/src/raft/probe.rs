//! Looking whether a broker's process is gone. A connection that its host
//! *refuses* is proof: nothing listens there any more. Silence is no proof, and
//! neither is a connection that is accepted. Fencing on proof is always safe,
//! because epochs protect the data; it only has to be fast.

use super::inner::Inner;
use crate::controller::Command;
use ottla_proto::{BrokerEpoch, NodeId};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Pauses before each attempt, in milliseconds. A process that was just killed
/// may be seen without its streams a moment before its port is closed.
const PAUSES_MS: [u64; 5] = [0, 10, 20, 50, 150];

/// Longest wait for one connection. A refusal takes a round trip.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(300);

/// Probes the broker in the background, and has it fenced if it is gone.
pub(super) fn start(inner: &Arc<Inner>, node_id: NodeId, epoch: BrokerEpoch) {
    let task = Arc::clone(inner);
    inner.tasks.spawn(async move {
        tokio::select! {
            () = task.stop.cancelled() => {}
            () = probe(&task, node_id, epoch) => {}
        }
    });
}

async fn probe(inner: &Inner, node_id: NodeId, epoch: BrokerEpoch) {
    for pause in PAUSES_MS {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let image = inner.image();
        let Some(broker) = image.brokers.get(&node_id) else { return };
        if broker.fenced || broker.epoch != epoch || inner.streams.is_open(node_id, epoch) {
            return;
        }
        let connect = inner.options.network.connect(&broker.host, broker.port);
        match tokio::time::timeout(ATTEMPT_TIMEOUT, connect).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                tracing::info!(%node_id, %epoch, "the broker's process is gone");
                inner.control.notify(Command::BrokerGone { node_id, broker_epoch: epoch });
                return;
            }
            Ok(_) | Err(_) => {}
        }
    }
}
