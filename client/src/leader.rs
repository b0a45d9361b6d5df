//! Finding a partition's leader, and finding it again: hints are followed at
//! once, news from the metadata watch too, and everything else after a pause.

use crate::backoff::{Backoff, Deadline};
use crate::client::{obstacle, timed_out, unknown_topic};
use crate::metadata::LeaderLookup;
use crate::{Client, ClientError, HostPort};
use ottla_proto::ApiError;
use ottla_proto::v1::ErrorReason;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Hints followed at once before a pause is made, so that two nodes that point
/// at each other are not asked in a tight circle.
const REDIRECTS_WITHOUT_PAUSE: u32 = 3;

/// How long an unknown topic is asked for again: it may have been created a
/// moment ago through another node.
const UNKNOWN_TOPIC_GRACE: Duration = Duration::from_secs(2);

/// How long a leader that was replaced may still take to answer what it was
/// asked before. One that handed over in good order needs less; one that hangs
/// never will.
const SUPERSEDED_GRACE: Duration = Duration::from_millis(250);

/// A partition's leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundLeader {
    pub(crate) endpoint: HostPort,
    pub(crate) epoch: u32,
}

/// Finds a partition's leader again and again, for one call or one batch.
pub(crate) struct LeaderSearch<'a> {
    client: &'a Client,
    topic: &'a str,
    partition: u32,
    deadline: Deadline,
    backoff: Backoff,
    redirects: u32,
    unknown: Unknown,
    /// Epoch of the last leader found.
    found: Option<u32>,
}

impl<'a> LeaderSearch<'a> {
    pub(crate) fn new(
        client: &'a Client,
        topic: &'a str,
        partition: u32,
        deadline: Deadline,
    ) -> Self {
        Self {
            client,
            topic,
            partition,
            deadline,
            backoff: Backoff::default(),
            redirects: 0,
            unknown: Unknown::default(),
            found: None,
        }
    }

    /// Goes on where an earlier search for the same leader stands.
    pub(crate) fn instead_of(self, earlier: Self) -> Self {
        Self { deadline: self.deadline, ..earlier }
    }

    pub(crate) fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Goes on with the waits of an earlier search.
    pub(crate) fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    pub(crate) fn into_backoff(self) -> Backoff {
        self.backoff
    }

    /// The leader, as soon as there is one.
    pub(crate) async fn find(&mut self) -> Result<FoundLeader, ClientError> {
        loop {
            let error = match self.client.metadata().leader(self.topic, self.partition) {
                LeaderLookup::Known(leader) => {
                    self.found = Some(leader.epoch);
                    return Ok(leader);
                }
                LeaderLookup::None => {
                    let message = format!("{}-{} has no leader", self.topic, self.partition);
                    ApiError::new(ErrorReason::LeaderNotAvailable, message).into()
                }
                LeaderLookup::UnknownTopic => {
                    let error = unknown_topic(self.topic);
                    self.unknown.check(&error, self.deadline)?;
                    error
                }
                LeaderLookup::UnknownPartition { partitions } => {
                    let error = unknown_partition(self.topic, self.partition, partitions);
                    self.unknown.check(&error, self.deadline)?;
                    error
                }
            };
            if self.deadline.is_over() {
                return Err(error);
            }
            // The cache knows nothing before its first question: ask that at once.
            if !self.unknown.take_first_look() && self.pause().await == News::Yes {
                continue;
            }
            match self.client.refresh_metadata(Some(self.topic), self.deadline).await {
                Err(ClientError::DeadlineExceeded { last: None, .. }) => return Err(error),
                refreshed => refreshed?,
            }
        }
    }

    /// Takes note of a retriable failure: follows its hint at once, or pauses
    /// and asks for metadata.
    pub(crate) async fn failed(&mut self, error: &ClientError) -> Result<(), ClientError> {
        if let Some(leader) = error.api().and_then(|api| api.leader.as_ref())
            && self.client.metadata().learn_leader(self.topic, self.partition, leader)
            && self.redirects < REDIRECTS_WITHOUT_PAUSE
        {
            self.redirects += 1;
            return Ok(());
        }
        self.redirects = 0;
        if error.is_unknown() {
            self.unknown.check(error, self.deadline)?;
        }
        if let Some(wait) = error.retry_after() {
            self.deadline.sleep(wait).await;
        }
        if self.pause().await == News::Yes {
            return Ok(());
        }
        // What this brings, `find` sees. That nobody answered in time, the caller notices.
        match self.client.refresh_metadata(Some(self.topic), self.deadline).await {
            Err(error) if !matches!(error, ClientError::DeadlineExceeded { .. }) => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits a while, or until another leader than the last one is known.
    async fn pause(&mut self) -> News {
        let wait = self.backoff.next();
        let metadata = self.client.metadata();
        tokio::select! {
            biased;
            () = metadata.leader_after(self.topic, self.partition, self.found) => News::Yes,
            () = self.deadline.sleep(wait) => News::No,
        }
    }

    /// The error to report when `find` or `failed` gave one.
    pub(crate) fn conclude(
        &self,
        what: &str,
        error: ClientError,
        last: Option<ClientError>,
    ) -> ClientError {
        if self.deadline.is_over() && !error.is_unknown() {
            return timed_out(what, self.deadline, false, Some(obstacle(error, last)));
        }
        error
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Yes,
    No,
}

impl Client {
    /// Waits for an answer from a leader, but not for ever once another leads.
    ///
    /// # Errors
    /// [`ClientError::Disconnected`] when it was replaced and keeps silent.
    pub(crate) async fn while_leading<T>(
        &self,
        topic: &str,
        partition: u32,
        leader: &FoundLeader,
        answer: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let superseded = async {
            self.metadata().leader_after(topic, partition, Some(leader.epoch)).await;
            sleep(SUPERSEDED_GRACE).await;
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            () = superseded => Err(ClientError::Disconnected {
                endpoint: leader.endpoint.clone(),
                message: format!(
                    "it does not answer, and no longer leads {topic}-{partition}"
                ),
            }),
        }
    }
}

fn unknown_partition(topic: &str, partition: u32, partitions: u32) -> ClientError {
    let message =
        format!("topic {topic} has {partitions} partitions, there is no partition {partition}");
    ApiError::new(ErrorReason::UnknownPartition, message).into()
}

/// Bounds how long something unknown is asked for again.
#[derive(Debug, Default)]
pub(crate) struct Unknown {
    since: Option<Instant>,
    looked: bool,
}

impl Unknown {
    /// Gives the error back once it has been seen for long enough.
    pub(crate) fn check(
        &mut self,
        error: &ClientError,
        deadline: Deadline,
    ) -> Result<(), ClientError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= UNKNOWN_TOPIC_GRACE || deadline.is_over() {
            return Err(error.clone());
        }
        Ok(())
    }

    /// True once, while something is unknown.
    fn take_first_look(&mut self) -> bool {
        self.since.is_some() && !std::mem::replace(&mut self.looked, true)
    }
}
