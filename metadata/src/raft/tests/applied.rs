//! The applied image in sled, found in states that a crash can leave: it is made again,
//! and right.

use super::super::database::{Databases, SledDatabases};
use super::storage::{broker, close, entry, log_id, open, recovered, with_history};
use crate::records::{BrokerFenced, MetadataRecord};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine};
use ottla_proto::{BrokerEpoch, MetadataOffset, NodeId};
use std::path::Path;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("creates");
    for file in std::fs::read_dir(from).expect("is there") {
        let path = file.expect("is readable").path();
        let name = path.file_name().expect("has one");
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            std::fs::copy(&path, to.join(name)).expect("copies");
        }
    }
}

/// What sled had not brought to the disk is gone with the power, while the snapshot
/// that holds it stays and the log before it is purged.
#[tokio::test]
async fn one_that_is_older_than_the_snapshot_is_made_from_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    with_history(dir.path()).await;
    let (sled, old) = (dir.path().join("image.sled"), dir.path().join("old"));
    SledDatabases::released(&sled).expect("is let go");
    copy(&sled, &old);
    let (mut log, mut machine) = open(dir.path());
    let fenced = |node, epoch| BrokerFenced { node_id: NodeId(node), epoch: BrokerEpoch(epoch) };
    let more = [
        entry(3, 3, vec![broker(3, 4), broker(4, 5)]),
        entry(4, 5, vec![unfenced(3, 4), fenced(3, 4).into()]),
    ];
    log.blocking_append(more.clone()).await.expect("appends");
    log.save_committed(Some(log_id(1, 4))).await.expect("saves");
    let stream = futures::stream::iter(more.map(|entry| Ok((entry, None))));
    machine.apply(stream).await.expect("applies");
    let image = machine.images().borrow().as_ref().clone();
    assert_eq!(image.offset, MetadataOffset(7));
    machine.get_snapshot_builder().await.build_snapshot().await.expect("builds");
    log.purge(log_id(1, 4)).await.expect("purges");
    close(log, machine).await;
    SledDatabases.remove(&sled).expect("removes");
    copy(&old, &sled);

    // It says of itself how far it is, and the snapshot takes it further.
    assert_eq!(recovered(dir.path()).await, (image.clone(), true));
    assert_eq!(recovered(dir.path()).await, (image, true), "and that was kept");
}

fn unfenced(node: u64, epoch: u64) -> MetadataRecord {
    let (node_id, epoch) = (NodeId(node), BrokerEpoch(epoch));
    crate::records::BrokerUnfenced { node_id, epoch }.into()
}

/// A part of a write is there: values of a later image under the head of an earlier
/// one, or the other way round.
#[tokio::test]
async fn one_that_is_half_written_is_made_again() {
    for head_is_new in [true, false] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let before = with_history(dir.path()).await;
        let path = dir.path().join("image.sled");
        let old = SledDatabases.open(&path).expect("opens").entries().expect("reads");
        let (mut log, mut machine) = open(dir.path());
        let more = [entry(3, 3, vec![unfenced(1, 1)])];
        log.blocking_append(more.clone()).await.expect("appends");
        log.save_committed(Some(log_id(1, 3))).await.expect("saves");
        let stream = futures::stream::iter(more.map(|entry| Ok((entry, None))));
        machine.apply(stream).await.expect("applies");
        let after = machine.images().borrow().as_ref().clone();
        assert_ne!(after, before);
        close(log, machine).await;
        let earlier = old.into_iter().filter(|(key, _)| (key == b"head") != head_is_new);
        let changes = earlier.map(|(key, value)| (key, Some(value))).collect();
        SledDatabases.open(&path).expect("opens").apply(changes).expect("applies");
        assert_eq!(recovered(dir.path()).await, (after, false), "head new: {head_is_new}");
    }
}
