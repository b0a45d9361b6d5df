//! Keeps the metadata cache up to date by having one node tell what changes,
//! so that a new leader is known as soon as it is elected.
//!
//! Not its job: being relied upon. Whoever needs a leader also asks.

use crate::backoff::Backoff;
use crate::client::{Client, QUESTION_TIMEOUT, WeakClient};
use crate::{ClientError, HostPort};
use ottla_proto::v1;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::Streaming;

/// The topics to be told about, and the task that listens, once there is one.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    topics: watch::Sender<BTreeSet<String>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Watcher {
    /// Adds a topic, and starts listening with the first.
    pub(crate) fn follow(&self, client: &Client, topic: &str) {
        self.topics.send_if_modified(|topics| topics.insert(topic.to_owned()));
        self.task.lock().get_or_insert_with(|| {
            tokio::spawn(listen(client.downgrade(), self.topics.subscribe()))
        });
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

/// Listens to one node after another.
async fn listen(client: WeakClient, mut topics: watch::Receiver<BTreeSet<String>>) {
    let mut backoff = Backoff::default();
    let mut turn = 0;
    loop {
        let Some(strong) = client.upgrade() else { return };
        let endpoints = strong.endpoints();
        let endpoint = endpoints[turn % endpoints.len()].clone();
        let asked: Vec<String> = topics.borrow_and_update().iter().cloned().collect();
        let opened = open(&strong, &endpoint, asked.clone()).await;
        drop(strong);
        let ended = match opened {
            Ok(stream) => {
                let ended = receive(&client, &endpoint, stream, &asked, &mut topics).await;
                if ended.heard_something {
                    backoff = Backoff::default();
                }
                ended.error
            }
            Err(error) => Some(error),
        };
        let Some(error) = ended else { continue };
        tracing::debug!(%endpoint, %error, "metadata watch ended, listening to the next node");
        turn += 1;
        sleep(backoff.next()).await;
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
