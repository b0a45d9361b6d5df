//! A follower that stands where the leader's log has a placeholder.
//!
//! A replica that fell behind may end in the midst of a run of batches that the
//! leader has replaced by one placeholder: no batch begins where it goes on. It
//! takes the rest of the placeholder.

use crate::format::{BatchHeader, Placeholder, encode_placeholder};
use bytes::Bytes;
use ottla_proto::Offset;

/// `batches`, which `headers` describe, without what a placeholder at their start
/// covers below `end`; `None` where that is not how they start.
pub(in crate::log) fn rest_of_placeholder(
    batches: &Bytes,
    headers: &mut [BatchHeader],
    end: Offset,
) -> Option<Bytes> {
    let first = headers.first_mut()?;
    // One that carries a producer's state stands for exactly one batch.
    let plain = first.is_placeholder() && first.producer().is_none();
    if !plain || first.base_offset >= end || first.last_offset() < end {
        return None;
    }
    let rest = encode_placeholder(&Placeholder {
        base_offset: end,
        last_offset: first.last_offset(),
        leader_epoch: first.leader_epoch,
        max_timestamp_ms: first.max_timestamp,
        timestamp_type: first.timestamp_type(),
        producer: None,
        transactional: false,
        control: false,
    });
    let behind = batches.slice(first.total_len()..);
    *first = BatchHeader::parse(&rest).expect("just encoded");
    let mut all = rest;
    all.extend_from_slice(&behind);
    Some(all.freeze())
}
