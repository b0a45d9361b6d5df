//! What operators do while things go wrong: topics come and go and change, partitions
//! move, leaders are elected, nodes join the quorum, are drained and leave. Each request
//! may fail, as it would; what must hold is what the load's clients see.

use super::cluster::bootstrap;
use super::load::{PARTITIONS, TOPIC};
use super::network::SimNetwork;
use super::trace;
use ottla_client::{Client, ClientError, ClientOptions, Election, HostPort, NewTopic, TopicChange};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Shortest and longest pause between two requests, in milliseconds.
const PAUSE_MS: (u64, u64) = (50, 1_500);

/// Replicas of each partition of the load.
const REPLICAS: usize = 3;

/// The cluster's nodes as the operators mean them to be.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Those that are to be there.
    pub(super) there: BTreeSet<u64>,
    /// Those that are to leave, or have: such a node ends by itself.
    pub(super) leaving: BTreeSet<u64>,
}

/// Makes requests until it is `over`.
pub(super) async fn churn(
    seed: u64,
    nodes: u64,
    members: Arc<Mutex<Members>>,
    over: impl Fn() -> bool,
) {
    let Ok(bootstrap) = HostPort::parse_list(&bootstrap(nodes)) else { return };
    let mut rng = StdRng::seed_from_u64(seed.rotate_left(32));
    let client = loop {
        pause(&mut rng).await;
        let network = Arc::new(SimNetwork);
        if let Ok(client) =
            Client::connect_over(network, &bootstrap, ClientOptions::default()).await
        {
            break client;
        }
    };
    let mut number = 0;
    while !over() {
        number += 1;
        let (what, outcome) = request(&client, &mut rng, &members, number).await;
        let outcome = outcome.map_or_else(|error| error.to_string(), |()| "done".to_owned());
        trace::told(&format!("operator: {what}: {outcome}"));
        pause(&mut rng).await;
    }
}

async fn pause(rng: &mut StdRng) {
    let pause = rng.random_range(PAUSE_MS.0..=PAUSE_MS.1);
    tokio::time::sleep(Duration::from_millis(pause)).await;
}

async fn request(
    client: &Client,
    rng: &mut StdRng,
    members: &Mutex<Members>,
    number: u64,
) -> (String, Result<(), ClientError>) {
    let admin = client.admin();
    let name = format!("churn-{}", rng.random_range(0..3));
    let partition = rng.random_range(0..PARTITIONS);
    match rng.random_range(0..12) {
        0..2 => {
            let topic = NewTopic {
                name: name.clone(),
                partitions: 2,
                replication_factor: 3,
                ..NewTopic::default()
            };
            (format!("create {name}"), admin.create_topic(topic).await.map(drop))
        }
        2 => (format!("delete {name}"), admin.delete_topic(&name).await),
        3 => {
            let value = rng.random_range(1..=2).to_string();
            let set = [("min.insync.replicas".to_owned(), value)].into();
            let change = TopicChange { set, ..TopicChange::default() };
            (format!("alter {name}"), admin.alter_topic(&name, change).await.map(drop))
        }
        4..6 => {
            let elected = admin.elect_leader(TOPIC, partition, Election::Preferred).await;
            (format!("elect the preferred leader of {partition}"), elected.map(drop))
        }
        6..9 => {
            let mut nodes: Vec<u64> = members.lock().there.iter().copied().collect();
            nodes.shuffle(rng);
            nodes.truncate(REPLICAS);
            let what = format!("move {partition} to {nodes:?}");
            let plan = [(partition, nodes)].into();
            (what, admin.reassign(TOPIC, plan, false).await.map(drop))
        }
        9 => {
            let cancelled = admin.cancel_reassignments(TOPIC, vec![partition]).await;
            (format!("cancel the move of {partition}"), cancelled.map(drop))
        }
        _ => membership(client, members, number).await,
    }
}

/// Whoever has joined gets a vote; whoever is to leave is drained, then removed.
async fn membership(
    client: &Client,
    members: &Mutex<Members>,
    number: u64,
) -> (String, Result<(), ClientError>) {
    let admin = client.admin();
    let leaving = members.lock().leaving.first().copied();
    if let Some(node) = leaving {
        return match number % 3 {
            0 => (format!("drain {node}"), admin.drain_node(node, false).await.map(drop)),
            _ => (format!("remove {node}"), admin.remove_node(node, false).await.map(drop)),
        };
    }
    let last = members.lock().there.last().copied().unwrap_or(1);
    (format!("give {last} a vote"), admin.add_voter(last).await.map(drop))
}
