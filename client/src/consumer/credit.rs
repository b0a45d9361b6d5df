//! One `Consume` stream to one leader, or to a follower in its stead, and the credit it runs on: the node
//! never sends more than the reader has room for.
//!
//! Not its job: what to do when it ends.

use super::batch::{Answer, Credit};
use crate::ClientError;
use crate::channel::Connection;
use crate::client::{Client, QUESTION_TIMEOUT};
use crate::leader::FoundLeader;
use ottla_grpc::Messages;
use ottla_proto::{MAX_GRPC_MESSAGE_BYTES, v1};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use v1::consume_response::Payload;

/// Credit messages under way. One is sent per half of the window, so more than
/// two are never needed.
const CREDIT_MESSAGES: usize = 4;

pub(super) struct ConsumeStream {
    leader: FoundLeader,
    connection: Connection,
    requests: mpsc::Sender<v1::ConsumeRequest>,
    answers: Messages<v1::ConsumeResponse>,
    /// What the node may still send. Below zero when a large batch took more.
    granted: Granted,
    opened: Instant,
    /// Whether anything has come.
    pub(super) delivered: bool,
    pub(super) from_follower: bool,
}

impl ConsumeStream {
    pub(super) async fn open(
        client: &Client,
        leader: FoundLeader,
        start: v1::ConsumeStart,
        window: Credit,
        kept: Credit,
    ) -> Result<Self, ClientError> {
        let from_follower = start.allow_follower;
        let credit = Granted::default().missing(window, kept);
        let endpoint = &leader.endpoint;
        let connection = client.pool().get(endpoint).await?;
        let (requests, outgoing) = mpsc::channel(CREDIT_MESSAGES);
        let first = v1::ConsumeRequest {
            start: Some(start),
            add_credit_records: credit.records,
            add_credit_bytes: credit.bytes,
        };
        requests.try_send(first).expect("a new channel has room");
        let mut log = connection.log();
        let opening = log.consume(ReceiverStream::new(outgoing));
        let error = match timeout(QUESTION_TIMEOUT, opening).await {
            Ok(Ok(response)) => {
                return Ok(Self {
                    leader,
                    connection,
                    requests,
                    answers: Messages::of_response(response, MAX_GRPC_MESSAGE_BYTES),
                    granted: Granted::of(credit),
                    opened: Instant::now(),
                    delivered: false,
                    from_follower,
                });
            }
            Ok(Err(status)) => ClientError::from_status(&status, endpoint),
            Err(_) => {
                ClientError::NoAnswer { endpoint: endpoint.clone(), waited: QUESTION_TIMEOUT }
            }
        };
        if error.is_transport() {
            client.pool().discard(&connection).await;
        }
        Err(error)
    }

    /// How long ago the node accepted the stream.
    pub(super) fn age(&self) -> std::time::Duration {
        self.opened.elapsed()
    }

    pub(super) fn leader(&self) -> &FoundLeader {
        &self.leader
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The next message. An error ends the stream.
    pub(super) async fn next(&mut self) -> Result<Answer, ClientError> {
        let endpoint = self.connection.endpoint();
        match self.answers.message().await {
            Ok(Some(answer)) => {
                self.delivered = true;
                read_message(answer)
            }
            Ok(None) => Err(ClientError::Disconnected {
                endpoint: endpoint.clone(),
                message: "the node ended the stream".to_owned(),
            }),
            Err(status) => Err(ClientError::from_status(&status, endpoint)),
        }
    }

    /// Notes what has come.
    pub(super) fn received(&mut self, credit: Credit) {
        self.granted.records -= i128::from(credit.records);
        self.granted.bytes -= i128::from(credit.bytes);
    }

    /// Grants what is missing of the window, beside what the reader keeps of it, once that
    /// is worth a message.
    pub(super) fn grant(&mut self, window: Credit, kept: Credit) {
        let missing = self.granted.missing(window, kept);
        let is_much = missing.records >= window.records.div_ceil(2)
            || missing.bytes >= window.bytes.div_ceil(2);
        if !is_much {
            return;
        }
        let message = v1::ConsumeRequest {
            start: None,
            add_credit_records: missing.records,
            add_credit_bytes: missing.bytes,
        };
        // Full or closed: it stays missing, and the next call tries again.
        if self.requests.try_send(message).is_ok() {
            self.granted.records += i128::from(missing.records);
            self.granted.bytes += i128::from(missing.bytes);
        }
    }
}

/// Credit that the node has.
#[derive(Clone, Copy, Debug, Default)]
struct Granted {
    records: i128,
    bytes: i128,
}

impl Granted {
    fn of(credit: Credit) -> Self {
        Self { records: credit.records.into(), bytes: credit.bytes.into() }
    }

    /// What the node lacks of a window of which the reader keeps a part.
    fn missing(self, window: Credit, kept: Credit) -> Credit {
        let missing = |window: u64, kept: u64, granted: i128| {
            let missing = i128::from(window) - i128::from(kept) - granted;
            u64::try_from(missing.max(0)).unwrap_or(u64::MAX)
        };
        Credit {
            records: missing(window.records, kept.records, self.records),
            bytes: missing(window.bytes, kept.bytes, self.bytes),
        }
    }
}

fn read_message(answer: v1::ConsumeResponse) -> Result<Answer, ClientError> {
    let batches = match answer.payload {
        None => bytes::Bytes::new(),
        Some(Payload::RecordBatches(batches)) => batches,
        Some(Payload::Records(_)) => return Err(decoded_records()),
    };
    Ok(Answer {
        batches,
        next_offset: answer.next_offset,
        high_watermark: answer.high_watermark,
        log_start_offset: answer.log_start_offset,
    })
}

pub(super) fn decoded_records() -> ClientError {
    let message = "decoded records, although batches were asked for".to_owned();
    ClientError::UnexpectedAnswer(message)
}
