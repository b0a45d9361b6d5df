//! Consumers without a group, and nodes that have not heard of a topic yet.

use super::*;
use crate::testing::{Cluster, TOPIC};
use crate::{ClientError, StartPosition};
use ottla_proto::v1::ErrorReason as R;
use std::time::Duration;
use tokio::time::timeout;

/// Nothing here takes so long when things go well.
const PATIENCE: Duration = Duration::from_secs(30);

/// The id of the topic that was created in the place of the first one.
const SECOND: [u8; 16] = [8; 16];

/// One partition with ten records, each of which is its offset.
async fn cluster() -> Cluster {
    let cluster = Cluster::start(1, 1).await;
    cluster.write(0, (0..10).map(|n| n.to_string()));
    cluster
}

fn partition() -> TopicPartition {
    TopicPartition::new(TOPIC, 0)
}

async fn alone(cluster: &Cluster, from: StartPosition) -> Consumer {
    let builder = Consumer::builder(&cluster.client().await).assign_at(partition(), from);
    builder.build().await.expect("built")
}

async fn next(consumer: &Consumer) -> Next {
    let next = timeout(PATIENCE, consumer.next()).await.expect("in time");
    next.expect("readable").expect("not closed")
}

/// So many records, from an offset on.
async fn read(consumer: &Consumer, from: u64, count: usize) {
    let mut read = Vec::new();
    while read.len() < count {
        match next(consumer).await {
            Next::Batch(batch) => read.extend(batch.records.iter().map(|record| record.offset)),
            Next::Event(ConsumerEvent::Delayed { .. }) => {}
            Next::Event(event) => panic!("{event:?}"),
        }
    }
    let expected: Vec<u64> = (from..).take(count).collect();
    assert_eq!(read, expected);
}

/// The node that leads the partition has just started, or was cut off.
#[tokio::test]
async fn what_only_the_leader_has_not_heard_of_is_not_gone() {
    let cluster = cluster().await;
    cluster.state.lock().leaders_lag = true;
    let consumer = alone(&cluster, StartPosition::Start).await;
    let event = next(&consumer).await;
    let Next::Event(ConsumerEvent::Delayed { partition: which, error }) = event else {
        panic!("{event:?}");
    };
    assert_eq!((which, error.reason()), (partition(), Some(R::UnknownTopic)));
    assert_eq!(consumer.assignment(), [partition()]);
    cluster.state.lock().leaders_lag = false;
    read(&consumer, 0, 10).await;
}

/// The topic was created again, and the node that was asked for metadata tells of the one
/// before: there is nothing of that to be read.
#[tokio::test]
async fn a_reader_begins_with_the_topic_that_has_the_name() {
    let cluster = cluster().await;
    cluster.state.lock().topic_id = SECOND;
    let consumer = alone(&cluster, StartPosition::Offset(3)).await;
    read(&consumer, 3, 7).await;
}

/// What it reads was deleted: what is there now under the name is another.
#[tokio::test]
async fn what_was_read_and_is_deleted_is_gone() {
    let cluster = cluster().await;
    let consumer = alone(&cluster, StartPosition::Start).await;
    read(&consumer, 0, 10).await;
    cluster.state.lock().topic_id = SECOND;
    // The stream ends with the leadership.
    cluster.elect(Some(1), 2);
    loop {
        match next(&consumer).await {
            Next::Event(ConsumerEvent::Gone(which)) => break assert_eq!(which, partition()),
            Next::Event(ConsumerEvent::Delayed { error, .. }) => {
                assert!(!matches!(error, ClientError::Closed), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(consumer.assignment().is_empty());
}
