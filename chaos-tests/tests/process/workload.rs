//! The load that runs while nodes are hurt: producers with acks=all and unique
//! values, and the final readings that judge what became of them.

use ottla_chaos::checker::check;
use ottla_chaos::history::{Call, Entry, Outcome, Recorder, Records, Run, Send, sends};
use ottla_chaos::process::{Cluster, read_replica, wait_until};
use ottla_client::{
    Acks, Client, ClientOptions, Delivery, HostPort, PartitionReader, Producer, ProducerOptions,
    ProducerRecord, ReaderOptions, StartPosition,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(crate) const TOPIC: &str = "load";
pub(crate) const PARTITIONS: u32 = 4;
const PRODUCERS: u64 = 4;

/// Deliveries that one producer waits for at once.
pub(crate) const WINDOW: usize = 64;

/// How long a producer may stand still after a fault. A broken cluster never
/// comes back; a slow machine does.
const LONGEST_GAP: Duration = Duration::from_secs(60);

/// What the producers share with the one who hurts nodes.
struct Shared {
    started: Instant,
    recorder: Recorder,
    acknowledged: AtomicU64,
    stop: AtomicBool,
}

/// How the producers send.
#[derive(Clone, Copy)]
struct Sending {
    /// What may have been written, once more.
    again: bool,
    idempotent: bool,
}

/// Producers at work on a cluster of three nodes.
pub(crate) struct Load {
    bootstrap: Vec<HostPort>,
    shared: Arc<Shared>,
    producers: JoinSet<anyhow::Result<()>>,
}

impl Load {
    /// Creates the topic and starts the producers, which send nothing again that may
    /// have been written.
    pub(crate) async fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        Self::start_with(cluster, Sending { again: false, idempotent: true }).await
    }

    /// The same without producer ids, which clusters of the first feature level do not have.
    pub(crate) async fn start_without_ids(cluster: &Cluster) -> anyhow::Result<Self> {
        Self::start_with(cluster, Sending { again: false, idempotent: false }).await
    }

    /// The same with producers that do, as producers do by default.
    pub(crate) async fn start_retrying(cluster: &Cluster) -> anyhow::Result<Self> {
        Self::start_with(cluster, Sending { again: true, idempotent: true }).await
    }

    async fn start_with(cluster: &Cluster, sending: Sending) -> anyhow::Result<Self> {
        let configs = [("min.insync.replicas", "2")];
        cluster.create_topic(TOPIC, PARTITIONS, &configs).await?;
        let bootstrap = HostPort::parse_list(&cluster.bootstrap().join(","))?;
        let name = "producers and faults on real processes".to_owned();
        let run =
            Run { name, no_gaps: true, all_kept: true, ordered_sends: true, ..Run::default() };
        let shared = Arc::new(Shared {
            started: Instant::now(),
            recorder: Recorder::new(run),
            acknowledged: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let mut producers = JoinSet::new();
        for id in 0..PRODUCERS {
            let client = Client::connect(&bootstrap, ClientOptions::default()).await?;
            producers.spawn(produce(id, client, shared.clone(), sending));
        }
        Ok(Self { bootstrap, shared, producers })
    }

    /// Waits until so many more values are acknowledged.
    pub(crate) async fn acknowledged(&self, more: u64) -> anyhow::Result<()> {
        let target = self.shared.acknowledged.load(Ordering::Relaxed) + more;
        wait_until("enough values are acknowledged", async || {
            let now = self.shared.acknowledged.load(Ordering::Relaxed);
            anyhow::ensure!(now >= target, "{now} of {target} acknowledged");
            Ok(())
        })
        .await
    }

    /// Ends the load. Returns what the producers were told.
    pub(crate) async fn end(&mut self) -> anyhow::Result<Vec<Entry>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(done) = self.producers.join_next().await {
            done??;
        }
        Ok(self.shared.recorder.entries())
    }

    /// Ends the load, stops the healthy cluster, reads everything back, for a
    /// consumer and from the files of every replica, and judges. Returns what the
    /// producers were told.
    pub(crate) async fn finish(mut self, cluster: Cluster) -> anyhow::Result<Vec<Entry>> {
        let told = self.end().await?;
        self.read_back(cluster).await?;
        Ok(told)
    }

    /// Reads every partition as a consumer does, to its end.
    pub(crate) async fn consume_all(&self) -> anyhow::Result<()> {
        let client = Client::connect(&self.bootstrap, ClientOptions::default()).await?;
        for partition in 0..PARTITIONS {
            consume(&client, partition).await?;
        }
        Ok(())
    }

    /// The second half of [`finish`](Self::finish), after the load has ended.
    pub(crate) async fn read_back(self, mut cluster: Cluster) -> anyhow::Result<()> {
        cluster.wait_healthy().await?;
        let recorder = &self.shared.recorder;
        recorder.begin_final(self.shared.started.elapsed());
        let client = Client::connect(&self.bootstrap, ClientOptions::default()).await?;
        let topic = cluster.describe(TOPIC).await?;
        let mut readings = Readings::new();
        for partition in &topic.partitions {
            let records = consume(&client, partition.partition).await?;
            add(&mut readings, "a consumer", partition.partition, records);
        }
        let running: Vec<u64> =
            cluster.nodes().iter().filter(|node| node.is_running()).map(|node| node.id()).collect();
        for id in running {
            let status = cluster.node(id).stop()?;
            anyhow::ensure!(status.success(), "node {id} did not stop cleanly: {status}");
        }
        for partition in &topic.partitions {
            for &id in &partition.replicas {
                let node = &cluster.nodes()[id as usize - 1];
                let records = read_replica(node, &topic, partition.partition)?;
                add(&mut readings, &format!("node {id}'s files"), partition.partition, records);
            }
        }
        for partition in &topic.partitions {
            let of: Vec<_> =
                readings.values().filter_map(|r| r.get(&key(partition.partition))).collect();
            assert_eq!(of.len(), 1 + partition.replicas.len(), "a consumer and every replica");
            assert!(of.iter().all(|one| *one == of[0]), "replicas of {partition:?} differ");
        }
        self.shared.judge(readings)
    }
}

/// By reader and key.
type Readings = BTreeMap<String, BTreeMap<String, Records>>;

fn add(readings: &mut Readings, reader: &str, partition: u32, records: Records) {
    readings.entry(reader.to_owned()).or_default().insert(key(partition), records);
}

/// A partition as a history has it.
pub(crate) fn key(partition: u32) -> String {
    format!("{TOPIC}-{partition}")
}

/// What of it was acknowledged.
pub(crate) fn acknowledged(told: &[Entry]) -> impl Iterator<Item = &Send> {
    sends(told).filter(|(operation, _)| operation.outcome == Outcome::Ok).map(|(_, send)| send)
}

impl Shared {
    fn judge(&self, readings: Readings) -> anyhow::Result<()> {
        for (reader, records) in readings {
            let now = self.started.elapsed();
            let assign = Call::Assign(records.keys().cloned().collect());
            self.recorder.operation(&reader, (now, now), assign, Outcome::Ok, None);
            self.recorder.operation(&reader, (now, now), Call::Poll(records), Outcome::Ok, None);
        }
        let verdict = check(&self.recorder.entries())?;
        println!("{verdict}");
        assert!(verdict.good, "{verdict}");
        Ok(())
    }
}

/// Sends unique values to every partition in turn until told to stop, and
/// returns what became of each. However it sends: each value is in the log once or not at
/// all.
async fn produce(
    id: u64,
    client: Client,
    shared: Arc<Shared>,
    sending: Sending,
) -> anyhow::Result<()> {
    let options = ProducerOptions {
        acks: Acks::All,
        retry_indefinite: sending.again,
        idempotent: sending.idempotent,
        delivery_timeout: LONGEST_GAP,
        ..ProducerOptions::default()
    };
    let producer = Producer::new(&client, options);
    let topic = producer.topic(TOPIC).await?;
    let process = format!("producer {id}");
    let mut window: VecDeque<Sent> = VecDeque::new();
    let mut last_success = Instant::now();
    for n in 0.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        if window.len() == WINDOW {
            let Some(sent) = window.pop_front() else { break };
            if shared.settle(&process, sent).await == Outcome::Ok {
                last_success = Instant::now();
            }
            anyhow::ensure!(
                last_success.elapsed() < LONGEST_GAP,
                "producer {id} has had nothing acknowledged for {LONGEST_GAP:?}"
            );
        }
        let value = format!("p{id}-{n}");
        let record = ProducerRecord {
            // Also those that the topic gets meanwhile.
            partition: Some(n % topic.partitions()),
            ..ProducerRecord::value(value.clone())
        };
        let start = shared.started.elapsed();
        window.push_back(Sent { value, start, delivery: topic.send(record).await? });
    }
    producer.flush().await;
    for sent in window {
        shared.settle(&process, sent).await;
    }
    Ok(())
}

/// A value on its way.
struct Sent {
    value: String,
    start: Duration,
    delivery: Delivery,
}

impl Shared {
    async fn settle(&self, process: &str, sent: Sent) -> Outcome {
        let Sent { value, start, delivery } = sent;
        let partition = delivery.partition();
        let (outcome, offset, error) = match delivery.await {
            Ok(delivered) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                (Outcome::Ok, Some(delivered.offset.expect("acks=all tells the offset")), None)
            }
            Err(error) => {
                println!("{value} to partition {partition}: {error}");
                let outcome = if error.is_indefinite() { Outcome::Info } else { Outcome::Fail };
                (outcome, None, Some(error.to_string()))
            }
        };
        let call = Call::Send(Send { key: key(partition), value, offset });
        self.recorder.operation(process, (start, self.started.elapsed()), call, outcome, error);
        outcome
    }
}

async fn consume(client: &Client, partition: u32) -> anyhow::Result<Records> {
    let end = client.offset_of(TOPIC, partition, StartPosition::End).await?;
    let options = ReaderOptions::default();
    let reader =
        PartitionReader::open(client, TOPIC, partition, StartPosition::Start, options).await?;
    let mut reader = reader.read_until(end);
    let mut records = Vec::new();
    while let Some(batch) = reader.next_batch().await? {
        for record in batch.records {
            let value = record.value.expect("the producers write no tombstones");
            records.push((record.offset, String::from_utf8(value.to_vec())?));
        }
    }
    Ok(records)
}
