//! Reading many partitions: those that one names, or those that a group gives.

use super::ConsumerBuilder;
use super::commits::{self, Asked, COMMITS_WAITING, Outcome};
use super::coordinator::CoordinatorLink;
use super::member::{COMMANDS_WAITING, Command, Identity, MemberTask};
use super::shared::{Begin, Shared};
use super::shelf::{Given, Progress, Wants};
use super::types::{ConsumedBatch, ConsumedRecord, ConsumerError, Next, TopicPartition};
use crate::{Client, StartPosition};
use futures::stream::{self, Stream};
use ottla_proto::RequestId;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// How long a consumer may take to commit, give back and leave.
const CLOSE_PATIENCE: Duration = Duration::from_secs(15);

/// Reads records of many partitions. Made by [`Consumer::builder`].
///
/// In a group it shares the partitions with the other members: each has one reader, and
/// those that do not move are read all the time. Dropping it leaves the group without
/// waiting; [`close`](Self::close) commits and leaves in good order.
///
/// All methods take `&self`: one can commit, pause and seek while a stream of records is
/// read.
pub struct Consumer {
    pub(super) shared: Arc<Shared>,
    member: Mutex<Option<JoinHandle<()>>>,
    committer: JoinHandle<()>,
}

impl Consumer {
    /// What it is to read, and how.
    pub fn builder(client: &Client) -> ConsumerBuilder {
        ConsumerBuilder::new(client)
    }

    pub(super) async fn start(builder: ConsumerBuilder) -> Result<Self, ConsumerError> {
        let ConsumerBuilder { client, options, group, subscription, assigned } = builder;
        options.check()?;
        let is_member = subscription.is_some();
        if is_member && group.is_none() {
            let what = "who subscribes shares partitions with a group: name one, or assign";
            return Err(ConsumerError::Invalid(what.to_owned()));
        }
        if is_member != assigned.is_empty() {
            let what = "a consumer subscribes to topics, or is assigned partitions, not both";
            return Err(ConsumerError::Invalid(what.to_owned()));
        }
        let group: Option<Arc<str>> = group.map(Into::into);
        let member_id = member_id();
        let (commands, orders) = mpsc::channel(COMMANDS_WAITING);
        let (commits, asked) = mpsc::channel(COMMITS_WAITING);
        let every = options.auto_commit.filter(|_| group.is_some());
        let shared = Arc::new(Shared::new(
            client.clone(),
            options,
            group.clone(),
            member_id.clone(),
            is_member,
            commands,
            commits,
        ));
        let link = CoordinatorLink::new(client, group.clone().unwrap_or_default());
        let weak = Arc::downgrade(&shared);
        let committer = tokio::spawn(commits::run(weak, link.clone(), every, asked));
        let member = group.zip(subscription).map(|(group, subscription)| {
            let identity = Identity { group, member_id };
            let shared = Arc::clone(&shared);
            let task = MemberTask::new(shared, link.clone(), identity, subscription, orders);
            tokio::spawn(task.run())
        });
        let consumer = Self { shared, member: Mutex::new(member), committer };
        consumer.assign(assigned, &link).await?;
        Ok(consumer)
    }

    /// Begins to read what was named; in a group where that is, unless an offset was named.
    async fn assign(
        &self,
        assigned: Vec<(TopicPartition, Option<StartPosition>)>,
        link: &CoordinatorLink,
    ) -> Result<(), ConsumerError> {
        let open = assigned.iter().any(|(_, at)| at.is_none());
        let committed = match (&self.shared.group, open) {
            (Some(_), true) => {
                let deadline = self.shared.client.deadline();
                link.offsets_of_all(deadline).await?.offsets
            }
            _ => Vec::new(),
        };
        for (partition, at) in assigned {
            let found = committed.iter().find(|one| {
                (one.topic.as_str(), one.partition) == (&*partition.topic, partition.partition)
            });
            let found = found.map(|one| one.offset);
            let begin = match (at, found) {
                (Some(at), _) => Some(Begin { at, committed: None }),
                (None, Some(offset)) => {
                    let at = StartPosition::Offset(offset);
                    Some(Begin { at, committed: Some(offset) })
                }
                (None, None) => super::feed::without_commit(self.shared.options.reset, false),
            };
            let held = self.shared.add(partition.clone(), None);
            match begin {
                Some(begin) => self.shared.begin(&held, begin),
                None => return Err(ConsumerError::NoOffset(partition)),
            }
        }
        Ok(())
    }

    /// What comes next: records, or something that happened. `None` when the consumer is
    /// closed.
    ///
    /// What was handed out before counts as processed from this call on. May be dropped
    /// and called again. Meant for one caller at a time.
    ///
    /// # Errors
    /// See [`ConsumerError`]; after an error the next call goes on.
    pub async fn next(&self) -> Result<Option<Next>, ConsumerError> {
        let most = self.shared.options.max_batch_records;
        Ok(match self.wait(Wants::Events, most).await? {
            None => None,
            Some(Given::Event(event)) => Some(Next::Event(event)),
            Some(Given::Batch(batch)) => Some(Next::Batch(batch)),
            Some(Given::Error(error)) => return Err(error),
        })
    }

    /// The next records; partitions are given back as soon as the group asks for them.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn next_batch(&self) -> Result<Option<ConsumedBatch>, ConsumerError> {
        self.records_of(self.shared.options.max_batch_records).await
    }

    /// The next record.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn next_record(&self) -> Result<Option<ConsumedRecord>, ConsumerError> {
        loop {
            let Some(batch) = self.records_of(1).await? else { return Ok(None) };
            let ConsumedBatch { partition, records, .. } = batch;
            // The last of a batch may have been the last that there is of it.
            if let Some(record) = records.into_iter().next() {
                return Ok(Some(ConsumedRecord { partition, record }));
            }
        }
    }

    async fn records_of(&self, most: usize) -> Result<Option<ConsumedBatch>, ConsumerError> {
        match self.wait(Wants::Records, most).await? {
            None => Ok(None),
            Some(Given::Batch(batch)) => Ok(Some(batch)),
            Some(Given::Error(error)) => Err(error),
            Some(Given::Event(_)) => unreachable!("events were not asked for"),
        }
    }

    /// All that comes, as a stream of batches, until the consumer is closed.
    pub fn batches(&self) -> impl Stream<Item = Result<ConsumedBatch, ConsumerError>> + Send + '_ {
        stream::unfold(self, |consumer| async move {
            Some((consumer.next_batch().await.transpose()?, consumer))
        })
    }

    /// The same as a stream of records. Each is processed when the next one is asked for.
    pub fn records(&self) -> impl Stream<Item = Result<ConsumedRecord, ConsumerError>> + Send + '_ {
        stream::unfold(self, |consumer| async move {
            Some((consumer.next_record().await.transpose()?, consumer))
        })
    }

    async fn wait(&self, wants: Wants, most: usize) -> Result<Option<Given>, ConsumerError> {
        let shown = self.shared.shelf.lock().asked();
        self.give_back(shown);
        let _present = Present::new(&self.shared);
        let mut lease = self.shared.lease.subscribe();
        loop {
            let may = self.shared.may_hand_out();
            let (given, back) = self.shared.shelf.lock().give(wants, most, may);
            self.give_back(back);
            if let Some(given) = given {
                return Ok(Some(given));
            }
            if *self.shared.closed.borrow() {
                return Ok(None);
            }
            tokio::select! {
                () = self.shared.news.notified() => {}
                changed = lease.changed() => {
                    changed.map_err(|_| ConsumerError::Closed)?;
                }
            }
        }
    }

    fn give_back(&self, held: Vec<super::shelf::Held>) {
        if !held.is_empty() {
            self.shared.give_back(held);
        }
    }

    /// Commits everything that was handed out, and returns when that is done.
    ///
    /// # Errors
    /// `NotAssigned` for what is not this consumer's any more; `Commit`.
    pub async fn commit(&self) -> Result<(), ConsumerError> {
        self.commit_later().await
    }

    /// The same, begun now: the future that is returned tells how it went, and may be
    /// dropped. Commits are carried out in the order in which they were begun.
    pub fn commit_later(&self) -> impl Future<Output = Result<(), ConsumerError>> + Send + 'static {
        let progress = self.shared.shelf.lock().handed_out();
        self.begin_commit(progress)
    }

    /// Commits these offsets: of each partition that of the next record to be processed.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub async fn commit_offsets(
        &self,
        offsets: impl IntoIterator<Item = (TopicPartition, u64)>,
    ) -> Result<(), ConsumerError> {
        let (mut progress, mut unknown) = (Vec::new(), Vec::new());
        {
            let shelf = self.shared.shelf.lock();
            for (partition, offset) in offsets {
                match shelf.find(&partition) {
                    Some(held) => progress.push(Progress { held, offset }),
                    None => unknown.push(partition),
                }
            }
        }
        if !unknown.is_empty() {
            return Err(ConsumerError::NotAssigned(unknown));
        }
        self.begin_commit(progress).await
    }

    fn begin_commit(
        &self,
        progress: Vec<Progress>,
    ) -> impl Future<Output = Outcome> + Send + 'static {
        let has_group = self.shared.group.is_some();
        self.shared.shelf.lock().process(&progress);
        let (reply, outcome) = oneshot::channel();
        let commits = self.shared.commits.clone();
        let asked = Asked::Commit(progress, reply);
        // In the order of the calls, as long as there is room; else when there is.
        let late = commits.try_send(asked).err().map(mpsc::error::TrySendError::into_inner);
        async move {
            if !has_group {
                let what = "a consumer without a group has nowhere to commit to";
                return Err(ConsumerError::Invalid(what.to_owned()));
            }
            if let Some(asked) = late {
                commits.send(asked).await.map_err(|_| ConsumerError::Closed)?;
            }
            outcome.await.map_err(|_| ConsumerError::Closed)?
        }
    }

    /// Commits what is processed (unless only the application commits), gives everything
    /// back and leaves the group; a static member keeps its partitions for a session.
    ///
    /// The records handed out last count as processed only if more were asked for, or
    /// [`commit`](Self::commit) was called.
    ///
    /// # Errors
    /// Such as offsets that could not be committed in time.
    pub async fn close(self) -> Result<(), ConsumerError> {
        let closing = async {
            let automatic = self.shared.options.auto_commit.is_some();
            if self.shared.group.is_some() && automatic {
                let progress = self.shared.shelf.lock().processed();
                self.begin_commit(progress).await?;
            }
            let member = self.member.lock().take();
            if let Some(member) = member {
                // Fails when the member has ended already.
                let _ = self.shared.commands.send(Command::Leave).await;
                let _ = member.await;
            }
            Ok(())
        };
        timeout(CLOSE_PATIENCE, closing).await.unwrap_or(Err(ConsumerError::Closed))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.closed.send_replace(true);
        self.shared.news.notify_one();
        // It leaves by itself; full or closed, its session ends.
        let _ = self.shared.commands.try_send(Command::Leave);
        if self.member.lock().is_none() {
            self.committer.abort();
            let held = self.shared.shelf.lock().held();
            self.shared.remove(&held);
        }
    }
}

/// The application is asking for records.
struct Present<'a>(&'a Shared);

impl<'a> Present<'a> {
    fn new(shared: &'a Shared) -> Self {
        let mut presence = shared.presence.lock();
        presence.waiting += 1;
        if std::mem::replace(&mut presence.absent, false) {
            // Full: it is said with the next call.
            presence.absent = shared.commands.try_send(Command::Present).is_err();
        }
        drop(presence);
        Self(shared)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        let mut presence = self.0.presence.lock();
        presence.waiting -= 1;
        presence.last = Instant::now();
    }
}

/// A name for a member that nobody else has.
fn member_id() -> String {
    RequestId::random().0.to_string()
}
