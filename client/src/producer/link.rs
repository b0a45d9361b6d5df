//! One `ProduceStream` to one node, shared by every partition it leads:
//! requests go out in the order they come, answers find their way back by
//! correlation id.
//!
//! Not its job: trying again. When the stream breaks, every request that was
//! handed to it may have been carried out, and is answered so.

use crate::channel::Connection;
use crate::{Client, ClientError, HostPort};
use ottla_grpc::ask;
use ottla_proto::{ApiError, MAX_GRPC_MESSAGE_BYTES, v1};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use v1::produce_stream_response::Outcome;

/// Requests that one stream may have unanswered: those of some hundred partitions
/// at full rate, or of more at less. What they hold is bounded by the producer's
/// buffer.
const MAX_UNANSWERED: usize = 1024;

/// Longest wait for a node to accept a new stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

type Reply = oneshot::Sender<Result<v1::ProduceResponse, ClientError>>;

struct Submission {
    request: v1::ProduceRequest,
    reply: Reply,
}

/// A handle on an open stream.
#[derive(Clone)]
pub(super) struct Link {
    connection: Connection,
    submissions: mpsc::Sender<Submission>,
}

impl Link {
    async fn open(connection: Connection) -> Result<Self, ClientError> {
        let endpoint = connection.endpoint().clone();
        let (requests, outgoing) = mpsc::channel(MAX_UNANSWERED);
        let mut client = connection.log();
        // Nothing is sent before the stream is accepted, so a failure here is definite.
        let not_open = |message: String| ClientError::Connect {
            endpoint: endpoint.clone(),
            message: format!("no produce stream: {message}"),
        };
        let opening =
            client.produce_stream(ask(ReceiverStream::new(outgoing), MAX_GRPC_MESSAGE_BYTES));
        let answers = match timeout(OPEN_TIMEOUT, opening).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => {
                return Err(match ClientError::from_status(&status, &endpoint) {
                    ClientError::Api(error) => ClientError::Api(error),
                    other => not_open(other.to_string()),
                });
            }
            Err(_) => return Err(not_open("not accepted in time".to_owned())),
        };
        let (submissions, incoming) = mpsc::channel(MAX_UNANSWERED);
        tokio::spawn(run(endpoint, requests, answers, incoming));
        Ok(Self { connection, submissions })
    }

    /// Sends one request, behind all that were submitted before. An error means
    /// that it was not sent.
    pub(super) async fn submit(&self, request: v1::ProduceRequest) -> Result<Pending, ClientError> {
        let endpoint = self.connection.endpoint();
        let (reply, answer) = oneshot::channel();
        match self.submissions.send(Submission { request, reply }).await {
            Ok(()) => Ok(Pending { endpoint: endpoint.clone(), answer }),
            Err(_) => Err(never_sent(endpoint)),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        !self.submissions.is_closed()
    }
}

/// A request that was sent.
pub(super) struct Pending {
    endpoint: HostPort,
    answer: oneshot::Receiver<Result<v1::ProduceResponse, ClientError>>,
}

impl Pending {
    /// Waits for its answer.
    pub(super) async fn within(
        self,
        patience: Duration,
    ) -> Result<v1::ProduceResponse, ClientError> {
        match timeout(patience, self.answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(lost(&self.endpoint, "the stream ended")),
            Err(_) => Err(ClientError::NoAnswer { endpoint: self.endpoint, waited: patience }),
        }
    }
}

/// The links of one producer.
pub(super) struct Links {
    client: Client,
    slots: Mutex<HashMap<HostPort, Arc<tokio::sync::Mutex<Option<Link>>>>>,
}

impl Links {
    pub(super) fn new(client: Client) -> Self {
        Self { client, slots: Mutex::default() }
    }

    /// The open link to a node, or a new one. An error means that nothing was
    /// sent.
    pub(super) async fn get(&self, endpoint: &HostPort) -> Result<Link, ClientError> {
        let asked = Instant::now();
        let slot = self.slots.lock().entry(endpoint.clone()).or_default().clone();
        let mut slot = slot.lock().await;
        if let Some(link) = slot.as_ref().filter(|link| link.is_open()) {
            return Ok(link.clone());
        }
        *slot = None;
        let connection = self.client.pool().get_since(endpoint, asked).await?;
        match Link::open(connection.clone()).await {
            Ok(link) => {
                *slot = Some(link.clone());
                Ok(link)
            }
            Err(error) => {
                self.client.pool().discard(&connection).await;
                Err(error)
            }
        }
    }

    /// Forgets a link that failed, and its connection.
    pub(super) async fn discard(&self, link: &Link) {
        let slot = self.slots.lock().get(link.connection.endpoint()).cloned();
        if let Some(slot) = slot {
            let mut slot = slot.lock().await;
            if slot.as_ref().is_some_and(|open| open.submissions.same_channel(&link.submissions)) {
                *slot = None;
            }
        }
        self.client.pool().discard(&link.connection).await;
    }
}

async fn run(
    endpoint: HostPort,
    requests: mpsc::Sender<v1::ProduceStreamRequest>,
    mut answers: Streaming<v1::ProduceStreamResponse>,
    mut submissions: mpsc::Receiver<Submission>,
) {
    let mut unanswered: HashMap<u64, Reply> = HashMap::new();
    let mut next_id = 0u64;
    let why = loop {
        tokio::select! {
            answer = answers.message() => match answer {
                Ok(Some(answer)) => {
                    if let Some(reply) = unanswered.remove(&answer.correlation_id) {
                        // Fails when its worker has stopped waiting.
                        let _ = reply.send(outcome(answer));
                    }
                }
                Ok(None) => break "closed by the node".to_owned(),
                Err(status) => break ClientError::from_status(&status, &endpoint).to_string(),
            },
            submission = submissions.recv(), if unanswered.len() < MAX_UNANSWERED => {
                // Every handle is gone: nobody waits for anything any more.
                let Some(Submission { request, reply }) = submission else { return };
                let message = v1::ProduceStreamRequest {
                    correlation_id: next_id,
                    request: Some(request),
                };
                // There is room: the channel holds a part of what is unanswered.
                if requests.try_send(message).is_err() {
                    let _ = reply.send(Err(never_sent(&endpoint)));
                    break "the stream takes no more requests".to_owned();
                }
                unanswered.insert(next_id, reply);
                next_id += 1;
            }
        }
    };
    tracing::debug!(%endpoint, why, unanswered = unanswered.len(), "produce stream ended");
    submissions.close();
    for reply in unanswered.into_values() {
        let _ = reply.send(Err(lost(&endpoint, &why)));
    }
    while let Some(submission) = submissions.recv().await {
        let _ = submission.reply.send(Err(never_sent(&endpoint)));
    }
}

fn outcome(answer: v1::ProduceStreamResponse) -> Result<v1::ProduceResponse, ClientError> {
    match answer.outcome {
        Some(Outcome::Response(response)) => Ok(response),
        Some(Outcome::Error(error)) => Err(ApiError::from(error).into()),
        None => Err(ClientError::UnexpectedAnswer("neither response nor error".to_owned())),
    }
}

fn lost(endpoint: &HostPort, why: &str) -> ClientError {
    ClientError::Disconnected { endpoint: endpoint.clone(), message: why.to_owned() }
}

fn never_sent(endpoint: &HostPort) -> ClientError {
    let message = "the produce stream ended before the request was sent".to_owned();
    ClientError::Connect { endpoint: endpoint.clone(), message }
}
