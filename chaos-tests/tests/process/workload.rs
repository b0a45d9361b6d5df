//! The load that runs while nodes are hurt: producers with acks=all and unique
//! values, and the final readings that judge what became of them.

use ottla_chaos::checker::{Outcome, Reading, Write, check};
use ottla_chaos::process::{Cluster, read_replica, wait_until};
use ottla_client::{
    Acks, Client, ClientOptions, Delivery, HostPort, PartitionReader, Producer, ProducerOptions,
    ProducerRecord, ReaderOptions, StartPosition,
};
use ottla_proto::v1;
use std::collections::VecDeque;
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
#[derive(Default)]
struct Shared {
    acknowledged: AtomicU64,
    stop: AtomicBool,
}

/// Producers at work on a cluster of three nodes.
pub(crate) struct Load {
    bootstrap: Vec<HostPort>,
    shared: Arc<Shared>,
    producers: JoinSet<anyhow::Result<Vec<Write>>>,
}

impl Load {
    /// Creates the topic and starts the producers.
    pub(crate) async fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let configs = [("min.insync.replicas", "2")];
        cluster.create_topic(TOPIC, PARTITIONS, &configs).await?;
        let bootstrap = HostPort::parse_list(&cluster.bootstrap().join(","))?;
        let shared = Arc::new(Shared::default());
        let mut producers = JoinSet::new();
        for id in 0..PRODUCERS {
            let client = Client::connect(&bootstrap, ClientOptions::default()).await?;
            producers.spawn(produce(id, client, shared.clone()));
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
    pub(crate) async fn end(&mut self) -> anyhow::Result<Vec<Write>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut writes = Vec::new();
        while let Some(done) = self.producers.join_next().await {
            writes.extend(done??);
        }
        Ok(writes)
    }

    /// Ends the load, stops the healthy cluster, reads everything back, for a
    /// consumer and from the files of every replica, and judges. Returns what the
    /// producers were told.
    pub(crate) async fn finish(mut self, cluster: Cluster) -> anyhow::Result<Vec<Write>> {
        let writes = self.end().await?;
        self.read_back(cluster, &writes).await?;
        Ok(writes)
    }

    /// The second half of [`finish`](Self::finish), after the load has ended.
    pub(crate) async fn read_back(
        self,
        mut cluster: Cluster,
        writes: &[Write],
    ) -> anyhow::Result<()> {
        cluster.wait_healthy().await?;
        let mut readings = Vec::new();
        let client = Client::connect(&self.bootstrap, ClientOptions::default()).await?;
        let topic = cluster.describe(TOPIC).await?;
        for partition in &topic.partitions {
            readings.push(consume(&client, partition.partition).await?);
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
                readings.push(read_replica(node, &topic, partition.partition)?);
            }
        }
        judge(writes, &readings, &topic);
        Ok(())
    }
}

fn judge(writes: &[Write], readings: &[Reading], topic: &v1::TopicMetadata) {
    let acknowledged =
        writes.iter().filter(|w| matches!(w.outcome, Outcome::Acknowledged(_))).count();
    let unknown = writes.iter().filter(|w| w.outcome == Outcome::Unknown).count();
    println!(
        "{} values sent, {acknowledged} acknowledged, {unknown} unknown, {} read by the consumer",
        writes.len(),
        readings.iter().take(topic.partitions.len()).map(|r| r.records.len()).sum::<usize>(),
    );
    let anomalies = check(writes, readings);
    let shown: Vec<_> = anomalies.iter().take(20).map(ToString::to_string).collect();
    assert!(anomalies.is_empty(), "{} anomalies:\n{}", anomalies.len(), shown.join("\n"));
    for partition in &topic.partitions {
        let of: Vec<_> = readings.iter().filter(|r| r.partition == partition.partition).collect();
        assert_eq!(of.len(), 1 + partition.replicas.len(), "a consumer and every replica");
        for other in &of[1..] {
            assert_eq!(of[0].records, other.records, "{} and {}", of[0].reader, other.reader);
        }
    }
}

/// Sends unique values to every partition in turn until told to stop, and
/// returns what became of each. Nothing that may have been written is retried:
/// so each value is in the log once or not at all.
async fn produce(id: u64, client: Client, shared: Arc<Shared>) -> anyhow::Result<Vec<Write>> {
    let options = ProducerOptions {
        acks: Acks::All,
        retry_indefinite: false,
        delivery_timeout: LONGEST_GAP,
        ..ProducerOptions::default()
    };
    let producer = Producer::new(&client, options);
    let topic = producer.topic(TOPIC).await?;
    let mut writes = Vec::new();
    let mut window: VecDeque<(String, Delivery)> = VecDeque::new();
    let mut last_success = Instant::now();
    for n in 0.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        if window.len() == WINDOW {
            let Some((value, delivery)) = window.pop_front() else { break };
            let write = settle(value, delivery, &shared).await;
            if matches!(write.outcome, Outcome::Acknowledged(_)) {
                last_success = Instant::now();
            }
            anyhow::ensure!(
                last_success.elapsed() < LONGEST_GAP,
                "producer {id} has had nothing acknowledged for {LONGEST_GAP:?}"
            );
            writes.push(write);
        }
        let value = format!("p{id}-{n}");
        let record = ProducerRecord {
            // Also those that the topic gets meanwhile.
            partition: Some(n % topic.partitions()),
            ..ProducerRecord::value(value.clone())
        };
        window.push_back((value, topic.send(record).await?));
    }
    producer.flush().await;
    for (value, delivery) in window {
        writes.push(settle(value, delivery, &shared).await);
    }
    Ok(writes)
}

async fn settle(value: String, delivery: Delivery, shared: &Shared) -> Write {
    let partition = delivery.partition();
    let outcome = match delivery.await {
        Ok(delivered) => {
            shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            Outcome::Acknowledged(delivered.offset.expect("acks=all tells the offset"))
        }
        Err(error) => {
            println!("{value} to partition {partition}: {error}");
            if error.is_indefinite() { Outcome::Unknown } else { Outcome::Failed }
        }
    };
    Write { partition, value, outcome }
}

async fn consume(client: &Client, partition: u32) -> anyhow::Result<Reading> {
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
    Ok(Reading { reader: "a consumer".to_owned(), partition, records })
}
