//! Bodies by themselves, and whole calls.

mod bodies;
mod calls;

use bytes::Bytes;
use ottla_proto::internal::v1::replicate_response::Message as Body;
use ottla_proto::internal::v1::{Append, PartitionKey, ReplicateResponse};

/// Long enough for all that is sent here.
const LIMIT: usize = 1024 * 1024;

fn append(payload: Bytes) -> ReplicateResponse {
    let append = Append {
        partition: Some(PartitionKey { topic_id: Bytes::from_static(&[7; 16]), partition: 3 }),
        session: 5,
        leader_epoch: 2,
        base_offset: 1 << 40,
        record_batches: payload,
        high_watermark: 9,
        log_start_offset: 1,
        trace_parents: vec!["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()],
    };
    ReplicateResponse { message: Some(Body::Append(append)) }
}

/// Bytes that are not all the same.
fn payload(len: usize) -> Bytes {
    (0..len).map(|index| (index % 251) as u8).collect()
}

fn payload_of(message: &ReplicateResponse) -> &Bytes {
    match &message.message {
        Some(Body::Append(append)) => &append.record_batches,
        other => panic!("expected records, found {other:?}"),
    }
}
