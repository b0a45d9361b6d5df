//! `Consume`: committed records as they come, never more than the caller's
//! credit, which it gives in records and in bytes.

use super::group_wire::topic_id;
use super::log::{Format, Log, Wanted};
use super::produce_stream::shutting_down;
use crate::limits::{Connection, Held};
use crate::metrics::Kind;
use ottla_proto::ApiError;
use ottla_proto::v1::{self, ErrorReason, consume_response, fetch_response};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Status, Streaming};

/// Bytes of one message: large enough to be cheap, small enough that credit is
/// followed closely.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Messages on their way to the caller; the rest waits in the log.
const ANSWER_QUEUE: usize = 2;

/// How long one wait for new records lasts before it is simply begun again.
const WAIT: Duration = Duration::from_secs(30);

/// With the room that a message takes until it is encoded.
type Sender = mpsc::Sender<(Result<v1::ConsumeResponse, Status>, Option<Held>)>;

pub(crate) fn serve(
    log: Log,
    connection: Option<Arc<Connection>>,
    requests: Streaming<v1::ConsumeRequest>,
) -> impl Stream<Item = Result<v1::ConsumeResponse, Status>> + Send + 'static {
    let (answers, receiver) = mpsc::channel(ANSWER_QUEUE);
    tokio::spawn(async move {
        let _open = log.requests.opened(Kind::Fetch);
        let stop = log.context.stop.clone();
        let ended = tokio::select! {
            ended = run(&log, connection, requests, &answers) => ended,
            () = stop.cancelled() => Err(shutting_down()),
            () = answers.closed() => return,
        };
        if let Err(status) = ended {
            // Nobody is left to tell if this fails.
            let _gone = answers.send((Err(status), None)).await;
        }
    });
    // Taken to be encoded, and sent.
    ReceiverStream::new(receiver).map(|(answer, _held)| answer)
}

/// What the caller still allows. A batch that is handed out whole may overdraw
/// it; nothing more is sent until it is positive again.
struct Credit {
    records: i128,
    bytes: i128,
}

impl Credit {
    fn add(&mut self, request: &v1::ConsumeRequest) {
        self.records += i128::from(request.add_credit_records);
        self.bytes += i128::from(request.add_credit_bytes);
    }

    fn is_left(&self) -> bool {
        self.records > 0 && self.bytes > 0
    }
}

async fn run(
    log: &Log,
    connection: Option<Arc<Connection>>,
    mut requests: Streaming<v1::ConsumeRequest>,
    answers: &Sender,
) -> Result<(), Status> {
    let mut credit = Credit { records: 0, bytes: 0 };
    let Some(first) = requests.message().await? else { return Ok(()) };
    credit.add(&first);
    let mut wanted = start(first, connection)?;
    // A caller that has closed its side still gets what its credit allows.
    let mut open = true;
    loop {
        while !credit.is_left() {
            let Some(more) = requests.message().await? else { return Ok(()) };
            credit.add(&more);
        }
        wanted.max_bytes = usize::try_from(credit.bytes).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        wanted.max_records = u64::try_from(credit.records).unwrap_or(u64::MAX);
        let read = {
            let reading = log.read(&wanted);
            tokio::pin!(reading);
            // Credit that comes meanwhile is taken without giving the read up.
            loop {
                tokio::select! {
                    read = &mut reading => break read?,
                    more = requests.message(), if open => match more? {
                        Some(more) => credit.add(&more),
                        None => open = false,
                    },
                }
            }
        };
        // Nothing new came in time. (Where only placeholders came, the caller is
        // told the position behind them.)
        if read.response.next_offset == wanted.offset {
            continue;
        }
        credit.records -= i128::from(read.records);
        credit.bytes -= read.bytes as i128;
        wanted.offset = read.response.next_offset;
        if answers.send((Ok(response(read.response)), read.held)).await.is_err() {
            return Ok(());
        }
    }
}

fn start(
    first: v1::ConsumeRequest,
    connection: Option<Arc<Connection>>,
) -> Result<Wanted, ApiError> {
    let start = first.start.ok_or_else(|| {
        ApiError::new(ErrorReason::InvalidRequest, "the first message must carry `start`")
    })?;
    Ok(Wanted {
        connection,
        until: None,
        format: Format::of(start.format)?,
        topic_id: topic_id(&start.topic_id)?,
        topic: start.topic,
        partition: start.partition,
        offset: start.offset,
        max_bytes: CHUNK_BYTES,
        max_records: 0,
        wait: WAIT,
        allow_follower: start.allow_follower,
    })
}

fn response(fetched: v1::FetchResponse) -> v1::ConsumeResponse {
    v1::ConsumeResponse {
        header: fetched.header,
        high_watermark: fetched.high_watermark,
        log_start_offset: fetched.log_start_offset,
        leader_epoch: fetched.leader_epoch,
        next_offset: fetched.next_offset,
        payload: fetched.payload.map(|payload| match payload {
            fetch_response::Payload::Records(set) => consume_response::Payload::Records(set),
            fetch_response::Payload::RecordBatches(bytes) => {
                consume_response::Payload::RecordBatches(bytes)
            }
        }),
    }
}
