//! Reading one partition from an offset on, in order, nothing twice, nothing
//! left out, wherever its leader goes.
//!
//! Not its job: sharing partitions among consumers.

use super::batch::{Answer, Credit, ReadBatch};
use super::credit::{self, ConsumeStream};
use super::start::StartPosition;
use crate::backoff::{Backoff, Deadline};
use crate::channel::Connection;
use crate::client::{timed_out, with_timeout};
use crate::leader::{FoundLeader, LeaderSearch};
use crate::{Client, ClientError};
use futures::stream::{self, Stream, TryStreamExt};
use ottla_commitlog::format::Record;
use ottla_proto::{TopicId, v1};
use std::time::Duration;
use tokio::time::Instant;
use v1::fetch_response::Payload;

/// A stream that lasted this long was a good one: what ends it is new trouble
/// and gets the whole recovery time.
const STABLE_AFTER: Duration = Duration::from_secs(5);

/// How long a leader is read from before a follower in the reader's rack is tried
/// again: what went wrong with it should be over, and a reader that changes places so
/// seldom does not notice.
const FOLLOWER_AGAIN: Duration = Duration::from_secs(30);

/// Settings of a [`PartitionReader`].
#[derive(Clone, Debug)]
pub struct ReaderOptions {
    /// Records the node may send ahead of the caller.
    pub window_records: u64,
    /// Bytes the node may send ahead of the caller. A batch larger than this
    /// is still sent, alone.
    pub window_bytes: u64,
    /// How long to look for a leader that answers, from the loss of the last
    /// one, before giving up.
    pub recovery_timeout: Duration,
    /// The failure domain the reader is in, if it would rather read from an in-sync
    /// follower there than from a leader elsewhere. It sees the same records, perhaps
    /// a moment later.
    pub rack: Option<String>,
    /// The topic that is meant: of another that was created under its name nothing is
    /// read. By default the one that has the name when reading begins.
    pub topic_id: Option<TopicId>,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self {
            window_records: 64 * 1024,
            window_bytes: 4 * 1024 * 1024,
            recovery_timeout: Duration::from_secs(30),
            rack: None,
            topic_id: None,
        }
    }
}

/// Reads one partition.
pub struct PartitionReader {
    client: Client,
    topic: String,
    partition: u32,
    options: ReaderOptions,
    /// The next offset to be handed out.
    position: u64,
    until: Option<u64>,
    stream: Option<ConsumeStream>,
    /// Since the last good stream ended.
    trouble: Option<Trouble>,
    /// When a follower was last read from in vain.
    follower_failed: Option<Instant>,
    /// A stream was a good one: that topic is there, or was.
    has_begun: bool,
    /// What was handed out with [`Self::next_kept`] and not given back.
    kept: Credit,
}

impl PartitionReader {
    /// A reader from `start` on.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC, UNKNOWN_PARTITION, or no leader answered in time.
    pub async fn open(
        client: &Client,
        topic: &str,
        partition: u32,
        start: StartPosition,
        mut options: ReaderOptions,
    ) -> Result<Self, ClientError> {
        if options.topic_id.is_none() {
            options.topic_id = client.topic_shape(topic).await?.id;
        }
        let position = client.offset_of(topic, partition, start).await?;
        client.follow(topic);
        Ok(Self {
            client: client.clone(),
            topic: topic.to_owned(),
            partition,
            options,
            position,
            until: None,
            stream: None,
            trouble: None,
            follower_failed: None,
            has_begun: false,
            kept: Credit::default(),
        })
    }

    /// Ends before this offset.
    #[must_use]
    pub fn read_until(mut self, offset: u64) -> Self {
        self.until = Some(offset);
        self
    }

    /// The topic that is read.
    #[must_use]
    pub fn topic_id(&self) -> Option<TopicId> {
        self.options.topic_id
    }

    /// Whether a node has let it read, be it nothing but the end.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// The next offset to be read.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next records, waiting for them. `None` when the end set by
    /// [`Self::read_until`] is reached. A lost leader is followed in here.
    ///
    /// # Errors
    /// Such as OFFSET_OUT_OF_RANGE, or no leader could be reached for
    /// `recovery_timeout`. The position is kept: calling again goes on.
    pub async fn next_batch(&mut self) -> Result<Option<ReadBatch>, ClientError> {
        Ok(self.next_kept().await?.map(|(batch, credit)| {
            self.give_back(credit);
            batch
        }))
    }

    /// As [`Self::next_batch`], but what the records take of the window stays taken until
    /// it is [given back](Self::give_back). May be dropped and called again.
    pub(super) async fn next_kept(&mut self) -> Result<Option<(ReadBatch, Credit)>, ClientError> {
        loop {
            if self.until.is_some_and(|until| self.position >= until) {
                self.stream = None;
                return Ok(None);
            }
            if self.stream.as_ref().is_some_and(|stream| self.should_be_nearer(stream)) {
                self.stream = None;
            }
            if self.stream.is_none() {
                self.recover(None).await?;
            }
            let Some(stream) = &mut self.stream else { continue };
            let leader = stream.leader().clone();
            let answer =
                self.client.while_leading(&self.topic, self.partition, &leader, stream.next());
            let answer = match answer.await {
                Ok(answer) => answer,
                Err(error) => {
                    self.recover(Some(error)).await?;
                    continue;
                }
            };
            let (batch, credit) = answer.read(self.partition, self.position, self.until)?;
            stream.received(credit);
            self.kept.add(credit);
            self.position = batch.next_offset;
            if !batch.records.is_empty() {
                return Ok(Some((batch, credit)));
            }
            self.give_back(credit);
        }
    }

    /// Lets the node send as much more.
    pub(super) fn give_back(&mut self, credit: Credit) {
        self.kept.subtract(credit);
        self.grant();
    }

    /// Lets the node send ahead so much from now on.
    pub(super) fn set_window(&mut self, window: Credit) {
        self.options.window_records = window.records;
        self.options.window_bytes = window.bytes;
        self.grant();
    }

    fn window(&self) -> Credit {
        Credit { records: self.options.window_records, bytes: self.options.window_bytes }
    }

    fn grant(&mut self) {
        let (window, kept) = (self.window(), self.kept);
        if let Some(stream) = &mut self.stream {
            stream.grant(window, kept);
        }
    }

    /// The partition as a stream of batches, ending with the first error.
    pub fn into_batches(self) -> impl Stream<Item = Result<ReadBatch, ClientError>> + Send {
        stream::try_unfold(self, |mut reader| async move {
            Ok(reader.next_batch().await?.map(|batch| (batch, reader)))
        })
    }

    /// The partition as a stream of records, ending with the first error.
    pub fn into_records(self) -> impl Stream<Item = Result<Record, ClientError>> + Send {
        self.into_batches()
            .map_ok(|batch| stream::iter(batch.records.into_iter().map(Ok)))
            .try_flatten()
    }

    /// Opens a stream at the current position, after `lost` if there was one.
    async fn recover(&mut self, mut lost: Option<ClientError>) -> Result<(), ClientError> {
        if let Some(stream) = self.stream.take() {
            if stream.delivered || stream.age() >= STABLE_AFTER {
                self.trouble = None;
                self.has_begun = true;
            }
            if stream.from_follower && lost.is_some() {
                self.follower_failed = Some(Instant::now());
            }
            if lost.as_ref().is_some_and(ClientError::is_transport) {
                self.client.pool().discard(stream.connection()).await;
            }
        }
        if lost.as_ref().is_none_or(ClientError::is_retriable)
            && let Some(follower) = self.follower()
        {
            let start = self.start(true);
            match self.open_stream(follower, start).await {
                Ok(stream) => {
                    self.stream = Some(stream);
                    return Ok(());
                }
                Err(error) => {
                    self.follower_failed = Some(Instant::now());
                    lost = Some(error);
                }
            }
        }
        let mut trouble = self.trouble.take().unwrap_or_else(Trouble::new);
        let deadline = Deadline::at(trouble.since, self.options.recovery_timeout);
        let mut search = LeaderSearch::new(&self.client, &self.topic, self.partition, deadline)
            .with_backoff(std::mem::take(&mut trouble.backoff));
        let stream = self.reopen(&mut search, lost, deadline).await?;
        trouble.backoff = search.into_backoff();
        self.stream = Some(stream);
        self.trouble = Some(trouble);
        Ok(())
    }

    async fn reopen(
        &self,
        search: &mut LeaderSearch<'_>,
        mut last: Option<ClientError>,
        deadline: Deadline,
    ) -> Result<ConsumeStream, ClientError> {
        let what = format!("reading {}-{}", self.topic, self.partition);
        loop {
            if let Some(error) = &last {
                if !error.is_retriable() {
                    return Err(error.clone());
                }
                let (topic, partition, position) = (&self.topic, self.partition, self.position);
                tracing::debug!(topic, partition, position, %error, "trying again");
                if let Err(unknown) = search.failed(error).await {
                    return Err(search.conclude(&what, unknown, last));
                }
                if deadline.is_over() {
                    return Err(timed_out(&what, deadline, false, last));
                }
            }
            let leader = match search.find().await {
                Ok(leader) => leader,
                Err(error) => return Err(search.conclude(&what, error, last)),
            };
            let start = self.start(false);
            match self.open_stream(leader, start).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
    }

    async fn open_stream(
        &self,
        from: FoundLeader,
        start: v1::ConsumeStart,
    ) -> Result<ConsumeStream, ClientError> {
        ConsumeStream::open(&self.client, from, start, self.window(), self.kept).await
    }

    fn start(&self, allow_follower: bool) -> v1::ConsumeStart {
        v1::ConsumeStart {
            topic: self.topic.clone(),
            partition: self.partition,
            offset: self.position,
            format: v1::PayloadFormat::RecordBatches.into(),
            allow_follower,
            topic_id: self.options.topic_id.map(|id| id.to_wire().into()).unwrap_or_default(),
        }
    }

    /// The follower to read from, if there is one in this reader's rack and it did not
    /// fail a moment ago.
    fn follower(&self) -> Option<FoundLeader> {
        if self.follower_failed.is_some_and(|at| at.elapsed() < FOLLOWER_AGAIN) {
            return None;
        }
        let rack = self.options.rack.as_deref()?;
        self.client.metadata().follower_in(rack, &self.topic, self.partition)
    }

    /// Whether to leave the leader for a follower that is there by now.
    fn should_be_nearer(&self, stream: &ConsumeStream) -> bool {
        !stream.from_follower && stream.age() >= FOLLOWER_AGAIN && self.follower().is_some()
    }
}

/// The time since the last good stream.
struct Trouble {
    since: Instant,
    backoff: Backoff,
}

impl Trouble {
    fn new() -> Self {
        Self { since: Instant::now(), backoff: Backoff::default() }
    }
}

impl Client {
    /// Reads once: committed records from `offset` on, about `max_bytes` of
    /// them, waiting up to `max_wait` for the first.
    ///
    /// # Errors
    /// Such as OFFSET_OUT_OF_RANGE.
    pub async fn fetch(
        &self,
        topic: &str,
        partition: u32,
        offset: u64,
        max_bytes: u32,
        max_wait: Duration,
    ) -> Result<ReadBatch, ClientError> {
        let request = v1::FetchRequest {
            topic: topic.to_owned(),
            partition,
            offset,
            max_bytes,
            max_wait_ms: u32::try_from(max_wait.as_millis()).unwrap_or(u32::MAX),
            format: v1::PayloadFormat::RecordBatches.into(),
            allow_follower: false,
            ..Default::default()
        };
        let what = format!("fetching from {topic}-{partition}");
        let deadline = Deadline::after(max_wait + self.options().request_timeout);
        let call = |connection: Connection, timeout: Duration| {
            let request = with_timeout(request.clone(), timeout);
            async move { connection.log().fetch(request).await }
        };
        let answer = self.ask_leader(&what, topic, partition, deadline, call).await?.into_inner();
        let batches = match answer.payload {
            None => bytes::Bytes::new(),
            Some(Payload::RecordBatches(batches)) => batches,
            Some(Payload::Records(_)) => return Err(credit::decoded_records()),
        };
        let answer = Answer {
            batches,
            next_offset: answer.next_offset,
            high_watermark: answer.high_watermark,
            log_start_offset: answer.log_start_offset,
        };
        Ok(answer.read(partition, offset, None)?.0)
    }
}
