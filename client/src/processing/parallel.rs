//! Many records at once, those of one key in their order; what is committed is always
//! done, and so is everything before it.

use super::ProcessingError;
use super::progress::Progress;
use crate::{ConsumedRecord, Consumer, ConsumerError, ConsumerEvent, Next, TopicPartition};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How often what is done is committed.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Records that wait for the one before of their key, for each that may be processed at
/// the same time: keys that come in bursts should not leave others idle.
const WAITING_PER_LANE: usize = 64;

/// Whose order is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Lane {
    Key(TopicPartition, bytes::Bytes),
    /// Without a key no order is needed.
    Alone(TopicPartition, u64),
}

type Done = (Lane, TopicPartition, u64, Result<(), String>);

/// Processes records of different keys at the same time. Takes a consumer with
/// [`manual_commit`](crate::ConsumerBuilder::manual_commit).
pub struct Parallel<'a> {
    consumer: &'a Consumer,
    at_once: usize,
    running: FuturesUnordered<BoxFuture<'a, Done>>,
    /// The first of each lane, until it is begun.
    ready: VecDeque<(Lane, ConsumedRecord)>,
    /// Those behind the first, which is ready or running.
    lanes: HashMap<Lane, VecDeque<ConsumedRecord>>,
    /// How many are not begun.
    waiting: usize,
    progress: BTreeMap<TopicPartition, Progress>,
}

impl<'a> Parallel<'a> {
    /// At most so many records are processed at the same time.
    #[must_use]
    pub fn new(consumer: &'a Consumer, at_once: usize) -> Self {
        Self {
            consumer,
            at_once: at_once.max(1),
            running: FuturesUnordered::new(),
            ready: VecDeque::new(),
            lanes: HashMap::new(),
            waiting: 0,
            progress: BTreeMap::new(),
        }
    }

    /// Processes until the consumer is closed or a record fails; then what had begun is
    /// ended and committed. Combine it with
    /// [`RetryPolicy::run`](super::RetryPolicy::run) to try a record again.
    ///
    /// # Errors
    /// See [`ProcessingError`].
    pub async fn run<E, F>(
        mut self,
        handle: impl Fn(ConsumedRecord) -> F + Send + Sync + 'a,
    ) -> Result<(), ProcessingError>
    where
        E: Display,
        F: Future<Output = Result<(), E>> + Send + 'a,
    {
        if self.consumer.commits_by_itself() {
            let what = "what is processed in parallel is committed here: use manual_commit";
            return Err(ConsumerError::Invalid(what.to_owned()).into());
        }
        let handle = Arc::new(handle);
        let begin = |lane: Lane, record: ConsumedRecord| -> BoxFuture<'a, Done> {
            let handle = Arc::clone(&handle);
            async move {
                let (partition, offset) = (record.partition.clone(), record.record.offset);
                let outcome = handle(record).await.map_err(|error| error.to_string());
                (lane, partition, offset, outcome)
            }
            .boxed()
        };
        let ended = self.work(&begin).await;
        // What has begun is ended, what waits is not begun.
        self.ready.clear();
        while let Some((_, partition, offset, outcome)) = self.running.next().await {
            if outcome.is_ok() {
                self.done(&partition, offset);
            }
        }
        self.commit().await.and(ended)
    }

    async fn work(
        &mut self,
        begin: &(impl Fn(Lane, ConsumedRecord) -> BoxFuture<'a, Done> + Sync),
    ) -> Result<(), ProcessingError> {
        let mut due = Instant::now() + COMMIT_INTERVAL;
        loop {
            let has_room =
                self.running.len() < self.at_once && self.waiting < self.at_once * WAITING_PER_LANE;
            tokio::select! {
                Some(done) = self.running.next() => self.ended(done, begin)?,
                next = self.consumer.next(), if has_room => match next? {
                    None => return Ok(()),
                    Some(Next::Event(event)) => self.event(event, begin).await?,
                    Some(Next::Batch(batch)) => {
                        for record in batch.records {
                            let partition = batch.partition.clone();
                            self.admit(ConsumedRecord { partition, record });
                        }
                        self.begin_some(begin);
                    }
                },
                () = sleep_until(due) => {
                    self.commit().await?;
                    due = Instant::now() + COMMIT_INTERVAL;
                }
            }
        }
    }

    fn admit(&mut self, record: ConsumedRecord) {
        self.progress.entry(record.partition.clone()).or_default().begin(record.record.offset);
        let lane = match &record.record.key {
            Some(key) => Lane::Key(record.partition.clone(), key.clone()),
            None => Lane::Alone(record.partition.clone(), record.record.offset),
        };
        self.waiting += 1;
        match self.lanes.get_mut(&lane) {
            Some(behind) => behind.push_back(record),
            None => {
                self.lanes.insert(lane.clone(), VecDeque::new());
                self.ready.push_back((lane, record));
            }
        }
    }

    /// As many as may be processed at the same time.
    fn begin_some(&mut self, begin: &impl Fn(Lane, ConsumedRecord) -> BoxFuture<'a, Done>) {
        while self.running.len() < self.at_once
            && let Some((lane, record)) = self.ready.pop_front()
        {
            self.waiting -= 1;
            self.running.push(begin(lane, record));
        }
    }

    fn ended(
        &mut self,
        (lane, partition, offset, outcome): Done,
        begin: &impl Fn(Lane, ConsumedRecord) -> BoxFuture<'a, Done>,
    ) -> Result<(), ProcessingError> {
        if let Err(cause) = outcome {
            return Err(ProcessingError::Handler { partition, offset, cause });
        }
        self.done(&partition, offset);
        match self.lanes.get_mut(&lane).and_then(VecDeque::pop_front) {
            Some(record) => self.ready.push_back((lane, record)),
            None => drop(self.lanes.remove(&lane)),
        }
        self.begin_some(begin);
        Ok(())
    }

    fn done(&mut self, partition: &TopicPartition, offset: u64) {
        if let Some(progress) = self.progress.get_mut(partition) {
            progress.done(offset);
        }
    }

    /// What is to be given back is ended and committed first. What was lost others process.
    async fn event(
        &mut self,
        event: ConsumerEvent,
        begin: &(impl Fn(Lane, ConsumedRecord) -> BoxFuture<'a, Done> + Sync),
    ) -> Result<(), ProcessingError> {
        match event {
            ConsumerEvent::Revoking(partitions) => {
                let idle = |all: &BTreeMap<TopicPartition, Progress>| {
                    let mut of = partitions.iter().filter_map(|one| all.get(one));
                    of.all(Progress::is_idle)
                };
                while !idle(&self.progress) {
                    let Some(done) = self.running.next().await else { break };
                    self.ended(done, begin)?;
                }
                self.commit().await?;
                self.progress.retain(|one, _| !partitions.contains(one));
            }
            ConsumerEvent::Lost(partitions) => {
                self.progress.retain(|one, _| !partitions.contains(one));
                let is_lost = |lane: &Lane| {
                    let (Lane::Key(of, _) | Lane::Alone(of, _)) = lane;
                    partitions.contains(of)
                };
                for (_, behind) in self.lanes.iter_mut().filter(|(lane, _)| is_lost(lane)) {
                    self.waiting -= behind.len();
                    behind.clear();
                }
                let (lost, ready) = std::mem::take(&mut self.ready)
                    .into_iter()
                    .partition::<VecDeque<_>, _>(|(lane, _)| is_lost(lane));
                self.ready = ready;
                self.waiting -= lost.len();
                for (lane, _) in lost {
                    self.lanes.remove(&lane);
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), ProcessingError> {
        let news = |(partition, progress): (&TopicPartition, &mut Progress)| {
            Some((partition.clone(), progress.take()?))
        };
        let offsets: Vec<_> = self.progress.iter_mut().filter_map(news).collect();
        match self.consumer.commit_offsets(offsets).await {
            // Their records come again, to somebody.
            Err(ConsumerError::NotAssigned(lost)) => {
                self.progress.retain(|one, _| !lost.contains(one));
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }
}
