//! Members of a group that keep a ledger of what they own and read, and a writer.

use anyhow::{Context as _, ensure};
use ottla_chaos::process::{Cluster, wait_until};
use ottla_client::{
    Client, ClientOptions, Consumer, ConsumerEvent, HostPort, Next, Producer, ProducerOptions,
    ProducerRecord, TopicPartition,
};
use ottla_proto::v1;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

async fn connect(bootstrap: &[HostPort]) -> anyhow::Result<Client> {
    Ok(Client::connect(bootstrap, ClientOptions::default()).await?)
}

fn bootstrap(cluster: &Cluster) -> anyhow::Result<Vec<HostPort>> {
    Ok(HostPort::parse_list(&cluster.bootstrap().join(","))?)
}

/// Writes to every partition, a record each interval; each says its offset's turn.
pub(crate) struct Writer {
    stop: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<Vec<u64>>>,
}

impl Writer {
    pub(crate) async fn start(
        cluster: &Cluster,
        topic: &str,
        partitions: u32,
        interval: Duration,
    ) -> anyhow::Result<Self> {
        let client = connect(&bootstrap(cluster)?).await?;
        let (stop, stopped) = watch::channel(false);
        let topic = topic.to_owned();
        let task = tokio::spawn(write(client, topic, partitions, interval, stopped));
        Ok(Self { stop, task })
    }

    /// How many records each partition has in the end.
    pub(crate) async fn finish(self) -> anyhow::Result<Vec<u64>> {
        self.stop.send_replace(true);
        self.task.await?
    }
}

async fn write(
    client: Client,
    topic: String,
    partitions: u32,
    interval: Duration,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<Vec<u64>> {
    let producer = Producer::new(&client, ProducerOptions::default());
    let topic = producer.topic(&topic).await?;
    let mut written = vec![0; partitions as usize];
    let mut ticks = tokio::time::interval(interval);
    while !*stopped.borrow() {
        ticks.tick().await;
        let mut deliveries = Vec::new();
        for partition in 0..partitions {
            let value = written[partition as usize].to_string();
            let record =
                ProducerRecord { partition: Some(partition), ..ProducerRecord::value(value) };
            deliveries.push(topic.send(record).await?);
        }
        for delivery in deliveries {
            let delivered = delivery.await.context("a write failed")?;
            let count = &mut written[delivered.partition as usize];
            ensure!(delivered.offset == Some(*count), "written once, in order");
            *count += 1;
        }
    }
    producer.shutdown().await;
    Ok(written)
}

#[derive(Default)]
struct Partition {
    owner: Option<String>,
    /// The first offset that nobody has been given.
    unseen: u64,
    /// The next one that its owner will be given.
    next: Option<u64>,
    /// Highest offset that somebody was told is committed.
    committed: u64,
}

/// What all members have seen.
#[derive(Default)]
struct Ledger {
    partitions: BTreeMap<u32, Partition>,
    moves: u64,
    records: u64,
    wrong: Vec<String>,
}

impl Ledger {
    fn event(&mut self, member: &str, event: &ConsumerEvent) {
        match event {
            ConsumerEvent::Assigned(partitions) => {
                for TopicPartition { partition, .. } in partitions {
                    let known = self.partitions.entry(*partition).or_default();
                    if let Some(owner) = known.owner.replace(member.to_owned()) {
                        self.wrong.push(format!("{partition} is {owner}'s, and given to {member}"));
                    }
                    known.next = None;
                }
            }
            ConsumerEvent::Revoking(partitions) | ConsumerEvent::Lost(partitions) => {
                self.moves += partitions.len() as u64;
                for TopicPartition { partition, .. } in partitions {
                    let known = self.partitions.entry(*partition).or_default();
                    if known.owner.as_deref() != Some(member) {
                        self.wrong.push(format!("{partition} is not {member}'s to give back"));
                    }
                    known.owner = None;
                }
            }
            ConsumerEvent::Reset { .. } | ConsumerEvent::Gone(_) => {
                self.wrong.push(format!("{member}: {event:?}"));
            }
            ConsumerEvent::Delayed { .. } => {}
        }
    }

    fn records(&mut self, member: &str, partition: u32, records: &[ottla_client::Record]) {
        let known = self.partitions.entry(partition).or_default();
        if known.owner.as_deref() != Some(member) {
            let owner = &known.owner;
            self.wrong.push(format!("{member} reads {partition}, which is {owner:?}'s"));
        }
        for record in records {
            let offset = record.offset;
            let is_next = known.next.is_none_or(|next| next == offset);
            if !is_next || offset > known.unseen {
                let (next, unseen) = (known.next, known.unseen);
                self.wrong.push(format!(
                    "{member} reads {offset} of {partition} after {next:?}, unseen is {unseen}"
                ));
            }
            if record.value.as_deref() != Some(offset.to_string().as_bytes()) {
                self.wrong.push(format!("{partition}: {:?} at {offset}", record.value));
            }
            known.next = Some(offset + 1);
            known.unseen = known.unseen.max(offset + 1);
            self.records += 1;
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.wrong.is_empty(), "{:#?}", self.wrong);
        Ok(())
    }
}

struct Member {
    name: String,
    /// Its own, to die with.
    runtime: Runtime,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<anyhow::Result<()>>,
}

/// A group of members.
pub(crate) struct Readers {
    bootstrap: Vec<HostPort>,
    group: String,
    topic: String,
    partitions: u32,
    manual: bool,
    members: Vec<Member>,
    born: usize,
    ledger: Arc<Mutex<Ledger>>,
}

impl Readers {
    pub(crate) fn new(cluster: &Cluster, group: &str, topic: &str, partitions: u32) -> Self {
        Self {
            bootstrap: bootstrap(cluster).expect("addresses"),
            group: group.to_owned(),
            topic: topic.to_owned(),
            partitions,
            manual: false,
            members: Vec::new(),
            born: 0,
            ledger: Arc::default(),
        }
    }

    /// Members commit after each batch, and remember what was acknowledged.
    pub(crate) fn commits_each_batch(&mut self) {
        self.manual = true;
    }

    pub(crate) fn join(&mut self, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            self.born += 1;
            let name = format!("m{}", self.born);
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?;
            let (stop, stopped) = oneshot::channel();
            let (end, ended) = oneshot::channel();
            let work = read(
                self.bootstrap.clone(),
                (self.group.clone(), self.topic.clone(), name.clone()),
                self.manual,
                Arc::clone(&self.ledger),
                stopped,
            );
            runtime.spawn(async move {
                // Fails when the test has ended.
                let _ = end.send(work.await);
            });
            self.members.push(Member { name, runtime, stop, ended });
        }
        Ok(())
    }

    /// The first of them leave in good order.
    pub(crate) async fn leave(&mut self, count: usize) -> anyhow::Result<()> {
        for member in self.members.drain(..count).collect::<Vec<_>>() {
            let _ = member.stop.send(());
            member.ended.await.context("a member is gone")??;
            member.runtime.shutdown_background();
        }
        Ok(())
    }

    /// The first of them die without a word.
    pub(crate) fn crash(&mut self, count: usize) {
        for member in self.members.drain(..count) {
            let mut ledger = self.ledger.lock();
            member.runtime.shutdown_background();
            for partition in ledger.partitions.values_mut() {
                if partition.owner.as_ref() == Some(&member.name) {
                    partition.owner = None;
                }
            }
        }
    }

    /// Waits until every partition is owned, and everybody has its share.
    pub(crate) async fn settled(&self, what: &str) -> anyhow::Result<()> {
        let names: BTreeSet<String> = self.members.iter().map(|m| m.name.clone()).collect();
        let share = self.partitions as usize / names.len();
        wait_until(what, async || {
            let ledger = self.ledger.lock();
            let mut counts: HashMap<&String, usize> = HashMap::new();
            for owner in ledger.partitions.values().filter_map(|p| p.owner.as_ref()) {
                *counts.entry(owner).or_default() += 1;
            }
            let owned: usize = counts.values().sum();
            ensure!(owned == self.partitions as usize, "{owned} are owned");
            ensure!(names.iter().all(|name| counts.get(name).is_some_and(|n| *n >= share)));
            Ok(())
        })
        .await?;
        self.ledger.lock().check()
    }

    /// Waits until a record more has come of every partition.
    pub(crate) async fn progressed(&self, what: &str) -> anyhow::Result<()> {
        let seen = |ledger: &Ledger| -> BTreeMap<u32, u64> {
            ledger.partitions.iter().map(|(index, known)| (*index, known.unseen)).collect()
        };
        let before = seen(&self.ledger.lock());
        wait_until(what, async || {
            let ledger = self.ledger.lock();
            let late: Vec<_> = (0..self.partitions)
                .filter(|p| {
                    let now = ledger.partitions.get(p).map_or(0, |known| known.unseen);
                    now <= before.get(p).copied().unwrap_or(0)
                })
                .collect();
            ensure!(late.is_empty(), "nothing more of {late:?}");
            Ok(())
        })
        .await?;
        self.ledger.lock().check()
    }

    /// Waits until everything that was written has come.
    pub(crate) async fn caught_up(&self, written: &[u64]) -> anyhow::Result<()> {
        wait_until("every record has come", async || {
            let ledger = self.ledger.lock();
            for (partition, count) in (0..).zip(written) {
                let unseen = ledger.partitions.get(&partition).map_or(0, |known| known.unseen);
                ensure!(unseen == *count, "{unseen} of {count} of partition {partition}");
            }
            Ok(())
        })
        .await?;
        self.ledger.lock().check()
    }

    pub(crate) fn moves(&self) -> u64 {
        self.ledger.lock().moves
    }

    pub(crate) async fn coordinator(&self, cluster: &Cluster) -> anyhow::Result<u64> {
        let mut found = 0;
        wait_until("the group has a coordinator", async || {
            let request = v1::FindCoordinatorRequest { group: self.group.clone() };
            let running = cluster.nodes().iter().find(|node| node.is_running()).context("none")?;
            let answer = cluster.group_client(running.id())?.find_coordinator(request).await?;
            found = answer.into_inner().node_id;
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// What was acknowledged as committed is committed, or more.
    pub(crate) async fn check_commits(&self, _: &Cluster) -> anyhow::Result<()> {
        let acknowledged: BTreeMap<u32, u64> = {
            let ledger = self.ledger.lock();
            ledger.partitions.iter().map(|(index, known)| (*index, known.committed)).collect()
        };
        ensure!(acknowledged.values().any(|offset| *offset > 0), "something was committed");
        let client = connect(&self.bootstrap).await?;
        let described = client.admin().describe_group(&self.group).await?;
        let known: BTreeMap<u32, u64> =
            described.offsets.iter().map(|one| (one.partition, one.offset)).collect();
        for (partition, offset) in acknowledged {
            let now = known.get(&partition).copied().unwrap_or(0);
            ensure!(now >= offset, "{offset} of {partition} was acknowledged, {now} is there");
        }
        Ok(())
    }

    /// All leave.
    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        self.leave(self.members.len()).await?;
        self.ledger.lock().check()
    }
}

async fn read(
    bootstrap: Vec<HostPort>,
    (group, topic, name): (String, String, String),
    manual: bool,
    ledger: Arc<Mutex<Ledger>>,
    mut stopped: oneshot::Receiver<()>,
) -> anyhow::Result<()> {
    let client = connect(&bootstrap).await?;
    let mut builder = Consumer::builder(&client).group(group).subscribe([topic]);
    builder = builder.options(|options| options.client_id.clone_from(&name));
    if manual {
        builder = builder.manual_commit();
    }
    let consumer = builder.build().await?;
    loop {
        let next = tokio::select! {
            _ = &mut stopped => break,
            next = consumer.next() => next?,
        };
        match next {
            None => anyhow::bail!("closed"),
            Some(Next::Event(event)) => ledger.lock().event(&name, &event),
            Some(Next::Batch(batch)) => {
                let partition = batch.partition.partition;
                ledger.lock().records(&name, partition, &batch.records);
                if manual && consumer.commit().await.is_ok() {
                    let mut ledger = ledger.lock();
                    let known = ledger.partitions.entry(partition).or_default();
                    known.committed = known.committed.max(batch.next_offset);
                }
            }
        }
    }
    // What it owns it gives back now; from here on others may be given it.
    {
        let mut ledger = ledger.lock();
        for partition in ledger.partitions.values_mut() {
            if partition.owner.as_ref() == Some(&name) {
                partition.owner = None;
            }
        }
    }
    consumer.close().await?;
    Ok(())
}
