//! The members of a group, who remember when something came of each partition, and a
//! writer that sees to it that something does.

use super::{GROUP, PATIENCE, TOPIC};
use anyhow::Context as _;
use ottla_client::{
    Client, ClientOptions, Consumer, ConsumerEvent, HostPort, Next, Producer, ProducerOptions,
    ProducerRecord,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

/// When something came of each partition, and who has it. Some bytes a record: a run of
/// minutes.
#[derive(Default)]
struct Ledger {
    came: Vec<Vec<Instant>>,
    owners: BTreeMap<u32, String>,
    records: u64,
    failure: Option<String>,
}

struct Shared {
    ledger: Mutex<Ledger>,
    progress: watch::Sender<()>,
}

pub(super) struct Members {
    shared: Arc<Shared>,
    bootstrap: Vec<HostPort>,
    /// Those that will die have a runtime of their own, to die with.
    doomed: BTreeMap<u32, Runtime>,
    others: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Members {
    /// Nobody yet; a writer begins.
    pub(super) async fn start(
        bootstrap: Vec<HostPort>,
        partitions: u32,
        every: Duration,
    ) -> anyhow::Result<Self> {
        let came = vec![Vec::new(); partitions as usize];
        let ledger = Mutex::new(Ledger { came, ..Ledger::default() });
        let shared = Arc::new(Shared { ledger, progress: watch::Sender::new(()) });
        let (stop, stopped) = watch::channel(false);
        let mut others = JoinSet::new();
        let client = Client::connect(&bootstrap, ClientOptions::default()).await?;
        let watched = Arc::clone(&shared);
        others.spawn(async move {
            if let Err(error) = write(&client, partitions, every, stopped).await {
                watched.failed(&error);
            }
        });
        Ok(Self { shared, bootstrap, doomed: BTreeMap::new(), others, stop })
    }

    pub(super) fn name(member: u32) -> String {
        format!("member-{member}")
    }

    pub(super) fn alive(&self) -> usize {
        // The writer is one of the others.
        self.doomed.len() + self.others.len() - 1
    }

    pub(super) fn join(&mut self, member: u32, doomed: bool) -> anyhow::Result<()> {
        let (shared, bootstrap) = (Arc::clone(&self.shared), self.bootstrap.clone());
        let stop = self.stop.subscribe();
        let work = async move {
            if let Err(error) = read(&bootstrap, Self::name(member), &shared, stop).await {
                shared.failed(&error);
            }
        };
        if doomed {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?;
            runtime.spawn(work);
            self.doomed.insert(member, runtime);
        } else {
            self.others.spawn(work);
        }
        Ok(())
    }

    /// The member dies without a word. Returns what it had.
    pub(super) fn crash(&mut self, member: u32) -> anyhow::Result<Vec<u32>> {
        let runtime = self.doomed.remove(&member).context("it was not to die")?;
        runtime.shutdown_background();
        let name = Self::name(member);
        let ledger = self.shared.ledger.lock();
        let had = ledger.owners.iter().filter(|(_, owner)| **owner == name);
        Ok(had.map(|(partition, _)| *partition).collect())
    }

    /// Waits until something has come of each of these after a moment; returns when it did.
    pub(super) async fn read_since(
        &self,
        moment: Instant,
        partitions: &[u32],
    ) -> anyhow::Result<Vec<Instant>> {
        let first = |ledger: &Ledger, partition: u32| {
            let came = &ledger.came[partition as usize];
            came.get(came.partition_point(|at| *at <= moment)).copied()
        };
        let mut progress = self.shared.progress.subscribe();
        let all = async {
            loop {
                progress.borrow_and_update();
                {
                    let ledger = self.shared.ledger.lock();
                    if let Some(failure) = &ledger.failure {
                        anyhow::bail!("{failure}");
                    }
                    let firsts = partitions.iter().map(|partition| first(&ledger, *partition));
                    if let Some(all) = firsts.collect::<Option<Vec<_>>>() {
                        return Ok(all);
                    }
                }
                progress.changed().await.context("the sender lives")?;
            }
        };
        timeout(PATIENCE, all).await.context("some partitions are not read")?
    }

    /// Of each partition but these the longest time without anything between two moments.
    pub(super) fn gaps(&self, from: Instant, to: Instant, but: &[u32]) -> Vec<Duration> {
        let ledger = self.shared.ledger.lock();
        let kept = (0..).zip(&ledger.came).filter(|(partition, _)| !but.contains(partition));
        let longest = |came: &[Instant]| {
            let within = came.iter().filter(|at| (from..=to).contains(at)).copied();
            let moments: Vec<Instant> =
                std::iter::once(from).chain(within).chain(std::iter::once(to)).collect();
            moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
        };
        kept.map(|(_, came)| longest(came)).collect()
    }

    /// All leave. Returns how many records were read.
    pub(super) async fn stop(mut self) -> anyhow::Result<u64> {
        self.stop.send_replace(true);
        while let Some(ended) = self.others.join_next().await {
            ended.context("a member failed")?;
        }
        let ledger = self.shared.ledger.lock();
        match &ledger.failure {
            Some(failure) => anyhow::bail!("{failure}"),
            None => Ok(ledger.records),
        }
    }
}

impl Shared {
    fn failed(&self, error: &anyhow::Error) {
        self.ledger.lock().failure = Some(format!("{error:#}"));
        self.progress.send_replace(());
    }
}

async fn write(
    client: &Client,
    partitions: u32,
    every: Duration,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let options = ProducerOptions { linger: Duration::ZERO, ..ProducerOptions::default() };
    let producer = Producer::new(client, options);
    let topic = producer.topic(TOPIC).await?;
    // One partition after the other, so that each has its own moment.
    let mut turns = interval(every / partitions);
    for turn in 0_u32.. {
        turns.tick().await;
        if *stopped.borrow() {
            break;
        }
        let partition = Some(turn % partitions);
        // What becomes of each its reader sees.
        drop(topic.send(ProducerRecord { partition, ..ProducerRecord::value("tick") }).await?);
    }
    producer.shutdown().await;
    Ok(())
}

async fn read(
    bootstrap: &[HostPort],
    name: String,
    shared: &Shared,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let client = Client::connect(bootstrap, ClientOptions::default()).await?;
    let builder = Consumer::builder(&client).group(GROUP).subscribe([TOPIC]);
    let consumer = builder.options(|options| options.client_id.clone_from(&name)).build().await?;
    loop {
        let next = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            next = consumer.next() => next?.context("the consumer has ended")?,
        };
        let mut ledger = shared.ledger.lock();
        match next {
            Next::Batch(batch) => {
                ledger.records += batch.records.len() as u64;
                ledger.came[batch.partition.partition as usize].push(Instant::now());
            }
            Next::Event(ConsumerEvent::Assigned(partitions)) => {
                for partition in partitions {
                    ledger.owners.insert(partition.partition, name.clone());
                }
            }
            // What else happens shows in the figures.
            Next::Event(_) => {}
        }
        drop(ledger);
        shared.progress.send_replace(());
    }
    consumer.close().await?;
    Ok(())
}
