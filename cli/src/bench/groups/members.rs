//! The members of a group, who remember when something came of each partition, and a
//! writer that sees to it that something does.

use super::ledger::{Ledger, Seen, Slow};
use super::{GROUP, PATIENCE, TOPIC};
use anyhow::Context as _;
use ottla_client::{
    Client, ClientOptions, Consumer, ConsumerEvent, Delivered, HostPort, Next, Producer,
    ProducerOptions, ProducerRecord,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

/// Waits that are told one by one after a death: enough to see what they have in common.
const SLOWEST: usize = 5;

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
        let (ledger, progress) = (Mutex::new(Ledger::new(partitions)), watch::Sender::new(()));
        let shared = Arc::new(Shared { ledger, progress });
        let (stop, stopped) = watch::channel(false);
        let mut others = JoinSet::new();
        let client = Client::connect(&bootstrap, ClientOptions::default()).await?;
        let watched = Arc::clone(&shared);
        others.spawn(async move {
            if let Err(error) = write(&client, &watched, partitions, every, stopped).await {
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
        Ok(self.shared.ledger.lock().owned_by(&Self::name(member)))
    }

    /// Waits until something has come of each of these after a moment; returns when it did.
    pub(super) async fn read_since(
        &self,
        moment: Instant,
        partitions: &[u32],
    ) -> anyhow::Result<Vec<Instant>> {
        let mut progress = self.shared.progress.subscribe();
        let all = async {
            loop {
                progress.borrow_and_update();
                {
                    let ledger = self.shared.ledger.lock();
                    ledger.check()?;
                    let firsts =
                        partitions.iter().map(|partition| ledger.first_after(*partition, moment));
                    if let Some(all) = firsts.collect::<Option<Vec<_>>>() {
                        return Ok(all);
                    }
                }
                progress.changed().await.context("the sender lives")?;
            }
        };
        timeout(PATIENCE, all).await.context("some partitions are not read")?
    }

    /// What was seen between two moments of all partitions but these.
    pub(super) fn seen(&self, from: Instant, to: Instant, but: &[u32]) -> Seen {
        self.shared.ledger.lock().seen(from, to, but)
    }

    /// The longest waits of records among them, each with whether its reader had taken over
    /// any of the partitions that were left out.
    pub(super) fn slowest(&self, from: Instant, to: Instant, but: &[u32]) -> Vec<(Slow, bool)> {
        let ledger = self.shared.ledger.lock();
        let took: Vec<&String> = but.iter().filter_map(|id| ledger.reader(*id)).collect();
        let slowest = ledger.slowest(from, to, but, SLOWEST);
        let with = |slow: Slow| {
            let took_over = took.contains(&&slow.reader);
            (slow, took_over)
        };
        slowest.into_iter().map(with).collect()
    }

    /// That none has failed so far.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.shared.ledger.lock().check()
    }

    /// How often a partition was taken so far from a member that goes on.
    pub(super) fn given_back(&self) -> u64 {
        self.shared.ledger.lock().given_back
    }

    /// All leave. Returns how many records were read.
    pub(super) async fn stop(mut self) -> anyhow::Result<u64> {
        self.stop.send_replace(true);
        while let Some(ended) = self.others.join_next().await {
            ended.context("a member failed")?;
        }
        let ledger = self.shared.ledger.lock();
        ledger.check()?;
        Ok(ledger.records)
    }
}

impl Drop for Members {
    /// Those that were to die and have not: a runtime must not be waited for in here.
    fn drop(&mut self) {
        for (_, runtime) in std::mem::take(&mut self.doomed) {
            runtime.shutdown_background();
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
    shared: &Arc<Shared>,
    partitions: u32,
    every: Duration,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let options = ProducerOptions { linger: Duration::ZERO, ..ProducerOptions::default() };
    let producer = Producer::new(client, options);
    let topic = producer.topic(TOPIC).await?;
    // One partition after the other, so that each has its own moment.
    let mut turns = interval(every / partitions);
    let mut deliveries = JoinSet::new();
    for turn in 0_u32.. {
        turns.tick().await;
        if *stopped.borrow() {
            break;
        }
        let partition = Some(turn % partitions);
        let record = ProducerRecord { partition, ..ProducerRecord::value("tick") };
        let delivery = topic.send(record).await?;
        let shared = Arc::clone(shared);
        // As many at a time as the producer's buffer holds.
        deliveries.spawn(async move {
            let delivered = delivery.await;
            let now = Instant::now();
            match delivered {
                Ok(Delivered { partition, offset: Some(offset) }) => {
                    shared.ledger.lock().acknowledged(partition, offset, now);
                }
                Ok(Delivered { offset: None, .. }) => {}
                Err(error) => shared.failed(&error.into()),
            }
        });
        while deliveries.try_join_next().is_some() {}
    }
    producer.shutdown().await;
    while deliveries.join_next().await.is_some() {}
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
                ledger.came(batch.partition.partition, batch.next_offset, Instant::now());
            }
            Next::Event(ConsumerEvent::Assigned(partitions)) => {
                for partition in partitions {
                    ledger.owns(partition.partition, &name);
                }
            }
            Next::Event(ConsumerEvent::Revoking(partitions) | ConsumerEvent::Lost(partitions)) => {
                ledger.given_back += partitions.len() as u64;
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
