//! Partitions that a member keeps while others come and go: nothing of theirs begins anew.

use super::*;
use crate::testing::{Cluster, TOPIC};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{interval, timeout};

const PARTITIONS: u32 = 4;

/// Nothing here takes so long when things go well.
const PATIENCE: Duration = Duration::from_secs(30);

async fn member(cluster: &Cluster) -> Consumer {
    let builder = Consumer::builder(&cluster.client().await).group("billing").subscribe([TOPIC]);
    builder.auto_commit(Duration::from_millis(20)).build().await.expect("built")
}

fn reads(consumer: &Consumer) -> BTreeSet<u32> {
    consumer.assignment().iter().map(|partition| partition.partition).collect()
}

/// Members that ask for records, as applications do, until each reads so many partitions and
/// has a stream for each of them.
async fn share(cluster: &Cluster, members: &[&Consumer], each: usize, streams: usize) {
    let is_so = || {
        let opened = cluster.state.lock().consumed_from.len();
        assert!(opened <= streams, "{opened} streams, {streams} are enough");
        opened == streams && members.iter().all(|member| reads(member).len() == each)
    };
    let settled = async {
        let mut again = interval(Duration::from_millis(5));
        while !is_so() {
            again.tick().await;
        }
    };
    let asking = async {
        let asking = members.iter().map(|member| async {
            loop {
                member.next_batch().await.expect("readable").expect("not closed");
            }
        });
        futures::future::join_all(asking).await
    };
    tokio::select! {
        settled = timeout(PATIENCE, settled) => settled.expect("in time"),
        _ = asking => unreachable!("they ask for ever"),
    }
}

/// A member that comes takes over some partitions, one that goes leaves its own: each has one
/// stream more by then, and all others the one that they had.
#[tokio::test]
async fn what_a_member_keeps_is_read_by_the_same_stream() {
    let cluster = Cluster::start(1, PARTITIONS as usize).await;
    for index in 0..PARTITIONS as usize {
        cluster.write(index, (0..10).map(|n| n.to_string()));
    }
    let first = member(&cluster).await;
    share(&cluster, &[&first], 4, 4).await;
    let second = member(&cluster).await;
    share(&cluster, &[&first, &second], 2, 6).await;
    let kept = reads(&first);
    assert!(kept.is_disjoint(&reads(&second)));
    second.close().await.expect("closed");
    share(&cluster, &[&first], 4, 8).await;
    assert!(kept.is_subset(&reads(&first)));
    first.close().await.expect("closed");
    assert_eq!(cluster.state.lock().consumed_from.len(), 8);
}
