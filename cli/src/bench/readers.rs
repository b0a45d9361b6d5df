//! Readers of a topic that believe nothing: each record's chain is verified.
//!
//! One for each partition, over so many clients.

use super::chain::{Author, Found, Head, Verifier};
use super::load::ledger::{Counts, Ledgers, Window};
use super::target::Bed;
use anyhow::{Context as _, ensure};
use ottla_client::{Client, PartitionReader, ReaderOptions, StartPosition};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Longest wait for readers to come to the end. A cluster that needs longer is broken.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where reading ends: an offset for each partition.
type Goal = BTreeMap<u32, u64>;

/// Who follows the run of some writers, and from when its records are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Followed {
    pub(super) run: u64,
    pub(super) start: Instant,
    pub(super) window: Window,
}

/// Readers that have found their place, and not begun.
pub(super) struct Ready(Vec<(PartitionReader, Verifier)>);

/// Readers at work.
pub(super) struct Readers {
    tasks: JoinSet<anyhow::Result<Verifier>>,
    goal: watch::Sender<Option<Goal>>,
    ledgers: Ledgers,
    bytes: Arc<AtomicU64>,
}

/// What was read.
pub(super) struct ReadBack {
    pub(super) counts: Counts,
    /// Bytes of values.
    pub(super) bytes: u64,
    pub(super) found: Found,
}

struct Task {
    reader: PartitionReader,
    verifier: Verifier,
    /// Whose page of the ledgers it writes.
    index: u32,
    followed: Followed,
    ledgers: Ledgers,
    bytes: Arc<AtomicU64>,
    goal: watch::Receiver<Option<Goal>>,
}

impl Ready {
    /// One for each partition, at the start or the end of what is there, over so many
    /// clients.
    pub(super) async fn open(bed: &Bed, at: StartPosition, consumers: u32) -> anyhow::Result<Self> {
        let first = offsets(&bed.client, &bed.topic, StartPosition::Start).await?;
        let starts = offsets(&bed.client, &bed.topic, at).await?;
        let mut clients = Vec::new();
        for _ in 0..starts.len().min(consumers as usize) {
            clients.push(bed.another_client().await?);
        }
        let mut readers = Vec::new();
        for ((partition, offset), client) in starts.into_iter().zip(clients.iter().cycle()) {
            let (start, options) = (StartPosition::Offset(offset), ReaderOptions::default());
            let reader = PartitionReader::open(client, &bed.topic, partition, start, options);
            // Whoever begins where nothing was ever deleted should see every chain from its
            // first record on.
            let from_start = offset == 0 && first.get(&partition) == Some(&0);
            readers.push((reader.await?, Verifier::new(partition, from_start)));
        }
        Ok(Self(readers))
    }

    /// They begin to read.
    pub(super) fn begin(self, followed: Followed) -> anyhow::Result<Readers> {
        let ledgers = Ledgers::new(followed.window, u32::try_from(self.0.len())?);
        let (goal, tasks, bytes) = (watch::Sender::new(None), JoinSet::new(), Arc::default());
        let mut readers = Readers { tasks, goal, ledgers, bytes };
        for (index, (reader, verifier)) in (0..).zip(self.0) {
            let task = Task {
                reader,
                verifier,
                index,
                followed,
                ledgers: readers.ledgers.clone(),
                bytes: Arc::clone(&readers.bytes),
                goal: readers.goal.subscribe(),
            };
            readers.tasks.spawn(task.run());
        }
        Ok(readers)
    }
}

impl Readers {
    pub(super) fn ledgers(&self) -> &Ledgers {
        &self.ledgers
    }

    /// Waits until everything that is committed by now is read. Chains that were written
    /// have so many records in each partition.
    pub(super) async fn finish(
        mut self,
        bed: &Bed,
        chains: &[(Author, u32, u64)],
    ) -> anyhow::Result<ReadBack> {
        self.goal.send_replace(Some(offsets(&bed.client, &bed.topic, StartPosition::End).await?));
        let mut found = Found::default();
        let deadline = Instant::now() + PATIENCE;
        while let Some(ended) = {
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = timeout(left, self.tasks.join_next()).await;
            ended.with_context(|| format!("not everything was read within {PATIENCE:?}"))?
        } {
            let mut verifier = ended.context("a reader failed")??;
            let partition = verifier.partition();
            for (author, _, written) in chains.iter().filter(|chain| chain.1 == partition) {
                verifier.ended(*author, *written);
            }
            found.add(verifier.found);
        }
        Ok(ReadBack { counts: self.ledgers.counts(), bytes: self.bytes.load(Relaxed), found })
    }
}

/// The offset of every partition.
pub(super) async fn offsets(
    client: &Client,
    topic: &str,
    at: StartPosition,
) -> anyhow::Result<Goal> {
    let partitions = client.admin().describe_topic(topic).await?.topic.partitions;
    ensure!(!partitions.is_empty(), "{topic} has no partitions");
    let mut offsets = Goal::new();
    for partition in partitions {
        let partition = partition.partition;
        offsets.insert(partition, client.offset_of(topic, partition, at).await?);
    }
    Ok(offsets)
}

impl Task {
    async fn run(mut self) -> anyhow::Result<Verifier> {
        loop {
            if self.is_there() {
                return Ok(self.verifier);
            }
            let batch = tokio::select! {
                batch = self.reader.next_batch() => batch?.context("reading has no end")?,
                changed = self.goal.changed() => {
                    changed.context("nobody wants it any more")?;
                    continue;
                }
            };
            let now = Instant::now();
            let mut bytes = 0;
            let mut came = Vec::with_capacity(batch.records.len());
            for record in &batch.records {
                let value = record.value.as_deref().unwrap_or_default();
                bytes += value.len() as u64;
                let head = self.verifier.check(record.offset, value);
                came.extend(head.and_then(|head| self.due(head)).map(|due| (due, Ok(()))));
            }
            self.bytes.fetch_add(bytes, Relaxed);
            self.ledgers.get(self.index).came(now, came);
        }
    }

    /// Whether everything is read that is wanted.
    fn is_there(&mut self) -> bool {
        let goal = self.goal.borrow_and_update();
        let goal = goal.as_ref().and_then(|goal| goal.get(&self.verifier.partition()));
        goal.is_some_and(|goal| self.reader.position() >= *goal)
    }

    /// When it was due, if it is of the run that is followed.
    fn due(&self, head: Head) -> Option<Instant> {
        let own = head.author.run == self.followed.run;
        own.then(|| self.followed.start + Duration::from_nanos(head.due))
    }
}
