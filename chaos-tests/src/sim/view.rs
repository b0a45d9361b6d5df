//! Who leads what, as clients see it: faults that choose their victim by its role look
//! here. During a fault it may be out of date, as what any client knows.

use super::cluster::bootstrap;
use super::load::TOPIC;
use super::network::SimNetwork;
use super::trace;
use ottla_client::{Client, ClientOptions, HostPort};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often to look: more than once in the shortest window.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The same while something waits for what is to be seen.
const ATTEND_EVERY: Duration = Duration::from_millis(30);

/// A partition's nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Roles {
    pub(super) leader: Option<u64>,
    pub(super) isr: Vec<u64>,
    pub(super) replicas: Vec<u64>,
}

/// What was seen last.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// Somebody waits for what is to be seen.
    pub(super) attended: bool,
    pub(super) controller: Option<u64>,
    pub(super) partitions: BTreeMap<u32, Roles>,
}

/// Looks for ever. Errors are what faults make of it.
pub(super) async fn watch(nodes: u64, view: Arc<Mutex<View>>) {
    let Ok(bootstrap) = HostPort::parse_list(&bootstrap(nodes)) else { return };
    let client = loop {
        let options = ClientOptions::default();
        match Client::connect_over(Arc::new(SimNetwork), &bootstrap, options).await {
            Ok(client) => break client,
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    };
    loop {
        // Not `cluster_info`: in it are the real disk's path and free bytes.
        if let Ok(quorum) = client.admin().describe_quorum().await {
            let before = view.lock().controller.replace(quorum.leader_id);
            if before != Some(quorum.leader_id) {
                trace::told(&format!("seen: {} is the controller", quorum.leader_id));
            }
        }
        if let Ok(described) = client.admin().describe_topic(TOPIC).await {
            let roles = described.topic.partitions.into_iter().map(|partition| {
                let (leader, isr) = (partition.leader_id, partition.isr);
                (partition.partition, Roles { leader, isr, replicas: partition.replicas })
            });
            for (partition, roles) in roles {
                let before = view.lock().partitions.insert(partition, roles.clone());
                if before.as_ref() != Some(&roles) {
                    trace::told(&format!("seen: partition {partition}: {roles:?}"));
                }
            }
        }
        let attended = view.lock().attended;
        tokio::time::sleep(if attended { ATTEND_EVERY } else { LOOK_EVERY }).await;
    }
}
