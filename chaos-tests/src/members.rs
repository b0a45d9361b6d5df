//! A group of consumers in a run: members share what is written with acks=all, commit
//! what they were given, go in good order or in the middle of it, and come back.
//!
//! What must hold, whatever happens to nodes: nothing is skipped, by the group as a whole;
//! whoever takes a partition over begins at or after what was last acknowledged as
//! committed; and once nothing is wrong any more, everything is read and committed. That
//! something is read twice is allowed, and happens.
//!
//! Not its job: whether what was read is what was written (`checker`), and what is done to
//! nodes meanwhile (`sim`, `nemesis`).

use anyhow::Context as _;
use ottla_client::{Client, Consumer, ConsumerEvent, Next, StartPosition, TopicPartition};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;

/// The group.
const GROUP: &str = "readers";

/// Its members: more than one that stays where another goes.
pub(crate) const MEMBERS: usize = 3;

/// Pause of a member to whom nobody listens, before it tries again.
const AGAIN: Duration = Duration::from_secs(1);

/// How often what is left to be read is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What members read, and how long they stay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// Topics whose acknowledgements are promises.
    pub(crate) topics: &'static [&'static str],
    /// Partitions of each.
    pub(crate) partitions: u32,
    /// How long a member stays, at least.
    pub(crate) stays: Duration,
    /// How long it is away, and how much longer than the one before it each stays: not
    /// all go at the same time.
    pub(crate) away: Duration,
}

/// Where members tell what did not work, for whoever looks into a run.
pub(crate) type Tell = Arc<dyn Fn(&str) + Send + Sync>;

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
    figures: Figures,
    wrong: Vec<String>,
}

/// How much of it there was.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Partitions that members were given.
    assigned: u64,
    /// Batches that they read.
    batches: u64,
    /// Commits that were acknowledged.
    commits: u64,
    /// Commits that were not.
    uncommitted: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { assigned, batches, commits, uncommitted } = self;
        write!(f, "the group was given partitions {assigned} times, read {batches} batches, ")?;
        write!(f, "committed {commits} times, and could not {uncommitted} times")
    }
}

impl Ledger {
    fn committed(&self, partition: &TopicPartition) -> u64 {
        self.partitions.get(partition).map_or(0, |progress| progress.committed)
    }

    /// `floor`: what was committed when the partition was taken over; checked once.
    fn read(&mut self, partition: &TopicPartition, first: u64, next: u64, floor: Option<u64>) {
        self.figures.batches += 1;
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
        self.figures.commits += 1;
        let progress = self.partitions.entry(partition.clone()).or_default();
        progress.committed = progress.committed.max(offset);
    }
}

/// The group, at work.
pub(crate) struct Members {
    client: Client,
    habits: Habits,
    ledger: Arc<Mutex<Ledger>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Members {
    /// Members with clients of their own: connections fail one by one. `client` is for
    /// whoever looks how far they are.
    pub(crate) fn start(
        client: Client,
        clients: [Client; MEMBERS],
        habits: Habits,
        tell: &Tell,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let mut tasks = JoinSet::new();
        for (number, client) in (0..).zip(clients) {
            let (ledger, stopped) = (Arc::clone(&ledger), stopped.clone());
            let tell = Arc::clone(tell);
            let member = Member { client, habits, number, tell, ledger, stopped };
            tasks.spawn(member.come_and_go());
        }
        Self { client, habits, ledger, stop, tasks }
    }

    /// Nothing is wrong any more, and nobody writes: waits until all partitions are read
    /// and committed to their ends.
    ///
    /// # Errors
    /// They are not in time; anything else that must not be.
    pub(crate) async fn finish(mut self, deadline: Instant) -> anyhow::Result<Figures> {
        let mut looks = tokio::time::interval(LOOK_AGAIN);
        let Habits { topics, partitions, .. } = self.habits;
        let all = topics.iter().flat_map(|topic| (0..partitions).map(move |p| (*topic, p)));
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
        let Ledger { figures, wrong, .. } = std::mem::take(&mut *self.ledger.lock());
        anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        Ok(figures)
    }
}

struct Member {
    client: Client,
    habits: Habits,
    number: u32,
    tell: Tell,
    ledger: Arc<Mutex<Ledger>>,
    stopped: watch::Receiver<bool>,
}

impl Member {
    async fn come_and_go(mut self) -> anyhow::Result<()> {
        let Habits { topics, stays, away, .. } = self.habits;
        for stay in 0_u32.. {
            let consumer = Consumer::builder(&self.client)
                .group(GROUP)
                .subscribe(topics.iter().copied())
                .manual_commit()
                .build()
                .await?;
            let until = Instant::now() + stays + away * self.number;
            self.stay(&consumer, until).await;
            let dies = stay % 2 == 1;
            if dies {
                drop(consumer);
            } else if let Err(error) = consumer.close().await {
                (self.tell)(&format!("member {} could not leave: {error}", self.number));
            }
            if !self.pause(away).await {
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
                    let told = consumer.commit_offsets([(partition.clone(), next)]).await;
                    debug!(member = self.number, %partition, first, next, ?told, "read and committed");
                    let mut ledger = self.ledger.lock();
                    match told {
                        Ok(_) => ledger.has_committed(&partition, next),
                        // The partition is another's by now, who commits, or nobody
                        // answers.
                        Err(_) => ledger.figures.uncommitted += 1,
                    }
                }
                Ok(Ok(Some(Next::Event(event)))) => self.event(event, &mut floors),
                Ok(Ok(None)) | Err(_) => return,
                Ok(Err(error)) => {
                    (self.tell)(&format!("member {}: {error}", self.number));
                    if !self.pause(AGAIN).await {
                        return;
                    }
                }
            }
        }
    }

    fn event(&self, event: ConsumerEvent, floors: &mut BTreeMap<TopicPartition, u64>) {
        debug!(member = self.number, ?event, "told");
        match event {
            ConsumerEvent::Assigned(partitions) => {
                let mut ledger = self.ledger.lock();
                ledger.figures.assigned += partitions.len() as u64;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn told(reads: &[(u64, u64, Option<u64>)]) -> Vec<String> {
        let (mut ledger, partition) = (Ledger::default(), TopicPartition::new("t", 0));
        for &(first, next, floor) in reads {
            ledger.read(&partition, first, next, floor);
        }
        ledger.wrong
    }

    #[test]
    fn what_is_read_twice_is_no_fault_and_what_is_skipped_is() {
        assert_eq!(told(&[(0, 5, Some(0)), (5, 9, None), (5, 7, Some(5))]), [""; 0]);
        assert_eq!(told(&[(0, 5, Some(0)), (6, 9, None)]), ["the group skips t-0 from 5 to 6"]);
    }

    #[test]
    fn whoever_takes_over_begins_at_the_last_commit_or_after_it() {
        assert_eq!(told(&[(0, 9, Some(0)), (5, 9, Some(5)), (7, 9, Some(5))]), [""; 0]);
        let lost = "a commit of 5 of t-0 was lost: read from 4";
        assert_eq!(told(&[(0, 9, Some(0)), (4, 9, Some(5))]), [lost]);
    }
}
