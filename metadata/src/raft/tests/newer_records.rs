//! Facts that only another release reads: the node stops, says which version it
//! met and which it reads, and leaves what is on its disk as it is.

use super::super::database::SledDatabases;
use super::super::incompatible::{Fact, Incompatible};
use super::super::snapshot::{self, SnapshotBytes};
use super::super::state_machine::StateMachine;
use super::super::types::{Entry, Proposal};
use super::cluster::{Cluster, PATIENCE};
use super::storage::{broker, close, entry, log_id, open, recovered, with_history};
use crate::raft::MetadataError;
use crate::records::{DecodeError, FeatureLevels, MetadataRecord, RECORD_VERSION};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::EntryPayload;
use openraft::storage::{
    RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine,
};
use ottla_commitlog::Shared;
use ottla_commitlog::vfs::RealVfs;
use ottla_proto::{MetadataOffset, NodeId};
use std::sync::Arc;

/// Of a release far ahead.
const NEWER: u8 = 200;

fn newer(record: &MetadataRecord) -> Fact {
    let mut bytes = record.encode();
    bytes[0] = NEWER;
    Fact::Unknown { version: NEWER, bytes }
}

fn is_about_the_version(error: &Incompatible) -> bool {
    let Incompatible::Record { error, .. } = error else { return false };
    *error == DecodeError::UnknownVersion { found: NEWER }
}

/// What an operator must find in the error.
fn names_the_versions(error: &MetadataError) -> bool {
    let text = error.to_string();
    matches!(error, MetadataError::Incompatible { .. })
        && text.contains(&format!("version {NEWER}"))
        && text.contains(&format!("reads versions 1 to {RECORD_VERSION}"))
}

/// At the start, from its own log: nothing of the entry is applied, and the entry
/// stays as it is for a release that reads it.
#[tokio::test]
async fn in_the_log_it_stops_the_start() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let image = with_history(dir.path()).await;
    let records = vec![Fact::Known(broker(3, 4)), newer(&broker(4, 5))];
    let proposal = Proposal { decided_on: MetadataOffset(3), records };
    let held = Entry { log_id: log_id(1, 3), payload: EntryPayload::Normal(proposal) };
    let (mut log, machine) = open(dir.path());
    log.blocking_append([held.clone()]).await.expect("appends");
    log.save_committed(Some(log_id(1, 3))).await.expect("saves");
    close(log, machine).await;

    for _ in 0..2 {
        let (mut log, mut machine) = open(dir.path());
        let (why, images) = (machine.incompatible(), machine.images());
        assert_eq!(*images.borrow().as_ref(), image, "as it was applied before");
        let mut storage = openraft::StorageHelper::new(&mut log, &mut machine).with_id(1);
        storage.get_initial_state().await.expect_err("cannot be applied");
        assert!(is_about_the_version(why.borrow().as_ref().expect("is told")), "{why:?}");
        assert_eq!(*images.borrow().as_ref(), image, "nothing of it was applied");
        let applied = machine.applied_state().await.expect("reads").0;
        assert_eq!(applied, Some(log_id(1, 2)));
        let mut reader = log.get_log_reader().await;
        let found = reader.try_get_log_entries(3..4).await.expect("reads");
        assert_eq!(found, std::slice::from_ref(&held), "byte for byte");
        drop(reader);
        close(log, machine).await;
    }

    // A release that reads the version finds this in the same entry.
    let (log, mut machine) = open(dir.path());
    let read = entry(3, 3, vec![broker(3, 4), broker(4, 5)]);
    let stream = futures::stream::iter([Ok((read, None))]);
    machine.apply(stream).await.expect("applies");
    let after = machine.images().borrow().as_ref().clone();
    assert_eq!((after.offset, after.brokers.len()), (MetadataOffset(5), 4));
    close(log, machine).await;
    assert_eq!(recovered(dir.path()).await, (after, true));
}

/// In a snapshot, from a leader or on the own disk: nothing is replaced, and a file
/// that another release wrote is not taken for a damaged one.
#[tokio::test]
async fn in_a_snapshot_it_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let image = with_history(dir.path()).await;
    let (log, mut machine) = open(dir.path());
    let built = machine.get_snapshot_builder().await.build_snapshot().await.expect("builds");
    let theirs = of_a_newer_release(&built.snapshot, &image.to_records()[0]);
    let error = snapshot::decode(&theirs).expect_err("is not read");
    assert!(is_about_the_version(&Incompatible::within(&error).expect("typed")), "{error}");
    let why = machine.incompatible();
    machine.install_snapshot(&built.meta, theirs.clone()).await.expect_err("refuses");
    assert!(is_about_the_version(why.borrow().as_ref().expect("is told")), "{why:?}");
    assert_eq!(*machine.images().borrow().as_ref(), image);
    close(log, machine).await;

    let path = dir.path().join("snapshot");
    std::fs::write(&path, &theirs.0).expect("writes");
    let shared = Shared::new(Arc::new(RealVfs));
    let opened = StateMachine::open(
        dir.path(),
        &shared,
        Arc::new(SledDatabases),
        FeatureLevels::SUPPORTED,
        |_, _| true,
    );
    let error = opened.err().expect("refuses");
    assert!(is_about_the_version(&Incompatible::within(&error).expect("typed")), "{error}");
    assert_eq!(std::fs::read(&path).expect("is there"), theirs.0, "stays as it is");
    std::fs::write(&path, &built.snapshot.0).expect("writes");
    assert_eq!(recovered(dir.path()).await, (image, true), "and so does the applied image");
}

/// The snapshot with one record in a version of a newer release.
fn of_a_newer_release(snapshot: &SnapshotBytes, record: &MetadataRecord) -> SnapshotBytes {
    let mut bytes = snapshot.0.to_vec();
    let record = record.encode();
    let at = bytes.windows(record.len()).position(|part| part == record).expect("is in it");
    bytes[at] = NEWER;
    let crc = crc32c::crc32c(&bytes[9..]);
    bytes[5..9].copy_from_slice(&crc.to_le_bytes());
    SnapshotBytes(bytes.into())
}

/// In a running quorum: whoever learns that it is committed stops with an error that
/// says it, and says it again at the next start. That is the leader, and who leads
/// after it; the last one has nobody left who could tell it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_what_is_replicated_it_stops_whoever_has_to_apply_it() {
    let mut cluster = Cluster::formed().await;
    let before = cluster.node(NodeId(1)).create("before").await.expect("creates");
    let leader = cluster.node(cluster.leader().await);
    let raft = leader.metadata.inner.raft.get().expect("has joined");
    let decided_on = leader.metadata.image().offset;
    assert_eq!(decided_on.0, before.header.expect("always").metadata_offset);
    let proposal = Proposal { decided_on, records: vec![newer(&broker(9, decided_on.0 + 1))] };
    let _ = raft.client_write(proposal).await.expect_err("nobody can apply it");
    let stop =
        cluster.nodes.values().map(|node| async { (node.id, node.metadata.evicted().await) });
    let stopped = stop.collect::<FuturesUnordered<_>>().take(2).collect::<Vec<_>>();
    let stopped = tokio::time::timeout(PATIENCE, stopped).await.expect("they notice and stop");
    for (id, why) in &stopped {
        assert!(names_the_versions(why), "{why}");
        assert_eq!(cluster.node(*id).metadata.image().offset, decided_on);
    }
    for id in [1, 2, 3].map(NodeId) {
        cluster.kill(id).await;
    }
    for (id, _) in stopped {
        // What it tried to apply was committed, and it noted that.
        let again = cluster.start_with(cluster.options(id)).await.expect_err("does not start");
        assert!(names_the_versions(&again), "{again}");
    }
}
