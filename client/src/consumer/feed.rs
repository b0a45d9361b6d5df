//! The task that reads one partition onto the shelf, as far as its window goes.
//!
//! It does not give up: what stands in the way is told, and tried again.

use super::batch::{Credit, ReadBatch};
use super::reader::{PartitionReader, ReaderOptions};
use super::shared::{Begin, Shared};
use super::shelf::Held;
use super::slot::Credits;
use super::types::{ConsumerError, ConsumerEvent, OffsetReset, TopicPartition};
use crate::backoff::Backoff;
use crate::{Client, ClientError, StartPosition};
use ottla_proto::TopicId;
use ottla_proto::v1::ErrorReason as R;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// How long a partition that does not exist is left alone, in a group: the coordinator
/// will take it away, or knows better.
const GONE_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Feed {
    pub(super) shared: Weak<Shared>,
    pub(super) client: Client,
    pub(super) held: Held,
    pub(super) number: u64,
    /// The topic that is meant, once that is known.
    pub(super) topic_id: Option<TopicId>,
    pub(super) credits: Arc<Credits>,
    pub(super) window: watch::Receiver<Credit>,
}

/// What to do after an error.
enum After {
    Again(StartPosition),
    End,
}

impl Feed {
    /// Until it is not wanted any more.
    pub(super) async fn run(mut self, origin: StartPosition) {
        // Whoever said which topic is meant knew. What this task finds out a node may have
        // told that has not heard of a later one.
        let mut has_begun = self.topic_id.is_some();
        let mut at = origin;
        let mut backoff = Backoff::default();
        loop {
            let (error, read_something) = match self.open(at).await {
                Ok(mut reader) => {
                    let (error, read_something) = self.read(&mut reader).await;
                    let Some(error) = error else { return };
                    has_begun |= reader.has_begun();
                    at = StartPosition::Offset(reader.position());
                    (error, read_something)
                }
                Err(error) => (error, false),
            };
            if read_something {
                backoff = Backoff::default();
            }
            let after = match error.is_unknown() {
                true if has_begun => self.unknown(at, None, error).await,
                true => self.unknown(at, Some(origin), error).await,
                false => self.after(at, error).await,
            };
            match after {
                After::Again(from) => at = from,
                After::End => return,
            }
            sleep(backoff.next()).await;
        }
    }

    async fn open(&mut self, at: StartPosition) -> Result<PartitionReader, ClientError> {
        let TopicPartition { topic, partition } = &self.held.partition;
        let window = *self.window.borrow();
        let Some(shared) = self.shared.upgrade() else { return Err(ClientError::Closed) };
        let options = ReaderOptions {
            window_records: window.records,
            window_bytes: window.bytes,
            rack: shared.options.rack.clone(),
            topic_id: self.topic_id,
            ..ReaderOptions::default()
        };
        drop(shared);
        let reader = PartitionReader::open(&self.client, topic, *partition, at, options).await?;
        self.topic_id = reader.topic_id();
        if !matches!(at, StartPosition::Offset(_)) {
            self.begun(at, reader.position()).await;
        }
        if let (Some(shared), Some(topic)) = (self.shared.upgrade(), self.topic_id) {
            shared.shelf.lock().is_of(&self.held, self.number, topic);
        }
        Ok(reader)
    }

    /// Where reading begins is known now. Where a group begins behind what there is, it is
    /// to go on there whoever reads.
    async fn begun(&self, at: StartPosition, position: u64) {
        let Some(shared) = self.shared.upgrade() else { return };
        let is_wanted = shared.shelf.lock().begins_at(&self.held, self.number, position);
        if is_wanted && at != StartPosition::Start && shared.group.is_some() {
            // A queue of commits that is full has some that come later, and have it, too.
            let _ = shared.commits.try_send(super::commits::Asked::Now);
        }
    }

    /// Reads until something fails, or (`None`) nobody wants it any more.
    async fn read(&mut self, reader: &mut PartitionReader) -> (Option<ClientError>, bool) {
        let mut read_something = false;
        loop {
            tokio::select! {
                biased;
                credit = self.credits.take() => reader.give_back(credit),
                changed = self.window.changed() => {
                    if changed.is_err() {
                        return (None, read_something);
                    }
                    reader.set_window(*self.window.borrow_and_update());
                }
                read = reader.next_kept() => match read {
                    Ok(Some((batch, credit))) => {
                        read_something = true;
                        if !self.put(batch, credit) {
                            return (None, true);
                        }
                    }
                    Ok(None) => return (None, read_something),
                    Err(error) => return (Some(error), read_something),
                }
            }
        }
    }

    fn put(&self, batch: ReadBatch, credit: Credit) -> bool {
        let Some(shared) = self.shared.upgrade() else { return false };
        let is_wanted = shared.shelf.lock().put(&self.held, self.number, batch, credit);
        shared.news.notify_one();
        is_wanted
    }

    async fn after(&self, at: StartPosition, error: ClientError) -> After {
        let Some(shared) = self.shared.upgrade() else { return After::End };
        let partition = self.held.partition.clone();
        tracing::debug!(%partition, %error, "not read");
        if let (Some(R::OffsetOutOfRange), StartPosition::Offset(from)) = (error.reason(), at) {
            return self.reset(&shared, from, error).await;
        }
        if error.is_retriable() || matches!(error, ClientError::DeadlineExceeded { .. }) {
            shared.tell(|shelf| shelf.event(ConsumerEvent::Delayed { partition, error }));
            return After::Again(at);
        }
        shared.tell(|shelf| shelf.error(ConsumerError::Partition { partition, error }));
        After::Again(at)
    }

    /// Nobody who was asked knows the partition. A member's coordinator knows better, or will
    /// take it away. A reader that is alone asks a node whose metadata is current, and begins
    /// at its `origin` if it has not begun, and meant a topic that had the name before.
    async fn unknown(
        &mut self,
        at: StartPosition,
        origin: Option<StartPosition>,
        error: ClientError,
    ) -> After {
        let Some(shared) = self.shared.upgrade() else { return After::End };
        let partition = self.held.partition.clone();
        tracing::debug!(%partition, %error, "unknown");
        if shared.lease.borrow().is_some() {
            shared.tell(|shelf| shelf.event(ConsumerEvent::Gone(partition)));
            drop(shared);
            sleep(GONE_AGAIN).await;
            return After::Again(at);
        }
        drop(shared);
        let found = self.client.certain_id(&partition.topic, partition.partition).await;
        let Some(shared) = self.shared.upgrade() else { return After::End };
        let delayed = match (found, origin) {
            (Ok(Some(id)), _) if self.topic_id.is_none_or(|meant| meant == id.topic) => error,
            (Ok(Some(id)), Some(origin)) => {
                self.topic_id = Some(id.topic);
                return After::Again(origin);
            }
            (Ok(_), _) => {
                shared.tell(|shelf| shelf.event(ConsumerEvent::Gone(partition)));
                shared.remove(std::slice::from_ref(&self.held));
                return After::End;
            }
            (Err(error), _) => error,
        };
        shared.tell(|shelf| shelf.event(ConsumerEvent::Delayed { partition, error: delayed }));
        After::Again(at)
    }

    async fn reset(&self, shared: &Arc<Shared>, from: u64, error: ClientError) -> After {
        let partition = self.held.partition.clone();
        let to = match shared.options.reset {
            OffsetReset::Earliest => StartPosition::Start,
            OffsetReset::Latest => StartPosition::End,
            OffsetReset::Fail => {
                let error = ConsumerError::OutOfRange { partition, offset: from, error };
                shared.tell(|shelf| shelf.error(error));
                return After::End;
            }
        };
        match self.client.offset_of(&partition.topic, partition.partition, to).await {
            Ok(offset) => {
                let event = ConsumerEvent::Reset { partition, from, to: offset };
                shared.tell(|shelf| {
                    shelf.begins_at(&self.held, self.number, offset);
                    shelf.event(event);
                });
                After::Again(StartPosition::Offset(offset))
            }
            Err(error) => {
                shared.tell(|shelf| shelf.event(ConsumerEvent::Delayed { partition, error }));
                After::Again(StartPosition::Offset(from))
            }
        }
    }
}

/// Where a partition begins for which nothing was committed; `None`: nowhere. All that is
/// in one that has appeared came after the group had begun (K-20539).
pub(super) fn without_commit(reset: OffsetReset, has_appeared: bool) -> Option<Begin> {
    let at = match reset {
        OffsetReset::Earliest => StartPosition::Start,
        OffsetReset::Latest if has_appeared => StartPosition::Start,
        OffsetReset::Latest => StartPosition::End,
        OffsetReset::Fail => return None,
    };
    Some(Begin { at, committed: None })
}
