//! Sending to one follower: three conversations on one connection.
//!
//! Who is in sync and reads from memory is served at once, without a thread in
//! between. Everything else is read where a disk may take its time, one turn ahead of
//! the socket at most, and each kind by itself: one that waits for its limit, or for
//! a slow disk, keeps nobody else waiting.

use super::outgoing::{Queues, answer};
use super::read::{self, Read};
use super::session::{Session, Turn};
use super::throttle::Traffics;
use crate::flow::{CATCH_UP_TURN_BYTES, Traffic};
use ottla_host::blocking;
use ottla_proto::internal::v1::replicate_response::Message as Body;
use std::sync::Arc;
use tokio::sync::mpsc::Sender;
use tonic::Status;

type Responses = Sender<Result<ottla_proto::internal::v1::ReplicateResponse, Status>>;

/// Bytes of all partitions in one turn of reading from the disk for who is in sync:
/// what is read ahead of the socket.
const TURN_BYTES: usize = 512 * 1024;

/// Partitions in such a turn: one hand-over to a reading thread for many that lack
/// little.
const PARTITIONS_PER_TURN: usize = 32;

/// Pushes until the connection ends.
pub(super) async fn push(session: &Arc<Session>, traffics: &Traffics, queues: &Queues) {
    tokio::select! {
        () = live(session, traffics, queues) => {}
        () = from_disk(session, traffics, Traffic::Lagging, &queues.live) => {}
        () = from_disk(session, traffics, Traffic::CatchUp, &queues.catch_up) => {}
        () = from_disk(session, traffics, Traffic::Moving, &queues.catch_up) => {}
    }
}

/// Answers, and records that are in memory.
async fn live(session: &Session, traffics: &Traffics, queues: &Queues) {
    while let Ok(place) = queues.live.reserve().await {
        let body = loop {
            session.has(Traffic::Live).await;
            if let Some(body) = session.next_answer() {
                break body;
            }
            // What others have waited for long enough goes before anything else is
            // added in front of it.
            if session.owes_catch_up() && queues.catch_up.reserve().await.is_err() {
                return;
            }
            let Some(turn) = session.next(Traffic::Live) else { continue };
            let read = read::from_memory(&turn);
            traffics.count(Traffic::Live, len(&read));
            let body = session.finish(&turn, read);
            session.release(&turn);
            if let Some(body) = body {
                break body;
            }
        };
        place.send(answer(body));
    }
}

/// Records that may be on the disk only.
///
/// A partition that is served here is not served elsewhere before gRPC has taken
/// what was read: else the next record, in sync by then, could overtake it.
async fn from_disk(
    session: &Arc<Session>,
    traffics: &Traffics,
    traffic: Traffic,
    responses: &Responses,
) {
    loop {
        session.has(traffic).await;
        let throttle = traffics.throttle(traffic);
        let admitted = match throttle {
            Some(throttle) => throttle.admit().await,
            None => None,
        };
        let reader = Arc::clone(session);
        let reads = match blocking(move || read_turns(&reader, traffic)).await {
            Ok(reads) => reads,
            Err(lost) => {
                tracing::error!(error = %lost, "reading for a follower failed");
                return;
            }
        };
        let bytes = reads.iter().map(|(_, read)| len(read)).sum();
        traffics.count(traffic, bytes);
        if let Some(throttle) = throttle {
            throttle.take(bytes);
        }
        drop(admitted);
        let mut turns = Vec::with_capacity(reads.len());
        for (turn, read) in reads {
            let body = session.finish(&turn, read);
            turns.push(turn);
            if let Some(body) = body
                && !send(responses, body).await
            {
                return;
            }
        }
        if responses.reserve().await.is_err() {
            return;
        }
        turns.iter().for_each(|turn| session.release(turn));
    }
}

async fn send(responses: &Responses, body: Body) -> bool {
    responses.send(answer(body)).await.is_ok()
}

fn read_turns(session: &Session, traffic: Traffic) -> Vec<(Turn, Read)> {
    let limit = if traffic.in_sync() { TURN_BYTES } else { CATCH_UP_TURN_BYTES };
    let (mut reads, mut bytes) = (Vec::new(), 0);
    while bytes < limit && reads.len() < PARTITIONS_PER_TURN {
        let Some(mut turn) = session.next(traffic) else { break };
        turn.max_bytes = turn.max_bytes.min(limit - bytes);
        let read = read::from_disk(&turn);
        bytes += len(&read);
        reads.push((turn, read));
    }
    reads
}

fn len(read: &Read) -> usize {
    if let Read::Records { batches, .. } = read { batches.len() } else { 0 }
}
