//! The client itself: whom to ask, and asking again. Producer, consumer and
//! administration are built on it.

use crate::backoff::{Backoff, Deadline};
use crate::channel::{ChannelPool, Connection};
use crate::leader::{LeaderSearch, Unknown};
use crate::metadata::{MetadataCache, TopicShape};
use crate::watch::Watcher;
use crate::{Admin, ClientError, HostPort};
use ottla_host::{Network, Tcp};
use ottla_proto::v1::ErrorReason;
use ottla_proto::{ApiError, v1};
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tonic::{Code, Request, Status};

/// Longest wait for a node's answer to a question any other node could answer
/// as well. Past it, the next one is asked.
pub(crate) const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// Time by which a client gives up before the node would: the node's own, more
/// telling error should arrive first.
pub(crate) const ANSWER_GRACE: Duration = Duration::from_millis(500);

/// Settings of a [`Client`].
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Longest time for one connection to be made, name lookup included.
    pub connect_timeout: Duration,
    /// Longest time for [`Client::connect`] to find one node that answers.
    pub bootstrap_timeout: Duration,
    /// Longest time for one call of administration or of reading, with all its
    /// attempts. Writes have their own, see `ProducerOptions`.
    pub request_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            bootstrap_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// A connection to a cluster. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: ClientOptions,
    bootstrap: Vec<HostPort>,
    pool: ChannelPool,
    metadata: MetadataCache,
    /// The node that answered last: the one most likely to answer next.
    preferred: Mutex<Option<HostPort>>,
    /// Held while asking for metadata, so that many tasks that lose the same
    /// leader ask once.
    refreshing: tokio::sync::Mutex<()>,
    watcher: Watcher,
}

impl Client {
    /// Connects to a cluster by any of its nodes. Every address is tried until
    /// one answers.
    ///
    /// # Errors
    /// [`ClientError::DeadlineExceeded`] with the last failure when none did
    /// within `options.bootstrap_timeout`.
    pub async fn connect(
        bootstrap: &[HostPort],
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        Self::connect_over(Arc::new(Tcp), bootstrap, options).await
    }

    /// As [`connect`](Self::connect), over another network than the operating system's.
    ///
    /// # Errors
    /// As `connect`.
    pub async fn connect_over(
        network: Arc<dyn Network>,
        bootstrap: &[HostPort],
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        if bootstrap.is_empty() {
            return Err(ClientError::InvalidArgument("no bootstrap address given".to_owned()));
        }
        let deadline = Deadline::after(options.bootstrap_timeout);
        let client = Self {
            shared: Arc::new(Shared {
                pool: ChannelPool::new(network, options.connect_timeout),
                options,
                bootstrap: bootstrap.to_vec(),
                metadata: MetadataCache::new(),
                preferred: Mutex::default(),
                refreshing: tokio::sync::Mutex::default(),
                watcher: Watcher::default(),
            }),
        };
        client.refresh_metadata(None, deadline).await?;
        Ok(client)
    }

    /// Topics and the cluster itself.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// The settings this client was made with.
    #[must_use]
    pub fn options(&self) -> &ClientOptions {
        &self.shared.options
    }

    pub(crate) fn pool(&self) -> &ChannelPool {
        &self.shared.pool
    }

    pub(crate) fn metadata(&self) -> &MetadataCache {
        &self.shared.metadata
    }

    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.shared.options.request_timeout)
    }

    /// The number of partitions of a topic.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC, or the cluster cannot be reached.
    pub async fn partitions(&self, topic: &str) -> Result<u32, ClientError> {
        Ok(self.topic_shape(topic).await?.partitions)
    }

    /// Waits until a topic has more partitions than so many, and returns how many
    /// it has then. For ever, if it never grows.
    pub async fn more_partitions(&self, topic: &str, than: u32) -> u32 {
        self.follow(topic);
        let mut news = self.metadata().version();
        let count = || self.metadata().topic(topic).map_or(0, |shape| shape.partitions);
        news.wait_for(|_| count() > than).await.expect("the sender lives as long as the cache");
        count()
    }

    /// Has a topic's leaders told by the cluster as they change, from now on.
    pub(crate) fn follow(&self, topic: &str) {
        self.shared.watcher.follow(self, topic);
    }

    pub(crate) fn downgrade(&self) -> WeakClient {
        WeakClient(Arc::downgrade(&self.shared))
    }

    pub(crate) async fn topic_shape(&self, topic: &str) -> Result<TopicShape, ClientError> {
        let deadline = self.deadline();
        let mut unknown = Unknown::default();
        let mut backoff = Backoff::default();
        loop {
            self.refresh_metadata(Some(topic), deadline).await?;
            if let Some(shape) = self.metadata().topic(topic) {
                return Ok(shape);
            }
            unknown.check(&unknown_topic(topic), deadline)?;
            deadline.sleep(backoff.next()).await;
        }
    }

    /// Asks any node for the cluster's metadata: its nodes and, if given, one
    /// topic. Returns without asking if somebody else did while this waited.
    pub(crate) async fn refresh_metadata(
        &self,
        topic: Option<&str>,
        deadline: Deadline,
    ) -> Result<(), ClientError> {
        let seen = self.metadata().current_version();
        let _only_one = self.shared.refreshing.lock().await;
        let learnt_meanwhile = self.metadata().current_version() != seen;
        if learnt_meanwhile && topic.is_none_or(|topic| self.metadata().topic(topic).is_some()) {
            return Ok(());
        }
        // Without a topic's name the answer would hold every topic there is.
        let topics = vec![topic.unwrap_or_default().to_owned()];
        let asked = topics.clone();
        self.ask_any(
            "finding a node that answers",
            deadline,
            Asked::ToTell,
            move |connection, timeout| {
                let (client, asked) = (self.clone(), asked.clone());
                async move {
                    let request = v1::GetMetadataRequest { topics: asked.clone() };
                    let call = with_timeout(request, timeout);
                    let answer = connection.metadata().get_metadata(call).await?.into_inner();
                    let header = answer.header.unwrap_or_default();
                    let metadata = answer.metadata.unwrap_or_default();
                    Ok(client.metadata().learn(connection.endpoint(), &header, metadata, &asked))
                }
            },
        )
        .await
    }

    /// One call that any node can answer, tried on one after another until the
    /// deadline. An answer that the caller finds wanting counts as an error.
    pub(crate) async fn ask_any<T, F, C>(
        &self,
        what: &str,
        deadline: Deadline,
        asked: Asked,
        call: C,
    ) -> Result<T, ClientError>
    where
        C: Fn(Connection, Duration) -> F,
        F: Future<Output = Result<Result<T, ClientError>, Status>>,
    {
        let mut backoff = Backoff::default();
        let mut last = None;
        let mut in_doubt = false;
        loop {
            for endpoint in self.endpoints() {
                let patience = deadline.remaining().min(QUESTION_TIMEOUT);
                if patience.is_zero() {
                    break;
                }
                let attempt = self.attempt(&endpoint, patience, |c| call(c, patience)).await;
                let error = match attempt.flatten() {
                    Ok(answer) => {
                        *self.shared.preferred.lock() = Some(endpoint);
                        return Ok(answer);
                    }
                    Err(error) => error,
                };
                if error.is_unknown() || !error.is_retriable() {
                    return Err(error);
                }
                in_doubt |= asked == Asked::ToChange && error.is_indefinite();
                tracing::debug!(%endpoint, %error, what, "trying the next node");
                // What a node said tells more than that another is silent.
                if last.is_none() || error.api().is_some() {
                    last = Some(error);
                }
            }
            if deadline.is_over() {
                return Err(timed_out(what, deadline, in_doubt, last));
            }
            deadline.sleep(backoff.next()).await;
        }
    }

    /// One call to the leader of a partition, following it until the deadline.
    /// For calls that change nothing.
    pub(crate) async fn ask_leader<T, F, C>(
        &self,
        what: &str,
        topic: &str,
        partition: u32,
        deadline: Deadline,
        call: C,
    ) -> Result<T, ClientError>
    where
        C: Fn(Connection, Duration) -> F,
        F: Future<Output = Result<T, Status>>,
    {
        let mut search = LeaderSearch::new(self, topic, partition, deadline);
        let mut last = None;
        loop {
            let leader = match search.find().await {
                Ok(leader) => leader,
                Err(error) => return Err(search.conclude(what, error, last)),
            };
            let patience = deadline.remaining();
            let answer = self.attempt(&leader.endpoint, patience, |c| call(c, patience));
            match self.while_leading(topic, partition, &leader, answer).await {
                Ok(answer) => return Ok(answer),
                Err(error) if !error.is_retriable() => return Err(error),
                Err(error) => {
                    if let Err(error) = search.failed(&error).await {
                        return Err(search.conclude(what, error, last));
                    }
                    last = Some(error);
                }
            }
        }
    }

    /// One attempt at one endpoint.
    pub(crate) async fn attempt<T, F>(
        &self,
        endpoint: &HostPort,
        patience: Duration,
        call: impl FnOnce(Connection) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let connection = self.pool().get(endpoint).await?;
        let patience = patience + ANSWER_GRACE;
        let error = match tokio::time::timeout(patience, call(connection.clone())).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(status)) => match ClientError::from_status(&status, endpoint) {
                // The transport keeps the time too.
                ClientError::Disconnected { .. } if is_timeout(&status) => {
                    ClientError::NoAnswer { endpoint: endpoint.clone(), waited: patience }
                }
                error => error,
            },
            Err(_) => ClientError::NoAnswer { endpoint: endpoint.clone(), waited: patience },
        };
        if error.is_transport() {
            self.pool().discard(&connection).await;
        }
        Err(error)
    }

    /// Whom to ask, best first: who answered last, then every known node, then
    /// the bootstrap addresses.
    pub(crate) fn endpoints(&self) -> Vec<HostPort> {
        let mut all = Vec::new();
        let preferred = self.shared.preferred.lock().clone();
        let known = self.metadata().nodes();
        for endpoint in preferred.into_iter().chain(known).chain(self.shared.bootstrap.clone()) {
            if !all.contains(&endpoint) {
                all.push(endpoint);
            }
        }
        all
    }
}

/// A client that does not keep itself alive.
pub(crate) struct WeakClient(Weak<Shared>);

impl WeakClient {
    pub(crate) fn upgrade(&self) -> Option<Client> {
        self.0.upgrade().map(|shared| Client { shared })
    }
}

/// What a call is for. Either kind may be sent again when its outcome is not
/// known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Changes nothing.
    ToTell,
    /// Changes something, once, however often it is sent: it has a request id, or
    /// is found to be done already.
    ToChange,
}

/// What stood in the way: that time is over says nothing.
pub(crate) fn obstacle(error: ClientError, last: Option<ClientError>) -> ClientError {
    match error {
        ClientError::DeadlineExceeded { last: Some(inner), .. } => *inner,
        ClientError::DeadlineExceeded { last: None, .. } => last.unwrap_or(error),
        error => error,
    }
}

pub(crate) fn unknown_topic(topic: &str) -> ClientError {
    ApiError::new(ErrorReason::UnknownTopic, format!("there is no topic {topic:?}")).into()
}

pub(crate) fn timed_out(
    what: &str,
    deadline: Deadline,
    indefinite: bool,
    last: Option<ClientError>,
) -> ClientError {
    ClientError::DeadlineExceeded {
        what: what.to_owned(),
        within: deadline.within(),
        indefinite,
        last: last.map(Box::new),
    }
}

/// A request that tells the node how long its answer is waited for.
pub(crate) fn with_timeout<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

fn is_timeout(status: &Status) -> bool {
    matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded)
}
