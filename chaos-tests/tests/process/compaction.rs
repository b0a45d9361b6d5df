//! Compaction while leaders are killed: the latest record of each key stays.

use crate::plain::{ottla, succeeded, verify};
use ottla_chaos::process::{Cluster, read_replica, wait_until};
use ottla_client::{
    Acks, Client, ClientOptions, HostPort, Producer, ProducerOptions, ProducerRecord,
};
use rand::RngExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const TOPIC: &str = "keyed";
const KEYS: u64 = 40;
const KILLS: u32 = 3;

/// Records between two kills, at least: several segments.
const RECORDS: u64 = 600;

/// Records that are written before any is waited for: a few small batches.
const WINDOW: u64 = 20;

/// Cleaners that never rest, and segments that are soon finished.
const OPTIONS: &str = "log_cleaner_backoff_ms = 20\n";
const CONFIGS: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "8192"),
    ("min.cleanable.dirty.ratio", "0"),
    ("min.insync.replicas", "2"),
];

/// What a producer was told of one key.
#[derive(Default)]
struct Told {
    /// Offset and value of the last that was acknowledged.
    latest: Option<(u64, String)>,
    /// Values that may have been written.
    unknown: BTreeSet<String>,
}

type AllTold = BTreeMap<String, Told>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_latest_of_each_key_survives_kills_and_cleaners() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient_with(3, OPTIONS).await?;
    let topic = cluster.create_topic(TOPIC, 1, &CONFIGS).await?;
    let bootstrap = HostPort::parse_list(&cluster.bootstrap().join(","))?;
    let client = Client::connect(&bootstrap, ClientOptions::default()).await?;
    let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writing = tokio::spawn(write(client, Arc::clone(&acknowledged), Arc::clone(&stop)));
    for _ in 0..KILLS {
        let more = RECORDS + rand::rng().random_range(0..RECORDS);
        let target = acknowledged.load(Ordering::Relaxed) + more;
        wait_until("enough is acknowledged", async || {
            let now = acknowledged.load(Ordering::Relaxed);
            anyhow::ensure!(now >= target, "{now} of {target}");
            Ok(())
        })
        .await?;
        let leader = cluster.leader(TOPIC, 0).await?;
        cluster.node(leader).kill()?;
        cluster.leader(TOPIC, 0).await?;
        cluster.node(leader).start()?;
        cluster.wait_healthy().await?;
    }
    stop.store(true, Ordering::Relaxed);
    let told = writing.await??;
    let sent = acknowledged.load(Ordering::Relaxed);
    println!("{sent} records acknowledged");

    let consumed = succeeded(ottla(&cluster, &["consume", TOPIC, "--until", "end"], b"")?)?;
    let consumed = String::from_utf8(consumed)?;
    judge(&told, consumed.lines().map(str::to_owned));

    for id in 1..=3 {
        cluster.node(id).stop()?;
    }
    let mut replicas = Vec::new();
    for node in cluster.nodes() {
        verify(&node.data_dir())?;
        let records = read_replica(node, &topic, 0)?;
        assert!(records.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!((records.len() as u64) < sent, "node {} has compacted nothing", node.id());
        judge(&told, records.iter().map(|(_, value)| value.clone()));
        replicas.push(records.into_iter().collect::<BTreeMap<_, _>>());
    }
    // Each cleans for itself; what two of them kept is the same.
    for other in &replicas[1..] {
        for (offset, value) in other {
            assert!(replicas[0].get(offset).is_none_or(|first| first == value), "offset {offset}");
        }
        assert_eq!(latest(other.values()), latest(replicas[0].values()));
    }
    Ok(())
}

/// Writes to one key after the other until told to stop. Nothing that may have
/// been written is sent again.
async fn write(
    client: Client,
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<AllTold> {
    let options = ProducerOptions {
        acks: Acks::All,
        linger: Duration::from_millis(1),
        retry_indefinite: false,
        delivery_timeout: Duration::from_secs(60),
        ..ProducerOptions::default()
    };
    let topic = Producer::new(&client, options).topic(TOPIC).await?;
    let mut told = AllTold::new();
    let mut next = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let mut window = Vec::new();
        for n in next..next + WINDOW {
            let (key, value) = (format!("k{}", n % KEYS), format!("k{}:{n}", n % KEYS));
            let record = ProducerRecord::keyed(key.clone(), value.clone());
            window.push((key, value, topic.send(record).await?));
        }
        next += WINDOW;
        for (key, value, delivery) in window {
            let told = told.entry(key).or_default();
            match delivery.await {
                Ok(delivered) => {
                    let offset = delivered.offset.expect("acks=all tells the offset");
                    told.latest = Some((offset, value)).max(told.latest.take());
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if error.is_indefinite() => drop(told.unknown.insert(value)),
                Err(error) => println!("{value}: {error}"),
            }
        }
    }
    Ok(told)
}

/// The last value of each key.
fn latest<T: AsRef<str>>(values: impl Iterator<Item = T>) -> BTreeMap<String, String> {
    let pair = |value: T| {
        let value = value.as_ref().to_owned();
        let key = value.split(':').next().unwrap_or_default().to_owned();
        (key, value)
    };
    values.map(pair).collect()
}

/// The latest of each key is there, and only something whose fate was not known
/// can be later.
fn judge(told: &AllTold, values: impl Iterator<Item = String>) {
    let found = latest(values);
    for (key, told) in told {
        let expected = told.latest.as_ref().map(|(_, value)| value);
        let value = found.get(key);
        assert!(
            value == expected || value.is_some_and(|value| told.unknown.contains(value)),
            "{key}: {value:?} instead of {expected:?}"
        );
    }
}
