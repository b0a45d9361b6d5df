//! `ProduceStream`: requests are appended in the order they come, answers are
//! sent as they are ready.

use super::log::{Enqueued, Log};
use crate::deadline;
use crate::metrics::Kind;
use ottla_grpc::Messages;
use ottla_proto::ApiError;
use ottla_proto::v1::{self, ErrorReason, produce_stream_response::Outcome};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// Requests of one stream that may wait for their answer at once. Enough to
/// cover a sync at full rate; beyond it the stream is simply not read.
const MAX_IN_FLIGHT: usize = 4096;

/// Answers that may wait for the caller to read them.
const ANSWER_QUEUE: usize = 64;

type Sender = mpsc::Sender<Result<v1::ProduceStreamResponse, Status>>;

pub(crate) fn serve(
    log: Log,
    requests: Messages<v1::ProduceStreamRequest>,
) -> ReceiverStream<Result<v1::ProduceStreamResponse, Status>> {
    let (answers, receiver) = mpsc::channel(ANSWER_QUEUE);
    tokio::spawn(async move {
        let _open = log.requests.opened(Kind::Produce);
        let stop = log.context.stop.clone();
        let ended = tokio::select! {
            ended = read(log, requests, &answers) => ended,
            () = stop.cancelled() => Err(shutting_down()),
            // The caller is gone.
            () = answers.closed() => return,
        };
        if let Err(status) = ended {
            // Nobody is left to tell if this fails.
            let _gone = answers.send(Err(status)).await;
        }
    });
    ReceiverStream::new(receiver)
}

/// How an open stream ends when its node stops.
pub(super) fn shutting_down() -> Status {
    ApiError::new(ErrorReason::ShuttingDown, "the node is shutting down").into()
}

async fn read(
    log: Log,
    mut requests: Messages<v1::ProduceStreamRequest>,
    answers: &Sender,
) -> Result<(), Status> {
    let in_flight = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    while let Some(request) = requests.message().await? {
        let Ok(permit) = in_flight.clone().acquire_owned().await else { return Ok(()) };
        let (id, started) = (request.correlation_id, Instant::now());
        // Joining the partition's queue is awaited here: that keeps the order.
        match enqueue(&log, request).await {
            Ok(ticket) => {
                let (log, answers) = (log.clone(), answers.clone());
                tokio::spawn(async move {
                    let outcome = log.finish(ticket).await;
                    log.requests.produced(started.elapsed(), &outcome);
                    // A caller that has gone does not hear it.
                    let _gone = answers.send(Ok(answer(id, outcome))).await;
                    drop(permit);
                });
            }
            Err(error) => {
                log.requests.failed(Kind::Produce, &error);
                if answers.send(Ok(answer(id, Err(error)))).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    // The caller has sent its last; what is in flight is still answered.
    Ok(())
}

async fn enqueue(log: &Log, request: v1::ProduceStreamRequest) -> Result<Enqueued, ApiError> {
    let request = request
        .request
        .ok_or_else(|| ApiError::new(ErrorReason::InvalidRequest, "`request` is missing"))?;
    // The stream's own deadline, if any, is for all of it, not for each write.
    let deadline = deadline::of(&MetadataMap::new(), request.timeout_ms);
    log.enqueue(log.check(request, deadline)?).await
}

fn answer(id: u64, outcome: Result<v1::ProduceResponse, ApiError>) -> v1::ProduceStreamResponse {
    let outcome = match outcome {
        Ok(response) => Outcome::Response(response),
        Err(error) => Outcome::Error(error.into()),
    };
    v1::ProduceStreamResponse { correlation_id: id, outcome: Some(outcome) }
}
