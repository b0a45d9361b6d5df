//! Reading what followers are to be sent, and sending it, a fair part of each
//! partition at a time.

use super::session::{Read, Session, Turn};
use crate::blocking::blocking;
use bytes::Bytes;
use ottla_commitlog::LogError;
use ottla_commitlog::format::batch_headers;
use ottla_proto::Offset;
use ottla_proto::internal::v1::ReplicateResponse;
use ottla_proto::internal::v1::replicate_response::Message as Body;
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::Status;

/// Bytes of one partition in one turn: large enough for cheap frames, small
/// enough that others are not kept waiting.
const CHUNK_BYTES: usize = 512 * 1024;

/// Bytes of all partitions in one turn: what is read ahead of the socket.
const TURN_BYTES: usize = 2 * 1024 * 1024;

pub(super) type Responses = mpsc::Sender<Result<ReplicateResponse, Status>>;

/// Pushes until the connection ends.
pub(super) async fn push(session: &Session, responses: &Responses) {
    loop {
        let (answers, turns, credit) = session.next_turns().await;
        for answer in answers {
            if !send(responses, answer).await {
                return;
            }
        }
        let turns = Arc::new(turns);
        let to_read = Arc::clone(&turns);
        let budget = credit.min(TURN_BYTES);
        let reads = match blocking(move || read_all(&to_read, budget)).await {
            Ok(reads) => reads,
            Err(lost) => {
                tracing::error!(error = %lost, "reading for a follower failed");
                return;
            }
        };
        for (turn, read) in turns.iter().zip(reads) {
            if let Some(body) = session.finish(turn, read)
                && !send(responses, body).await
            {
                return;
            }
        }
    }
}

async fn send(responses: &Responses, body: Body) -> bool {
    responses.send(Ok(ReplicateResponse { message: Some(body) })).await.is_ok()
}

fn read_all(turns: &[Turn], mut budget: usize) -> Vec<Read> {
    let mut reads = Vec::with_capacity(turns.len());
    for turn in turns {
        let read = read(turn, CHUNK_BYTES.min(budget));
        if let Read::Records { batches, .. } = &read {
            budget = budget.saturating_sub(batches.len());
        }
        reads.push(read);
    }
    reads
}

/// With no bytes left, only the watermark is looked at; the partition stays in
/// line.
fn read(turn: &Turn, max_bytes: usize) -> Read {
    let (Some(status), Some(log)) = (turn.partition.leading(), turn.partition.log()) else {
        return Read::Ended;
    };
    if status.leader_epoch != turn.of.leader_epoch {
        return Read::Ended;
    }
    let (watermark, log_start) = (status.high_watermark, status.log_start);
    let nothing =
        |more| Read::Records { batches: Bytes::new(), next: turn.next, watermark, log_start, more };
    if turn.next >= status.log_end {
        return nothing(false);
    }
    if max_bytes == 0 {
        return nothing(true);
    }
    let batches = match log.read(turn.next, status.log_end, max_bytes) {
        Ok(batches) => batches,
        // Retention overtook the follower; or the log was reset under the read,
        // and the leadership has ended.
        Err(LogError::OutOfRange { start, .. }) => {
            let leads = turn
                .partition
                .leading()
                .is_some_and(|now| now.leader_epoch == status.leader_epoch && turn.next < start);
            return if leads { Read::Gone { log_start: start } } else { Read::Ended };
        }
        Err(error) => {
            tracing::error!(partition = %turn.id, %error, "reading for a follower failed");
            return Read::Failed;
        }
    };
    // A leader never cuts its log. If it still leads, this is its log.
    let still = turn.partition.leading().is_some_and(|now| now.leader_epoch == status.leader_epoch);
    match end_of(&batches) {
        _ if !still => Read::Ended,
        Some(next) => {
            Read::Records { batches, next, watermark, log_start, more: next < status.log_end }
        }
        None => nothing(false),
    }
}

fn end_of(batches: &Bytes) -> Option<Offset> {
    batch_headers(batches).filter_map(Result::ok).last().map(|(header, _)| header.next_offset())
}
