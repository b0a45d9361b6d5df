//! Batches of idempotent producers, sent again.

use super::cluster::{Node, PATIENCE, Three, values_of};
use crate::{Acks, Limits};
use bytes::Bytes;
use ottla_commitlog::format::{
    BatchOptions, NewRecord, ProducerSequence, ValidBatch, encode_batch,
};
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{MAX_BATCH_BYTES, NodeId, Offset};

const RECORDS: i32 = 2;

/// The batch with this number of producer 7: the same bytes every time.
fn numbered(number: i32) -> ValidBatch {
    let record = |index: i32| NewRecord {
        value: Some(Bytes::from(format!("{number}.{index}"))),
        timestamp_ms: 1_000,
        ..NewRecord::default()
    };
    let records: Vec<NewRecord> = (0..RECORDS).map(record).collect();
    let producer = ProducerSequence { id: 7, epoch: 3, base_sequence: number * RECORDS };
    let options = BatchOptions { producer: Some(producer), ..BatchOptions::default() };
    let bytes = encode_batch(&records, &options).expect("encoded");
    ValidBatch::new(bytes, MAX_BATCH_BYTES).expect("valid")
}

/// Where the node says that the batch lies, or why it is not in the log.
async fn send(node: &Node, number: i32) -> Result<Offset, R> {
    match node.send("t", numbered(number), Acks::All, PATIENCE).await {
        Ok(produced) => Ok(produced.base_offset.expect("acknowledged with its place")),
        Err(error) => {
            assert!(!error.is_indefinite(), "{error:?}");
            Err(error.reason)
        }
    }
}

/// The last five batches of a producer, sent again to the same leader, to the
/// next one after the first was killed, and to that one started again: each is
/// acknowledged where it was at first, and is in every log once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_sent_again_is_one_record_on_every_node() {
    let mut three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[]);
    let first = three.quorum.leader(id);
    for number in 0..6 {
        assert_eq!(send(three.node(first), number).await, Ok(number as Offset * 2));
    }
    let assert_all_known = async |node: &Node, when: &str| {
        for number in 1..6 {
            assert_eq!(send(node, number).await, Ok(number as Offset * 2), "{number}, {when}");
        }
        // Its offset is forgotten; and one that leaves a gap.
        for refused in [0, 8] {
            assert_eq!(send(node, refused).await, Err(R::OutOfOrderSequence), "{refused}, {when}");
        }
    };
    assert_all_known(three.node(first), "the same leader").await;

    three.take(first).die().await;
    let next = three.quorum.leader(id);
    assert_ne!(next, first);
    assert_all_known(three.node(next), "the next leader").await;
    assert_eq!(send(three.node(next), 6).await, Ok(12));
    assert_eq!(send(three.node(next), 6).await, Ok(12));

    // The killed one has it from its own log and from the next leader.
    three.restart(first).await;
    three.until_isr(id, &[1, 2, 3].map(NodeId)).await;
    three.take(next).die().await;
    let third = three.quorum.leader(id);
    assert_eq!(send(three.node(third), 6).await, Ok(12));
    assert_eq!(send(three.node(third), 2).await, Ok(4));
    assert_eq!(send(three.node(third), 7).await, Ok(14));

    three.restart(next).await;
    three.until_isr(id, &[1, 2, 3].map(NodeId)).await;
    let once: Vec<String> = (0..8)
        .flat_map(|number| (0..RECORDS).map(move |index| format!("{number}.{index}")))
        .collect();
    for node in [1, 2, 3].map(NodeId) {
        let node = three.node(node);
        node.until(id, "the watermark arrives", |status| status.high_watermark == 16).await;
        assert_eq!(values_of(&node.log_bytes(id)), once);
    }
    three.end().await;
}
