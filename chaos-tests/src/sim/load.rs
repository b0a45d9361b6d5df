//! Clients of a simulated cluster: writers of unique values while things go wrong, and
//! readers of everything once they are right again.

use super::cluster::bootstrap;
use super::network::SimNetwork;
use crate::checker::{Outcome, Reading, Write};
use anyhow::Context;
use ottla_client::{
    Client, ClientOptions, HostPort, NewTopic, PartitionReader, Producer, ProducerOptions,
    ProducerRecord, ReaderOptions, StartPosition, TopicProducer,
};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinSet;

const TOPIC: &str = "load";

/// Partitions written to, each by a writer of its own.
pub const PARTITIONS: u32 = 3;

/// How long a writer waits for one record's fate. Longer than any window of a plan, so
/// that some writes outlive their fault, and short beside a run.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between two records of a writer: some hundreds of records a run tell as much
/// as thousands, and take less.
const PAUSE: Duration = Duration::from_millis(10);

/// How long everything may take to work again once nothing is wrong any more.
const HEALED_WITHIN: Duration = Duration::from_secs(60);

/// The failure domain of a node: each has its own, so that readers can choose.
pub(super) fn rack(node: u64) -> String {
    format!("rack-{node}")
}

/// What writers were told and readers saw.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// All writes.
    pub writes: Vec<Write>,
    /// Every partition, read near each node.
    pub readings: Vec<Reading>,
    /// What did not work again although nothing was wrong any more.
    pub failed: Option<String>,
}

/// The side of the one who hurts the nodes.
pub(super) struct Handle(Arc<Shared>);

#[derive(Default)]
struct Shared {
    begun: AtomicBool,
    over: AtomicBool,
    told: Mutex<Told>,
}

impl Handle {
    /// The writers write.
    pub(super) fn has_begun(&self) -> bool {
        self.0.begun.load(Relaxed)
    }

    /// Nothing is wrong any more.
    pub(super) fn end(&self) {
        self.0.over.store(true, Relaxed);
    }

    pub(super) fn told(&self) -> Told {
        self.0.told.lock().clone()
    }
}

/// The clients of one run, to be run with the nodes.
pub(super) fn load(nodes: u64) -> (Handle, impl Future<Output = turmoil::Result> + 'static) {
    let shared = Arc::new(Shared::default());
    let handle = Handle(Arc::clone(&shared));
    let work = async move {
        if let Err(error) = clients(&shared, nodes).await {
            shared.told.lock().failed = Some(format!("{error:#}"));
        }
        Ok(())
    };
    (handle, work)
}

async fn clients(shared: &Arc<Shared>, nodes: u64) -> anyhow::Result<()> {
    let bootstrap = HostPort::parse_list(&bootstrap(nodes))?;
    let network = Arc::new(SimNetwork);
    let client = Client::connect_over(network, &bootstrap, ClientOptions::default())
        .await
        .context("start")?;
    let topic = NewTopic {
        name: TOPIC.to_owned(),
        partitions: PARTITIONS,
        replication_factor: 3,
        ..NewTopic::default()
    };
    created(&client, topic).await?;
    shared.begun.store(true, Relaxed);
    let options = ProducerOptions {
        // Each value is there once or not at all, whatever its writer was told.
        retry_indefinite: false,
        delivery_timeout: DELIVERY_TIMEOUT,
        ..ProducerOptions::default()
    };
    let producer = Producer::new(&client, options);
    let mut writers = JoinSet::new();
    for partition in 0..PARTITIONS {
        let topic = producer.topic(TOPIC).await?;
        writers.spawn(write(Arc::clone(shared), topic, partition));
    }
    while let Some(written) = writers.join_next().await {
        written.context("a writer panicked")??;
    }
    for node in 1..=nodes {
        for partition in 0..PARTITIONS {
            let read = tokio::time::timeout(HEALED_WITHIN, read(&client, node, partition)).await;
            let what = || format!("reading partition {partition} near node {node}");
            let reading = read.with_context(what)?.with_context(what)?;
            shared.told.lock().readings.push(reading);
        }
    }
    Ok(())
}

/// Creates the topic once there are enough nodes for it.
async fn created(client: &Client, topic: NewTopic) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + HEALED_WITHIN;
    loop {
        match client.admin().create_topic(topic.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) if tokio::time::Instant::now() >= deadline => {
                return Err(error).context("creating the topic");
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Writes until nothing is wrong any more and a value is acknowledged after that.
async fn write(shared: Arc<Shared>, topic: TopicProducer, partition: u32) -> anyhow::Result<()> {
    let mut deadline = None;
    for number in 0.. {
        let over = shared.over.load(Relaxed);
        let value = format!("{partition}/{number}");
        let record =
            ProducerRecord { partition: Some(partition), ..ProducerRecord::value(value.clone()) };
        let sent = async { topic.send(record).await?.await };
        let (outcome, why) = match sent.await {
            Ok(delivered) => {
                let offset = delivered.offset.context("acks=all tells the offset")?;
                (Outcome::Acknowledged(offset), None)
            }
            Err(error) if error.is_indefinite() => (Outcome::Unknown, Some(error)),
            Err(error) => (Outcome::Failed, Some(error)),
        };
        shared.told.lock().writes.push(Write { partition, value, outcome });
        match why {
            None if over => break,
            Some(error) if over => {
                let now = tokio::time::Instant::now();
                let deadline = *deadline.get_or_insert(now + HEALED_WITHIN);
                anyhow::ensure!(now < deadline, "partition {partition} takes no writes: {error}");
            }
            None | Some(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Everything committed, from the replica on a node, or from the leader where that one
/// cannot serve.
async fn read(client: &Client, node: u64, partition: u32) -> anyhow::Result<Reading> {
    let end = client.offset_of(TOPIC, partition, StartPosition::End).await?;
    let options = ReaderOptions { rack: Some(rack(node)), ..ReaderOptions::default() };
    let start = StartPosition::Start;
    let reader = PartitionReader::open(client, TOPIC, partition, start, options).await?;
    let mut reader = reader.read_until(end);
    let mut records = Vec::new();
    while let Some(batch) = reader.next_batch().await? {
        for record in batch.records {
            let value = record.value.context("the writers write no tombstones")?;
            records.push((record.offset, String::from_utf8(value.to_vec())?));
        }
    }
    Ok(Reading { reader: format!("near node {node}"), partition, records })
}
