//! Keeps the metadata cache up to date by having nodes tell what changes, so
//! that a new leader is known as soon as it is elected.
//!
//! Not its job: being relied upon. Whoever needs a leader also asks.

use crate::backoff::Backoff;
use crate::client::{Client, QUESTION_TIMEOUT, WeakClient};
use crate::{ClientError, HostPort};
use ottla_proto::v1;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::Streaming;

/// Nodes listened to at the same time. One may hang, and it may be the very
/// node whose loss there is to tell about.
const LISTENERS: usize = 2;

/// The topics to be told about, and the tasks that listen, once there are any.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    topics: watch::Sender<BTreeSet<String>>,
    /// Ended when the client is dropped.
    listeners: Mutex<JoinSet<()>>,
}

/// Who listens to whom, so that no two listen to the same node.
type Sources = Arc<Mutex<[Option<HostPort>; LISTENERS]>>;

impl Watcher {
    /// Adds a topic, and starts listening with the first.
    pub(crate) fn follow(&self, client: &Client, topic: &str) {
        self.topics.send_if_modified(|topics| topics.insert(topic.to_owned()));
        let mut listeners = self.listeners.lock();
        if !listeners.is_empty() {
            return;
        }
        let sources = Sources::default();
        for index in 0..LISTENERS {
            let (client, sources) = (client.downgrade(), sources.clone());
            let listener = Listener { client, sources, index, turn: index };
            listeners.spawn(listener.run(self.topics.subscribe()));
        }
    }
}

/// Listens to one node after another.
struct Listener {
    client: WeakClient,
    sources: Sources,
    /// Its place among the sources.
    index: usize,
    turn: usize,
}

impl Listener {
    async fn run(mut self, mut topics: watch::Receiver<BTreeSet<String>>) {
        let mut backoff = Backoff::default();
        loop {
            let Some(client) = self.client.upgrade() else { return };
            let asked: Vec<String> = topics.borrow_and_update().iter().cloned().collect();
            let Some(endpoint) = self.choose(client.metadata().nodes()) else {
                // Until there are more nodes; an error says that the client is gone.
                let mut news = client.metadata().version();
                drop(client);
                let _ = news.changed().await;
                continue;
            };
            let opened = open(&client, &endpoint, asked.clone()).await;
            drop(client);
            let ended = match opened {
                Ok(stream) => receive(&self.client, &endpoint, stream, &asked, &mut topics).await,
                Err(error) => Ended { heard_something: false, error: Some(error) },
            };
            if ended.heard_something {
                backoff = Backoff::default();
            }
            let Some(error) = ended.error else { continue };
            tracing::debug!(%endpoint, %error, "metadata watch ended, listening to the next node");
            self.turn += 1;
            sleep(backoff.next()).await;
        }
    }

    /// The node whose turn it is, but none that another listens to.
    fn choose(&self, nodes: Vec<HostPort>) -> Option<HostPort> {
        let mut sources = self.sources.lock();
        sources[self.index] = None;
        let free: Vec<HostPort> =
            nodes.into_iter().filter(|node| !sources.iter().flatten().any(|s| s == node)).collect();
        let chosen = free.get(self.turn % free.len().max(1)).cloned();
        sources[self.index].clone_from(&chosen);
        chosen
    }
}

async fn open(
    client: &Client,
    endpoint: &HostPort,
    topics: Vec<String>,
) -> Result<Streaming<v1::WatchMetadataResponse>, ClientError> {
    client
        .attempt(endpoint, QUESTION_TIMEOUT, |connection| async move {
            let request = v1::WatchMetadataRequest { topics };
            Ok(connection.metadata().watch_metadata(request).await?.into_inner())
        })
        .await
}

/// How listening to one node ended.
#[derive(Default)]
struct Ended {
    heard_something: bool,
    /// `None` if the same node should be asked again.
    error: Option<ClientError>,
}

/// Takes in what comes, until the stream ends or other topics are wanted.
async fn receive(
    client: &WeakClient,
    endpoint: &HostPort,
    mut stream: Streaming<v1::WatchMetadataResponse>,
    asked: &[String],
    topics: &mut watch::Receiver<BTreeSet<String>>,
) -> Ended {
    let mut ended = Ended::default();
    loop {
        // A node that is there sends its first picture at once; later ones when they change.
        let message = tokio::select! {
            message = stream.message() => message,
            _ = topics.changed() => return ended,
        };
        let learnt = match message {
            Ok(Some(answer)) => {
                let Some(client) = client.upgrade() else { return ended };
                let header = answer.header.unwrap_or_default();
                let picture = answer.metadata.unwrap_or_default();
                client.metadata().learn(endpoint, &header, picture, asked)
            }
            Ok(None) => {
                let message = "the node ended the watch".to_owned();
                Err(ClientError::Disconnected { endpoint: endpoint.clone(), message })
            }
            Err(status) => Err(ClientError::from_status(&status, endpoint)),
        };
        match learnt {
            Ok(()) => ended.heard_something = true,
            // It will catch up, and then tell.
            Err(ClientError::Stale { .. }) => {}
            Err(error) => return Ended { error: Some(error), ..ended },
        }
    }
}
