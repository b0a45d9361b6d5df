//! Clients of a simulated cluster: writers of unique values while things go wrong, and
//! readers of everything once they are right again.

use super::cluster::bootstrap;
use super::network::SimNetwork;
use super::trace;
use crate::history::{Call, Entry, Outcome, Recorder, Records, Run, Send};
use anyhow::Context;
use ottla_client::{
    Client, ClientOptions, HostPort, NewTopic, PartitionReader, Producer, ProducerOptions,
    ProducerRecord, ReaderOptions, StartPosition, TopicProducer,
};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinSet;

pub(super) const TOPIC: &str = "load";

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

/// The side of the one who hurts the nodes.
pub(super) struct Handle(Arc<Shared>);

struct Shared {
    begun: AtomicBool,
    over: AtomicBool,
    /// Writes that were acknowledged, by partition.
    acknowledged: [AtomicU64; PARTITIONS as usize],
    /// What clients did and were told, and what is done to the nodes.
    recorder: Recorder,
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
    shared.recorder.begin_final(now());
    for node in 1..=nodes {
        for partition in 0..PARTITIONS {
            let start = now();
            let read = tokio::time::timeout(HEALED_WITHIN, read(&client, node, partition)).await;
            let what = || format!("reading partition {partition} near node {node}");
            let records = read.with_context(what)?.with_context(what)?;
            read_back(&shared.recorder, node, partition, start, records);
        }
    }
    Ok(())
}

/// Simulated time.
fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// A partition as the history has it.
fn key(partition: u32) -> String {
    format!("{TOPIC}-{partition}")
}

/// A reader that has read all of a partition.
fn read_back(recorder: &Recorder, node: u64, partition: u32, start: Duration, records: Records) {
    let (process, key) = (format!("near node {node}, partition {partition}"), key(partition));
    let assign = Call::Assign(vec![key.clone()]);
    recorder.operation(&process, (start, start), assign, Outcome::Ok, None);
    let poll = Call::Poll([(key, records)].into());
    recorder.operation(&process, (start, now()), poll, Outcome::Ok, None);
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
        let start = now();
        let sent = async { topic.send(record).await?.await };
        let (outcome, offset, why) = match sent.await {
            Ok(delivered) => {
                let offset = delivered.offset.context("acks=all tells the offset")?;
                shared.acknowledged[partition as usize].fetch_add(1, Relaxed);
                (Outcome::Ok, Some(offset), None)
            }
            Err(error) if error.is_indefinite() => (Outcome::Info, None, Some(error)),
            Err(error) => (Outcome::Fail, None, Some(error)),
        };
        let call = Call::Send(Send { key: key(partition), value, offset });
        trace::told(&format!("{call:?}: {outcome:?}"));
        let (process, error) = (format!("writer {partition}"), why.as_ref().map(|e| e.to_string()));
        shared.recorder.operation(&process, (start, now()), call, outcome, error);
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
async fn read(client: &Client, node: u64, partition: u32) -> anyhow::Result<Records> {
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
    Ok(records)
}
