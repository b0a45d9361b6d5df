//! Clients of a simulated cluster: writers of unique values while things go wrong, readers
//! that follow them, a group that shares what they write, and readers of everything once
//! things are right again.
//!
//! What they are told is one history. Only acks=all is an `ok` in it: with less a record
//! need not stay, but what was read once must, and in its place.

use super::cluster::bootstrap;
use super::network::SimNetwork;
use super::reader::{Reader, follow};
use super::trace;
use super::writer::{Kind, Writer};
use crate::history::{Entry, Recorder, Run};
use crate::members::{Habits, Members, Tell};
use anyhow::Context;
use ottla_client::{Acks, Client, ClientOptions, HostPort, NewTopic, Producer};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinSet;

/// The topic whose acknowledgements are promises: acks=all.
pub(super) const TOPIC: &str = "load";

/// Its partitions, each with a writer of its own kind. Faults are aimed at these.
pub const PARTITIONS: u32 = 3;

/// Written to with acks=1 and acks=0.
const WEAK_TOPIC: &str = "weak";

/// Who writes what.
const WRITERS: [(&str, u32, Kind); 5] = [
    (TOPIC, 0, Kind { acks: Acks::All, idempotent: false, outstanding: 1 }),
    (TOPIC, 1, Kind { acks: Acks::All, idempotent: true, outstanding: 1 }),
    (TOPIC, 2, Kind { acks: Acks::All, idempotent: true, outstanding: 8 }),
    (WEAK_TOPIC, 0, Kind { acks: Acks::Leader, idempotent: false, outstanding: 1 }),
    (WEAK_TOPIC, 1, Kind { acks: Acks::None, idempotent: false, outstanding: 1 }),
];

/// The group. A member that dies is missed after a session of ten seconds: in a run of
/// some twenty there are such changes and good-mannered ones.
const HABITS: Habits = Habits {
    topics: &[TOPIC],
    partitions: PARTITIONS,
    stays: Duration::from_secs(4),
    away: Duration::from_secs(1),
};

/// Between two attempts to create a topic.
const AGAIN_AFTER: Duration = Duration::from_millis(10);

/// How long everything may take to work again once nothing is wrong any more.
pub(super) const HEALED_WITHIN: Duration = Duration::from_secs(60);

/// The failure domain of a node: each has its own, so that readers can choose.
pub(super) fn rack(node: u64) -> String {
    format!("rack-{node}")
}

/// The side of the one who hurts the nodes.
pub(super) struct Handle(Arc<Shared>);

/// What all clients of a run share.
pub(super) struct Shared {
    begun: AtomicBool,
    /// Nothing is wrong any more.
    pub(super) over: AtomicBool,
    /// Writes that were acknowledged, by partition.
    acknowledged: [AtomicU64; PARTITIONS as usize],
    /// What clients did and were told, and what is done to the nodes.
    pub(super) recorder: Recorder,
    /// What did not work again although nothing was wrong any more.
    failed: Mutex<Option<String>>,
}

impl Handle {
    /// The writers write.
    pub(super) fn has_begun(&self) -> bool {
        self.0.begun.load(Relaxed)
    }

    /// So many writes to a partition were acknowledged.
    pub(super) fn acknowledged(&self, partition: u32) -> u64 {
        self.0.acknowledged[partition as usize].load(Relaxed)
    }

    /// Whether nothing is wrong any more, for somebody else to ask.
    pub(super) fn over(&self) -> impl Fn() -> bool + use<> {
        let shared = Arc::clone(&self.0);
        move || shared.over.load(Relaxed)
    }

    /// Nothing is wrong any more.
    pub(super) fn end(&self) {
        self.0.over.store(true, Relaxed);
    }

    pub(super) fn recorder(&self) -> &Recorder {
        &self.0.recorder
    }

    pub(super) fn history(&self) -> Vec<Entry> {
        self.0.recorder.entries()
    }

    /// What did not work again.
    pub(super) fn failed(&self) -> Option<String> {
        self.0.failed.lock().clone()
    }
}

/// The clients of one run, to be run with the nodes.
pub(super) fn load(
    name: String,
    nodes: u64,
) -> (Handle, impl Future<Output = turmoil::Result> + 'static) {
    let run = Run { name, no_gaps: true, all_kept: true, ..Run::default() };
    let shared = Arc::new(Shared {
        begun: AtomicBool::new(false),
        over: AtomicBool::new(false),
        acknowledged: Default::default(),
        recorder: Recorder::new(run),
        failed: Mutex::new(None),
    });
    let handle = Handle(Arc::clone(&shared));
    let work = async move {
        if let Err(error) = clients(&shared, nodes).await {
            *shared.failed.lock() = Some(format!("{error:#}"));
        }
        Ok(())
    };
    (handle, work)
}

async fn clients(shared: &Arc<Shared>, nodes: u64) -> anyhow::Result<()> {
    let bootstrap = HostPort::parse_list(&bootstrap(nodes))?;
    let client = connect(&bootstrap).await?;
    created(&client, TOPIC, PARTITIONS).await?;
    created(&client, WEAK_TOPIC, 2).await?;
    let members = members(&bootstrap).await?;
    let (mut writers, mut readers) = (JoinSet::new(), JoinSet::new());
    for (topic, partition, kind) in WRITERS {
        let producer = Producer::new(&client, kind.options());
        let topic_producer = producer.topic(topic).await?;
        let writer = Writer::new(shared, topic_producer, (topic, partition), kind);
        writers.spawn(writer.run());
        let name = format!("reader of {}", key(topic, partition));
        readers.spawn(follow(reader(shared, &client, name, (topic, partition)), nodes));
    }
    // Before this nothing goes wrong: whoever cannot begin then has no excuse.
    shared.begun.store(true, Relaxed);
    while let Some(written) = writers.join_next().await {
        written.context("a writer panicked")??;
    }
    let healed = tokio::time::Instant::now() + HEALED_WITHIN;
    let figures = members.finish(healed).await.context("the group")?;
    trace::told(&figures.to_string());
    readers.abort_all();
    while let Some(ended) = readers.join_next().await {
        match ended {
            Err(error) if error.is_cancelled() => {}
            ended => ended.context("a reader panicked")??,
        }
    }
    read_back(shared, &client, nodes).await
}

async fn connect(bootstrap: &[HostPort]) -> anyhow::Result<Client> {
    let network = Arc::new(SimNetwork);
    let connected = Client::connect_over(network, bootstrap, ClientOptions::default()).await;
    connected.context("start")
}

async fn members(bootstrap: &[HostPort]) -> anyhow::Result<Members> {
    let client = || connect(bootstrap);
    let clients = [client().await?, client().await?, client().await?];
    let tell: Tell = Arc::new(trace::told);
    Ok(Members::start(client().await?, clients, HABITS, &tell))
}

/// Reads everything near each node.
async fn read_back(shared: &Arc<Shared>, client: &Client, nodes: u64) -> anyhow::Result<()> {
    shared.recorder.begin_final(now());
    for node in 1..=nodes {
        for (topic, partition, _) in WRITERS {
            let name = format!("near node {node}, {}", key(topic, partition));
            let reader = reader(shared, client, name, (topic, partition));
            let read = tokio::time::timeout(HEALED_WITHIN, reader.read_all(node)).await;
            let what = || format!("reading {} near node {node}", key(topic, partition));
            read.with_context(what)?.with_context(what)?;
        }
    }
    Ok(())
}

fn reader(shared: &Arc<Shared>, client: &Client, name: String, of: (&str, u32)) -> Reader {
    Reader {
        shared: Arc::clone(shared),
        client: client.clone(),
        topic: of.0.to_owned(),
        partition: of.1,
        name,
    }
}

/// Simulated time.
pub(super) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// A partition as the history has it.
pub(super) fn key(topic: &str, partition: u32) -> String {
    format!("{topic}-{partition}")
}

/// Creates a topic once there are enough nodes for it.
async fn created(client: &Client, name: &str, partitions: u32) -> anyhow::Result<()> {
    let (name, replication_factor) = (name.to_owned(), 3);
    let topic = NewTopic { name, partitions, replication_factor, ..NewTopic::default() };
    let deadline = tokio::time::Instant::now() + HEALED_WITHIN;
    loop {
        match client.admin().create_topic(topic.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) if tokio::time::Instant::now() >= deadline => {
                return Err(error).context("creating the topic");
            }
            Err(_) => tokio::time::sleep(AGAIN_AFTER).await,
        }
    }
}

impl Shared {
    /// A write to a partition that faults are aimed at was acknowledged.
    pub(super) fn acknowledge(&self, partition: u32) {
        self.acknowledged[partition as usize].fetch_add(1, Relaxed);
    }
}
