//! The promise: every acknowledged record at its offset, on every replica,
//! whoever is killed meanwhile.

use ottla_chaos::checker::{Outcome, Reading, Write, check};
use ottla_chaos::process::{Cluster, read_replica, wait_until};
use ottla_client::{
    Acks, Client, ClientError, ClientOptions, Delivery, HostPort, PartitionReader, Producer,
    ProducerOptions, ProducerRecord, ReaderOptions, StartPosition,
};
use rand::RngExt;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const TOPIC: &str = "kills";
const PARTITIONS: u32 = 4;
const PRODUCERS: u64 = 4;
const KILLS: u32 = 10;

/// Deliveries that one producer waits for at once.
const WINDOW: usize = 64;

/// How long a producer may stand still after a kill. A broken cluster never
/// comes back; a slow machine does.
const LONGEST_GAP: Duration = Duration::from_secs(60);

/// What the producers share with the one who kills.
#[derive(Default)]
struct Shared {
    acknowledged: AtomicU64,
    stop: AtomicBool,
}

/// Four partitions, four producers with acks=all and unique values; the leader
/// of some partition is killed ten times at random moments and restarted. Then
/// every acknowledged value is at its offset, for a consumer and in the files
/// of every replica, and nothing is there twice or out of order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_killed_ten_times() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let topic = cluster.create_topic(TOPIC, PARTITIONS, &[("min.insync.replicas", "2")]).await?;
    let bootstrap = HostPort::parse_list(&cluster.bootstrap().join(","))?;

    let shared = Arc::new(Shared::default());
    let mut producers = tokio::task::JoinSet::new();
    for id in 0..PRODUCERS {
        let client = Client::connect(&bootstrap, ClientOptions::default()).await?;
        producers.spawn(produce(id, client, shared.clone()));
    }
    let killed = kill_leaders(&mut cluster, &shared).await;
    shared.stop.store(true, Ordering::Relaxed);
    let mut writes = Vec::new();
    while let Some(done) = producers.join_next().await {
        writes.extend(done??);
    }
    killed?;
    cluster.wait_healthy().await?;

    let mut readings = Vec::new();
    let client = Client::connect(&bootstrap, ClientOptions::default()).await?;
    for partition in 0..PARTITIONS {
        readings.push(consume(&client, partition).await?);
    }
    for id in 1..=3 {
        let status = cluster.node(id).stop()?;
        anyhow::ensure!(status.success(), "node {id} did not stop cleanly: {status}");
    }
    for node in cluster.nodes() {
        for partition in 0..PARTITIONS {
            readings.push(read_replica(node, &topic, partition)?);
        }
    }
    judge(&writes, &readings);
    Ok(())
}

fn judge(writes: &[Write], readings: &[Reading]) {
    let acknowledged =
        writes.iter().filter(|w| matches!(w.outcome, Outcome::Acknowledged(_))).count();
    let unknown = writes.iter().filter(|w| w.outcome == Outcome::Unknown).count();
    println!(
        "{} values sent, {acknowledged} acknowledged, {unknown} unknown, {} read by the consumer",
        writes.len(),
        readings.iter().take(PARTITIONS as usize).map(|r| r.records.len()).sum::<usize>(),
    );
    let anomalies = check(writes, readings);
    let shown: Vec<_> = anomalies.iter().take(20).map(ToString::to_string).collect();
    assert!(anomalies.is_empty(), "{} anomalies:\n{}", anomalies.len(), shown.join("\n"));
    for partition in 0..PARTITIONS {
        let of: Vec<_> = readings.iter().filter(|r| r.partition == partition).collect();
        assert_eq!(of.len(), 4, "a consumer and three replicas");
        for other in &of[1..] {
            assert_eq!(of[0].records, other.records, "{} and {}", of[0].reader, other.reader);
        }
    }
}

/// Kills the leader of some partition after some more acknowledgements, waits
/// until it is replaced, restarts it, and waits until all replicas are in sync.
async fn kill_leaders(cluster: &mut Cluster, shared: &Shared) -> anyhow::Result<()> {
    for round in 0..KILLS {
        let (partition, more) =
            (rand::rng().random_range(0..PARTITIONS), rand::rng().random_range(200..1_500));
        let target = shared.acknowledged.load(Ordering::Relaxed) + more;
        acknowledged(shared, target).await?;
        let leader = cluster.leader(TOPIC, partition).await?;
        println!("kill {round}: node {leader}, leader of partition {partition}");
        cluster.node(leader).kill()?;
        // Writes go on without it, also to the partitions it led.
        cluster.leader(TOPIC, partition).await?;
        let target = shared.acknowledged.load(Ordering::Relaxed) + 4 * WINDOW as u64;
        acknowledged(shared, target).await?;
        cluster.node(leader).start()?;
        cluster.wait_healthy().await?;
    }
    Ok(())
}

async fn acknowledged(shared: &Shared, target: u64) -> anyhow::Result<()> {
    wait_until("enough values are acknowledged", async || {
        let now = shared.acknowledged.load(Ordering::Relaxed);
        anyhow::ensure!(now >= target, "{now} of {target} acknowledged");
        Ok(())
    })
    .await
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
            partition: Some(n % PARTITIONS),
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
        Err(error) if ClientError::is_indefinite(&error) => Outcome::Unknown,
        Err(_) => Outcome::Failed,
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
