//! Clients of a run: writers of unique values with every kind of acknowledgement, readers
//! that follow, and, once nothing is wrong any more, readers of everything near each
//! node. What they are told is the history that the checker judges.

use super::say::Say;
use crate::history::{Call, Outcome, Recorder, Run, Send};
use anyhow::Context as _;
use ottla_client::{
    Acks, Client, ClientError, ClientOptions, Delivery, HostPort, NewTopic, PartitionReader,
    Producer, ProducerOptions, ProducerRecord, ReadBatch, ReaderOptions, StartPosition,
    TopicProducer,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// The topic whose acknowledgements are promises: acks=all.
pub(super) const STRICT: &str = "all";

/// Topics of which everything that is acknowledged is there in the end.
pub(super) const KEPT: [&str; 2] = [STRICT, "once"];

/// Topics, what their writers wait for, and whether those send again what may have been
/// written already: as a producer that is idempotent does, or never.
const TOPICS: [(&str, Acks, Again); 4] = [
    (STRICT, Acks::All, Again::Never),
    (KEPT[1], Acks::All, Again::Idempotent),
    ("one", Acks::Leader, Again::Never),
    ("none", Acks::None, Again::Never),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    Never,
    Idempotent,
}

/// Partitions of each.
pub(super) const PARTITIONS: u32 = 4;

/// Small segments: many are finished in a run.
const SEGMENT_BYTES: &str = "65536";

/// How long a writer waits for one value's fate: shorter than the longest windows, so
/// that some fail, longer than an election, so that most do not.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(6);

/// Between two values of a writer.
const PAUSE: Duration = Duration::from_millis(10);

/// Values whose fate a writer awaits at the same time.
const OUTSTANDING: usize = 32;

/// After so long a reader that follows goes on near another node.
const MOVES_ON_AFTER: Duration = Duration::from_secs(10);

/// How long a reader that follows looks for somebody who answers.
const RECOVERY: Duration = Duration::from_secs(5);

/// How long everything may take to work again once nothing is wrong any more.
pub(super) const HEALED_WITHIN: Duration = Duration::from_secs(90);

/// What clients were told, by what they were promised.
#[derive(Clone, Debug)]
pub struct Histories {
    /// With acks=all: what is acknowledged stays.
    pub strict: Recorder,
    /// With less: nothing need stay, but nothing may be there twice, in two orders, or
    /// without having been written.
    pub weak: Recorder,
}

impl Histories {
    pub(super) fn new(seed: u64) -> Self {
        let run = |name: &str, all_kept| Run {
            name: format!("processes, seed {seed}: {name}"),
            no_gaps: true,
            all_kept,
            ..Run::default()
        };
        Self {
            strict: Recorder::new(run("acks=all", true)),
            weak: Recorder::new(run("acks=1 and acks=0", false)),
        }
    }

    fn of(&self, acks: Acks) -> &Recorder {
        if acks == Acks::All { &self.strict } else { &self.weak }
    }

    fn begin_final(&self, at: Duration) {
        self.strict.begin_final(at);
        self.weak.begin_final(at);
    }
}

/// All clients of a run.
pub(super) struct Load {
    bootstrap: Vec<HostPort>,
    nodes: u64,
    histories: Histories,
    say: Say,
    healed: Arc<AtomicBool>,
    writers: JoinSet<anyhow::Result<()>>,
    readers: JoinSet<anyhow::Result<()>>,
}

fn key(topic: &str, partition: u32) -> String {
    format!("{topic}-{partition}")
}

fn rack(node: u64) -> String {
    format!("rack-{node}")
}

impl Load {
    /// Creates the topics and starts writers and readers.
    pub(super) async fn start(
        bootstrap: Vec<HostPort>,
        nodes: u64,
        histories: Histories,
        say: Say,
    ) -> anyhow::Result<Self> {
        let healed = Arc::new(AtomicBool::new(false));
        let (writers, readers) = (JoinSet::new(), JoinSet::new());
        let mut load = Self { bootstrap, nodes, histories, say, healed, writers, readers };
        for (name, acks, again) in TOPICS {
            // Clients of their own: connections fail one by one.
            let client = load.client().await?;
            create(&client, name).await?;
            let options = ProducerOptions {
                acks,
                // Each value is there once or not at all, whatever its writer was told.
                retry_indefinite: again == Again::Idempotent,
                delivery_timeout: DELIVERY_TIMEOUT,
                ..ProducerOptions::default()
            };
            let producer = Producer::new(&client, options);
            for partition in 0..PARTITIONS {
                let writer = Writer {
                    topic: producer.topic(name).await?,
                    acks,
                    partition,
                    key: key(name, partition),
                    name: format!("writer of {}", key(name, partition)),
                    recorder: load.histories.of(acks).clone(),
                    say,
                    healed: Arc::clone(&load.healed),
                };
                load.writers.spawn(writer.run());
                let reader = load.reader(&client, (name, acks), partition);
                load.readers.spawn(reader.follow(nodes));
            }
        }
        Ok(load)
    }

    async fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::connect(&self.bootstrap, ClientOptions::default()).await?)
    }

    fn reader(&self, client: &Client, (topic, acks): (&str, Acks), partition: u32) -> Reader {
        Reader {
            client: client.clone(),
            topic: topic.to_owned(),
            partition,
            name: format!("reader of {}", key(topic, partition)),
            recorder: self.histories.of(acks).clone(),
            say: self.say,
        }
    }

    /// Nothing is wrong any more: ends when every partition has taken a write after that.
    ///
    /// # Errors
    /// One that did not in time.
    pub(super) async fn finish_writing(&mut self) -> anyhow::Result<()> {
        self.healed.store(true, Relaxed);
        while let Some(ended) = self.writers.join_next().await {
            ended.context("a writer panicked")??;
        }
        Ok(())
    }

    /// Reads everything near each node.
    ///
    /// # Errors
    /// What cannot be read.
    pub(super) async fn read_back(&mut self) -> anyhow::Result<()> {
        self.readers.abort_all();
        while let Some(ended) = self.readers.join_next().await {
            match ended {
                Err(error) if error.is_cancelled() => {}
                ended => ended.context("a reader panicked")??,
            }
        }
        self.histories.begin_final(self.say.elapsed());
        let client = self.client().await?;
        for node in 1..=self.nodes {
            for (topic, acks, _) in TOPICS {
                for partition in 0..PARTITIONS {
                    let mut reader = self.reader(&client, (topic, acks), partition);
                    reader.name = format!("last reader of {topic}-{partition} near node {node}");
                    let read = timeout(HEALED_WITHIN, reader.everything(node)).await;
                    let what = || format!("reading {topic}-{partition} near node {node}");
                    read.with_context(what)?.with_context(what)?;
                }
            }
        }
        Ok(())
    }
}

async fn create(client: &Client, name: &str) -> anyhow::Result<()> {
    let configs = [("min.insync.replicas", "2"), ("segment.bytes", SEGMENT_BYTES)];
    let topic = NewTopic {
        name: name.to_owned(),
        partitions: PARTITIONS,
        replication_factor: 3,
        configs: configs.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..NewTopic::default()
    };
    client.admin().create_topic(topic).await?;
    Ok(())
}

struct Writer {
    topic: TopicProducer,
    acks: Acks,
    partition: u32,
    key: String,
    name: String,
    recorder: Recorder,
    say: Say,
    healed: Arc<AtomicBool>,
}

struct Sent {
    value: String,
    begun: Duration,
    after_healing: bool,
    delivery: Delivery,
}

impl Writer {
    /// Writes until a value that was sent when nothing was wrong any more is written.
    async fn run(self) -> anyhow::Result<()> {
        let mut outstanding = VecDeque::new();
        let mut ticks = tokio::time::interval(PAUSE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut gives_up = None;
        for number in 0_u64.. {
            ticks.tick().await;
            let after_healing = self.healed.load(Relaxed);
            let value = format!("{}/{number}", self.key);
            let record = ProducerRecord {
                partition: Some(self.partition),
                ..ProducerRecord::value(value.clone())
            };
            let begun = self.say.elapsed();
            let delivery = self.topic.send(record).await?;
            outstanding.push_back(Sent { value, begun, after_healing, delivery });
            if outstanding.len() < OUTSTANDING && !after_healing {
                continue;
            }
            let Some(sent) = outstanding.pop_front() else { continue };
            let after_healing = sent.after_healing;
            let Err(error) = self.settle(sent).await else {
                if after_healing {
                    break;
                }
                continue;
            };
            if after_healing {
                let now = Instant::now();
                let gives_up = *gives_up.get_or_insert(now + HEALED_WITHIN);
                anyhow::ensure!(now < gives_up, "{} takes no writes: {error}", self.key);
            }
        }
        for sent in outstanding {
            // Whatever it was: it is in the history.
            let _told = self.settle(sent).await;
        }
        Ok(())
    }

    async fn settle(&self, sent: Sent) -> Result<(), ClientError> {
        let told = sent.delivery.await;
        let outcome = match &told {
            // Anything less than acks=all is no promise that it stays.
            Ok(_) if self.acks != Acks::All => Outcome::Info,
            Ok(_) => Outcome::Ok,
            Err(error) if error.is_indefinite() => Outcome::Info,
            Err(_) => Outcome::Fail,
        };
        let offset = told.as_ref().ok().and_then(|d| d.offset).filter(|_| self.acks == Acks::All);
        let call = Call::Send(Send { key: self.key.clone(), value: sent.value, offset });
        let error = told.as_ref().err().map(ToString::to_string);
        self.recorder.operation(&self.name, (sent.begun, self.say.elapsed()), call, outcome, error);
        told.map(drop)
    }
}

struct Reader {
    client: Client,
    topic: String,
    partition: u32,
    name: String,
    recorder: Recorder,
    say: Say,
}

impl Reader {
    async fn open(&self, node: u64, from: StartPosition) -> Result<PartitionReader, ClientError> {
        let options = ReaderOptions {
            rack: Some(rack(node)),
            recovery_timeout: RECOVERY,
            ..ReaderOptions::default()
        };
        PartitionReader::open(&self.client, &self.topic, self.partition, from, options).await
    }

    /// Reads from the start and then whatever comes, from one replica after the other.
    async fn follow(self, nodes: u64) -> anyhow::Result<()> {
        let mut position = 0;
        for near in 0.. {
            let node = near % nodes + 1;
            let from = StartPosition::Offset(position);
            let Ok(mut reader) = self.open(node, from).await else { continue };
            let until = Instant::now() + MOVES_ON_AFTER;
            while Instant::now() < until {
                let begun = self.say.elapsed();
                match timeout(MOVES_ON_AFTER, reader.next_batch()).await {
                    Ok(Ok(Some(batch))) => self.polled(begun, batch)?,
                    Ok(Ok(None)) | Err(_) => {}
                    Ok(Err(error)) => {
                        let outcome = Outcome::Info;
                        let (call, error) = (Call::Poll(BTreeMap::new()), Some(error.to_string()));
                        let times = (begun, self.say.elapsed());
                        self.recorder.operation(&self.name, times, call, outcome, error);
                    }
                }
                position = reader.position();
            }
        }
        Ok(())
    }

    /// Reads everything that is committed now.
    async fn everything(&self, node: u64) -> anyhow::Result<()> {
        let end = self.client.offset_of(&self.topic, self.partition, StartPosition::End).await?;
        let mut reader = self.open(node, StartPosition::Start).await?.read_until(end);
        let mut begun = self.say.elapsed();
        // Whoever is assigned a key in the end is judged by whether it saw everything.
        let assign = Call::Assign(vec![key(&self.topic, self.partition)]);
        self.recorder.operation(&self.name, (begun, begun), assign, Outcome::Ok, None);
        while let Some(batch) = reader.next_batch().await? {
            self.polled(begun, batch)?;
            begun = self.say.elapsed();
        }
        Ok(())
    }

    fn polled(&self, begun: Duration, batch: ReadBatch) -> anyhow::Result<()> {
        let mut records = Vec::new();
        for record in batch.records {
            let value = record.value.context("the writers write no tombstones")?;
            records.push((record.offset, String::from_utf8(value.to_vec())?));
        }
        let call = Call::Poll([(key(&self.topic, self.partition), records)].into());
        let times = (begun, self.say.elapsed());
        self.recorder.operation(&self.name, times, call, Outcome::Ok, None);
        Ok(())
    }
}
