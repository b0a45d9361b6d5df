//! A group of consumers in a run: members share what is written with acks=all, commit
//! what they were given, go in good order or in the middle of it, and come back.
//!
//! What must hold, whatever happens to nodes: nothing is skipped, by the group as a whole;
//! whoever takes a partition over begins at or after what was last acknowledged as
//! committed; and once nothing is wrong any more, everything is read and committed. That
//! something is read twice is allowed, and happens.
//!
//! Not its job: whether what was read is what was written (`checker`).

use super::load::PARTITIONS;
use super::say::Say;
use anyhow::Context as _;
use ottla_client::{
    Client, ClientOptions, Consumer, ConsumerEvent, HostPort, Next, StartPosition, TopicPartition,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

/// The group.
const GROUP: &str = "readers";

/// Its members.
const MEMBERS: u64 = 3;

/// How long a member stays: some sessions, so that most changes are over before the next.
const STAYS: Duration = Duration::from_secs(25);

/// How long it is away.
const AWAY: Duration = Duration::from_secs(3);

/// Pause of a member to whom nobody listens, before it tries again.
const AGAIN: Duration = Duration::from_secs(1);

/// How often what is left to be read is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One partition, as far as the group is concerned.
#[derive(Debug, Default)]
struct Progress {
    /// Everything below was given to somebody.
    read: u64,
    /// Everything below is acknowledged as committed.
    committed: u64,
}

/// What all members were told, and what of it must not be.
#[derive(Debug, Default)]
struct Ledger {
    partitions: BTreeMap<TopicPartition, Progress>,
    wrong: Vec<String>,
}

impl Ledger {
    fn committed(&self, partition: &TopicPartition) -> u64 {
        self.partitions.get(partition).map_or(0, |progress| progress.committed)
    }

    /// `floor`: what was committed when the partition was taken over; checked once.
    fn read(&mut self, partition: &TopicPartition, first: u64, next: u64, floor: Option<u64>) {
        let progress = self.partitions.entry(partition.clone()).or_default();
        if first > progress.read {
            let read = progress.read;
            let what = format!("the group skips {partition} from {read} to {first}");
            self.wrong.push(what);
        } else if let Some(floor) = floor.filter(|floor| first < *floor) {
            let what = format!("a commit of {floor} of {partition} was lost: read from {first}");
            self.wrong.push(what);
        }
        progress.read = progress.read.max(next);
    }

    fn has_committed(&mut self, partition: &TopicPartition, offset: u64) {
        let progress = self.partitions.entry(partition.clone()).or_default();
        progress.committed = progress.committed.max(offset);
    }
}

/// The group, at work.
pub(super) struct Members {
    client: Client,
    topics: &'static [&'static str],
    ledger: Arc<Mutex<Ledger>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Members {
    /// Members that read these topics.
    ///
    /// # Errors
    /// No node can be reached.
    pub(super) async fn start(
        bootstrap: &[HostPort],
        topics: &'static [&'static str],
        say: Say,
    ) -> anyhow::Result<Self> {
        let connect = || Client::connect(bootstrap, ClientOptions::default());
        let (stop, stopped) = watch::channel(false);
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let mut tasks = JoinSet::new();
        for number in 0..MEMBERS {
            let (ledger, stopped) = (Arc::clone(&ledger), stopped.clone());
            // Clients of their own: connections fail one by one.
            let member = Member { client: connect().await?, topics, number, say, ledger, stopped };
            tasks.spawn(member.come_and_go());
        }
        Ok(Self { client: connect().await?, topics, ledger, stop, tasks })
    }

    /// Nothing is wrong any more, and nobody writes: waits until all partitions are read
    /// and committed to their ends.
    ///
    /// # Errors
    /// They are not in time; anything else that must not be.
    pub(super) async fn finish(mut self, deadline: Instant) -> anyhow::Result<()> {
        let mut looks = tokio::time::interval(LOOK_AGAIN);
        let all = self.topics.iter().flat_map(|topic| (0..PARTITIONS).map(move |p| (*topic, p)));
        for (topic, index) in all {
            let partition = TopicPartition::new(topic, index);
            let end = self.client.offset_of(topic, index, StartPosition::End).await?;
            while self.ledger.lock().committed(&partition) < end {
                looks.tick().await;
                let so_far = self.ledger.lock().committed(&partition);
                let late = || format!("{partition} ends at {end}, the group is at {so_far}");
                anyhow::ensure!(Instant::now() < deadline, late());
            }
        }
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a member panicked")??;
        }
        let wrong = std::mem::take(&mut self.ledger.lock().wrong);
        anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        Ok(())
    }
}

struct Member {
    client: Client,
    topics: &'static [&'static str],
    number: u64,
    say: Say,
    ledger: Arc<Mutex<Ledger>>,
    stopped: watch::Receiver<bool>,
}

impl Member {
    async fn come_and_go(mut self) -> anyhow::Result<()> {
        for stay in 0_u32.. {
            let consumer = Consumer::builder(&self.client)
                .group(GROUP)
                .subscribe(self.topics.iter().copied())
                .manual_commit()
                .build()
                .await?;
            // Not all at the same time.
            let begun = Instant::now();
            let until = begun + STAYS + AWAY * u32::try_from(self.number)?;
            self.stay(&consumer, until).await;
            let dies = stay % 2 == 1;
            if dies {
                drop(consumer);
            } else if let Err(error) = consumer.close().await {
                self.say.line(&format!("member {} could not leave: {error}", self.number));
            }
            if !self.pause(AWAY).await {
                break;
            }
        }
        Ok(())
    }

    /// False: it is over.
    async fn pause(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        tokio::select! {
            // Whoever stops it outlives it.
            _ = self.stopped.wait_for(|stop| *stop) => false,
            () = sleep_until(until) => true,
        }
    }

    async fn stay(&mut self, consumer: &Consumer, until: Instant) {
        let mut floors = BTreeMap::new();
        while Instant::now() < until && !*self.stopped.borrow() {
            let next = tokio::select! {
                _ = self.stopped.wait_for(|stop| *stop) => return,
                next = timeout_at(until, consumer.next()) => next,
            };
            match next {
                Ok(Ok(Some(Next::Batch(batch)))) => {
                    let (partition, next) = (batch.partition, batch.next_offset);
                    let first = batch.records.first().map_or(next, |record| record.offset);
                    let floor = floors.remove(&partition);
                    self.ledger.lock().read(&partition, first, next, floor);
                    // Refused if the partition is another's by now: that one commits.
                    if consumer.commit_offsets([(partition.clone(), next)]).await.is_ok() {
                        self.ledger.lock().has_committed(&partition, next);
                    }
                }
                Ok(Ok(Some(Next::Event(event)))) => self.event(event, &mut floors),
                Ok(Ok(None)) | Err(_) => return,
                Ok(Err(error)) => {
                    self.say.line(&format!("member {}: {error}", self.number));
                    if !self.pause(AGAIN).await {
                        return;
                    }
                }
            }
        }
    }

    fn event(&self, event: ConsumerEvent, floors: &mut BTreeMap<TopicPartition, u64>) {
        match event {
            ConsumerEvent::Assigned(partitions) => {
                let ledger = self.ledger.lock();
                floors.extend(partitions.into_iter().map(|partition| {
                    let committed = ledger.committed(&partition);
                    (partition, committed)
                }));
            }
            ConsumerEvent::Reset { .. } | ConsumerEvent::Gone(_) => {
                let what = format!("member {}: {event:?}", self.number);
                self.ledger.lock().wrong.push(what);
            }
            ConsumerEvent::Revoking(_) | ConsumerEvent::Lost(_) | ConsumerEvent::Delayed { .. } => {
            }
        }
    }
}
